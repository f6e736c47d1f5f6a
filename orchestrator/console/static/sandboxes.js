// Sandboxes: the list, and one of them with a prompt for code, its states and what holds it.

import { follow, get, post, sender } from "./api.js";
import { button, byId, el, renew, toast } from "./dom.js";
import { ExecutionView, usageText } from "./execution.js";
import { sendWith } from "./keys.js";
import { badge } from "./runs.js";
import { tree } from "./checkpoints.js";
import { ago, count, line } from "./text.js";

const MAX_EXECUTIONS = 100; // that stay on the page, the last ones
const LOOK_MS = 2000; // between two looks at a sandbox in which an agent works

export function sideTools() {
  const make = sender("/api/sandboxes");
  return [button("New sandbox", async () => { location.hash = `#/sandboxes/${(await make()).id}`; }, "primary")];
}

export async function list(selected, isLatest) {
  const { sandboxes } = await get("/api/sandboxes");
  if (!isLatest()) return;
  const levels = new Map();
  for (const one of sandboxes) levels.set(one.id, one.parent && levels.has(one.parent) ? levels.get(one.parent) + 1 : 0);
  renew(byId("list"), ordered(sandboxes).map((one) => ({
    key: one.id,
    stamp: JSON.stringify([one.state, one.executions, one.id === selected, ago(one.created)]),
    make: () => item(one, one.id === selected, levels.get(one.id)),
  })));
  byId("side-more").replaceChildren(...(sandboxes.length ? [] : [el("p.note", { textContent: "No sandbox is open." })]));
}

const nameOf = (one) => line(one.name || one.id, 60);

/** Branches behind what they were forked from. */
function ordered(sandboxes) {
  const ids = new Set(sandboxes.map((one) => one.id));
  const walk = (parent) => sandboxes.filter((one) => (ids.has(one.parent) ? one.parent : "") === parent).flatMap((one) => [one, ...walk(one.id)]);
  return walk("");
}

function item(one, isSelected, level) {
  const what = one.parent ? "branch" : one.run ? "of a run" : "of an app";
  const made = el("li", {}, el("a", { href: `#/sandboxes/${one.id}`, ariaCurrent: isSelected ? "page" : null },
    el("span.name", { textContent: nameOf(one) }),
    el("span.sub", {}, badge(one.state), `${what} · ${count(one.executions)} execution${one.executions === 1 ? "" : "s"} · ${ago(one.created)}`)));
  made.style.setProperty("--level", Math.min(level, 6));
  return made;
}

/** Shows a sandbox until `signal` ends that. */
export async function show(id, signal, refresh) {
  const page = new SandboxPage(id, signal, refresh);
  await page.load();
}

class SandboxPage {
  constructor(id, signal, refresh) {
    Object.assign(this, { id, signal, refresh, path: `/api/sandboxes/${id}` });
    this.title = el("h2");
    this.facts = el("p.facts");
    const stop = button("Interrupt", () => post(`${this.path}/interrupt`), "danger");
    stop.id = "interrupt";
    this.actions = el("div.actions", {}, stop);
    this.head = el("header.page", {}, el("a.back", { href: "#/sandboxes", textContent: "‹ Sandboxes" }), this.title, this.actions, this.facts);
    this.executions = el("div.executions");
    this.states = el("div");
    this.report = el("div");
    this.tree = el("div");
    const [keep, back, fork] = ["checkpoints", "rollback", "fork"].map((what) => sender(`${this.path}/${what}`));
    Object.assign(this, { keep, back, fork });
  }

  async load() {
    await this.renew();
    if (this.signal.aborted) return;
    if (!this.isAgents) this.actions.append(this.#closer());
    byId("detail").replaceChildren(el("div.sandbox", {}, this.head,
      el("div.columns", {},
        el("div", {}, this.executions, this.isAgents ? el("p.note", { textContent: "An agent works here: what it runs is shown with its run. To run code of your own, make a branch of one of its states." }) : this.#prompt()),
        el("div.aside", {}, el("h3", { textContent: "States" }), this.states, el("h3", { textContent: "Isolation" }), this.report))));
    if (!this.isAgents && matchMedia("(min-width: 761px)").matches) byId("prompt").focus({ preventScroll: true }); // else a keyboard opens
    this.report.replaceChildren(button("What holds it", () => this.#isolation()));
    await this.renewStates();
    if (this.isAgents) this.#watch();
  }

  /** What an agent does here comes from elsewhere. */
  #watch() {
    const timer = setInterval(() => this.#look().catch((error) => {
      clearInterval(timer);
      if (!this.signal.aborted) this.states.replaceChildren(el("p.note", { textContent: error.message }));
    }), LOOK_MS);
    this.signal.addEventListener("abort", () => clearInterval(timer));
  }

  async #look() {
    const { state, executions } = this.one;
    await this.renew();
    if (this.one.state !== state || this.one.executions !== executions) await this.renewStates();
  }

