// Values of sandboxes, as event_json.py writes them: as text, as tables, and pictures of four kinds from their bytes.

import { el } from "./dom.js";
import { decoded } from "./arrays.js";
import { bytes, clip, count, line, safe } from "./text.js";

const PICTURES = ["image/png", "image/jpeg", "image/gif", "image/webp"]; // nothing that has scripts or links in it
const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;
const MAX_PICTURE = 6 << 20; // characters of Base64: 4 MiB
const MAX_ROWS = 100;
const MAX_COLUMNS = 30;
const MAX_CELL = 200; // characters
const MAX_DEPTH = 12;
const MAX_ITEMS = 500; // of one list or dict that is written out

/** Any value as what it is: a picture, a table, else its text. */
export function valueNode(value) {
  if (value?.$type === "media") return picture(value.mime, value.data);
  const table = tableOf(value);
  if (table) return tableNode(table);
  if (typeof value === "string") return el("pre.text", { textContent: safe(value) });
  return el("pre.text", { textContent: safe(clip(written(value))) });
}

/** A rich result: of one thing in several forms, the one that can be shown as it is; else the source of the others. */
export function bundleNode(bundle) {
  const mime = PICTURES.find((name) => bundle[name] !== undefined);
  if (mime) return picture(mime, bundle[mime]?.data ?? bundle[mime]);
  const forms = Object.entries(bundle).filter(([name]) => name !== "text/plain" || Object.keys(bundle).length === 1);
  return el("div.bundle", {}, forms.map(([name, content]) => source(name, content)));
}

function source(name, content) {
  const text = typeof content === "string" ? content : written(content);
  if (name === "text/plain") return el("pre.text", { textContent: safe(text) });
  const shown = el("details.source", {}, el("summary", { textContent: `${line(name, 60)} — shown as its source, ${count(text.length)} characters` }));
  shown.append(el("pre.text", { textContent: safe(text) }));
  return shown;
}

export function picture(mime, data) {
  const isOne = PICTURES.includes(mime) && typeof data === "string" && BASE64.test(data) && data.length > 0;
  if (!isOne || data.length > MAX_PICTURE) {
    const size = typeof data === "string" ? bytes(Math.floor(data.length * 0.75)) : "";
    return el("p.note", { textContent: `A ${line(mime, 40)} of ${size}: not shown here.` });
  }
  const image = el("img.picture", { alt: "Picture that the code made", src: `data:${mime};base64,${data}`, loading: "lazy" });
  image.addEventListener("error", () => image.replaceWith(el("p.note", { textContent: `A ${mime} that cannot be read.` })));
  return image;
}

// ---------------------------------------------------------------------------------------------------------- tables

export const isTable = (value) => tableOf(value) !== null;

/** Columns and the first rows of what has some; null of what has none. */
function tableOf(value) {
  if (value?.$type === "table" && Array.isArray(value.columns) && value.columns.length) return ofColumns(value);
  if (value?.$type === "ndarray" && value.shape?.length === 2 && value.shape[0] && value.shape[1]) return ofArray(value);
  if (!Array.isArray(value) || !value.length) return null;
  const first = value[0];
  if (isPlain(first) && Object.keys(first).length && value.every(isPlain)) {
    const names = Object.keys(first).slice(0, MAX_COLUMNS);
    return { names, rows: value.slice(0, MAX_ROWS).map((row) => names.map((name) => row[name] ?? "")), total: value.length, columns: Object.keys(first).length };
  }
  return null;
}

const isPlain = (value) => value !== null && typeof value === "object" && !Array.isArray(value) && !("$type" in value);

function ofColumns({ columns, index }) {
  const parts = (index ? [index] : []).concat(columns);
  const shown = parts.slice(0, MAX_COLUMNS).map(([name, values]) => ({ name: name ?? "", values: listOf(values) }));
  const total = Math.max(0, ...shown.map(({ values }) => values.total));
  const rows = Array.from({ length: Math.min(total, MAX_ROWS) }, (_, row) => shown.map(({ values }) => values.items[row] ?? ""));
  return { names: shown.map(({ name }) => name), rows, total, columns: parts.length, labels: Boolean(index) };
}

