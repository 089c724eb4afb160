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
  const { codes } = await ask("POST", "factors/recovery-codes", {});
  showCodes(codes);
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
    const again = make("form", { className: "stacked" }, make("button", { className: "first" }, "Make new recovery codes"));
    onSend(again, async () => showCodes((await ask("POST", "factors/recovery-codes", {})).codes));
    at("choose").replaceChildren(
      make("h1", { id: "choose-title" }, "New recovery codes"),
      make("p", { className: "soft" }, "Those that you have now end when new ones are made."),
      again,
    );
  }
}
