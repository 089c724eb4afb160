// SPDX-License-Identifier: Apache-2.0
// One's own account: second factors, password, sessions, keys.
import { act, at, cell, fill, make, onClick, when } from "/pages/elements.js";
import { attempt, confirmed, onSend } from "/pages/forms.js";
import { keysSection } from "/pages/keys.js";
import { ask, learnWho, start } from "/pages/server.js";

const NAMES = { password: "password", totp: "app", passkey: "passkey", recovery: "recovery code", oidc: "organisation" };

function about(session) {
  const roles = session.rights.map((one) => (one.models.join() === "*" ? one.role : `${one.role} on ${one.models.join(", ")}`));
  const facts = [
    ["name", session.name],
    ["roles", roles.join("; ") || "none yet: an administrator gives them"],
    ["signed in by", session.factors.map((one) => NAMES[one] || one).join(" and ")],
    ["until", when(session.expires_at)],
  ];
  at("about").replaceChildren(...facts.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]));
}

async function showFactors() {
  const { totp, passkeys, recovery_left } = await ask("GET", "factors");
  const rows = passkeys.map((one) => ({ ...one, kind: "passkey" }));
  if (totp) rows.unshift({ kind: "app for codes", name: "", isApp: true });
  fill(at("factors"), rows, drawFactor, "You have none. Your password alone lets you in.");
  at("recovery-told").textContent = recovery_left
    ? `You have ${recovery_left} recovery ${recovery_left === 1 ? "code" : "codes"} left.`
    : "You have no recovery codes: without your second factor nobody but an administrator lets you in again.";
  at("recovery").hidden = !rows.length;
}

function drawFactor(row, one) {
  cell(row, one.kind);
  cell(row, one.name);
  cell(row, one.isApp ? "" : when(one.created_at));
  cell(row, one.isApp ? "" : when(one.used_at));
  const what = one.isApp ? "the app" : `passkey ${one.name}`;
  const path = one.isApp ? "factors/totp" : `factors/passkeys/${encodeURIComponent(one.id)}`;
  const remove = async () => {
    await confirmed("Remove this second factor?", `You cannot sign in with ${what} any more.`, "Remove it", () => ask("DELETE", path));
    await showFactors();
  };
  cell(row, act("Remove", what, remove, "small danger"), "acts");
}

function browser(agent) {
  const text = agent || "";
  const name = [["Edg/", "Edge"], ["OPR/", "Opera"], ["Firefox/", "Firefox"], ["Chrome/", "Chrome"], ["Safari/", "Safari"]].find(([mark]) => text.includes(mark));
  const system = ["Android", "iPhone", "iPad", "Windows", "Mac OS", "Linux"].find((one) => text.includes(one));
  return [name?.[1] || text.slice(0, 40) || "unknown", system].filter(Boolean).join(", ");
}

async function showSessions() {
  const { sessions } = await ask("GET", "sessions");
  fill(at("sessions"), sessions, drawSession, "Nowhere.");
}

function drawSession(row, one) {
  cell(row, browser(one.agent));
  cell(row, one.address || "");
  cell(row, one.factors.map((factor) => NAMES[factor] || factor).join(", "));
  cell(row, when(one.created_at));
  cell(row, when(one.seen_at));
  const end = async () => {
    await attempt(at("sessions-wrong"), () => ask("DELETE", `sessions/${encodeURIComponent(one.id)}`));
    await showSessions();
  };
  cell(row, one.is_this ? make("span", { className: "soft" }, "this one") : act("End", `the session in ${browser(one.agent)}`, end, "small danger"), "acts");
}

onSend(
  at("password-form"),
  async (told) => {
    at("password-told").textContent = "";
    await ask("POST", "password", { current: told.current, new: told.new });
    at("password-form").reset();
    await learnWho();
    at("password-told").textContent = "Changed. You were signed out everywhere else.";
    await showSessions();
  },
  { password: "new" },
);
onClick(at("recovery"), () => location.assign("/second-factor?codes"));

const session = await start("person");
if (session) {
  at("title").textContent = session.display_name;
  at("username").value = session.name;
  about(session);
  const { roles } = await ask("GET", "roles");
  const mine = new Set(session.rights.map((one) => one.role));
  const names = roles.map((one) => one.name).filter((name) => mine.has(name) || name === "predictor" || name === "viewer");
  const showKeys = keysSection(at("keys"), { isOwn: true, mayChange: false, roles: () => names });
  await Promise.all([showFactors(), showSessions(), showKeys()]);
}
