// The events of a run, one after another, as what they are. Runs of team members are views of their own inside.

import { ExecutionView, errorNode, usageText } from "./execution.js";
import { QuestionView } from "./question.js";
import { el } from "./dom.js";
import { clip, count, line, safe, seconds } from "./text.js";
import { picture, valueNode } from "./values.js";

const MAX_STEPS = 500; // steps that stay on the page, the last ones
const MAX_TEAM = 8; // levels of members' members that are drawn

export class RunView {
  /** `decide` answers a question; `level` is that of a member in its team. */
  constructor(decide, level = 0) {
    this.root = el("div.events");
    this.decide = decide;
    this.level = level;
    this.questions = new Map();
    this.bars = [];
    this.step = null;
    this.member = null;
    this.usage = { model: 0, code: 0 };
  }

  get openQuestions() {
    return [...this.questions.values()].filter((question) => question.isOpen);
  }

  show(event) {
    const kind = line(event?.kind, 40);
    try {
      if (Object.hasOwn(SHOW, kind)) SHOW[kind](this, event);
      else this.add(note(`An event of the kind ${kind}.`));
    } catch (error) { // one that is not as it should be takes the others along nowhere
      this.add(note(`An event of the kind ${kind} that cannot be shown: ${line(error.message)}`));
    }
  }

  add(node) {
    this.root.append(node);
    if (this.root.childElementCount > MAX_STEPS) this.root.firstElementChild.remove();
  }

  /** The step under way; one is made for what comes without. */
  get now() {
    if (!this.step) {
      this.step = new StepView(null, 0);
      this.add(this.step.root);
    }
    return this.step;
  }

  ended() {
    for (const question of this.questions.values()) question.gone();
    this.step?.ended();
    this.member?.view.ended();
  }
}

class StepView {
  constructor(number, most) {
    this.title = el("h3", { textContent: number ? `Step ${number}` : "Step" });
    this.said = document.createTextNode("");
    this.thought = el("p.thought", {}, this.said);
    this.execution = new ExecutionView();
    this.team = el("div.team");
    this.foot = el("footer");
    this.root = el("article.step.live", {}, el("header", {}, this.title, el("span.of", { textContent: most ? `of at most ${most}` : "" }), el("span.spin", { ariaLabel: "under way" })),
      this.thought, this.execution.root, this.team, this.foot);
  }

  setCode({ thought, code }) {
    this.said.data = safe(thought || "").replace(/^Thought:\s*/, "");
    this.execution.setCode(code);
    this.hasCode = true;
  }

  finish(step, view) {
    this.ended();
    this.title.textContent = `Step ${step.step_number}`;
    if (step.code_action && !this.hasCode) this.setCode({ thought: step.model_output, code: step.code_action });
    else if (!this.hasCode) this.said.data = safe(step.model_output || "");
    if (step.tool_calls?.length) this.execution.setCalls(step.tool_calls);
    if (step.error && step.error.kind !== "execution") this.root.insertBefore(errorNode(step.error.message), this.foot);
    this.root.classList.toggle("failed", Boolean(step.error));
    this.foot.append(...footNodes(step, view), ...toldNodes(step));
  }

  ended() {
    this.root.classList.remove("live");
  }
}

function footNodes(step, view) {
  const total = step.timing?.duration || 0;
  const code = Math.min(step.execution?.usage?.wall_seconds || 0, total);
  const bar = el("div.bar", { ariaHidden: "true" }, el("span.model"), el("span.ran"));
  view.bars.push({ bar, total, code });
  const longest = Math.max(...view.bars.map((one) => one.total), 1e-9);
  for (const one of view.bars) {
    one.bar.children[0].style.width = `${(100 * (one.total - one.code)) / longest}%`;
    one.bar.children[1].style.width = `${(100 * one.code) / longest}%`;
  }
  const words = [`model and waiting ${seconds(total - code)}`, usageText(step.execution?.usage), tokens(step.token_usage)].filter(Boolean);
  return [bar, el("span.used", { textContent: words.join(" · ") })];
}

const tokens = (usage) => (usage ? `${count(usage.input_tokens)} tokens in, ${count(usage.output_tokens)} out` : "");

/** What the model was told of a step, made when somebody wants to see it. */
function toldNodes({ observations, remarks }) {
  const text = [observations, remarks].filter(Boolean).join("\n\n");
  if (!text) return [];
  const told = el("details.told", {}, el("summary", { textContent: "What the model was told" }));
  told.addEventListener("toggle", () => told.children[1] || told.append(el("pre.text", { textContent: safe(text) })));
  return [told];
}

const card = (name, title, ...children) => el(`article.card.${name}`, {}, el("h3", { textContent: title }), ...children);
const note = (text) => el("p.note", { textContent: text });
const prose = (text) => el("p.prose", { textContent: safe(text) });

function overheard(view, { agent, event }) {
  if (view.level >= MAX_TEAM) return;
  const isNew = event.kind === "task_step" || view.member?.agent !== agent || view.member?.step !== view.now;
  if (isNew) {
    const inner = new RunView(view.decide, view.level + 1);
    view.member = { agent, step: view.now, view: inner };
    view.now.team.append(el("details.member", { open: true }, el("summary", { textContent: line(agent, 80) }), inner.root));
  }
  view.member.view.show(event);
}

const inStep = (view, event) => view.now.execution.show(event);

const SHOW = {
  task_step: (view, { task, task_images: images }) => {
    view.step = null;
    view.add(card("task", "Task", prose(task), ...(images || []).map((image) => picture(image?.mime, image?.data))));
  },
  planning_step: (view, { plan, timing, token_usage: usage }) => {
    view.step = null;
    view.add(card("plan", "Plan", prose(plan), note([seconds(timing?.duration || 0), tokens(usage)].filter(Boolean).join(" · "))));
  },
  rebuilt: (view, { actions, differences }) =>
    view.add(card("quiet", "The run goes on", note(`${count(actions)} execution${actions === 1 ? " was" : "s were"} run again, so that its state is as it was.`), ...(differences || []).map((text) => prose(text)))),
  note_step: (view, { note: text, summary }) => view.add(card("quiet", "Note", prose(text), summary ? prose(summary) : null)),
  compacted: (view, { tokens_before: before, tokens_after: after }) => view.add(note(`The conversation was shortened: from about ${count(before)} tokens to ${count(after)}.`)),
  step_started: (view, { step_number: number, max_steps: most }) => {
    view.step?.ended();
    view.step = new StepView(number, most);
    view.add(view.step.root);
  },
  model_delta: (view, { text }) => {
    const { said } = view.now;
    if (text && !view.now.hasCode && said.length < 100_000) said.appendData(safe(text));
  },
  code_action: (view, event) => view.now.setCode(event),
  output: inStep, tool_call: inStep, tool_outcome: inStep, finished: inStep,
  observation: () => {}, // it is in the step that follows
  overheard,
  action_step: (view, step) => {
    view.now.finish(step, view);
    view.step = null;
  },
  final_answer_step: (view, { output, state }) => {
    const late = state === "max_steps_error" ? [note("Given as the steps were used up.")] : [];
    view.add(card("answer", "Answer", typeof output === "string" ? prose(clip(output)) : valueNode(output), ...late));
  },
  approval_asked: (view, asked) => {
    const question = new QuestionView(asked, view.decide);
    view.questions.set(question.id, question);
    (view.step ? view.step.team : view.root).append(question.root);
  },
  approval_decided: (view, decision) => view.questions.get(decision.question)?.decided(decision),
  left_out: (view, { reason }) => view.add(note(line(reason))),
};
