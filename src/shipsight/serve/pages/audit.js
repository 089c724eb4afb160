// SPDX-License-Identifier: Apache-2.0
// The audit log: its entries, its reviews, its state. What it shows is decided by the server; nothing here changes what is recorded.
import { entriesPart } from "/pages/audit-entries.js";
import { reviewsPart } from "/pages/audit-reviews.js";
import { statePart } from "/pages/audit-state.js";
import { at, make } from "/pages/elements.js";
import { may, start } from "/pages/server.js";

const PARTS = ["entries", "reviews", "chain"];

/** Shows the part that the address names: one of the parts, `entry-12` for an entry, `review-...` for a report. */
function showPart({ openEntry, openReview }) {
  const wanted = location.hash.slice(1);
  const [kind, id] = wanted.split(/-(.*)/s);
  const part = { entry: "entries", review: "reviews" }[kind] || (PARTS.includes(wanted) ? wanted : "entries");
  for (const one of PARTS) at(one).hidden = one !== part;
  for (const link of at("parts").children) {
    if (link.hash === `#${part}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (kind === "entry" && /^[0-9]+$/.test(id)) openEntry(id);
  if (kind === "review" && id) openReview(id);
}

if (await start("person")) {
  if (may("audit.read")) {
    const [entries, reviews, state] = [entriesPart(), reviewsPart(), statePart()];
    const parts = { openEntry: entries.open, openReview: reviews.open };
    addEventListener("hashchange", () => showPart(parts));
    showPart(parts);
    await Promise.all([entries.show(), reviews.show(), state.show()]);
  } else {
    at("content").replaceChildren(
      make("h1", {}, "Audit log"),
      make("p", {}, "You may not read the audit log. Whoever changes people or models does not review what was done: auditors do."),
    );
  }
}
