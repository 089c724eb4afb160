// SPDX-License-Identifier: Apache-2.0
// The dialog in which somebody proves again who they are, before something that weighs much.
import { make } from "/pages/elements.js";
import { attempt, cancelButton, labelled, onSend, openDialog } from "/pages/forms.js";
import { getPasskey } from "/pages/passkeys.js";
import { askOnce, learnWho } from "/pages/server.js";

let open = null;

/** Returns whether it was proved. Two acts at once share one dialog. */
export function proveAgain() {
  open ??= show().finally(() => {
    open = null;
  });
  return open;
}

async function show() {
  const session = await learnWho();
  let opened = null;
  const proved = async (proof) => {
    await askOnce("POST", "step-up", proof);
    await learnWho();
    opened.done(true);
  };
  const ways = [];
  if (session.has.passkeys) ways.push(byPasskey(proved));
  if (session.has.password) ways.push(byPassword(session, proved));
  if (session.openid && (session.factors.includes("oidc") || !session.has.password)) ways.push([make("p", {}, make("a", { className: "button", href: "/v1/access/sign-in/openid" }, "Sign in anew with your organisation"))]);
  const parts = ways.flatMap((way, index) => (index ? [make("p", { className: "or" }, "or"), ...way] : way));
  // Only the form brings a button that leaves.
  if (!session.has.password) parts.push(make("div", { className: "buttons end" }, cancelButton()));
  const text = make("p", { className: "soft" }, "This weighs much, and a while has passed since you signed in.");
  opened = openDialog("Prove again who you are", text, ...parts);
  return opened.closed;
}

function byPasskey(proved) {
  const use = make("button", { type: "button", className: "first" }, "Use your passkey");
  const wrong = make("p", { className: "wrong", role: "alert" });
  use.addEventListener("click", () =>
    attempt(wrong, async () => proved(await getPasskey(await askOnce("POST", "sign-in/passkey/options", {})))),
  );
  return [use, wrong];
}

function byPassword({ name, has }, proved) {
  const form = make("form", { className: "stacked" });
  const known = make("input", { name: "username", type: "text", value: name, autocomplete: "username", hidden: true, "aria-label": "name" });
  const password = make("input", { name: "password", type: "password", autocomplete: "current-password", required: true });
  form.append(known, labelled("password", password));
  if (has.totp || has.recovery_left) {
    const code = make("input", { name: "code", autocomplete: "one-time-code", spellcheck: false, required: true });
    form.append(labelled(has.totp ? "code that your app shows, or a recovery code" : "recovery code", code));
  }
  form.append(make("div", { className: "buttons end" }, cancelButton(), make("button", { className: "first" }, "Go on")));
  onSend(form, ({ password, code }) => proved(code === undefined ? { password } : { password, code }));
  return [form];
}
