// SPDX-License-Identifier: Apache-2.0
// Elements of a page: made, filled, asked for. Texts are always text, never markup.

export const at = (id) => document.getElementById(id);

export function make(tag, properties, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name.includes("-") || name === "role" || name === "for") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

export function cell(row, content, kind) {
  const made = row.insertCell();
  made.append(content);
  if (kind) made.className = kind;
  return made;
}

/** A button in a row of a table; its name says what it acts on, since "Remove" alone tells a screen reader nothing. */
export function act(text, onWhat, run, kind = "small") {
  const made = make("button", { type: "button", className: kind, "aria-label": `${text} ${onWhat}` }, text);
  made.addEventListener("click", run);
  return made;
}

export function when(text, none = "never") {
  if (!text) return none;
  return new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

/** Lets a button do something; until here it was off, since a click before this runs would do nothing. */
export function onClick(button, run) {
  button.addEventListener("click", run);
  button.disabled = false;
}

/** Fills the body of a table, and says so where there is nothing. */
export function fill(body, rows, draw, nothing) {
  body.replaceChildren();
  for (const one of rows) draw(body.insertRow(), one);
  if (!rows.length) {
    const only = cell(body.insertRow(), nothing, "soft");
    only.colSpan = body.parentElement.tHead.rows[0].cells.length;
  }
}

export async function copy(text, told) {
  try {
    await navigator.clipboard.writeText(text);
    told.textContent = "Copied.";
  } catch (error) {
    told.textContent = "This browser did not allow it: mark the text and copy it yourself.";
  }
}
