// SPDX-License-Identifier: Apache-2.0
// Keys: one's own in the account, all of them in administration. A secret is shown once, where it is made.
import { act, cell, copy, fill, make, onClick, when } from "/pages/elements.js";
import { askForm, cancelButton, confirmed, labelled, openDialog } from "/pages/forms.js";
import { grantsEditor } from "/pages/grants.js";
import { ask } from "/pages/server.js";

/** Shows what is shown only once. */
export function showOnce(title, text, secret) {
  const told = make("p", { className: "good", role: "status" });
  const copying = make("button", { type: "button", className: "first" }, "Copy");
  copying.addEventListener("click", () => copy(secret, told));
  const shown = make("code", { className: "secret", tabIndex: 0 }, secret);
  const end = make("div", { className: "buttons end" }, copying, cancelButton("Done"));
  return openDialog(title, make("p", {}, text), shown, told, end).closed;
}

const SHOWN_ONCE = "It is shown now and never again. Whoever has it can use it: keep it where your program finds it and nobody else does.";

function state(key) {
  if (key.revoked_at) return "ended";
  if (key.expires_at && new Date(key.expires_at) < new Date()) return "expired";
  return key.expires_at ? `until ${when(key.expires_at)}` : "never expires";
}

/** Makes the table below a section's heading; returns what draws it anew. */
export function keysSection(section, { isOwn, mayChange, roles }) {
  const heads = ["name", ...(isOwn ? [] : ["belongs to"]), "roles", "last used", "state"];
  const body = make("tbody");
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
  head.append(make("th", { scope: "col" }, make("span", { className: "unseen" }, "act")));
  section.append(make("div", { className: "scroll" }, make("table", {}, make("thead", {}, head), body)));

  async function refresh() {
    const { keys } = await ask("GET", "keys");
    const shown = isOwn ? keys.filter((one) => one.is_mine) : keys;
    fill(body, shown, drawKey, isOwn ? "You have no keys." : "There are no keys.");
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
    const editor = grantsEditor(roles(), ["predictor"]);
    const name = make("input", { name: "name", required: true, maxLength: 60, autocomplete: "off" });
    const ends = make("input", { name: "ends", type: "date" });
    const content = [labelled("name of the key", name), editor.element, labelled("last day", ends, "Empty: until somebody ends it.")];
    if (!isOwn) {
      content.push(labelled("rate", make("input", { name: "rate", autocomplete: "off" }), "As 100/minute; empty: the server's own."));
    }
    const made = await askForm(isOwn ? "Make a key" : "Make a service's key", "Make it", content, (told) => {
      const wanted = { name: told.name, grants: editor.read(), owner: isOwn ? "me" : null };
      if (told.ends) wanted.expires_at = new Date(`${told.ends}T23:59:59`).toISOString();
      if (told.rate) wanted.rate = told.rate;
      return ask("POST", "keys", wanted);
    }, { expires_at: "ends" });
    if (made) await showOnce(`The secret of ${made.key.name}`, SHOWN_ONCE, made.secret);
    await refresh();
  }

  onClick(section.querySelector("#add-key"), add);
  return refresh;
}
