// SPDX-License-Identifier: Apache-2.0
// What somebody may do, edited: a role on some models, any number of times. Written as `role` or `role@team-*,shared`.
import { make } from "/pages/elements.js";
import { ask } from "/pages/server.js";

export const pathOf = (kind, id) => `${kind}/${encodeURIComponent(id)}`;

/** Names of the roles that there are now: others may have made some since the page was opened. */
export async function loadRoles() {
  const { roles } = await ask("GET", "roles");
  return roles.map((one) => one.name);
}

function draw(rows, roles, text) {
  const [role, models] = text.split(/@(.*)/s);
  // A role that is not among those that were loaded is held all the same: the first of the list would take its place.
  const names = roles.includes(role) ? roles : [role, ...roles];
  const choice = make("select", {}, ...names.map((name) => new Option(name, name, false, name === role)));
  const patterns = make("input", { value: models || "*", spellcheck: false, autocomplete: "off", autocapitalize: "none" });
  const row = make("div", { className: "grant" });
  const away = make("button", { type: "button", "aria-label": `Take ${role} away` }, "Take away");
  away.addEventListener("click", () => {
    const other = row.nextElementSibling?.querySelector("select") || rows.parentElement.querySelector("button.add");
    row.remove();
    other.focus();
  });
  choice.addEventListener("change", () => away.setAttribute("aria-label", `Take ${choice.value} away`));
  row.append(make("label", {}, "role ", choice), make("label", {}, "models ", patterns), away);
  rows.append(row);
  return choice;
}

/** Returns an editor: `element` to show, `read()` what it says. */
export function grantsEditor(roles, grants, title = "Roles") {
  const rows = make("div");
  const add = make("button", { type: "button", className: "small add" }, "Add a role");
  add.addEventListener("click", () => draw(rows, roles, roles.includes("viewer") ? "viewer" : roles[0]).focus());
  for (const one of grants) draw(rows, roles, one);
  const hint = make("p", { className: "soft" }, make("small", {}, "Models by name, with commas between; * is any text. Metrics, people and the audit log need *."));
  const element = make("fieldset", {}, make("legend", {}, title), rows, hint, add);
  return {
    element,
    shown: grants,
    read: () =>
      [...rows.children].map((row) => {
        const models = row.querySelector("input").value.replace(/\s/g, "");
        const role = row.querySelector("select").value;
        return models === "*" ? role : `${role}@${models}`;
      }),
  };
}

/**
 * Keeps what an editor says at a path, where nobody else changed it since it was shown. Where somebody did, the refusal tells what is
 * there now; whoever then keeps theirs all the same does so knowing it.
 */
export async function keepGrants(path, editor, loadGrants) {
  try {
    return await ask("PUT", `${path}/grants`, { grants: editor.read(), before: editor.shown });
  } catch (error) {
    if (error.code === "conflict") {
      editor.shown = await loadGrants();
      error.hint = `What is there now: ${editor.shown.join("; ") || "nothing"}. Keep yours in its place, or leave.`;
    }
    throw error;
  }
}
