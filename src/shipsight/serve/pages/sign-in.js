// SPDX-License-Identifier: Apache-2.0
// Sign-in: name and password, then a second factor; or a passkey alone.
import { at, onClick } from "/pages/elements.js";
import { attempt, onSend } from "/pages/forms.js";
import { getPasskey } from "/pages/passkeys.js";
import { askOnce, next, start } from "/pages/server.js";

const FAILED = {
  unauthenticated: "Your organisation did not say who you are, or not surely enough. Try again.",
  forbidden: "Your organisation knows you, but nobody gave you rights here.",
  environment: "Your organisation's sign-in does not answer. Try again in a minute.",
};

function after({ state, factors }) {
  if (state === "signed-in") location.assign(next());
  else if (state === "enrol") location.assign("/second-factor");
  else showSecond(factors);
}

function showSecond(factors) {
  at("first").hidden = true;
  at("second").hidden = false;
  at("passkey-part").hidden = !factors.includes("passkey");
  const hasCodes = factors.includes("totp");
  if (hasCodes || !factors.includes("passkey")) at("code-form").elements.code.focus();
  else at("passkey").focus();
  askForRecovery(!hasCodes);
  at("recovery").hidden = !hasCodes || !factors.includes("recovery");
  at("code-form").hidden = !hasCodes && !factors.includes("recovery");
}

function askForRecovery(isRecovery) {
  const code = at("code-form").elements.code;
  at("code-label").textContent = isRecovery ? "one of your recovery codes" : "code that your app shows";
  code.inputMode = isRecovery ? "text" : "numeric";
  code.autocomplete = isRecovery ? "off" : "one-time-code";
  at("recovery").textContent = isRecovery ? "Use the app instead" : "Use a recovery code instead";
  at("recovery").dataset.isRecovery = isRecovery ? "yes" : "";
}

async function usePasskey(wrong, alone) {
  await attempt(at(wrong), async () => {
    const proof = await getPasskey(await askOnce("POST", "sign-in/passkey/options", { alone }));
    after(await askOnce("POST", "sign-in/passkey", { ...proof, alone }));
  });
}

onSend(at("password-form"), async (told) => after(await askOnce("POST", "sign-in", told)));
onSend(at("code-form"), async (told) => after(await askOnce("POST", "sign-in/code", told)));
onClick(at("passkey-alone"), () => usePasskey("passkey-alone-wrong", true));
onClick(at("passkey"), () => usePasskey("passkey-wrong", false));
onClick(at("recovery"), () => {
  askForRecovery(!at("recovery").dataset.isRecovery);
  at("code-form").elements.code.focus();
});
onClick(at("again"), () => location.reload());

const session = await start("nobody");
if (session?.kind === "person") location.replace(session.must_enrol ? "/second-factor" : next());
at("openid").hidden = !session?.openid;
const asked = new URLSearchParams(location.search).get("factors");
if (asked) showSecond(asked.split(","));
const failed = new URLSearchParams(location.search).get("failed");
if (failed) {
  at("note").hidden = false;
  at("note").className = "wrong";
  at("note").textContent = FAILED[failed] || "That sign-in failed. Try again.";
}
