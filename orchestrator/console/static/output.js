// What code writes, as it comes. Both streams in one block, in order.

import { el } from "./dom.js";
import { count, safe, whole } from "./text.js";

const MAX_SHOWN = 100_000; // characters of one execution's output; the code may write far more
const MAX_HELD = 5000; // of an unfinished terminal sequence; longer is none

export class OutputView {
  constructor() {
    this.root = el("pre.output", { tabIndex: 0, hidden: true });
    this.held = { stdout: "", stderr: "" };
    this.shown = 0;
    this.left = 0;
    this.last = null; // the node at the end, and its stream
  }

  add(stream, text) {
    const kind = stream === "stderr" ? "stderr" : "stdout";
    const [ready, held] = whole(this.held[kind] + text);
    this.held[kind] = held.length > MAX_HELD ? "" : held;
    this.#show(kind, safe(held.length > MAX_HELD ? ready + held : ready));
  }

  #show(kind, text) {
    if (!text) return;
    this.root.hidden = false;
    const fits = text.slice(0, Math.max(0, MAX_SHOWN - this.shown));
    this.shown += fits.length;
    if (fits) {
      if (this.last?.kind !== kind) {
        const node = document.createTextNode("");
        this.root.append(el(`span.${kind}`, {}, node));
        this.last = { kind, node };
      }
      this.last.node.appendData(fits);
    }
    if (fits.length < text.length) this.#leaveOut(text.length - fits.length);
  }

  #leaveOut(length) {
    this.left += length;
    this.more ??= this.root.appendChild(el("span.note"));
    this.more.textContent = `\n… ${count(this.left)} more characters are not shown`;
  }
}
