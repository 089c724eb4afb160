// SPDX-License-Identifier: Apache-2.0
// Keys: one's own in the account, all of them in administration. A secret is shown once, where it is made.
import { act, cell, copy, fill, make, onClick, when } from "/pages/elements.js";
import { askForm, attemptIn, confirmed, labelled, openDialog } from "/pages/forms.js";
import { grantsEditor } from "/pages/grants.js";
import { ask } from "/pages/server.js";

/** Shows what is shown only once. Esc, and whatever else closes a dialog, asks before it is gone. */
export async function showOnce(title, text, secret) {
  const again = "It is never shown again. Without it you have to make another.";
  for (;;) {
    const told = make("p", { className: "good", role: "status" });
    const copying = make("button", { type: "button", className: "first" }, "Copy");
    copying.addEventListener("click", () => copy(secret, told));
    const shown = make("code", { className: "secret", tabIndex: 0 }, secret);
    const kept = make("button", { type: "button", className: "kept" }, "I have kept it");
    const opened = openDialog(title, make("p", {}, text), shown, told, make("div", { className: "buttons end" }, copying, kept));
    kept.addEventListener("click", () => opened.done(true));
    if (await opened.closed) return;
    if (await confirmed("Have you kept it?", again, "I have kept it", () => undefined, "Show it again")) return;
  }
}

const DAY_MS = 86400_000;
const LIVES = [["30 days", "30"], ["90 days", "90"], ["a year", "365"], ["never, until somebody ends it", "never"]];

/** When a key ends, as the server takes it: a time, or the word "never". */
const endOf = (days) => (days === "never" ? days : new Date(Date.now() + Number(days) * DAY_MS).toISOString());

const SHOWN_ONCE = "It is shown now and never again. Whoever has it can use it: keep it where your program finds it and nobody else does.";

function state(key) {
  if (key.revoked_at) return "ended";
  if (key.expires_at && new Date(key.expires_at) < new Date()) return "expired";
  return key.expires_at ? `until ${when(key.expires_at)}` : "never expires";
}

/** Makes the table below a section's heading; returns what draws it anew. `loadRoles` asks which roles there are. */
export function keysSection(section, { isOwn, mayChange, loadRoles }) {
  const heads = ["name", ...(isOwn ? [] : ["belongs to"]), "roles", "last used", "state"];
  const body = make("tbody");
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
  head.append(make("th", { scope: "col" }, make("span", { className: "unseen" }, "act")));
  section.append(make("div", { className: "scroll" }, make("table", {}, make("thead", {}, head), body)));

  function refresh() {
    return attemptIn(section, async () => {
      const { keys } = await ask("GET", "keys");
      const shown = isOwn ? keys.filter((one) => one.is_mine) : keys;
      fill(body, shown, { idOf: (key) => key.id, draw: drawKey, nothing: isOwn ? "You have no keys." : "There are no keys." });
    });
  }

  function drawKey(row, key) {
    cell(row, key.name).append(make("br"), make("small", {}, key.id));
    if (!isOwn) cell(row, key.owner || "a service");
    cell(row, key.grants.join("; "));
    cell(row, when(key.used_at));
    cell(row, state(key), key.revoked_at ? "soft" : "");
    const acts = cell(row, "", "acts");
    if (key.revoked_at || !(mayChange || key.is_mine)) return;
    acts.append(act("New secret", `for ${key.name}`, () => rotate(key)), act("End", key.name, () => end(key), "small danger"));
  }

  async function rotate(key) {
    const overlap = make("select", { name: "overlap_s" }, new Option("at once", "0"), new Option("in an hour", "3600"), new Option("in a day", "86400", true, true), new Option("in a week", "604800"));
    const content = [make("p", {}, "The key keeps its name and roles."), labelled("the old secret ends", overlap)];
    const made = await askForm(`A new secret for ${key.name}`, "Make it", content, ({ overlap_s }) =>
      ask("POST", `keys/${encodeURIComponent(key.id)}/rotate`, { overlap_s: Number(overlap_s) }),
    );
    if (made) await showOnce("The new secret", SHOWN_ONCE, made.secret);
    await refresh();
  }

  async function end(key) {
    const text = `Programs that use “${key.name}” are refused from now on.`;
    await confirmed("End this key?", text, "End it", () => ask("DELETE", `keys/${encodeURIComponent(key.id)}`));
    await refresh();
  }

  async function add() {
    const editor = grantsEditor(await loadRoles(), ["predictor"]);
    const name = make("input", { name: "name", required: true, maxLength: 60, autocomplete: "off" });
    const lives = make("select", { name: "lives" }, ...LIVES.map(([text, days]) => new Option(text, days, false, days === "365")));
    const content = [labelled("name of the key", name), editor.element, labelled("ends after", lives)];
    if (!isOwn) {
      content.push(labelled("rate", make("input", { name: "rate", autocomplete: "off" }), "As 100/minute; empty: the server's own."));
    }
    const made = await askForm(isOwn ? "Make a key" : "Make a service's key", "Make it", content, (told) => {
      const wanted = { name: told.name, grants: editor.read(), owner: isOwn ? "me" : null, expires_at: endOf(told.lives) };
      if (told.rate) wanted.rate = told.rate;
      return ask("POST", "keys", wanted);
    }, { expires_at: "lives" });
    if (made) await showOnce(`The secret of ${made.key.name}`, SHOWN_ONCE, made.secret);
    await refresh();
  }

  onClick(section.querySelector("#add-key"), () => attemptIn(section, add));
  return refresh;
}
