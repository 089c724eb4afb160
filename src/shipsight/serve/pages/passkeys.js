// SPDX-License-Identifier: Apache-2.0
// Passkeys: what the server tells in JSON becomes what browsers take, and back. Source: WebAuthn Level 3, 5.1.8 to 5.1.10.

function toBytes(text) {
  const plain = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
  return Uint8Array.from(plain, (letter) => letter.charCodeAt(0));
}

function toText(bytes) {
  const plain = String.fromCharCode(...new Uint8Array(bytes));
  return btoa(plain).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

const known = (list) => (list || []).map((one) => ({ ...one, id: toBytes(one.id) }));

function told(credential, response) {
  return {
    id: credential.id,
    rawId: toText(credential.rawId),
    type: credential.type,
    authenticatorAttachment: credential.authenticatorAttachment,
    clientExtensionResults: credential.getClientExtensionResults(),
    response: { clientDataJSON: toText(credential.response.clientDataJSON), ...response },
  };
}

function check() {
  if (!window.PublicKeyCredential) throw new Error("it knows no passkeys, or this page came over plain HTTP");
}

/** Makes a passkey. */
export async function makePasskey({ options, challenge }) {
  check();
  const publicKey = {
    ...options,
    challenge: toBytes(options.challenge),
    user: { ...options.user, id: toBytes(options.user.id) },
    excludeCredentials: known(options.excludeCredentials),
  };
  const made = await navigator.credentials.create({ publicKey });
  const response = {
    attestationObject: toText(made.response.attestationObject),
    transports: made.response.getTransports?.() ?? [],
  };
  return { challenge, credential: told(made, response) };
}

/** Asks for one. */
export async function getPasskey({ options, challenge }) {
  check();
  const publicKey = { ...options, challenge: toBytes(options.challenge), allowCredentials: known(options.allowCredentials) };
  const got = await navigator.credentials.get({ publicKey });
  const { authenticatorData, signature, userHandle } = got.response;
  const response = {
    authenticatorData: toText(authenticatorData),
    signature: toText(signature),
    userHandle: userHandle ? toText(userHandle) : null,
  };
  return { challenge, credential: told(got, response) };
}
