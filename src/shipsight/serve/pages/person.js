// SPDX-License-Identifier: Apache-2.0
// One person, changed: roles, account, sessions. Each act asks above the dialog and comes back to it; what was edited stays.
import { cell, fill, focusHeading, make, when } from "/pages/elements.js";
import { askForm, attemptIn, confirmed } from "/pages/forms.js";
import { grantsEditor, keepGrants, loadRoles, pathOf } from "/pages/grants.js";
import { showOnce } from "/pages/keys.js";
import { ask } from "/pages/server.js";
import { browser } from "/pages/sessions.js";

export const GIVEN = "It works once, for a day, on the page “Invitation”. Give it to them by a way that you trust.";

/** Opens the dialog, with the person and the roles as they are now. */
export async function changeUser(id) {
  const path = pathOf("users", id);
  const load = async () => (await ask("GET", path)).user;
  const [user, roles] = await Promise.all([load(), loadRoles()]);
  const editor = grantsEditor(roles, user.grants);
  const account = make("fieldset", {}, make("legend", {}, "Account"));
  const buttons = make("div", { className: "buttons" });
  account.append(buttons);
  const sessions = sessionsOf(user, path);
  const changed = () => Promise.all([attemptIn(account, async () => drawActs(buttons, await load(), path, changed)), sessions.show()]);
  drawActs(buttons, user, path, changed);
  sessions.show();
  await askForm(user.display_name, "Keep these roles", [editor.element, account, sessions.element], () =>
    keepGrants(path, editor, async () => (await load()).grants),
  );
}

/** Draws the buttons of an account; the focus stays where it was. */
function drawActs(buttons, user, path, changed) {
  const focused = [...buttons.children].indexOf(document.activeElement);
  const add = (text, run, kind = "") => {
    const made = make("button", { type: "button", className: kind }, text);
    made.addEventListener("click", async () => {
      if (await run(made)) await changed();
    });
    buttons.append(made);
  };
  buttons.replaceChildren();
  add("Invite anew", () => inviteAnew(user, path));
  if (user.disabled) add("Let in again", () => setDisabled(user, path, false));
  else add("Shut out", () => setDisabled(user, path, true), "danger");
  add("Remove", (button) => removeUser(user, path, button), "danger");
  if (user.has.totp || user.has.passkeys) add("Reset second factors", () => removeFactors(user, path));
  if (focused >= 0) buttons.children[Math.min(focused, buttons.children.length - 1)].focus();
}

async function inviteAnew(user, path) {
  const text = "They set a new password with it. Second factors stay as they are, and older invitations end.";
  const made = await askForm(`Invite ${user.name} anew?`, "Make an invitation", [make("p", {}, text)], () => ask("POST", `${path}/invitation`, {}));
  if (made) await showOnce(`Invitation for ${user.name}`, GIVEN, made.code);
  return made;
}

function removeFactors(user, path) {
  const text = "For somebody who lost them. Their sessions end; with their password they can add others.";
  return confirmed(`Reset the second factors of ${user.name}?`, text, "Reset them", () => ask("DELETE", `${path}/factors`));
}

function setDisabled(user, path, disabled) {
  const [title, text, verb] = disabled
    ? [`Shut ${user.name} out?`, "All their sessions and streams end now, and their keys are refused.", "Shut out"]
    : [`Let ${user.name} in again?`, "They have the roles that they had.", "Let in"];
  return confirmed(title, text, verb, () => ask("PATCH", path, { disabled }));
}

/** Removes somebody, and closes the dialog, since nobody is left to be changed. */
async function removeUser(user, path, button) {
  const text = "Their account, second factors and keys are gone for good. What they did stays in the audit log.";
  const done = await confirmed(`Remove ${user.name}?`, text, "Remove", () => ask("DELETE", path));
  if (done) button.closest("dialog").close();
  return false;
}

/** Where somebody is signed in, to be ended all at once. */
function sessionsOf(user, path) {
  const heads = ["browser", "address", "last seen"].map((text) => make("th", { scope: "col" }, text));
  const body = make("tbody");
  const table = make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body);
  const end = make("button", { type: "button", className: "danger", hidden: true }, "End all");
  const element = make("fieldset", {}, make("legend", {}, "Sessions"), make("div", { className: "scroll" }, table), end);

  function draw(row, one) {
    cell(row, browser(one.agent));
    cell(row, one.address || "");
    cell(row, when(one.seen_at));
  }

  const show = () =>
    attemptIn(element, async () => {
      const { sessions } = await ask("GET", `${path}/sessions`);
      fill(body, sessions, { idOf: (one) => one.id, draw, nothing: "Signed in nowhere." });
      if (document.activeElement === end && !sessions.length) focusHeading(element);
      end.hidden = !sessions.length;
    });

  end.addEventListener("click", async () => {
    const text = "They are signed out everywhere, and what they stream ends. They can sign in again.";
    if (await confirmed(`End all sessions of ${user.name}?`, text, "End them", () => ask("DELETE", `${path}/sessions`))) await show();
  });
  return { element, show };
}
