// SPDX-License-Identifier: Apache-2.0
// Administration: people, groups, roles, keys, certificates. What it shows is decided by the server; buttons only spare a refusal.
import { act, at, cell, fill, make, onClick, when } from "/pages/elements.js";
import { askForm, attemptIn, confirmed, labelled } from "/pages/forms.js";
import { grantsEditor, keepGrants, loadRoles, pathOf } from "/pages/grants.js";
import { keysSection, showOnce } from "/pages/keys.js";
import { changeUser, GIVEN } from "/pages/person.js";
import { ask, may, start, who } from "/pages/server.js";

const PARTS = ["people", "groups", "roles", "keys", "certificates"];

function showPart() {
  const wanted = PARTS.includes(location.hash.slice(1)) ? location.hash.slice(1) : "people";
  for (const one of PARTS) at(one).hidden = one !== wanted;
  for (const link of at("parts").children) {
    if (link.hash === `#${wanted}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

// --- people ---

function showUsers() {
  return attemptIn(at("people"), async () => {
    const { users } = await ask("GET", "users");
    fill(at("users"), users, { idOf: (user) => user.id, draw: drawUser, nothing: "Nobody is known." });
  });
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
  else acts.append(act("Change", user.name, () => attemptIn(at("people"), () => change(user))));
}

async function change(user) {
  await changeUser(user.id);
  await showUsers();
}

async function addUser() {
  const { roles } = await ask("GET", "roles");
  const editor = grantsEditor(roles.map((one) => one.name), ["viewer"]);
  const audit = roles.filter((one) => one.actions.some((action) => action.startsWith("audit."))).map((one) => one.name);
  const apart = make("p", { className: "soft" }, make("small", {}, `Roles that may read the audit log (${audit.join(", ")}) are given on the server's machine alone, with “shipsight user”.`));
  const name = make("input", { name: "name", required: true, autocomplete: "off", autocapitalize: "none", spellcheck: false, maxLength: 64 });
  const shown = make("input", { name: "display_name", autocomplete: "off", maxLength: 100 });
  const content = [labelled("name to sign in with", name), labelled("name to show", shown, "Empty: the same."), editor.element, apart];
  const made = await askForm("Invite somebody", "Invite", content, (told) =>
    ask("POST", "users", { name: told.name, display_name: told.display_name || null, grants: editor.read() }),
  );
  if (made) await showOnce(`Invitation for ${made.user.name}`, GIVEN, made.code);
  await showUsers();
}

// --- groups ---

function showGroups() {
  return attemptIn(at("groups"), async () => {
    const { groups } = await ask("GET", "groups");
    fill(at("group-rows"), groups, { idOf: (group) => group.name, draw: drawGroup, nothing: "No group was given anything yet." });
  });
}

function drawGroup(row, group) {
  cell(row, group.name);
  cell(row, group.grants.join("; ") || "nothing");
  const acts = cell(row, "", "acts");
  if (may("access.change")) acts.append(act("Change", `group ${group.name}`, () => attemptIn(at("groups"), () => changeGroup(group.name))));
}

async function changeGroup(name) {
  const { groups } = await ask("GET", "groups");
  const group = groups.find((one) => one.name === name) || { name, grants: [] };
  const editor = grantsEditor(await loadRoles(), group.grants);
  const now = async () => (await ask("GET", "groups")).groups.find((one) => one.name === name)?.grants || [];
  await askForm(`Group ${name}`, "Keep these roles", [editor.element], () => keepGrants(pathOf("groups", name), editor, now));
  await showGroups();
}

async function addGroup() {
  const editor = grantsEditor(await loadRoles(), ["viewer"]);
  const name = make("input", { name: "name", required: true, autocomplete: "off", autocapitalize: "none", spellcheck: false });
  await askForm("Add a group", "Add it", [labelled("name, as the provider tells it", name), editor.element], (told) =>
    ask("PUT", `${pathOf("groups", told.name)}/grants`, { grants: editor.read(), before: [] }),
    { group: "name" },
  );
  await showGroups();
}

// --- roles ---

function showRoles() {
  return attemptIn(at("roles"), async () => {
    const { roles } = await ask("GET", "roles");
    fill(at("role-rows"), roles, { idOf: (role) => role.name, draw: drawRole, nothing: "There are no roles." });
  });
}

function drawRole(row, role) {
  cell(row, role.name);
  cell(row, role.actions.join(", "));
  const acts = cell(row, "", "acts");
  if (role.is_built_in) acts.append(make("span", { className: "soft" }, "built in"));
  else if (may("access.change")) {
    acts.append(act("Change", `role ${role.name}`, () => attemptIn(at("roles"), () => editRole(role.name))), act("Remove", `role ${role.name}`, () => removeRole(role), "small danger"));
  }
}

async function editRole(held) {
  const { roles, actions } = await ask("GET", "roles");
  const role = roles.find((one) => one.name === held);
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

function showCertificates() {
  return attemptIn(at("certificates"), async () => {
    const { certificates } = await ask("GET", "certificates");
    fill(at("certificate-rows"), certificates, { idOf: (one) => one.id, draw: drawCertificate, nothing: "No certificate has a name yet." });
  });
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
  const editor = grantsEditor(await loadRoles(), ["predictor"]);
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
  for (const [part, id, run] of [
    ["people", "add-user", addUser],
    ["groups", "add-group", addGroup],
    ["roles", "add-role", () => editRole(null)],
    ["certificates", "add-certificate", addCertificate],
  ]) {
    at(id).hidden = !mayChange;
    onClick(at(id), () => attemptIn(at(part), run));
  }
  at("add-key").hidden = !mayChange;
  const showKeys = keysSection(at("keys"), { isOwn: false, mayChange, loadRoles });
  await Promise.all([showUsers(), showGroups(), showRoles(), showKeys(), showCertificates()]);
}
