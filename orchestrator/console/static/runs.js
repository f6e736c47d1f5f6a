// Runs: the list, one of them as it happens, and a prompt to begin one.

import { follow, get, post, sender } from "./api.js";
import { RunView } from "./events.js";
import { button, byId, el, renew, toast } from "./dom.js";
import { sendWith } from "./keys.js";
import { ago, count, line, safe, seconds } from "./text.js";

const PAGE = 50;
const TYPING_MS = 250; // until a search that is being typed is asked for
const ENDED = new Set(["succeeded", "failed", "interrupted"]);

export const badge = (state) => el(`span.badge.s-${state}`, { textContent: state });

let search = "";
let shownRuns = PAGE;

/** The list's own tools: a search, and a button. */
export function sideTools(refresh) {
  const field = el("input", { type: "search", id: "search", placeholder: "Search in tasks  /", value: search, ariaLabel: "Search in tasks" });
  let timer;
  field.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => { search = field.value; shownRuns = PAGE; refresh(); }, TYPING_MS);
  });
  return [field, el("a.button.primary", { href: "#/new", textContent: "New run" })];
}

export async function list(selected, isLatest, refresh) {
  const { runs } = await get(`/api/runs?limit=${shownRuns}&search=${encodeURIComponent(search)}`);
  if (!isLatest()) return;
  renew(byId("list"), runs.map((run) => ({
    key: run.id,
    stamp: JSON.stringify([run.state, run.steps, run.id === selected, ago(run.created)]),
    make: () => item(run, run.id === selected),
  })));
  const more = runs.length >= shownRuns && shownRuns < 200 ? [button("Show more", async () => { shownRuns += PAGE; await refresh(); }, "quiet")] : [];
  byId("side-more").replaceChildren(...(runs.length ? more : [el("p.note", { textContent: search ? "No run has that in its task." : "No runs yet." })]));
}

const item = (run, isSelected) =>
  el("li", {}, el("a", { href: `#/runs/${run.id}`, ariaCurrent: isSelected ? "page" : null },
    el("span.name", { textContent: line(run.task, 120) }),
    el("span.sub", {}, badge(run.state), `${line(run.agent, 30)} · ${count(run.steps)} step${run.steps === 1 ? "" : "s"} · ${ago(run.created)}`)));

// --------------------------------------------------------------------------------------------------------- one run

/** Shows a run until `signal` ends that. */
export async function show(id, signal, refresh) {
  const page = new RunPage(id, signal, refresh);
  await page.load();
}

class RunPage {
  constructor(id, signal, refresh) {
    Object.assign(this, { id, signal, refresh });
    this.head = el("header.page");
    this.waiting = el("div.waiting", { hidden: true });
    this.view = new RunView((question, approved, reason) => post(`/api/runs/${id}/decide`, { question, approved, reason }));
    this.end = el("div.end");
    this.turn = 0;
    this.root = el("div.run", {}, this.head, this.waiting, this.view.root, this.end);
  }

  async load() {
    this.setRun(await get(`/api/runs/${this.id}`));
    if (this.signal.aborted) return;
    byId("detail").replaceChildren(this.root);
    const place = byId("detail");
    this.atEnd = true;
    place.addEventListener("scroll", () => { this.atEnd = place.scrollHeight - place.scrollTop - place.clientHeight < 80; }, { signal: this.signal });
    const timer = setInterval(() => this.#tick(), 1000);
    this.signal.addEventListener("abort", () => clearInterval(timer));
    await this.#follow(0);
  }

  async #follow(after) {
    this.seen = after;
    const end = await follow(`/api/runs/${this.id}/events`, {
      signal: this.signal, after,
      onEvent: (event) => this.#event(event),
      onState: (state) => this.root.classList.toggle("lost", state === "lost"),
    });
    if (!end) return;
    this.view.ended();
    this.setRun(end);
    this.#asked();
    this.refresh();
  }

  #event(event) {
    this.seen += 1;
    this.view.show(event);
    if (event.kind === "approval_asked" || event.kind === "approval_decided") this.#asked();
    if (!ENDED.has(this.run.state)) this.#scroll();
    if (!REFRESHING.has(event.kind) || ENDED.has(this.run.state)) return;
    clearTimeout(this.later); // events that are shown again come in their hundreds
    this.later = setTimeout(() => this.#renew(), RENEW_MS);
  }

