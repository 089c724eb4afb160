// SPDX-License-Identifier: Apache-2.0
// One's own account: second factors, password, sessions, keys.
import { act, at, cell, fill, focusHeading, make, onClick, when } from "/pages/elements.js";
import { attempt, attemptIn, confirmed, onSend } from "/pages/forms.js";
import { keysSection } from "/pages/keys.js";
import { ask, learnWho, start, who } from "/pages/server.js";
import { browser, NAMES } from "/pages/sessions.js";

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

const showFactors = () => attemptIn(at("second-factors"), loadFactors);

async function loadFactors() {
  const { totp, passkeys, recovery_left } = await ask("GET", "factors");
  const rows = passkeys.map((one) => ({ ...one, kind: "passkey" }));
  if (totp) rows.unshift({ kind: "app for codes", name: "", isApp: true });
  const nothing = who().has.password ? "You have none. Your password alone lets you in." : "You have none here.";
  fill(at("factors"), rows, { idOf: (one) => one.id || "app", draw: drawFactor, nothing });
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

function showSessions() {
  return attemptIn(at("signed-in"), async () => {
    const { sessions } = await ask("GET", "sessions");
    fill(at("sessions"), sessions, { idOf: (one) => one.id, draw: drawSession, nothing: "Nowhere." });
    at("end-others").hidden = sessions.length < 2;
  });
}

async function endOthers() {
  at("sessions-told").textContent = "";
  const done = await confirmed("End all other sessions?", "Every browser but this one is signed out, and what it streams ends.", "End them", async () => {
    const { ended } = await ask("POST", "sessions/end-others", {});
    at("sessions-told").textContent = ended === 1 ? "One session was ended." : `${ended} sessions were ended.`;
  });
  if (!done) return;
  await showSessions();
  if (at("end-others").hidden) focusHeading(at("signed-in"));
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
onClick(at("end-others"), endOthers);

/** What a key of one's own can be given. */
async function rolesForKeys() {
  const { roles } = await ask("GET", "roles");
  const mine = new Set(who().rights.map((one) => one.role));
  return roles.map((one) => one.name).filter((name) => mine.has(name) || name === "predictor" || name === "viewer");
}

const session = await start("person");
if (session) {
  at("title").textContent = session.display_name;
  at("username").value = session.name;
  about(session);
  at("password").hidden = !session.has.password;
  const showKeys = keysSection(at("keys"), { isOwn: true, mayChange: false, loadRoles: rolesForKeys });
  await Promise.all([showFactors(), showSessions(), showKeys()]);
}
