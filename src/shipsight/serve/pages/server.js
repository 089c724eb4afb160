// SPDX-License-Identifier: Apache-2.0
// Asks the server, about access and by a whole path about anything else: errors as it tells them, a fresh proof where it wants one, sign-in where the session ended.
import { at, make } from "/pages/elements.js";
import { proveAgain } from "/pages/prove.js";

let session = null;

export class ServerError extends Error {
  constructor(status, told) {
    super(told.what || "the server failed");
    Object.assign(this, { status, code: "", where: null, expected: null, got: null, hint: null }, told);
  }

  sentence() {
    const upper = this.message[0].toUpperCase() + this.message.slice(1);
    const after = Number(this.retryAfter) > 1 ? ` Try again in ${this.retryAfter} seconds.` : "";
    const parts = [upper, this.expected && `expected: ${this.expected}`].filter(Boolean).join("; ");
    return `${parts}.${this.hint ? ` ${this.hint}` : ""}${after}`;
  }
}

/** Thrown where somebody closes a dialog instead of answering it. */
export class Left extends Error {}

export function who() {
  return session;
}

/** Returns who asks, learnt anew: after each proof the page's token against forged requests is another. */
export async function learnWho() {
  session = await send("GET", "session");
  return session;
}

export function may(action) {
  return Boolean(session?.rights.some((one) => one.actions.includes(action)));
}

async function send(method, path, body) {
  if (!session && method !== "GET") await learnWho();
  const headers = {};
  if (body !== undefined) headers["content-type"] = "application/json";
  if (method !== "GET") Object.assign(headers, proofOfPage());
  let answer;
  try {
    answer = await fetch(path.startsWith("/") ? path : `/v1/access/${path}`, { method, headers, body: JSON.stringify(body), cache: "no-store" });
  } catch (error) {
    throw new ServerError(0, { what: "the server gave no answer" });
  }
  const told = await answer.json().catch(() => ({}));
  if (answer.ok) return told;
  throw new ServerError(answer.status, { ...told.error, retryAfter: answer.headers.get("retry-after") });
}

/** Headers that show that a page of this server asks, for what is asked elsewhere than here. */
export function proofOfPage() {
  return session?.csrf ? { "x-csrf-token": session.csrf } : {};
}

/** Asks; an answer that wants a fresh proof opens a dialog, and the act is repeated once it is given. */
export async function ask(method, path, body) {
  try {
    return await send(method, path, body);
  } catch (error) {
    if (error.code === "step-up") {
      if (!(await proveAgain())) throw new Left();
      return send(method, path, body);
    }
    // Another page of this browser may have signed in or proved itself since: then the token is another.
    if (error.where?.toLowerCase() === "x-csrf-token") {
      await learnWho();
      return send(method, path, body);
    }
    if (error.status === 401 && session?.kind === "person" && (await learnWho()).kind !== "person") toSignIn();
    throw error;
  }
}

/** Like `ask`, and never repeated: what is typed in is wrong, not the session. */
export { send as askOnce };

const PAGES = ["/", "/account", "/administration", "/audit", "/second-factor"];

export function toSignIn() {
  const here = PAGES.includes(location.pathname) && location.pathname !== "/" ? `?next=${location.pathname.slice(1)}` : "";
  location.replace(`/sign-in${here}`);
}

/** Where to go after a sign-in: one of our own pages, whatever the address says. */
export function next() {
  const wanted = `/${new URLSearchParams(location.search).get("next") || ""}`;
  return PAGES.includes(wanted) ? wanted : "/";
}

function showHeader() {
  const links = session.kind === "nobody" ? [] : [["/", "Models"]];
  if (session.kind === "person") links.push(["/account", "Account"]);
  if (may("access.read") && !session.must_enrol && session.kind !== "loopback") links.push(["/administration", "Administration"]);
  if (may("audit.read") && !session.must_enrol && session.kind === "person") links.push(["/audit", "Audit"]);
  at("pages").replaceChildren(
    ...links.map(([href, text]) => {
      const link = make("a", { href }, text);
      if (location.pathname === href) link.setAttribute("aria-current", "page");
      return link;
    }),
  );
  if (session.kind === "person") {
    const leave = make("button", { type: "button", className: "small", id: "sign-out" }, "Sign out");
    leave.addEventListener("click", signOut);
    at("who").replaceChildren(make("span", { id: "me" }, session.display_name || session.name), leave);
  } else if (session.kind === "nobody") {
    at("who").replaceChildren(location.pathname === "/sign-in" ? "" : make("a", { href: "/sign-in" }, "Sign in"));
  } else {
    at("who").replaceChildren(make("span", { id: "me", className: "soft" }, session.open ? "open to this machine" : session.name));
  }
  at("open").hidden = !session.open;
  if (session.open) {
    at("open").replaceChildren(
      make("strong", {}, "This server is open. "),
      "Whoever uses this machine may do everything here, since the server knows nobody yet. ",
      ...(session.setup ? ["With the setup code that it printed, ", make("a", { href: "/invitation" }, "make the first account"), "."] : []),
    );
  }
}

async function signOut(event) {
  event.target.disabled = true;
  try {
    await ask("POST", "sign-out");
  } catch (error) {
    if (error.status !== 401) {
      event.target.disabled = false;
      return;
    }
  }
  location.assign("/sign-in");
}

/**
 * Shows the header, and sends to sign in who is not known.
 * needs: "nobody", "known", "person".
 */
export async function start(needs) {
  try {
    await learnWho();
  } catch (error) {
    const again = make("button", { type: "button", className: "small" }, "Try again");
    again.addEventListener("click", () => location.reload());
    at("content").prepend(make("div", { className: "failure" }, make("p", { className: "wrong", role: "alert" }, error.sentence()), again));
    return null;
  }
  showHeader();
  if (needs !== "nobody" && session.kind === "nobody") {
    toSignIn();
    return null;
  }
  if (session.must_enrol && location.pathname !== "/second-factor" && needs !== "nobody") {
    location.replace("/second-factor");
    return null;
  }
  if (needs === "person" && session.kind !== "person") {
    at("content").replaceChildren(
      make("h1", {}, document.title.split(" · ")[0]),
      make("p", {}, session.open ? "There are no accounts here: this server is open." : "This page is for people who signed in."),
    );
    return null;
  }
  return session;
}
