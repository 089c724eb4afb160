// SPDX-License-Identifier: Apache-2.0
import { at, cell } from "/pages/elements.js";
import { askSealed, canSeal, SealError } from "/pages/seal.js";
import { proofOfPage, start, toSignIn, who } from "/pages/server.js";

const EVERY_MS = 2000;
const PAUSE_AFTER_MS = 5 * 60_000;

// What is remembered of sealing, for this server's address alone.
const PIN = "shipsight-sealing-identity";
const SEALS = "shipsight-seals";

const COLOURS = ["#ff6348", "#1e90ff", "#2ed573", "#ffb800", "#a55eea", "#00d2d3", "#ff6bb5", "#7ba700"];

async function refresh() {
  try {
    const [models, ready] = await Promise.all([fetch("/v1/models"), fetch("/readyz")]);
    if (models.status === 401 && who()?.kind === "person") return toSignIn();
    const told = models.ok ? (await models.json()).models : [];
    const load = (await ready.json()).load || {};
    at("state").textContent = ready.ok ? "ready" : "not ready";
    at("state").className = ready.ok ? "good" : "bad";
    const body = at("models");
    body.replaceChildren();
    for (const one of told) {
      const row = body.insertRow();
      cell(row, one.name);
      cell(row, one.version);
      cell(row, one.role || "");
      cell(row, one.error ? `${one.state}: ${one.error.what}` : one.state, one.state === "failed" ? "failed" : "");
      cell(row, one.task);
      cell(row, one.default_variant);
      cell(row, String(load[`${one.name}/${one.version}`]?.waiting ?? 0), "n");
    }
    if (!told.length) cell(body.insertRow(), "No model that you may see is in service.", "soft").colSpan = 7;
    const choice = at("model");
    const names = [...new Set(told.map((one) => one.name))];
    if (names.join("\n") !== [...choice.options].map((one) => one.value).join("\n")) {
      choice.replaceChildren(...names.map((name) => new Option(name, name)));
    }
  } catch (error) {
    at("state").textContent = "no answer";
    at("state").className = "bad";
  }
}

