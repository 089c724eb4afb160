// SPDX-License-Identifier: Apache-2.0
// A second factor is added; whoever adds their first one gets recovery codes, once.
import { at, copy, make } from "/pages/elements.js";
import { onSend } from "/pages/forms.js";
import { makePasskey } from "/pages/passkeys.js";
import { ask, learnWho, start } from "/pages/server.js";

function show(name) {
  for (const one of ["choose", "totp", "codes"]) at(one).hidden = one !== name;
  const title = at(`${name}-title`);
  title.tabIndex = -1;
  title.focus();
}

async function added() {
  const { has } = await learnWho();
  if (has.recovery_left) {
    location.assign("/account");
    return;
  }
  const text = "Your second factor is added. Without recovery codes, whoever loses it is let in again by an administrator alone.";
  const offer = offerCodes("Recovery codes are still missing", text, "Make recovery codes");
  at("choose").append(make("p", {}, make("br"), make("a", { href: "/account" }, "Go on without them")));
  show("choose");
  offer.requestSubmit();
}

/** Offers new codes; the offer stays where they could not be made, or where the proof that they want was not given. */
function offerCodes(title, text, verb) {
  const offer = make("form", { className: "stacked" }, make("div", { className: "buttons" }, make("button", { className: "first" }, verb)));
  onSend(offer, async () => showCodes((await ask("POST", "factors/recovery-codes", {})).codes));
  at("choose").replaceChildren(make("h1", { id: "choose-title" }, title), make("p", { className: "soft" }, text), offer);
  return offer;
}

function showCodes(codes) {
  at("codes-list").replaceChildren(...codes.map((one) => make("li", {}, one)));
  at("copy").onclick = () => copy(codes.join("\n"), at("copied"));
  at("print").onclick = () => window.print();
  show("codes");
}

onSend(at("passkey-form"), async ({ name }) => {
  const made = await makePasskey(await ask("POST", "factors/passkeys/options", {}));
  await ask("POST", "factors/passkeys", { ...made, name });
  await added();
});

onSend(at("totp-begin"), async () => {
  const { secret, svg } = await ask("POST", "factors/totp", {});
  const image = at("qr");
  image.src = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
  image.onload = () => URL.revokeObjectURL(image.src);
  at("secret").textContent = secret.replace(/(.{4})(?=.)/g, "$1 ");
  show("totp");
  at("totp-form").elements.code.focus();
});

onSend(at("totp-form"), async ({ code }) => {
  await ask("POST", "factors/totp/confirm", { code });
  await added();
});
at("totp-back").addEventListener("click", () => show("choose"));

const session = await start("person");
if (session) {
  if (!session.must_enrol) at("why").textContent = "Choose what else proves that it is you. With two you can lose one.";
  if (session.has.totp) at("totp-note").hidden = false;
  if (new URLSearchParams(location.search).has("codes")) {
    offerCodes("New recovery codes", "Those that you have now end when new ones are made.", "Make new recovery codes");
  }
}
