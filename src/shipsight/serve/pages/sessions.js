// SPDX-License-Identifier: Apache-2.0
// Sessions in words: which browser, and what it was proved by.

export const NAMES = { password: "password", totp: "app", passkey: "passkey", recovery: "recovery code", oidc: "organisation", mfa: "its second factor" };

export function browser(agent) {
  const text = agent || "";
  const name = [["Edg/", "Edge"], ["OPR/", "Opera"], ["Firefox/", "Firefox"], ["Chrome/", "Chrome"], ["Safari/", "Safari"]].find(([mark]) => text.includes(mark));
  const system = ["Android", "iPhone", "iPad", "Windows", "Mac OS", "Linux"].find((one) => text.includes(one));
  return [name?.[1] || text.slice(0, 40) || "unknown", system].filter(Boolean).join(", ");
}
