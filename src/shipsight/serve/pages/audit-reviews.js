// SPDX-License-Identifier: Apache-2.0
// Reviews of the audit log: listed, made, read finding by finding, signed off.
import { act, at, cell, fill, focusHeading, make, onClick, when } from "/pages/elements.js";
import { askForm, attemptIn, labelled, onSend } from "/pages/forms.js";
import { ask, may } from "/pages/server.js";
import { shown } from "/pages/audit-words.js";

const WEIGHTS = { alarm: "bad", warning: "warn", note: "" };

/** Says that a review is overdue, on every part of the page. */
export function tellDue(due) {
  const days = Math.floor(due.overdue_s / 86400);
  at("due").hidden = !due.overdue_s;
  at("due").replaceChildren(
    make("strong", {}, "A review is overdue. "),
    `It was due on ${when(due.due_at)}${days ? `, ${days} ${days === 1 ? "day" : "days"} beyond the time allowed` : ""}. `,
    make("a", { href: "#reviews" }, "Go to the reviews"),
  );
}

const bdi = (text) => make("bdi", {}, ...shown(text));

function span(since, until) {
  return since ? `${when(since)} to ${when(until)}` : `until ${when(until)}`;
}

function countsOf(state) {
  const chain = state.chain === "ok" ? [] : [make("span", { className: "badge bad" }, `log: ${state.chain}`), " "];
  const found = state.findings === 1 ? "1 finding" : `${state.findings || "no"} findings`;
  return [...chain, found, state.notes ? `, ${state.notes === 1 ? "1 note" : `${state.notes} notes`}` : ""];
}

