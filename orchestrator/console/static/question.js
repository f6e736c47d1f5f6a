// Something that somebody has to decide: all of it is shown, as the server has written it out.

import { button, el } from "./dom.js";
import { codeBlock } from "./highlight.js";
import { clock, line } from "./text.js";
import { picture } from "./values.js";

export class QuestionView {
  /** `decide(question, approved, reason)` answers it. */
  constructor(asked, decide) {
    this.id = asked.question;
    this.state = el("p.decided");
    this.reason = el("input", { type: "text", placeholder: "Reason, if refused", maxLength: 500, ariaLabel: "Reason" });
    const answer = (approved) => decide(this.id, approved, this.reason.value);
    this.approve = button("Approve", () => answer(true), "primary");
    this.refuse = button("Refuse", () => answer(false), "danger");
    this.form = el("div.answers", {}, this.approve, this.refuse, this.reason);
    const why = [asked.agent && `${line(asked.agent, 60)} asks`, asked.reason && line(asked.reason, 300)].filter(Boolean).join(": ");
    this.root = el("section.question", { tabIndex: -1, ariaLabel: "Question" },
      el("h3", { textContent: asked.tool ? "May this tool be called?" : "May this code run?" }),
      el("p.note", { textContent: `${why ? `${why}. ` : ""}Refused by itself at ${clock(asked.deadline)}.` }),
      typeof asked.shown === "string" ? codeBlock(asked.shown) : null, (asked.pictures || []).map((one) => picture(one.mime, one.data)),
      this.form, this.state);
    if (typeof asked.shown === "string") return;
    this.approve.remove(); // nobody can say yes to what he does not see
    this.form.prepend(el("p.note.bad", { textContent: "It cannot be shown whole, so it can only be refused here." }));
  }

  get isOpen() {
    return this.form.isConnected;
  }

  decided({ approved, reason, by }) {
    this.form.remove();
    this.root.classList.add(approved ? "approved" : "refused");
    const who = by ? ` by ${line(by, 60)}` : "";
    this.state.textContent = approved ? `Approved${who}.` : `Refused${who}${reason ? `: ${line(reason, 500)}` : ""}.`;
  }

  /** The run has ended: nobody waits for an answer. */
  gone() {
    if (!this.isOpen) return;
    this.form.remove();
    this.state.textContent = "The run has ended; nobody waits for an answer any more.";
  }
}
