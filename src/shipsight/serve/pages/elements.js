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
  const made = make("button", { type: "button", className: kind, "aria-label": `${text} ${onWhat}`, "data-act": text }, text);
  made.addEventListener("click", oneAtATime(run));
  return made;
}

/** A second click while the first still asks the server would open a second dialog. */
function oneAtATime(run) {
  let runs = false;
  return async () => {
    if (runs) return;
    runs = true;
    try {
      await run();
    } finally {
      runs = false;
    }
  };
}

export function when(text, none = "never") {
  if (!text) return none;
  return new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

/** Lets a button do something; until here it was off, since a click before this runs would do nothing. */
export function onClick(button, run) {
  button.addEventListener("click", oneAtATime(run));
  button.disabled = false;
}

/** Moves the focus to the heading of a section, where what had it is gone. */
export function focusHeading(section) {
  const heading = section.querySelector("h1,h2,h3,legend");
  heading.tabIndex = -1;
  heading.focus();
}

/** Fills the body of a table, and says so where there is nothing. Focus stays with the act of the row that it was on; `idOf` tells rows apart. */
export function fill(body, rows, { idOf, draw, nothing }) {
  const focused = body.contains(document.activeElement) ? document.activeElement : null;
  const id = focused?.closest("tr").dataset.id;
  body.replaceChildren();
  for (const one of rows) {
    const row = body.insertRow();
    row.dataset.id = idOf(one);
    draw(row, one);
  }
  if (!rows.length) {
    const only = cell(body.insertRow(), nothing, "soft");
    only.colSpan = body.parentElement.tHead.rows[0].cells.length;
  }
  if (!focused) return;
  const same = [...body.rows].find((row) => row.dataset.id === id)?.querySelector(`[data-act="${focused.dataset.act}"]`);
  if (same) same.focus();
  else focusHeading(body.closest("section,fieldset"));
}

export async function copy(text, told) {
  try {
    await navigator.clipboard.writeText(text);
    told.textContent = "Copied.";
  } catch (error) {
    told.textContent = "This browser did not allow it: mark the text and copy it yourself.";
  }
}