export function reviewsPart() {
  const section = at("reviews");
  const report = at("report");
  let opened = null;

  function draw(row, state) {
    cell(row, when(state.made_at)).append(make("br"), make("small", {}, bdi(state.made_by)));
    const days = [state.since, state.until].filter(Boolean).map((one) => new Date(one).toLocaleDateString(undefined, { dateStyle: "medium" }));
    cell(row, days[0] === days[1] ? days[0] : days.join(" to "));
    cell(row, make("span", {}, ...countsOf(state)));
    const signed = cell(row, "");
    for (const one of state.signed) signed.append(make("div", {}, bdi(one.who), " ", make("small", {}, when(one.at))));
    if (!state.signed.length) signed.append(make("span", { className: "soft" }, "not yet"));
    const acts = cell(row, "", "acts");
    if (state.is_here) acts.append(act("Open", `the review of ${when(state.made_at)}`, () => open(state.id)));
    else acts.append(make("span", { className: "soft" }, "kept elsewhere"));
  }

  function show() {
    return attemptIn(section, async () => {
      const { reviews, due } = await ask("GET", "/v1/audit/reviews");
      tellDue(due);
      fill(at("review-rows"), reviews, { idOf: (one) => one.id, draw, nothing: "No review was made yet." });
    });
  }

  function open(id) {
    return attemptIn(section, async () => drawReport(await ask("GET", `/v1/audit/reviews/${encodeURIComponent(id)}`)));
  }

  function drawReport(told) {
    opened = told.review.id;
    const { report: made, review: state } = told;
    const page = `/v1/audit/reviews/${encodeURIComponent(state.id)}?format=html`;
    const heading = make("div", { className: "heading" }, make("h3", {}, `Review of ${when(made.made_at)}`), make("a", { href: page, target: "_blank", rel: "noopener" }, "As a page to print"));
    const chain = make("dd", { className: made.chain.status === "ok" ? "good" : "failed" }, `${made.chain.status}, ${made.chain.covered} of ${made.chain.size} entries under a checkpoint`);
    const about = make(
      "dl",
      {},
      make("dt", {}, "of"), make("dd", {}, `${span(made.since, made.until)}, ${made.entries} entries by ${made.actors} actors`),
      make("dt", {}, "log"), chain,
      make("dt", {}, "made by"), make("dd", {}, bdi(made.made_by)),
      make("dt", {}, "digest"), make("dd", {}, make("code", { className: "digest" }, state.digest)),
    );
    const findings = made.findings.map(drawFinding);
    const none = findings.length ? [] : [make("p", { className: "good" }, "Nothing was found that somebody has to look at.")];
    const notes = made.notes.length
      ? [make("details", {}, make("summary", {}, made.notes.length === 1 ? "1 note: rare, but mostly harmless" : `${made.notes.length} notes: rare, but mostly harmless`), ...made.notes.map(drawFinding))]
      : [];
    report.replaceChildren(heading, about, ...none, ...findings, ...notes, ...drawSigned(told));
    report.hidden = false;
    history.replaceState(null, "", `#review-${state.id}`);
    focusHeading(heading);
    heading.scrollIntoView({ block: "start" });
  }

  function drawSigned({ review: state, names_me: namesMe }) {
    const list = state.signed.map((one) => make("blockquote", {}, make("p", { className: "written" }, ...shownLines(one.note)), make("footer", {}, bdi(one.who), `, ${when(one.at)}`)));
    const title = make("h3", {}, "Signed off");
    if (!list.length) list.push(make("p", { className: "soft" }, "By nobody yet."));
    if (!may("audit.review")) return [title, ...list, make("p", { className: "soft" }, "Signing off needs the action audit.review.")];
    if (namesMe) return [title, ...list, make("p", { className: "warning" }, "A finding concerns you: another auditor has to sign this review off.")];
    if (state.signed_by_me) return [title, ...list];
    const note = make("textarea", { name: "note", required: true, maxLength: 1000, rows: 4 });
    const form = make(
      "form",
      { className: "stacked panel", id: "sign-off" },
      make("h3", {}, "Sign it off"),
      labelled("what you looked at, and what was done about it", note, "It is kept with your name, and cannot be taken back."),
      make("div", { className: "buttons" }, make("button", { className: "first" }, "Sign off")),
    );
    onSend(form, async (told) => {
      await ask("POST", `/v1/audit/reviews/${encodeURIComponent(state.id)}/sign-off`, { note: told.note });
      await open(opened);
      await show();
    });
    return [title, ...list, form];
  }

  async function makeReview() {
    const time = (name) => make("input", { name, type: "datetime-local", step: "1" });
    const text = make("p", {}, "Empty: everything that was not signed off yet. It may take a minute on a long log.");
    const iso = (value) => (value ? new Date(value).toISOString() : null);
    const done = await askForm("Make a review", "Make it", [text, labelled("from", time("since")), labelled("until", time("until"))], (told) =>
      ask("POST", "/v1/audit/reviews", { since: iso(told.since), until: iso(told.until) }),
    );
    await show();
    if (done) drawReport(done);
  }

  at("make-review").hidden = !may("audit.review");
  onClick(at("make-review"), () => attemptIn(section, makeReview));
  return { show, open };
}

function shownLines(text) {
  return text.split("\n").flatMap((line, index) => (index ? [make("br"), ...shown(line)] : shown(line)));
}

function drawFinding(one) {
  const badge = make("span", { className: `badge ${WEIGHTS[one.severity] ?? "bad"}` }, one.severity);
  const links = one.seqs.flatMap((seq, index) => [index ? ", " : "", make("a", { href: `#entry-${seq}` }, String(seq))]);
  const more = one.count > one.seqs.length ? `, ${one.count} in all` : "";
  const numbers = Object.entries(one.numbers).map(([name, value]) => `${name.replaceAll("_", " ")}: ${value}`).join("; ");
  const list = make("dl", {});
  const add = (name, ...content) => list.append(make("dt", {}, name), make("dd", {}, ...content));
  if (one.first_at) add("when", one.first_at === one.last_at ? when(one.first_at) : `${when(one.first_at)} to ${when(one.last_at)}`);
  if (one.who.length) add("concerns", ...one.who.flatMap((name, index) => [index ? ", " : "", bdi(name)]));
  if (links.length) add("entries", ...links, more);
  if (numbers) add("measured", ...shown(numbers));
  if (one.advice) add("to do", ...shown(one.advice));
  return make("article", { className: `finding ${WEIGHTS[one.severity] ?? ""}` }, make("h4", {}, badge, " ", ...shown(one.what)), list);
}
