// SPDX-License-Identifier: Apache-2.0
// Requests that only the server reads: HPKE (RFC 9180; base mode, X25519, HKDF-SHA256, AES-256-GCM) with what browsers have.
// The form is described in docs/protocols/sealed.md; src/shipsight/protect/sealing.py is its other half.

export const MEDIA_TYPE = "application/vnd.shipsight.sealed";
const SUITE = "DHKEM(X25519,HKDF-SHA256),HKDF-SHA256,AES-256-GCM";
const PIN_NAME = "shipsight-sealing";
const WINDOW_MS = 300_000;
const AHEAD_MS = 60_000;
const PADDING_BYTES = 4096;
const HEADER_BYTES = 8192;
const HASH_BYTES = 32;

const encoder = new TextEncoder();
const KEM_ID = join("KEM", new Uint8Array([0, 0x20]));
const HPKE_ID = join("HPKE", new Uint8Array([0, 0x20, 0, 1, 0, 2]));

export class SealError extends Error {}

/** Whether this browser has what sealing needs. */
export async function canSeal() {
  try {
    await crypto.subtle.generateKey({ name: "X25519" }, false, ["deriveBits"]);
    await crypto.subtle.generateKey({ name: "Ed25519" }, false, ["sign", "verify"]);
    return true;
  } catch (error) {
    return false;
  }
}

/** Returns the first living key of a list, once it is known that the pinned identity signed it, lately. */
export async function openKeyList(told, pin, now = Date.now()) {
  const identity = await readPin(pin);
  const keys = Array.isArray(told?.keys) ? told.keys : [];
  const lines = ["shipsight sealing keys v1", String(told?.now)];
  lines.push(...keys.map((one) => `${one?.id} ${one?.public_key} ${one?.not_after} ${one?.suite}`));
  const signature = bytesOr(String(told?.signature), new Uint8Array());
  if (!(await crypto.subtle.verify("Ed25519", identity, signature, encoder.encode(`${lines.join("\n")}\n`)))) {
    throw new SealError(
      "The keys that came are not signed by this sealing identity. Somebody on the way may have put in their own, or the server has a new one: ask who runs it.",
    );
  }
  // As a server looks at a request: what a clock further ahead seals would be refused there.
  if (!(-WINDOW_MS <= now - told.now && now - told.now <= AHEAD_MS)) {
    throw new SealError("The list of sealing keys is of another time: set the clock of this machine, or of the server.");
  }
  for (const one of keys) {
    const raw = fromBase64(one.public_key);
    const id = (await hash(raw)).slice(0, 8);
    if (one.not_after > now && one.suite === SUITE && hex(id) === one.id) return { raw, id };
  }
  throw new SealError("No sealing key of this server lives: set the clock of this machine.");
}

/** Returns the body to send, and what opens its answer. `request`: body (bytes), contentType, accept, query. */
export async function sealRequest(request, key, { protocol = "native", model, version = "" }) {
  const pair = await crypto.subtle.generateKey({ name: "X25519" }, true, ["deriveBits"]);
  const id = hex(crypto.getRandomValues(new Uint8Array(16)));
  const header = {
    id,
    at: Date.now(),
    reply_key: toBase64(await rawOf(pair.publicKey)),
    content_type: request.contentType,
    query: request.query || "",
    headers: {},
  };
  if (request.accept) header.accept = request.accept;
  const names = [protocol, model, version, hex(key.id)];
  if (names.some((one) => one.includes("\n"))) throw new SealError("A name holds a line break.");
  const info = encoder.encode(`shipsight sealed request v1\n${names.join("\n")}`);
  const sealed = await seal(framed(header, request.body), key.raw, info);
  return { body: join("SSL1", key.id, sealed), reply: { id, pair } };
}

/** Returns the answer to a sealed request: `status`, `contentType`, `headers`, `body` (bytes). */
export async function openAnswer(sealed, reply) {
  try {
    if (new TextDecoder().decode(sealed.slice(0, 4)) !== "SSR1") throw new SealError("no sealed answer");
    const info = encoder.encode(`shipsight sealed answer v1\n${reply.id}`);
    const plain = await open(sealed.slice(4), reply.pair, info);
    const size = new DataView(plain.buffer).getUint32(0);
    if (size > HEADER_BYTES || size > plain.length - 4) throw new SealError("not a header");
    const header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(plain.slice(4, 4 + size)));
    return { status: header.status, contentType: header.content_type, headers: header.headers, body: plain.slice(4 + size) };
  } catch (error) {
    throw new SealError("What came is not the sealed answer to what was asked: something on the way changes answers.");
  }
}

/** Asks for predictions on an image, sealed both ways. Returns status and JSON of the answer. */
export async function askSealed(file, { model, query, pin, headers }) {
  const listed = await fetch("/v1/sealing-keys", { cache: "no-store" });
  if (!listed.ok) return { status: listed.status, told: await listed.json() };
  const key = await openKeyList(await listed.json(), pin);
  const request = { body: new Uint8Array(await file.arrayBuffer()), contentType: file.type, accept: "application/json", query };
  const { body, reply } = await sealRequest(request, key, { model });
  const answer = await fetch(`/v1/models/${encodeURIComponent(model)}/predict`, {
    method: "POST",
    headers: { ...headers, "content-type": MEDIA_TYPE },
    body,
  });
  const kind = (answer.headers.get("content-type") || "").split(";")[0];
  // Outside stand only errors of before the request was opened.
  if (!answer.ok && kind === "application/json") return { status: answer.status, told: await answer.json() };
  if (kind !== MEDIA_TYPE) throw new SealError("The answer to a sealed request came unsealed: it is not believed.");
  const opened = await openAnswer(new Uint8Array(await answer.arrayBuffer()), reply);
  return { status: opened.status, told: JSON.parse(new TextDecoder().decode(opened.body)) };
}

