// One execution: what its code writes, the tools it calls, what comes of it.

import { codeBlock, highlighted } from "./highlight.js";
import { el } from "./dom.js";
import { OutputView } from "./output.js";
import { bytes, count, line, safe, seconds } from "./text.js";
import { bundleNode, isTable, valueNode, written } from "./values.js";

const MAX_CALLS = 200; // tool calls of one execution that are shown
const MAX_PICTURES = 16; // rich results of one
const SAYS = {
  error: "The code raised an exception.", import_denied: "The code was refused an import.", timeout: "The code ran out of time.",
  interrupted: "The code was interrupted.", died: "The process of the code ended before it did.", out_of_memory: "The code ran out of memory.",
  output_limit: "The code wrote too much.", refused: "The code was not approved, and did not run.",
};

export class ExecutionView {
  constructor() {
    this.code = el("div");
    this.output = new OutputView();
    this.calls = el("ul.calls");
    this.results = el("div.results");
    this.root = el("div.execution", {}, this.code, this.calls, this.output.root, this.results);
    this.open = new Map(); // of calls that have not ended
    this.ended = []; // of calls, in words
    this.made = 0;
  }

  show(event) {
    switch (event.kind) {
      case "output": return this.output.add(event.stream, String(event.text));
      case "tool_call": return this.#call(event);
      case "tool_outcome": return this.#outcome(event);
      case "finished": return this.#finished(event.execution);
    }
  }

  setCode(code) {
    this.code.replaceChildren(codeBlock(safe(code)));
  }

  #call({ id, name, args, kwargs }) {
    if (++this.made > MAX_CALLS) return;
    const row = callNode(name, written(args).slice(1, -1), kwargs);
    this.open.set(id, row);
    this.calls.append(row.root);
  }

  #outcome({ id, name, error, seconds: took, ending, refused_by: rule }) {
    const row = this.open.get(id);
    this.open.delete(id);
    const text = ending === "ok" ? "done" : `${String(ending).replace("_", " ")}${rule ? ` (${line(rule, 40)})` : ""}`;
    this.ended.push({ name, text: `${text} in ${seconds(took)}` });
    if (row) row.end(ending === "ok", `${text} in ${seconds(took)}`, error);
    else if (this.made <= MAX_CALLS) {
      const late = callNode(name, "", {});
      late.end(ending === "ok", text, error);
      this.calls.append(late.root);
    }
  }

  /** The calls of a step whose model calls tools itself, each with its result, instead of those that were seen so far. */
  setCalls(calls) {
    this.calls.replaceChildren(...calls.slice(0, MAX_CALLS).map(({ call, text, failed }) => {
      const { name, arguments: given } = call;
      const isNamed = given !== null && typeof given === "object" && !Array.isArray(given);
      const row = callNode(name, isNamed ? "" : written(given), isNamed ? given : {});
      const at = this.ended.findIndex((one) => one.name === name);
      const how = at < 0 ? (failed ? "failed" : "done") : this.ended.splice(at, 1)[0].text;
      row.end(!failed, how, failed ? text : "", failed ? "" : text);
      return row.root;
    }));
  }

  #finished(execution) {
    const { status, error, state, files_reason: why } = execution;
    this.usage = execution.usage;
    if (!this.output.shown && execution.logs) {
      this.output.add("stdout", execution.logs.stdout || "");
      this.output.add("stderr", execution.logs.stderr || "");
    }
    const parts = execution.final_answer ? [] : valueParts(execution);
    if (error) parts.push(errorNode(error.traceback || `${error.name}: ${error.value}`));
    if (status !== "ok") parts.push(el("p.note.bad", { textContent: `${SAYS[status] || line(status, 40)}${stateText(state, why)}` }));
    this.results.append(...parts);
  }
}

/** What the last expression came to, once: its picture or its source, a table in any case; else the value, or its text. */
function valueParts({ results = [], value, text }) {
  const rich = results.filter((bundle) => Object.keys(bundle).some((name) => name !== "text/plain"));
  const parts = rich.slice(0, MAX_PICTURES).map(bundleNode);
  if (rich.length > MAX_PICTURES) parts.push(el("p.note", { textContent: `${rich.length - MAX_PICTURES} more results are not shown.` }));
  if (value !== null && (isTable(value) || !rich.length)) parts.unshift(valueNode(value));
  else if (text && text !== "None" && !rich.length) parts.push(el("pre.text", { textContent: safe(text) }));
  return parts;
}

const stateText = (state, why) =>
  state === "lost" ? " Its variables are lost." : state === "restored" ? ` The state is as it was before.${why ? ` Files were kept: ${line(why)}` : ""}` : "";

export const errorNode = (text) => el("pre.error", { textContent: safe(text), tabIndex: 0 });

/** A call of a tool, and a function that says how it ended. */
export function callNode(name, positional, named) {
  const given = [positional, ...Object.entries(named || {}).map(([key, value]) => `${key}=${written(value)}`)].filter(Boolean).join(", ");
  const how = el("span.how", { textContent: "under way" });
  const root = el("li.call", {}, el("span.tool", { textContent: line(name, 80) }), el("code.given", {}, highlighted(safe(`(${given})`))), how);
  const end = (isGood, text, error, result) => {
    root.classList.add(isGood ? "good" : "bad");
    how.textContent = text;
    if (error) root.append(errorNode(error));
    if (result) root.append(el("pre.text", { textContent: safe(result) }));
  };
  return { root, end };
}

/** What an execution used, in words. */
export function usageText(usage) {
  if (!usage) return "";
  const parts = [`code ${seconds(usage.wall_seconds)}`];
  if (usage.cpu_seconds) parts.push(`CPU ${seconds(usage.cpu_seconds)}`);
  if (usage.peak_memory_bytes) parts.push(`memory ${bytes(usage.peak_memory_bytes)}`);
  if (usage.tool_calls) parts.push(`${count(usage.tool_calls)} tool call${usage.tool_calls === 1 ? "" : "s"}`);
  return parts.join(" · ");
}
