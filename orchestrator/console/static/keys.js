// Shortcuts, and the list of them.

import { byId, el, isField } from "./dom.js";

const KEYS = [
  ["?", "these keys"], ["r", "runs"], ["s", "sandboxes"], ["n", "a new run"], ["/", "search"],
  ["j  k", "next and previous in the list; Enter opens it"], ["Esc", "leave a field; back to the list"],
  ["q", "the first question that waits"], ["i", "the button that interrupts"], ["e", "the field for code or a task"],
  ["t", "dark or light"], ["Ctrl Enter", "send what is in the field"],
];

/** `actions` are functions by key. */
export function listen(actions) {
  const dialog = byId("keys");
  dialog.append(el("h2", { id: "keys-title", textContent: "Keys" }),
    el("dl", {}, KEYS.map(([key, what]) => el("div", {}, el("dt", {}, key.split(/ +/).map((one) => el("kbd", { textContent: one }))), el("dd", { textContent: what })))),
    el("form", { method: "dialog" }, el("button", { textContent: "Close", autofocus: true })));
  byId("help").addEventListener("click", () => dialog.showModal());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || dialog.open) return;
    if (event.key === "Escape") return isField(document.activeElement) ? document.activeElement.blur() : actions.Escape?.();
    if (isField(event.target)) return;
    if (event.key === "?") dialog.showModal();
    else if (actions[event.key]) actions[event.key]();
    else return;
    event.preventDefault();
  });
}

/** Next (1) or previous (-1) link of the list. */
export function move(by) {
  const links = [...byId("list").querySelectorAll("a")];
  const at = links.indexOf(document.activeElement);
  links[at < 0 ? (by > 0 ? 0 : links.length - 1) : Math.min(Math.max(at + by, 0), links.length - 1)]?.focus();
}

/** Ctrl+Enter in `field` does what `button` does. */
export function sendWith(field, button) {
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    button.click();
  });
}