function listOf(values) {
  if (Array.isArray(values)) return { items: values.slice(0, MAX_ROWS), total: values.length };
  if (values?.$type === "ndarray") return { items: decoded(values, MAX_ROWS), total: values.shape?.[0] ?? 0 };
  return { items: [], total: 0 };
}

function ofArray(value) {
  const [rows, columns] = value.shape;
  const flat = decoded(value, MAX_ROWS * columns);
  const shown = Array.from({ length: Math.min(rows, MAX_ROWS) }, (_, row) => flat.slice(row * columns, row * columns + Math.min(columns, MAX_COLUMNS)));
  return { names: Array.from({ length: Math.min(columns, MAX_COLUMNS) }, (_, at) => String(at)), rows: shown, total: rows, columns };
}

function tableNode({ names, rows, total, columns, labels = false }) {
  const cell = (tag, value, isFigure = false) => {
    const isNumber = typeof value === "number";
    return el(isNumber || isFigure ? `${tag}.number` : tag, { textContent: line(typeof value === "string" ? value : written(value), MAX_CELL) });
  };
  const head = el("thead", {}, el("tr", {}, names.map((name, at) => cell("th", typeof name === "string" ? name : written(name), typeof rows[0]?.[at] === "number"))));
  const body = el("tbody", {}, rows.map((row) => el("tr", {}, row.map((value, at) => cell(labels && at === 0 ? "th" : "td", value)))));
  const more = total > rows.length || columns > names.length;
  const size = `${count(total)} rows × ${count(columns - labels)} columns${more ? `; the first ${rows.length} × ${names.length} are shown` : ""}`;
  return el("figure.table", {}, el("div.scroll", { tabIndex: 0 }, el("table", {}, head, body)), el("figcaption", { textContent: size }));
}

// ------------------------------------------------------------------------------------------------------------ text

/** A value much as Python writes it. */
export function written(value, depth = 0) {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value === "number") return String(value);
  if (typeof value === "string") return JSON.stringify(value);
  if (depth > MAX_DEPTH) return "…";
  if (Array.isArray(value)) return `[${several(value, depth)}]`;
  if (value.$type) return typed(value, depth);
  return `{${several(Object.entries(value), depth, ([name, item]) => `${JSON.stringify(name)}: ${written(item, depth + 1)}`)}}`;
}

function several(items, depth, write = (item) => written(item, depth + 1)) {
  const shown = items.slice(0, MAX_ITEMS).map(write).join(", ");
  return items.length > MAX_ITEMS ? `${shown}, … ${count(items.length - MAX_ITEMS)} more` : shown;
}

function typed(value, depth) {
  const items = Array.isArray(value.items) ? value.items : [];
  switch (value.$type) {
    case "tuple": return items.length === 1 ? `(${written(items[0], depth + 1)},)` : `(${several(items, depth)})`;
    case "set": return items.length ? `{${several(items, depth)}}` : "set()";
    case "frozenset": return `frozenset({${several(items, depth)}})`;
    case "dict": return `{${several(items, depth, (pair) => `${written(pair?.[0], depth + 1)}: ${written(pair?.[1], depth + 1)}`)}}`;
    case "bytes": return `<${bytes(Math.floor(String(value.data).length * 0.75))} of bytes>`;
    case "ndarray": return array(value);
    case "media": return `<${value.mime}>`;
    case "opaque": return String(value.text);
    case "text": return "<text with halves of characters>";
    case "table": return `<table of ${value.columns?.length} columns>`;
    default: return Array.isArray(value.value) ? `${value.$type}(${several(value.value, depth)})` : String(value.value ?? value.$type);
  }
}

function array(value) {
  const shape = Array.isArray(value.shape) ? value.shape : [];
  const shown = shape.length === 1 ? ` [${several(decoded(value, 50), MAX_DEPTH)}${shape[0] > 50 ? ", …" : ""}]` : "";
  return `array ${value.dtype} ${shape.join(" × ")}${shown}`;
}
