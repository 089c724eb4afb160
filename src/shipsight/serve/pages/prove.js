// SPDX-License-Identifier: Apache-2.0
// The dialog in which somebody proves again who they are, before something that weighs much.
import { make } from "/pages/elements.js";
import { attempt, cancelButton, labelled, onSend, openDialog } from "/pages/forms.js";
import { getPasskey } from "/pages/passkeys.js";
import { askOnce, learnWho, who } from "/pages/server.js";

let open = null;

/** Returns whether it was proved. Two acts at once share one dialog. */
export function proveAgain() {
  open ??= show().finally(() => {
    open = null;
  });
  return open;
}

async function show() {
  const { has } = await learnWho();
  const text = make("p", { className: "soft" }, "This weighs much, and a while has passed since you signed in.");
  const parts = [text];
  let opened = null;
  const proved = async (proof) => {
    await askOnce("POST", "step-up", proof);
    await learnWho();
    opened.done(true);
  };
  if (has.passkeys) {
    const use = make("button", { type: "button", className: "first" }, "Use your passkey");
    const wrong = make("p", { className: "wrong", role: "alert" });
    use.addEventListener("click", () =>
      attempt(wrong, async () => proved(await getPasskey(await askOnce("POST", "sign-in/passkey/options", {})))),
    );
    parts.push(use, wrong, make("p", { className: "or" }, "or"));
  }
  const form = make("form", { className: "stacked" });
  const name = make("input", { name: "username", type: "text", value: who().name, autocomplete: "username", hidden: true, "aria-label": "name" });
  const password = make("input", { name: "password", type: "password", autocomplete: "current-password", required: true });
  form.append(name, labelled("password", password));
  if (has.totp || has.recovery_left) {
    const code = make("input", { name: "code", autocomplete: "one-time-code", spellcheck: false, required: true });
    form.append(labelled(has.totp ? "code that your app shows, or a recovery code" : "recovery code", code));
  }
  const buttons = make("div", { className: "buttons end" }, cancelButton(), make("button", { className: "first" }, "Go on"));
  form.append(buttons);
  onSend(form, ({ password, code }) => proved(code === undefined ? { password } : { password, code }));
  if (who().openid) parts.push(form, make("p", {}, make("a", { href: "/v1/access/sign-in/openid" }, "Sign in anew with your organisation")));
  else parts.push(form);
  opened = openDialog("Prove again who you are", ...parts);
  return opened.closed;
}
