// SPDX-License-Identifier: Apache-2.0
// Forms and dialogs: what is wrong is told beside the field that it is about, in words.
import { focusHeading, make } from "/pages/elements.js";
import { Left, ServerError } from "/pages/server.js";

let numbers = 0;

/** Takes away what was wrong. */
function clear(form) {
  for (const one of form.querySelectorAll(".wrong:not(.failure .wrong)")) one.remove();
  for (const one of form.querySelectorAll("[aria-invalid]")) {
    one.removeAttribute("aria-invalid");
    one.setAttribute("aria-describedby", one.dataset.described || "");
    if (!one.dataset.described) one.removeAttribute("aria-describedby");
  }
}

/** Tells what is wrong at a field, or at the form where it is about none. */
export function tellWrong(form, text, field) {
  const wrong = make("p", { className: "wrong", role: "alert", id: `wrong-${(numbers += 1)}` }, text);
  if (!field || field.hidden || field.disabled) {
    const button = form.querySelector("button:not([type=button])");
    (button.closest(".buttons") || button).before(wrong);
    return;
  }
  field.dataset.described = field.getAttribute("aria-describedby") || "";
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-describedby", `${wrong.id} ${field.dataset.described}`.trim());
  (field.closest("label") || field).after(wrong);
  field.focus();
}

/** A field's own name for what the server calls otherwise. */
function fieldOf(form, error, names) {
  const where = names[error.where] || error.where;
  const found = where && form.elements.namedItem(where);
  return [HTMLInputElement, HTMLSelectElement, HTMLTextAreaElement].some((kind) => found instanceof kind) ? found : null;
}

/** Runs an act when a form is sent; its button waits, and an error is told where it belongs. */
export function onSend(form, run, names = {}) {
  form.noValidate = true;
  // Until here it was off: sent before this runs, a form would go to nowhere.
  form.querySelector("button:not([type=button])").disabled = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    clear(form);
    const empty = [...form.elements].find((one) => one.willValidate && !one.checkValidity() && one.type !== "submit");
    if (empty) {
      tellWrong(form, empty.validity.valueMissing ? "This is missing." : empty.validationMessage, empty);
      return;
    }
    const again = form.elements.namedItem("again");
    if (again && again.value !== (form.elements.namedItem("new") || form.elements.namedItem("password")).value) {
      tellWrong(form, "The two are not the same.", again);
      return;
    }
    const button = form.querySelector("button:not([type=button])");
    const hadFocus = document.activeElement === button;
    button.disabled = true;
    button.setAttribute("aria-busy", "true");
    try {
      await run(Object.fromEntries(new FormData(form)));
    } catch (error) {
      if (!(error instanceof Left)) tellWrong(form, inWords(error), fieldOf(form, error, names));
    } finally {
      button.disabled = false;
      button.removeAttribute("aria-busy");
      // A button that is off loses the focus.
      if (hadFocus && document.activeElement === document.body) button.focus();
    }
  });
}

/** Runs an act of a button; an error is told in a place of its own. */
export async function attempt(place, run) {
  place.textContent = "";
  try {
    return await run();
  } catch (error) {
    if (!(error instanceof Left)) place.textContent = inWords(error);
    return undefined;
  }
}

/** Fills a section or opens something in it; an error is told there in words, with a button that tries again. */
export async function attemptIn(section, run) {
  section.querySelector(":scope > .failure")?.remove();
  try {
    return await run();
  } catch (error) {
    if (error instanceof Left) return undefined;
    const again = make("button", { type: "button", className: "small" }, "Try again");
    const failure = make("div", { className: "failure" }, make("p", { className: "wrong", role: "alert" }, inWords(error)), again);
    again.addEventListener("click", async () => {
      await attemptIn(section, run);
      if (document.activeElement !== document.body) return;
      const anew = section.querySelector(":scope > .failure button");
      if (anew) anew.focus();
      else focusHeading(section);
    });
    section.append(failure);
    return undefined;
  }
}

export function inWords(error) {
  if (error instanceof ServerError) return error.sentence();
  if (error.name === "NotAllowedError") return "It was not allowed, or took too long. Try again.";
  if (error.name === "InvalidStateError") return "This device holds a passkey for you already.";
  return `This browser could not do it: ${error.message}`;
}

/** Opens a dialog; returns what closes it. Esc and the cancel button give null. */
export function openDialog(title, ...content) {
  const heading = make("h2", { id: `dialog-${(numbers += 1)}` }, title);
  const dialog = make("dialog", { "aria-labelledby": heading.id }, heading, ...content);
  document.body.append(dialog);
  const closed = new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "done" ? dialog.answer ?? true : null);
    });
  });
  dialog.showModal();
  return {
    dialog,
    closed,
    done(answer) {
      dialog.answer = answer;
      dialog.close("done");
    },
  };
}

export function cancelButton(text = "Cancel") {
  const made = make("button", { type: "button" }, text);
  made.addEventListener("click", () => made.closest("dialog").close());
  return made;
}

/** A form in a dialog; returns what `run` returned, null where it was left. */
export async function askForm(title, verb, content, run, names, leave) {
  const form = make(
    "form",
    { className: "stacked" },
    ...content,
    make("div", { className: "buttons end" }, cancelButton(leave), make("button", { className: "first" }, verb)),
  );
  const opened = openDialog(title, form);
  onSend(form, async (told) => opened.done(await run(told, form)), names);
  return opened.closed;
}

/** Asks before something is done that cannot be undone. */
export function confirmed(title, text, verb, run, leave) {
  const done = async () => {
    await run();
    return true;
  };
  return askForm(title, verb, [make("p", {}, text)], done, {}, leave);
}

export function labelled(text, control, hint) {
  const made = make("label", {}, `${text} `, control);
  if (hint) {
    const small = make("small", { id: `hint-${(numbers += 1)}` }, hint);
    control.setAttribute("aria-describedby", small.id);
    made.append(small);
  }
  return made;
}
