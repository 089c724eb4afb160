// SPDX-License-Identifier: Apache-2.0
// Words of the audit log, and texts from strangers shown so that nothing in them is invisible or turns the text around.
import { make } from "/pages/elements.js";

/** Kinds of entries, in groups. */
export const KINDS = {
  "signing in": ["sign-in", "sign-out", "step-up", "session-ended", "factor-added", "factor-removed", "password-changed", "recovery-codes-made", "invited"],
  "people and rights": ["user-added", "user-changed", "user-removed", "grants-changed", "role-changed"],
  "keys and certificates": ["key-added", "key-rotated", "key-revoked", "key-used", "key-refused", "key-released", "certificate-added", "certificate-removed", "certificate-used", "certificate-refused"],
  "what was asked": ["allowed", "refused", "limited", "extraction-suspected", "predicted"],
  "models and data": ["model-loaded", "model-unloaded", "rollout-changed", "bundle-read", "data-read", "exported", "recordings-erased", "recordings-changed"],
  server: ["started", "stopped", "configuration-changed", "sealing-key-made", "backed-up", "restored"],
  "audit log": ["audit-started", "audit-read", "audit-lost", "audit-recovered", "audit-key-added", "audit-key-retired", "audit-archived", "audit-erased", "review-made", "review-signed"],
};

// Control characters, separators, what is invisible or turns text around, and halves of characters.
const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/u;

/** Returns a text as nodes: what cannot be seen in it stands there as its number. */
export function shown(text) {
  const nodes = [];
  let plain = "";
  for (const one of text) {
    if (!HIDDEN.test(one)) {
      plain += one;
      continue;
    }
    if (plain) nodes.push(plain);
    plain = "";
    nodes.push(make("code", { className: "hidden-character" }, `U+${one.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`));
  }
  if (plain) nodes.push(plain);
  return nodes;
}
