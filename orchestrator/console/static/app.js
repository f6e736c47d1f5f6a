// The page: who is logged in, which part is shown, and what the keys do.

import { get, hasLogin, login, logout, whenLoggedOut } from "./api.js";
import { byId, button, el, toast } from "./dom.js";
import { listen, move } from "./keys.js";
import * as runs from "./runs.js";
import * as sandboxes from "./sandboxes.js";
import { count, line } from "./text.js";

const SECTIONS = { runs, sandboxes };
const POLL_MS = 3000; // between two looks at the list, while somebody sees it
const THEME = "cellblock-theme";
let shown = new AbortController(); // of what is in the details
let section = "";
let selected = "";
let timer;
let turn = 0; // of the lists that are asked for: an older answer may come later

// ---------------------------------------------------------------------------------------------------------- theme

function theme(value) {
  if (value) document.documentElement.dataset.theme = value;
  else delete document.documentElement.dataset.theme;
}

function switchTheme() {
  const now = document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const next = now === "dark" ? "light" : "dark";
  localStorage.setItem(THEME, next);
  theme(next);
}

// ---------------------------------------------------------------------------------------------------------- parts

async function route() {
  if (!hasLogin()) return showLogin();
  const [, part = "", id = ""] = location.hash.split("/");
  shown.abort();
  shown = new AbortController();
  const { signal } = shown;
  enter(part === "sandboxes" ? "sandboxes" : "runs", id, Boolean(id) || part === "new");
  try {
    await Promise.all([refresh(), open(part, id, signal)]);
  } catch (error) {
    if (!signal.aborted && hasLogin()) byId("detail").prepend(el("pre.error", { textContent: line(error.message, 500) }));
  }
}

function enter(name, id, isDetail) {
  selected = id;
  byId("login").hidden = true;
  byId("top").hidden = byId("main").hidden = false;
  document.body.dataset.view = isDetail ? "detail" : "list";
  for (const one of Object.keys(SECTIONS)) byId(`tab-${one}`).ariaCurrent = one === name ? "page" : null;
  if (section !== name) {
    section = name;
    byId("list").replaceChildren();
    byId("side-tools").replaceChildren(...SECTIONS[name].sideTools(refresh));
  }
}

async function open(part, id, signal) {
  if (part === "new") return runs.showNew();
  const hint = section === "runs" ? "Choose a run, or begin a new one with n." : "Choose a sandbox to run code in it.";
  byId("detail").replaceChildren(...(id ? [el("p.note", { textContent: "…" })] : [el("p.empty", { textContent: `${hint} ? shows the keys.` })]));
  if (!id) return undefined;
  return SECTIONS[section].show(id, signal, refresh);
}

async function refresh() {
  clearTimeout(timer);
  const mine = ++turn;
  const isLatest = () => mine === turn && hasLogin();
  try {
    const [, status] = await Promise.all([SECTIONS[section].list(selected, isLatest, refresh), get("/api/status")]);
    if (!isLatest()) return;
    const parts = [`${count(status.runs)} running`, status.queued ? `${count(status.queued)} queued` : "", `${count(status.sandboxes)} sandbox${status.sandboxes === 1 ? "" : "es"}`];
    setStatus(parts.filter(Boolean).join(" · "), `cellblock ${line(status.version, 20)}`);
  } catch (error) {
    if (!isLatest()) return;
    setStatus(line(error.message, 80), "");
  }
  clearTimeout(timer);
  timer = setTimeout(() => (document.hidden ? waitUntilSeen() : refresh()), POLL_MS);
}

function waitUntilSeen() {
  document.addEventListener("visibilitychange", refresh, { once: true });
}

function setStatus(text, title) {
  const place = byId("status");
  if (place.textContent !== text) place.textContent = text;
  place.title = title;
}

// ---------------------------------------------------------------------------------------------------------- login

function showLogin() {
  shown.abort();
  clearTimeout(timer);
  section = "";
  byId("top").hidden = byId("main").hidden = true;
  for (const id of ["detail", "list", "side-tools", "side-more"]) byId(id).replaceChildren();
  const token = el("input", { type: "password", autocomplete: "off", placeholder: "cbk_…", ariaLabel: "Token", required: true });
  const send = button("Log in", () => enterWith({ token: token.value }), "primary");
  byId("login").replaceChildren(el("form.card", { onsubmit: (event) => { event.preventDefault(); send.click(); } },
    el("h1", {}, el("span.cell", { ariaHidden: "true" }), "cellblock"),
    el("label", {}, "Token", token), send,
    el("p.note", { textContent: "Whose service this is needs none: `cellblock console` in a terminal prints a link that logs in." })));
  byId("login").hidden = false;
  token.focus();
}

async function enterWith(body) {
  await login(body);
  await route();
}

/** A link with a code logs in by itself; the code is taken out of the address and the history. */
async function begin() {
  const code = location.pathname === "/login" ? location.hash.slice(1) : "";
  if (location.pathname !== "/") history.replaceState(null, "", "/");
  if (code && !code.startsWith("/")) await login({ code }).catch((error) => toast(error.message));
  await route();
}

theme(localStorage.getItem(THEME));
whenLoggedOut(showLogin);
byId("theme").addEventListener("click", switchTheme);
byId("logout").addEventListener("click", () => logout().catch(() => {}));
listen({
  r: () => { location.hash = "#/runs"; },
  s: () => { location.hash = "#/sandboxes"; },
  n: () => { location.hash = "#/new"; },
  t: switchTheme,
  j: () => move(1),
  k: () => move(-1),
  q: runs.focusQuestion,
  i: () => byId("interrupt")?.focus(),
  e: () => byId("prompt")?.focus(),
  "/": () => byId("search")?.focus(),
  Escape: () => { if (selected || location.hash === "#/new") location.hash = `#/${section}`; },
});
addEventListener("hashchange", route);
begin();
