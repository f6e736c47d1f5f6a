// Python in colours: a small tokenizer of our own. It makes spans of text; what it takes for what changes nothing else.

import { el } from "./dom.js";

const MAX_TOKENS = 20_000; // spans of one piece of code; the rest stays plain
const WORDS = {
  keyword:
    "and as assert async await break case class continue def del elif else except finally for from global if import in is lambda match nonlocal not or pass raise return try while with yield",
  constant: "True False None self cls",
  builtin:
    "abs all any bool bytes callable chr dict dir divmod enumerate filter float format frozenset getattr hasattr hash hex id input int isinstance issubclass iter len list locals map max min next object open ord pow print property range repr reversed round set setattr slice sorted staticmethod str sum super tuple type vars zip final_answer",
};
const KINDS = new Map(Object.entries(WORDS).flatMap(([kind, words]) => words.split(" ").map((word) => [word, kind])));
const TOKEN = new RegExp(
  [
    /(?<comment>#[^\n]*)/,
    /(?<string>(?:[rbuf]|rb|br|fr|rf)?(?:"""(?:[^\\]|\\(?:[^]|$))*?(?:"""|$)|'''(?:[^\\]|\\(?:[^]|$))*?(?:'''|$)|"(?:[^"\\\n]|\\(?:[^]|$))*(?:"|(?=\n)|$)|'(?:[^'\\\n]|\\(?:[^]|$))*(?:'|(?=\n)|$)))/,
    /(?<number>\b(?:0[xob][\da-f_]+|\d[\d_]*(?:\.[\d_]*)?(?:e[+-]?\d+)?j?))/,
    /(?<decorator>(?<=^|\n)[ \t]*@[\w.]+)/,
    /(?<name>[\p{L}_][\p{L}\p{N}_]*)/,
  ].map((part) => part.source).join("|"),
  "giu",
);

/** Nodes that show `code`, which must have been made safe. */
export function highlighted(code) {
  const nodes = [];
  let at = 0;
  let before = "";
  TOKEN.lastIndex = 0;
  for (let match; nodes.length < MAX_TOKENS && (match = TOKEN.exec(code)); ) {
    if (!match[0]) break;
    const [kind, text] = [kindOf(match, before, code), match[0]];
    before = text;
    if (!kind) continue;
    nodes.push(code.slice(at, match.index), el(`span.t-${kind}`, { textContent: text }));
    at = match.index + text.length;
  }
  return [...nodes, code.slice(at)];
}

function kindOf({ groups, index, 0: text }, before, code) {
  for (const kind of ["comment", "string", "number", "decorator"]) if (groups[kind] !== undefined) return kind;
  if (before === "def" || before === "class") return "defined";
  if (KINDS.has(text)) return code[index - 1] === "." ? "" : KINDS.get(text);
  return code[index + text.length] === "(" ? "call" : "";
}

/** A block of code. */
export const codeBlock = (code) => el("pre.code", { tabIndex: 0 }, el("code", {}, highlighted(code)));
