// The states of a sandbox as a tree: each follows from another; where several do, the older ones are branches aside.

import { button, el } from "./dom.js";
import { bytes, count, line, seconds } from "./text.js";

const MAX_LEVELS = 12; // that are indented

/** `back` and `fork` are called with a checkpoint. */
export function tree(checkpoints, { back, fork }) {
  const children = new Map();
  for (const one of checkpoints) {
    const parent = parentOf(one, checkpoints);
    children.set(parent, [...(children.get(parent) || []), one]);
  }
  const rows = [];
  const walk = (one, level) => {
    rows.push(row(one, level, { back, fork }));
    const next = children.get(one.number) || [];
    for (const aside of next.slice(0, -1)) walk(aside, level + 1);
    if (next.length) walk(next.at(-1), level); // the newest goes on with the line
  };
  for (const root of children.get(0) || []) walk(root, 0);
  return rows.length ? el("ol.tree", {}, rows) : el("p.note", { textContent: "No states are kept yet." });
}

/** The number of the checkpoint that a state followed from: the last one before it at that execution's end; else 0. */
function parentOf(one, all) {
  if (one.follows === null) return 0;
  const before = all.filter((other) => other.number < one.number && other.execution === one.follows);
  return before.at(-1)?.number ?? 0;
}

function row(one, level, { back, fork }) {
  const title = one.execution ? `execution ${count(one.execution)}` : "the beginning";
  const facts = [one.name ? title : "", `${seconds(one.age)} ago`, one.memory ? bytes(one.memory) : "", one.has_files ? "" : "without files"];
  const made = el("li", { ariaCurrent: one.is_current ? "true" : null },
    el("span.dot", { ariaHidden: "true" }),
    el("span.name", { textContent: one.name ? line(one.name, 60) : title }),
    one.is_current ? el("span.badge.s-succeeded", { textContent: "now" }) : null,
    el("span.sub", { textContent: facts.filter(Boolean).join(" · ") }),
    el("span.acts", {}, one.is_current ? null : button("Roll back", () => back(one), "quiet"), button("Branch", () => fork(one), "quiet")));
  made.style.setProperty("--level", Math.min(level, MAX_LEVELS));
  return made;
}
