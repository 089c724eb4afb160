// SPDX-License-Identifier: Apache-2.0
// Entries of the audit log: chosen by a filter, shown page by page, one of them whole, taken away as a file.
import { act, at, cell, fill, make, onClick } from "/pages/elements.js";
import { attemptIn, cancelButton, onSend, openDialog } from "/pages/forms.js";
import { ask } from "/pages/server.js";
import { KINDS, shown } from "/pages/audit-words.js";

const PAGE = 50;
const TEXTS = ["actor", "subject", "address", "text"];

/** A time as the log has it, in the time of whoever reads, to the second. */
export function moment(text) {
  return new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

function queryOf(filter, more = {}) {
  return new URLSearchParams({ ...filter, ...more }).toString();
}

export function entriesPart() {
  const section = at("entries");
  const form = at("filter");
  let filter = {};
  let shownEntries = [];
  let before = null;

  form.elements.kind.append(...Object.entries(KINDS).map(([group, kinds]) => {
    const made = make("optgroup", { label: group });
    made.append(...kinds.map((kind) => new Option(kind.replaceAll("-", " "), kind)));
    return made;
  }));

  function read(told) {
    const found = {};
    for (const name of ["since", "until"]) if (told[name]) found[name] = new Date(told[name]).toISOString();
    for (const name of ["kind", "outcome", ...TEXTS]) if (told[name]) found[name] = told[name];
    return found;
  }

  function draw(row, entry) {
    cell(row, String(entry.seq), "n soft");
    const taken = new Date(entry.at);
    const time = make("time", { title: entry.at, dateTime: entry.at }, taken.toLocaleTimeString(undefined, { timeStyle: "medium" }));
    time.append(make("br"), make("small", {}, taken.toLocaleDateString(undefined, { dateStyle: "medium" })));
    cell(row, time);
    const what = cell(row, make("span", { className: entry.outcome === "refused" ? "kind failed" : "kind" }, entry.kind.replaceAll("-", " ")));
    if (entry.outcome === "refused" && !entry.kind.endsWith("refused")) what.append(" ", make("span", { className: "badge bad" }, "refused"));
    if (entry.why) what.append(make("br"), make("small", {}, ...shown(entry.why)));
    else if (entry.factor) what.append(make("br"), make("small", {}, ...shown(entry.factor)));
    const who = cell(row, make("bdi", {}, ...shown(entry.actor)));
    if (entry.address) who.append(make("br"), make("small", {}, make("bdi", {}, ...shown(entry.address))));
    cell(row, make("bdi", {}, ...shown(entry.subject || "")));
    cell(row, "", "acts").append(act("Details", `of entry ${entry.seq}`, () => open(String(entry.seq))));
  }

  function redraw() {
    fill(at("entry-rows"), shownEntries, { idOf: (one) => one.seq, draw, nothing: before === null ? "No entry fits." : `Of the entries from number ${before} on none fits.` });
    at("older").hidden = before === null;
    at("older").textContent = filter.text ? "Look further back" : "Show older ones";
    const link = (format, text) => make("a", { className: "button", href: `/v1/audit/records?${queryOf(filter, { format })}`, download: "" }, text);
    at("exports").replaceChildren(link("csv", "Export as CSV"), link("jsonl", "as JSON lines"));
    at("entries-told").textContent = `${shownEntries.length} entries are shown${before === null ? "" : ", and there are older ones"}.`;
  }

  function show() {
    return attemptIn(section, async () => {
      const told = await ask("GET", `/v1/audit/records?${queryOf(filter, { limit: PAGE })}`);
      shownEntries = told.records;
      before = told.before;
      redraw();
    });
  }

  function showOlder() {
    return attemptIn(section, async () => {
      const told = await ask("GET", `/v1/audit/records?${queryOf(filter, { limit: PAGE, before })}`);
      const first = shownEntries.length;
      shownEntries = [...shownEntries, ...told.records];
      before = told.before;
      redraw();
      // The keyboard goes on where the older ones begin.
      at("entry-rows").rows[first]?.querySelector("button").focus();
    });
  }

  /** Shows entries around one, whatever the filter was. */
  async function around(seq) {
    filter = { first: String(Math.max(0, seq - PAGE / 2)), last: String(seq + PAGE / 2) };
    form.reset();
    at("chosen").textContent = `Entries ${filter.first} to ${filter.last}.`;
    at("chosen").hidden = false;
    await show();
  }

  function open(seq) {
    return attemptIn(section, async () => {
      const { record } = await ask("GET", `/v1/audit/records/${encodeURIComponent(seq)}`);
      const near = make("button", { type: "button" }, "Show what happened around it");
      const opened = openDialog(`Entry ${record.seq}`, detailsOf(record), make("div", { className: "buttons end" }, near, cancelButton("Close")));
      near.addEventListener("click", () => opened.done("around"));
      const answer = await opened.closed;
      // So that the same link opens it again.
      if (location.hash.startsWith("#entry-")) history.replaceState(null, "", "#entries");
      if (answer === "around") await around(record.seq);
    });
  }

  onSend(form, async (told) => {
    filter = read(told);
    at("chosen").hidden = true;
    await show();
  });
  onClick(at("clear"), async () => {
    form.reset();
    filter = {};
    at("chosen").hidden = true;
    await show();
  });
  onClick(at("older"), showOlder);
  return { show, open };
}

const NAMES = {
  kind: "what",
  outcome: "outcome",
  why: "because of",
  actor: "who",
  factor: "proved by",
  address: "address",
  subject: "to whom or what",
  server: "server",
};

/** All of an entry, texts as they came, with what is invisible in them made visible. */
function detailsOf(record) {
  const list = make("dl", { className: "entry" });
  const add = (name, ...content) => list.append(make("dt", {}, name), make("dd", {}, make("bdi", {}, ...content)));
  add("when", `${moment(record.at)} (${record.at})`);
  if (record.written && record.written.slice(0, 19) !== record.at.slice(0, 19)) add("written", moment(record.written));
  if (record.clock_back) add("clock", "the server's clock had gone back since the entry before");
  for (const [name, text] of Object.entries(NAMES)) if (record[name]) add(text, ...shown(record[name]));
  for (const [name, value] of Object.entries(record.details)) {
    add(name.replaceAll("_", " "), ...shown(Array.isArray(value) ? value.join(", ") : String(value)));
  }
  if (record.erased_by !== null) add("erased", `texts of it were erased by entry ${record.erased_by}`);
  return list;
}