  get isAgents() {
    return Boolean(this.one.run && !this.one.parent);
  }

  async renew() {
    const one = await get(this.path);
    this.one = one;
    if (this.signal.aborted) return;
    const parent = one.parent ? el("a", { href: `#/sandboxes/${one.parent}`, textContent: "what it was forked from" }) : null;
    const run = one.run ? el("a", { href: `#/runs/${one.run}`, textContent: "its run" }) : null;
    const facts = [badge(one.state), el("span", { textContent: `by ${line(one.owner, 40)}` }), el("span", { textContent: `since ${ago(one.created)}` }), el("span", { textContent: `${count(one.tools.length)} tools` }), parent, run];
    this.title.textContent = nameOf(one);
    this.facts.replaceChildren(...facts.filter(Boolean));
  }

  /** Closing cannot be undone, so the button asks once. */
  #closer() {
    let isSure = false;
    const made = button("Close", async () => {
      if (!isSure) {
        isSure = true;
        made.textContent = "Really close?";
        return;
      }
      await post(`${this.path}/close`);
      location.hash = "#/sandboxes";
    });
    made.addEventListener("blur", () => { isSure = false; made.textContent = "Close"; });
    return made;
  }

  async renewStates() {
    if (this.isAgents && this.one.state === "busy") {
      if (!this.states.childElementCount) this.states.append(el("p.note", { textContent: "They are shown when the execution under way has ended." }));
      return; // what was shown before is true until then
    }
    const { checkpoints } = await get(`${this.path}/checkpoints`);
    this.tree.replaceChildren(tree(checkpoints, { back: (one) => this.#back(one), fork: (one) => this.#fork(one) }));
    if (!this.states.contains(this.tree)) this.states.replaceChildren(this.tree, this.#keeper());
  }

  #keeper() {
    const name = el("input", { type: "text", placeholder: "Name", ariaLabel: "Name of the state", maxLength: 100 });
    const keep = button("Keep this state", async () => {
      await this.keep({ name: name.value });
      name.value = "";
      await this.renewStates();
    });
    return el("div.row", {}, name, keep);
  }

  async #back({ number, container }) {
    const done = await this.back({ number, container });
    toast(done.files_restored ? "The state is as it was then, files too." : `The variables are as they were then; files were kept: ${line(done.files_reason)}`, "good");
    await this.renewStates();
  }

  async #fork({ number, container }) {
    const made = await this.fork({ number, container });
    location.hash = `#/sandboxes/${made.id}`;
  }

  async #isolation() {
    const { isolation } = await get(`${this.path}/isolation`);
    const rows = (isolation.layers || []).map(({ name, in_force: holds, proof, level }) =>
      el("li", {}, el("span.badge", { className: `badge ${holds ? "s-succeeded" : level === 1 ? "s-failed" : "s-queued"}`, textContent: holds ? "holds" : "no" }),
        el("span.name", { textContent: line(name, 80) }), el("span.sub", { textContent: line(proof, 300) })));
    const facts = `Level ${isolation.level} · ${line(isolation.runtime, 40)} · kernel ${line(isolation.kernel?.inside ?? "", 60)} · Python ${line(isolation.python, 20)}`;
    this.report.replaceChildren(el("p.note", { textContent: facts }), el("ul.layers", {}, rows));
  }

  #prompt() {
    const field = el("textarea.mono", { id: "prompt", rows: 4, spellcheck: false, placeholder: "Code to run here", ariaLabel: "Code to run here" });
    field.setAttribute("autocapitalize", "off");
    const send = button("Run", async () => {
      const code = field.value;
      if (!code.trim()) return field.focus();
      field.value = "";
      try {
        await this.#run(code);
      } catch (error) {
        field.value ||= code;
        throw error;
      }
    }, "primary");
    sendWith(field, send);
    return el("form.prompt", { onsubmit: (event) => event.preventDefault() }, field, el("div.row", {}, el("span.note", { textContent: "Ctrl Enter runs it" }), send));
  }

  async #run(code) {
    const view = new ExecutionView();
    view.setCode(code);
    const foot = el("footer", {}, el("span.used"));
    const card = el("article.step.live", {}, view.root, foot);
    this.executions.append(card);
    if (this.executions.childElementCount > MAX_EXECUTIONS) this.executions.firstElementChild.remove();
    try {
      await follow(`${this.path}/run`, { body: { code }, signal: this.signal, onEvent: (event) => { view.show(event); card.scrollIntoView({ block: "nearest" }); } });
    } finally {
      card.classList.remove("live");
      foot.firstChild.textContent = usageText(view.usage);
    }
    if (this.signal.aborted) return;
    this.#renewAll().catch((error) => toast(error.message)); // meanwhile the next code may be sent
  }

  #renewAll() {
    return Promise.all([this.renew(), this.renewStates(), this.refresh()]);
  }
}