function outline(pen, one) {
  if (one.corners_xy) {
    pen.beginPath();
    one.corners_xy.forEach(([x, y], index) => (index ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    pen.closePath();
    pen.stroke();
    return one.corners_xy[0];
  }
  const [x0, y0, x1, y1] = one.box_xyxy;
  pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
  return [x0, y0];
}

function draw(bitmap, predictions) {
  const canvas = at("picture");
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  canvas.hidden = false;
  const pen = canvas.getContext("2d");
  pen.drawImage(bitmap, 0, 0);
  const size = Math.max(12, Math.round(Math.hypot(bitmap.width, bitmap.height) / 60));
  pen.lineWidth = Math.max(2, size / 6);
  pen.font = `${size}px system-ui, sans-serif`;
  pen.textBaseline = "top";
  for (const one of predictions) {
    pen.strokeStyle = pen.fillStyle = COLOURS[one.class_id % COLOURS.length];
    const [x, y] = outline(pen, one);
    for (const [px, py, confidence] of one.keypoints_xyc || []) {
      if (confidence > 0.5) pen.fillRect(px - 2, py - 2, 5, 5);
    }
    const text = `${one.class_name} ${one.score.toFixed(2)}`;
    const top = Math.max(y - size - 4, 0);
    pen.fillRect(x, top, pen.measureText(text).width + 8, size + 4);
    pen.fillStyle = "#000";
    pen.fillText(text, x + 4, top + 2);
  }
}

function list(image) {
  const table = at("found");
  const body = table.tBodies[0];
  body.replaceChildren();
  const probabilities = (image.probabilities || []).map((score, index) => ({ class_name: String(index), score }));
  const rows = image.predictions || probabilities.sort((a, b) => b.score - a.score).slice(0, 5);
  for (const one of rows) {
    const row = body.insertRow();
    cell(row, one.class_name);
    cell(row, one.score.toFixed(3), "n");
    cell(row, (one.corners_xy ? one.corners_xy.flat() : one.box_xyxy || []).map((value) => value.toFixed(0)).join(", "));
  }
  table.hidden = !rows.length;
}

async function askPlain(file, { model, query, headers }) {
  const where = `/v1/models/${encodeURIComponent(model)}/predict?${query}`;
  const answer = await fetch(where, { method: "POST", body: file, headers });
  return { status: answer.status, told: await answer.json() };
}

async function ask(file) {
  const told = at("told");
  told.className = "";
  told.textContent = "asking…";
  const begin = performance.now();
  const question = { model: at("model").value, query: `conf=${encodeURIComponent(at("conf").value)}`, headers: proofOfPage() };
  const isSealed = at("seal").checked;
  const { status, told: body } = isSealed
    ? await askSealed(file, { ...question, pin: at("pin").value })
    : await askPlain(file, question);
  if (status !== 200) {
    fail([body.error.what, body.error.expected && `expected ${body.error.expected}`].filter(Boolean).join("; "));
    return;
  }
  if (isSealed) remember();
  const image = body.images[0];
  const count = image.predictions ? `${image.predictions.length} found` : "classified";
  const ways = isSealed ? ", sealed both ways" : "";
  told.textContent = `${count} by ${body.variant} in ${(performance.now() - begin).toFixed(0)} ms${ways}`;
  draw(await createImageBitmap(file), image.predictions || []);
  list(image);
}

function fail(text) {
  at("told").className = "failed";
  at("told").textContent = text;
  at("picture").hidden = at("found").hidden = true;
}

async function choose(files) {
  if (!files.length) return;
  try {
    await ask(files[0]);
  } catch (error) {
    fail(error instanceof SealError ? error.message : "the server gave no answer");
  }
}

// ---- sealing

function remember() {
  localStorage.setItem(PIN, at("pin").value.trim());
  at("sealing-told").textContent = "Remembered in this browser: keys that another identity signed are refused.";
}

/** Shows what images are sealed to: the identity remembered, or the one that the server shows, for somebody to compare. */
async function showSealing() {
  const seals = at("seal").checked;
  at("sealing").hidden = !seals;
  localStorage.setItem(SEALS, seals ? "yes" : "no");
  if (!seals || at("pin").value) return;
  if (!(await canSeal())) {
    at("seal").checked = false;
    at("seal").disabled = true;
    at("pin").parentElement.hidden = true;
    at("sealing-told").className = "failed";
    at("sealing-told").textContent =
      "This browser cannot seal: it lacks X25519 or Ed25519. Use a current one, or the client in Python.";
    return;
  }
  const known = localStorage.getItem(PIN);
  if (known) {
    at("pin").value = known;
    remember();
    return;
  }
  const shown = await fetch("/v1/sealing-keys", { cache: "no-store" }).then((one) => (one.ok ? one.json() : {}), () => ({}));
  at("pin").value = shown.identity || "";
  at("sealing-told").textContent = shown.identity
    ? "Shown by the server just now. Compare it with the line “sealing” that it printed at its start, or paste that one; it is remembered with the first answer."
    : "Paste the line “sealing” that the server printed at its start.";
}

at("seal").addEventListener("change", showSealing);
at("pin").addEventListener("input", () => {
  at("sealing-told").textContent = "Typed in: it is remembered with the first answer.";
});

at("file").addEventListener("change", (event) => choose(event.target.files));
// Else choosing the same image again, sealed this time, would be no change.
at("file").addEventListener("click", (event) => {
  event.target.value = "";
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  at("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") choose(event.dataTransfer.files);
  });
}

let actedAt = Date.now();
let pauses = false;

/** Asks anew where somebody may look: each request of a signed-in person puts off the end of their session. */
async function look() {
  if (document.hidden) return;
  pauses = who().kind === "person" && Date.now() - actedAt > PAUSE_AFTER_MS;
  if (!pauses) return refresh();
  at("state").textContent = "paused, nobody is here";
  at("state").className = "";
}

function acted() {
  actedAt = Date.now();
  if (pauses) look();
}

if (await start("known")) {
  for (const kind of ["pointerdown", "pointermove", "keydown", "scroll"]) addEventListener(kind, acted, { passive: true });
  document.addEventListener("visibilitychange", look);
  at("seal").checked = localStorage.getItem(SEALS) === "yes";
  showSealing();
  look();
  setInterval(look, EVERY_MS);
}
