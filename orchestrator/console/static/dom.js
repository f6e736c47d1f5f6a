// Elements, made of names and texts. Nothing here or anywhere else parses HTML.

/** An element; children are nodes and texts, and what is null or false is left out. */
export function el(name, props = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const made = document.createElement(tag || "div");
  if (classes.length) made.className = classes.join(" ");
  for (const [key, value] of Object.entries(props)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key in made && key !== "list") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export const byId = (id) => document.getElementById(id);

/** A button that cannot be pressed again until what it does is done; a failure is told. */
export function button(label, action, kind = "") {
  const made = el("button", { type: "button", className: kind, textContent: label });
  made.addEventListener("click", async () => {
    made.disabled = true;
    try {
      await action();
    } catch (error) {
      toast(error.message);
    } finally {
      made.disabled = false;
    }
  });
  return made;
}

const TOAST_MS = 8000;

/** Tells something for some seconds. */
export function toast(text, kind = "bad") {
  const made = el(`p.toast.${kind}`, { textContent: text });
  byId("toasts").replaceChildren(made);
  setTimeout(() => made.remove(), TOAST_MS);
}

/** Whether somebody writes there. */
export const isField = (node) => node instanceof HTMLElement && (node.matches("input, textarea, select") || node.isContentEditable);

/** Puts rows in place of those of the same key, so that focus and position stay. */
export function renew(list, rows) {
  const before = new Map([...list.children].map((child) => [child.dataset.key, child]));
  const focused = document.activeElement?.closest("[data-key]")?.dataset.key;
  const nodes = rows.map(({ key, stamp, make }) => {
    const old = before.get(key);
    if (old && old.dataset.stamp === stamp) return old;
    const made = make();
    made.dataset.key = key;
    made.dataset.stamp = stamp;
    return made;
  });
  if (nodes.length === list.children.length && nodes.every((node, at) => node === list.children[at])) return;
  const had = list.contains(document.activeElement);
  list.replaceChildren(...nodes);
  if (had && focused) list.querySelector(`[data-key="${CSS.escape(focused)}"] a`)?.focus();
}
