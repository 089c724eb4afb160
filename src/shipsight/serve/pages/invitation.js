// SPDX-License-Identifier: Apache-2.0
// First sign-in: a code that was handed over sets a password.
import { at } from "/pages/elements.js";
import { onSend } from "/pages/forms.js";
import { askOnce, start } from "/pages/server.js";

const form = at("invitation-form");
onSend(form, async ({ code, password, name }) => {
  const told = { code: code.trim(), password };
  if (name) told.name = name;
  const { state } = await askOnce("POST", "sign-in/invitation", told);
  location.assign({ enrol: "/second-factor", "second-factor": "/sign-in" }[state] || "/");
});
at("show").addEventListener("change", (event) => {
  const kind = event.target.checked ? "text" : "password";
  form.elements.password.type = form.elements.again.type = kind;
});

const session = await start("nobody");
if (session?.setup) {
  at("title").textContent = "The first account";
  at("why").textContent = "The server printed a setup code when it was started. It works once, and makes the first administrator.";
  at("name-part").hidden = false;
  form.elements.name.disabled = false;
}