  /** Goes along with what comes, once for each picture that the browser draws, unless somebody has scrolled up. */
  #scroll() {
    if (this.scrolling || !this.atEnd) return;
    this.scrolling = requestAnimationFrame(() => {
      this.scrolling = 0;
      const place = byId("detail");
      place.scrollTop = place.scrollHeight;
    });
  }

  async #resume() {
    this.setRun(await post(`/api/runs/${this.id}/resume`));
    this.end.replaceChildren();
    this.#follow(this.seen).catch((error) => toast(error.message));
  }

  async #renew() {
    const mine = ++this.turn;
    try {
      const run = await get(`/api/runs/${this.id}`);
      if (!this.signal.aborted && mine === this.turn && !ENDED.has(this.run.state)) this.setRun(run); // else there is newer
      this.refresh();
    } catch { /* the stream says what is wrong, or opens again */ }
  }

  #asked() {
    const open = this.view.openQuestions.length;
    this.waiting.hidden = !open;
    this.waiting.replaceChildren(...(open ? [`${open === 1 ? "A question waits" : `${open} questions wait`} for a decision. `, button("Show it", () => focusQuestion(), "quiet")] : []));
  }

  setRun(run) {
    const wasEnded = this.run && ENDED.has(this.run.state);
    this.run = run;
    this.turn += 1; // an answer that was asked for before tells nothing new
    const isLive = !ENDED.has(run.state);
    this.time = el("span");
    this.stop ??= button("Interrupt", () => post(`/api/runs/${this.id}/interrupt`), "danger"); // the stream says what comes of it
    this.stop.id = "interrupt";
    const buttons = [isLive ? this.stop : null, run.can_resume ? button("Resume", () => this.#resume()) : null];
    const facts = [badge(run.state), el("span", { textContent: `agent ${line(run.agent, 40)}` }), el("span", { textContent: `by ${line(run.owner, 40)}` }), this.time,
      run.input_tokens ? el("span", { textContent: `${count(run.input_tokens)} tokens in, ${count(run.output_tokens)} out` }) : null,
      run.sandbox ? el("a", { href: `#/sandboxes/${run.sandbox}`, textContent: "its sandbox" }) : null];
    const had = document.activeElement === this.stop;
    this.head.replaceChildren(el("a.back", { href: "#/runs", textContent: "‹ Runs" }), el("h2", { textContent: line(run.task, 160) }), el("div.actions", {}, buttons.filter(Boolean)), el("p.facts", {}, facts.filter(Boolean)));
    if (had && isLive) this.stop.focus();
    this.#tick();
    if (!isLive && !wasEnded) this.#ended(run);
  }

  #ended(run) {
    const error = run.error ? [el("pre.error", { textContent: safe(run.error) })] : [];
    const more = run.state === "succeeded" ? [startForm({ continues: run.id, agent: run.agent, label: "Go on", text: "What next? The agent keeps its memory and variables." })] : [];
    this.end.replaceChildren(...error, ...more);
  }

  #tick() {
    const { started, ended } = this.run;
    const text = started ? `${seconds(Math.max(0, (ended || Date.now() / 1000) - started))}` : "in the queue";
    if (this.time.textContent !== text) this.time.textContent = text;
  }
}

const RENEW_MS = 150;
const REFRESHING = new Set(["step_started", "action_step", "approval_asked", "approval_decided"]);

export function focusQuestion() {
  const open = [...document.querySelectorAll(".question")].find((question) => question.querySelector(".answers"));
  open?.scrollIntoView({ block: "center" });
  open?.focus({ preventScroll: true });
}

// ------------------------------------------------------------------------------------------------------- beginning

/** The page to begin a run. */
export async function showNew() {
  const { agents } = await get("/api/status");
  byId("detail").replaceChildren(el("div.new", {},
    el("header.page", {}, el("a.back", { href: "#/runs", textContent: "‹ Runs" }), el("h2", { textContent: "New run" })),
    startForm({ agents, label: "Start", text: "What should be done?" })));
  byId("prompt").focus();
}

function startForm({ agents = [], agent = "", continues = "", label, text }) {
  const field = el("textarea", { id: "prompt", rows: 5, placeholder: text, ariaLabel: text, required: true });
  const choice = el("select", { ariaLabel: "Agent" }, agents.map((name) => el("option", { value: name, textContent: line(name, 60), selected: name === "default" })));
  const steps = el("input", { type: "number", min: 1, max: 10000, placeholder: "as set", ariaLabel: "At most so many steps" });
  const begin = sender("/api/runs");
  const send = button(label, async () => {
    if (!field.value.trim()) return field.focus();
    const body = { task: field.value, agent: agents.length ? choice.value : agent, continues };
    if (steps.value) body.max_steps = Number(steps.value);
    const run = await begin(body);
    location.hash = `#/runs/${run.id}`;
  }, "primary");
  sendWith(field, send);
  const settings = agents.length ? [el("label", {}, "Agent ", choice), el("label", {}, "Steps ", steps)] : [];
  return el("form.prompt", { onsubmit: (event) => event.preventDefault() }, field, el("div.row", {}, settings, send));
}