/** Reads a pin: name, checksum and key, joined by `+`, which may stand in the last of them, too. */
async function readPin(text) {
  const [, name, checksum, encoded] = /^([^+]*)\+([^+]*)\+(.*)$/.exec(text.trim()) || [];
  const bytes = encoded === undefined ? new Uint8Array() : bytesOr(encoded, new Uint8Array());
  const expected = hex((await hash(join(`${PIN_NAME}\n`, bytes))).slice(0, 4));
  if (name !== PIN_NAME || bytes.length !== 33 || bytes[0] !== 1 || checksum !== expected) {
    throw new SealError("This is no sealing identity. Copy the line that the server prints as “sealing” at its start.");
  }
  return crypto.subtle.importKey("raw", bytes.slice(1), { name: "Ed25519" }, false, ["verify"]);
}

// ---- HPKE

async function seal(plain, publicRaw, info) {
  const pair = await crypto.subtle.generateKey({ name: "X25519" }, true, ["deriveBits"]);
  const enc = await rawOf(pair.publicKey);
  const secret = await sharedSecret(pair.privateKey, publicRaw, join(enc, publicRaw));
  const { key, iv } = await schedule(secret, info, "encrypt");
  return join(enc, new Uint8Array(await crypto.subtle.encrypt({ name: "AES-GCM", iv }, key, plain)));
}

async function open(sealed, pair, info) {
  const enc = sealed.slice(0, 32);
  const secret = await sharedSecret(pair.privateKey, enc, join(enc, await rawOf(pair.publicKey)));
  const { key, iv } = await schedule(secret, info, "decrypt");
  return new Uint8Array(await crypto.subtle.decrypt({ name: "AES-GCM", iv }, key, sealed.slice(32)));
}

/** Section 4.1, ExtractAndExpand; a point of small order is refused by the browser. */
async function sharedSecret(privateKey, publicRaw, context) {
  const other = await crypto.subtle.importKey("raw", publicRaw, { name: "X25519" }, false, []);
  const dh = new Uint8Array(await crypto.subtle.deriveBits({ name: "X25519", public: other }, privateKey, 256));
  const prk = await extract(KEM_ID, new Uint8Array(), "eae_prk", dh);
  return expand(KEM_ID, prk, "shared_secret", context, HASH_BYTES);
}

/** Section 5.1, base mode; the first and only message has the base nonce. */
async function schedule(secret, info, use) {
  const none = new Uint8Array();
  const names = [await extract(HPKE_ID, none, "psk_id_hash", none), await extract(HPKE_ID, none, "info_hash", info)];
  const context = join(new Uint8Array([0]), ...names);
  const prk = await extract(HPKE_ID, secret, "secret", none);
  const raw = await expand(HPKE_ID, prk, "key", context, 32);
  const key = await crypto.subtle.importKey("raw", raw, { name: "AES-GCM" }, false, [use]);
  return { key, iv: await expand(HPKE_ID, prk, "base_nonce", context, 12) };
}

const extract = (suite, salt, label, ikm) => hmac(salt, join("HPKE-v1", suite, label, ikm));

/** HKDF-Expand of at most one block. */
async function expand(suite, prk, label, info, size) {
  const labelled = join(new Uint8Array([0, size]), "HPKE-v1", suite, label, info);
  return (await hmac(prk, join(labelled, new Uint8Array([1])))).slice(0, size);
}

async function hmac(raw, data) {
  // HMAC fills its key up with zeros, and browsers take none that is empty.
  const bytes = raw.length ? raw : new Uint8Array(HASH_BYTES);
  const key = await crypto.subtle.importKey("raw", bytes, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", key, data));
}

// ---- bytes

function framed(header, body) {
  const bytes = (padding) => encoder.encode(JSON.stringify({ ...header, padding }));
  const bare = bytes("").length;
  const more = (PADDING_BYTES - ((4 + bare + body.length) % PADDING_BYTES)) % PADDING_BYTES;
  const head = bytes(" ".repeat(bare + more <= HEADER_BYTES ? more : 0));
  if (head.length > HEADER_BYTES) throw new SealError("Too much is asked for at once.");
  const size = new Uint8Array(4);
  new DataView(size.buffer).setUint32(0, head.length);
  return join(size, head, body);
}

const rawOf = async (key) => new Uint8Array(await crypto.subtle.exportKey("raw", key));
const hash = async (bytes) => new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
const hex = (bytes) => [...bytes].map((one) => one.toString(16).padStart(2, "0")).join("");
const toBase64 = (bytes) => btoa(String.fromCharCode(...bytes));
const fromBase64 = (text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0));

function bytesOr(text, otherwise) {
  try {
    return fromBase64(text);
  } catch (error) {
    return otherwise;
  }
}

function join(...parts) {
  const all = parts.map((one) => (typeof one === "string" ? encoder.encode(one) : one));
  const joined = new Uint8Array(all.reduce((sum, one) => sum + one.length, 0));
  let at = 0;
  for (const one of all) {
    joined.set(one, at);
    at += one.length;
  }
  return joined;
}
