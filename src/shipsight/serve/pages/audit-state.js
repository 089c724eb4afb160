// SPDX-License-Identifier: Apache-2.0
// How the audit log fares: its length, what is signed, where copies are, when it was verified; and verifying it.
import { moment } from "/pages/audit-entries.js";
import { shown } from "/pages/audit-words.js";
import { at, make, onClick, when } from "/pages/elements.js";
import { attemptIn } from "/pages/forms.js";
import { ask } from "/pages/server.js";

const count = (number, one, many = `${one}s`) => `${number.toLocaleString()} ${number === 1 ? one : many}`;

function ago(text) {
  const minutes = Math.round((Date.now() - new Date(text)) / 60_000);
  if (minutes < 1) return "less than a minute ago";
  if (minutes < 120) return `${count(minutes, "minute")} ago`;
  return minutes < 2880 ? `${count(Math.round(minutes / 60), "hour")} ago` : `${count(Math.round(minutes / 1440), "day")} ago`;
}

function rows(state) {
  const { checkpoint, review } = state;
  const signed = checkpoint ? `${count(checkpoint.size, "entry", "entries")}, ${ago(checkpoint.at)} (${moment(checkpoint.at)})` : "no checkpoint yet";
  const told = [
    ["entries", state.size.toLocaleString(), ""],
    ["signed", signed, checkpoint ? "" : "failed"],
    ["after the last checkpoint", state.tail ? `${count(state.tail, "entry", "entries")}: nobody could prove that they were not cut off` : "nothing", ""],
  ];
  if (state.degraded) told.push(["trouble", `since ${when(state.since)}: ${state.last_error}`, "failed"]);
  if (state.buffered) told.push(["waiting to be written", count(state.buffered, "entry", "entries"), "failed"]);
  told.push(["lost since this server started", state.lost ? count(state.lost, "entry", "entries") : "none", state.lost ? "failed" : ""]);
  if (!state.copies.length) told.push(["second places", "none: whoever can write the log and its key can write it anew unseen", "failed"]);
  for (const one of state.copies) {
    const has = one.size ? `has ${count(one.size, "entry", "entries")}${one.at ? `, ${ago(one.at)}` : ""}` : "has nothing yet";
    const trouble = one.refusing ? `refuses, since it knows this log otherwise: ${one.error}` : one.error ? `fails: ${one.error}` : "";
    told.push([`copy: ${one.place}`, trouble ? `${trouble}; ${has}` : has, trouble ? "failed" : ""]);
  }
  told.push(["next review", review.due_at ? `due on ${when(review.due_at)}${review.overdue_s ? ": overdue" : ""}` : "nothing to review yet", review.overdue_s ? "failed" : ""]);
  told.push(["signed off", review.reviewed_until ? `all until ${when(review.reviewed_until)}` : "nothing yet", ""]);
  told.push(["key to check it with", state.key, "code"]);
  return told;
}

function drawVerified(found, isRunning) {
  const told = at("verified");
  told.className = !found ? "soft" : found.status === "ok" ? "good" : "failed";
  if (isRunning) told.textContent = "It is being verified at this moment.";
  else if (!found) told.textContent = "It was not verified from here since this server started.";
  else {
    const how = { ok: "Whole and as it was signed", "unverifiable tail": "Unverifiable tail", failed: "Not what was signed" }[found.status] || found.status;
    const since = found.status === "ok" && found.tail ? ` ${count(found.tail, "more was", "more were")} written meanwhile.` : "";
    const why = found.why ? ` ${found.why[0].toUpperCase()}${found.why.slice(1)}.` : "";
    told.textContent = `${how}: ${count(found.covered, "entry", "entries")} verified ${moment(found.at)}.${since}${why}`;
  }
  at("verify-findings").replaceChildren(
    ...[...(found?.findings || []), ...(found?.notes || [])].map((one) =>
      make("li", {}, make("span", { className: `badge ${found.findings.includes(one) ? "bad" : ""}` }, one.code), " ", ...(one.seq === null ? [] : [make("a", { href: `#entry-${one.seq}` }, `entry ${one.seq}`), ": "]), ...shown(one.what)),
    ),
  );
}

export function statePart() {
  const section = at("chain");

  function show() {
    return attemptIn(section, async () => {
      const state = await ask("GET", "/v1/audit/state");
      const list = at("state-rows");
      list.replaceChildren();
      for (const [name, text, kind] of rows(state)) {
        const value = kind === "code" ? [make("code", { className: "digest" }, text)] : shown(text);
        list.append(make("dt", {}, name), make("dd", { className: kind === "failed" ? "failed" : "" }, ...value));
      }
      drawVerified(state.verified, state.verifying);
    });
  }

  async function verify() {
    const button = at("verify");
    button.setAttribute("aria-busy", "true");
    at("verified").className = "soft";
    at("verified").textContent = "Verifying: this may take a minute on a long log.";
    const done = await attemptIn(section, () => ask("POST", "/v1/audit/verify", {}));
    button.removeAttribute("aria-busy");
    if (done) await show();
    else at("verified").textContent = "";
  }

  onClick(at("verify"), verify);
  return { show };
}
