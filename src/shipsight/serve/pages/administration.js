// SPDX-License-Identifier: Apache-2.0
// Administration: people, roles, keys, certificates. What it shows is decided by the server; buttons only spare a refusal.
import { act, at, cell, fill, make, onClick, when } from "/pages/elements.js";
import { askForm, confirmed, labelled } from "/pages/forms.js";
import { grantsEditor } from "/pages/grants.js";
import { keysSection, showOnce } from "/pages/keys.js";
import { ask, may, start, who } from "/pages/server.js";

const PARTS = ["people", "roles", "keys", "certificates"];
let roles = [];
let actions = [];
const roleNames = () => roles.map((one) => one.name);
const pathOf = (kind, id) => `${kind}/${encodeURIComponent(id)}`;

function showPart() {
  const wanted = PARTS.includes(location.hash.slice(1)) ? location.hash.slice(1) : "people";
  for (const one of PARTS) at(one).hidden = one !== wanted;
  for (const link of at("parts").children) {
    if (link.hash === `#${wanted}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

// --- people ---

async function showUsers() {
  const { users } = await ask("GET", "users");
  fill(at("users"), users, drawUser, "Nobody is known.");
}

function factorsOf({ totp, passkeys }) {
  const found = [totp && "app", passkeys && (passkeys === 1 ? "a passkey" : `${passkeys} passkeys`)].filter(Boolean);
  return found.join(", ") || "none";
}

function drawUser(row, user) {
  const name = cell(row, user.display_name);
  if (user.display_name !== user.name) name.append(make("br"), make("small", {}, user.name));
  cell(row, user.grants.join("; ") || "nothing");
  cell(row, factorsOf(user.has));
  cell(row, when(user.signed_in_at));
  const waits = !user.has_password && !user.openid;
  cell(row, user.disabled ? "shut out" : waits ? "invited" : "in use", user.disabled ? "failed" : waits ? "soft" : "");
  const acts = cell(row, "", "acts");
  if (!may("access.change")) return;
  if (user.name === who().name) acts.append(make("span", { className: "soft" }, "you"));
  else acts.append(act("Change", user.name, () => changeUser(user)));
}

const LIVES = "It works once, for a day, on the page “Invitation”. Give it to them by a way that you trust.";

async function addUser() {
  const editor = grantsEditor(roleNames(), ["viewer"]);
  const name = make("input", { name: "name", required: true, autocomplete: "off", autocapitalize: "none", spellcheck: false, maxLength: 64 });
  const shown = make("input", { name: "display_name", autocomplete: "off", maxLength: 100 });
  const content = [labelled("name to sign in with", name), labelled("name to show", shown, "Empty: the same."), editor.element];
  const made = await askForm("Invite somebody", "Invite", content, (told) =>
    ask("POST", "users", { name: told.name, display_name: told.display_name || null, grants: editor.read() }),
  );
  if (made) await showOnce(`Invitation for ${made.user.name}`, LIVES, made.code);
  await showUsers();
}

async function changeUser(user) {
  const editor = grantsEditor(roleNames(), user.grants);
  const more = make("div", { className: "buttons" });
  const then = (text, run, kind = "") => {
    const made = make("button", { type: "button", className: kind }, text);
    made.addEventListener("click", async () => {
      made.closest("dialog").close();
      await run();
      await showUsers();
    });
    more.append(made);
  };
  then("Invite anew", () => inviteAnew(user));
  if (user.has.totp || user.has.passkeys) then("Reset second factors", () => removeFactors(user));
  if (user.disabled) then("Let in again", () => setDisabled(user, false));
  else then("Shut out", () => setDisabled(user, true), "danger");
  then("Remove", () => removeUser(user), "danger");
  const content = [
    editor.element,
    make("fieldset", {}, make("legend", {}, "Account"), more),
  ];
  await askForm(user.display_name, "Keep these roles", content, () =>
    ask("PUT", `${pathOf("users", user.id)}/grants`, { grants: editor.read() }),
  );
  await showUsers();
}

async function inviteAnew(user) {
  const text = "They set a new password with it. Second factors stay as they are, and older invitations end.";
  const made = await askForm(`Invite ${user.name} anew?`, "Make an invitation", [make("p", {}, text)], () =>
    ask("POST", `${pathOf("users", user.id)}/invitation`, {}),
  );
  if (made) await showOnce(`Invitation for ${user.name}`, LIVES, made.code);
}

function removeFactors(user) {
  const text = "For somebody who lost them. Their sessions end; with their password they can add others.";
  const run = () => ask("DELETE", `${pathOf("users", user.id)}/factors`);
  return confirmed(`Reset the second factors of ${user.name}?`, text, "Reset them", run);
}

function setDisabled(user, disabled) {
  const [title, text, verb] = disabled
    ? [`Shut ${user.name} out?`, "All their sessions and streams end now, and their keys are refused.", "Shut out"]
    : [`Let ${user.name} in again?`, "They have the roles that they had.", "Let in"];
  return confirmed(title, text, verb, () => ask("PATCH", pathOf("users", user.id), { disabled }));
}

function removeUser(user) {
  const text = "Their account, second factors and keys are gone for good. What they did stays in the audit log.";
  return confirmed(`Remove ${user.name}?`, text, "Remove", () => ask("DELETE", pathOf("users", user.id)));
}

// --- roles ---

async function showRoles() {
  ({ roles, actions } = await ask("GET", "roles"));
  fill(at("role-rows"), roles, drawRole, "There are no roles.");
}

function drawRole(row, role) {
  cell(row, role.name);
  cell(row, role.actions.join(", "));
  const acts = cell(row, "", "acts");
  if (role.is_built_in) acts.append(make("span", { className: "soft" }, "built in"));
  else if (may("access.change")) {
    acts.append(act("Change", `role ${role.name}`, () => editRole(role)), act("Remove", `role ${role.name}`, () => removeRole(role), "small danger"));
  }
}

async function editRole(role) {
  const ticks = actions.map((one) => make("input", { type: "checkbox", name: "actions", value: one, checked: Boolean(role?.actions.includes(one)) }));
  const boxes = ticks.map((tick) => make("label", { className: "tick" }, tick, tick.value));
  const name = make("input", { name: "name", required: true, value: role?.name || "", disabled: Boolean(role), autocomplete: "off", autocapitalize: "none", spellcheck: false, maxLength: 32 });
  const allowed = make("fieldset", {}, make("legend", {}, "allows"), make("div", { className: "ticks" }, ...boxes));
  await askForm(role ? `Role ${role.name}` : "Make a role", role ? "Keep" : "Make it", [labelled("name", name), allowed], () =>
    ask("PUT", pathOf("roles", role?.name || name.value), { actions: ticks.filter((one) => one.checked).map((one) => one.value) }),
    { role: "name" },
  );
  await showRoles();
}

async function removeRole(role) {
  const text = "Whoever has this role loses what it allows.";
  await confirmed(`Remove the role ${role.name}?`, text, "Remove", () => ask("DELETE", pathOf("roles", role.name)));
  await showRoles();
}

// --- certificates ---

const FIELDS = { sha256: "SHA-256 of the certificate", subject: "subject, as CN=camera-1,O=acme", name: "alternative name, as DNS:camera-1" };

async function showCertificates() {
  const { certificates } = await ask("GET", "certificates");
  fill(at("certificate-rows"), certificates, drawCertificate, "No certificate has a name yet.");
}

function drawCertificate(row, one) {
  cell(row, one.name);
  cell(row, one.kind);
  cell(row, make("small", {}, `${one.field} ${one.value}`));
  cell(row, one.grants.join("; ") || "nothing");
  cell(row, when(one.used_at));
  const remove = async () => {
    await confirmed(`Revoke ${one.name}?`, "Whoever shows this certificate is refused from now on.", "Revoke", () => ask("DELETE", pathOf("certificates", one.id)));
    await showCertificates();
  };
  const acts = cell(row, "", "acts");
  if (may("access.change")) acts.append(act("Revoke", one.name, remove, "small danger"));
}

async function addCertificate() {
  const editor = grantsEditor(roleNames(), ["predictor"]);
  const text = (name) => make("input", { name, required: true, autocomplete: "off", spellcheck: false });
  const content = [
    labelled("name", text("name")),
    labelled("stands for", make("select", { name: "kind" }, new Option("a program", "certificate"), new Option("a device", "device"))),
    labelled("known by", make("select", { name: "field" }, ...Object.entries(FIELDS).map(([value, shown]) => new Option(shown, value)))),
    labelled("which is", text("value")),
    editor.element,
  ];
  await askForm("Name a certificate", "Keep", content, ({ name, kind, field, value }) =>
    ask("POST", "certificates", { name, kind, field, value, grants: editor.read() }),
  );
  await showCertificates();
}

const session = await start("known");
if (session) {
  showPart();
  addEventListener("hashchange", showPart);
  const mayChange = may("access.change");
  at("read-only").hidden = mayChange;
  for (const [id, run] of [["add-user", addUser], ["add-role", () => editRole(null)], ["add-certificate", addCertificate]]) {
    at(id).hidden = !mayChange;
    onClick(at(id), run);
  }
  at("add-key").hidden = !mayChange;
  const showKeys = keysSection(at("keys"), { isOwn: false, mayChange, roles: roleNames });
  await showRoles();
  await Promise.all([showUsers(), showKeys(), showCertificates()]);
}
