// Text of sandboxes and models made safe to show, and figures in words. As orchestrator/sanitise.py has it.

export const MAX_TEXT = 100_000; // characters of one text on the page: more makes it slow, and nobody reads it

// ECMA-48: CSI; OSC, DCS, SOS, PM and APC up to their end; two-byte sequences. All bounded.
const SEQUENCES =
  /\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]|\x1b[\]PX^_][^\x07\x1b\n]{0,4096}(?:\x07|\x1b\\)|\x1b[ -/]{0,3}[0-NOQ-WYZ\\`-~]/g;
// The beginning of one at the end of a piece: its rest may come with the next.
const OPEN = /\x1b(?:[ -/]{0,3}|\[[0-?]{0,64}[ -/]{0,8}|[\]PX^_][^\x07\x1b\n]{0,4096}\x1b?)$/;
// Controls, what turns the direction of writing, what is invisible, halves of surrogate pairs, unassigned, private.
const UNSEEN = /(?![\n\t])[\p{C}\p{Zl}\p{Zp}\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0\ufe00-\ufe0d\u{e0000}-\u{e0fff}]/gu;
const MARKS = /(\p{M}{4})\p{M}+/gu; // no script stacks more than four on one letter

function escaped(character) {
  const code = character.codePointAt(0);
  if (code < 0x100) return `\\x${code.toString(16).padStart(2, "0")}`;
  return code < 0x10000 ? `\\u${code.toString(16).padStart(4, "0")}` : `\\U${code.toString(16).padStart(8, "0")}`;
}

/** Without terminal sequences, every other unsafe character written out. */
export const safe = (text) =>
  clip(String(text)).replaceAll("\r\n", "\n").replace(SEQUENCES, "").replace(UNSEEN, escaped).replace(MARKS, "$1");

/** The same on one line, shortened. */
export function line(text, most = 200) {
  const words = safe(String(text).slice(0, most * 4)).split(/\s+/).join(" ").trim();
  return words.length > most ? `${words.slice(0, most - 1)}…` : words;
}

export const clip = (text, most = MAX_TEXT) =>
  text.length <= most ? text : `${text.slice(0, most)}\n… ${count(text.length - most)} more characters are not shown`;

/** What can be shown of a text that goes on, and what has to wait for its next piece. */
export function whole(text) {
  const at = text.search(OPEN);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at)];
}

export const count = (number) => Number(number).toLocaleString("en-US");

export function seconds(value) {
  if (value < 0.0995) return `${Math.round(value * 1000)} ms`;
  if (value < 59.5) return `${value.toFixed(value < 9.95 ? 1 : 0)} s`;
  if (value < 3570) return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
  return `${Math.floor(value / 3600)} h ${Math.round((value % 3600) / 60)} min`;
}

export function bytes(value) {
  if (value < 1000) return `${value} B`;
  for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]])
    if (value >= size * 0.9995) return `${(value / size).toFixed(value < size * 9.95 ? 1 : 0)} ${unit}`;
  return `${value} B`;
}

/** How long ago, for seconds since the epoch. */
export function ago(time) {
  const passed = Math.max(0, Date.now() / 1000 - time);
  if (passed < 10) return "now";
  if (passed < 60) return `${Math.floor(passed)} s ago`;
  if (passed < 3600) return `${Math.floor(passed / 60)} min ago`;
  if (passed < 86400) return `${Math.floor(passed / 3600)} h ago`;
  return new Date(time * 1000).toLocaleDateString();
}

export const clock = (time) => new Date(time * 1000).toLocaleTimeString();
