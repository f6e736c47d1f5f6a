"""Shows a run on a terminal as it happens. All text is sanitised: it comes from a model and from a sandbox."""

from __future__ import annotations

import threading

from rich.console import Console
from rich.panel import Panel
from rich.rule import Rule
from rich.syntax import Syntax
from rich.text import Text

from orchestrator.agents.observation import truncate
from orchestrator.agents.parsing import CodeAction
from orchestrator.agents.run import Compacted, Overheard, Rebuilt, RunEvent, StepStarted
from orchestrator.agents.steps import ActionStep, FinalAnswerStep, NoteStep, PlanningStep, TaskStep
from orchestrator.events import (
    ApprovalAsked,
    ApprovalDecided,
    Execution,
    Finished,
    Output,
    State,
    ToolCall,
    ToolOutcome,
)
from orchestrator.models import ModelDelta
from orchestrator.sanitise import in_words, sanitise

MAX_SHOWN = 20_000  # characters of one text, or of one execution's output: more scrolls everything else away
_MAX_ARGUMENTS = 200  # characters of a tool call's arguments
_MAX_VALUE = 2_000  # characters of a value


class RunPrinter:
    """Prints the events of a run: ``for event in agent.run(task, stream=True): printer.show(event)``.

    Args:
        console: where to. Default: standard output.
        show_code: False where somebody else shows it, to ask about it.
        show_deltas: also the pieces of the model's replies, as they come.
        floor: who holds it has the terminal alone: nothing is printed over a question that somebody else asks there.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        show_code: bool = True,
        show_deltas: bool = False,
        floor: threading.Lock | None = None,
    ) -> None:
        self._console = console or Console()
        self._show_code = show_code
        self._show_deltas = show_deltas
        self._floor = floor or threading.Lock()
        self._written = 0  # characters of the output of this execution
        self._at_line_start = True
        self._speaking: tuple[str, ...] = ()  # whose event was shown last: members of the team, or the agent itself

    def show(self, event: RunEvent) -> None:
        """Prints one event.

        Blocks while somebody else has the floor: not to be called on the loop in which an approver waits for an answer.
        """
        with self._floor:
            self._show(event)

    def _show(self, event: RunEvent) -> None:
        team = []
        while isinstance(event, Overheard):
            team.append(event.agent)
            event = event.event
        if tuple(team) != self._speaking:
            self._speaking = tuple(team)
            self._print(Rule(" · ".join(team) or "the manager", align="left", style="yellow"))
        self._show_own(event)

    def _show_own(self, event: RunEvent) -> None:
        match event:
            case TaskStep(task):
                self._print(Panel(_text(task.strip()), title="Task", title_align="left", border_style="cyan"))
            case StepStarted(number, limit):
                self._written = 0
                most = f" of at most {limit}" if limit else ""
                self._print(Rule(f"Step {number}{most}", align="left", style="cyan"))
            case PlanningStep(plan):
                self._print(Panel(_text(plan.strip()), title="Plan", title_align="left", border_style="cyan"))
            case NoteStep(note, summary):
                self._print(_text("\n".join(filter(None, (summary, note))), "yellow"))
            case Rebuilt(actions, differences):
                told = "".join(f"\n- {difference}" for difference in differences)
                self._print(_text(f"{actions} actions were run again{told}", "yellow"))
            case Compacted(before, after):
                self._print(_text(f"The conversation was shortened, from about {before:,} tokens to {after:,}", "dim"))
            case ModelDelta(text) if self._show_deltas and text:
                self._show_output(text, "dim")
            case CodeAction(code, thought):
                self._show_action(code, thought)
            case Output(stream, text):
                self._show_output(text, "red" if stream == "stderr" else "")
            case ToolCall(_, name, args, kwargs):
                arguments = ", ".join(
                    [*map(in_words, args), *(f"{key}={in_words(value)}" for key, value in kwargs.items())]
                )
                self._print(_text(f"→ {name}({_short(arguments, _MAX_ARGUMENTS)})", "magenta"))
            case ToolOutcome(_, name, error, seconds):
                end = f": {error}" if error else ""
                self._print(_text(f"← {name} after {_seconds(seconds)}{end}", "red" if error else "magenta"))
            case Finished(execution):
                self._show_end(execution)
            case ApprovalAsked(question, tool, arguments, agent=agent):
                what = f"call {tool}({_short(in_words(dict(arguments)), _MAX_ARGUMENTS)})" if tool else "run this code"
                self._print(_text(f"? may {agent or 'the agent'} {what} (question {question})", "bold yellow"))
            case ApprovalDecided(_, approved, reason, by):
                self._print(_text(f"{'approved' if approved else 'refused'} by {by or 'nobody'} {reason}", "yellow"))
            case ActionStep():
                self._show_step(event)
            case FinalAnswerStep(output, state):
                title = "Final answer" if state == "success" else "Answer when the steps were used up"
                shown = output if isinstance(output, str) else in_words(output)
                self._print(Panel(_text(shown), title=title, title_align="left", border_style="green"))

    def _show_action(self, code: str, thought: str) -> None:
        if thought:
            self._print(_text(thought, "italic"))
        if self._show_code:
            self._print(
                Syntax(
                    sanitise(truncate(code, MAX_SHOWN)),
                    "python",
                    background_color="default",
                    word_wrap=True,
                    padding=(0, 2),
                )
            )
        self._written = 0

    def _show_output(self, text: str, style: str) -> None:
        """A piece of output, without a line break of our own; what passes the limit is announced once, not shown."""
        room = MAX_SHOWN - self._written
        self._written += len(text)
        if room > 0:
            shown = sanitise(text[:room])
            self._console.print(Text(shown, style), end="", soft_wrap=True)
            self._at_line_start = shown.endswith("\n")
        if 0 <= room < len(text):
            self._print(_text("(more output is not shown)", "dim"))
            self._written = MAX_SHOWN + 1

    def _show_end(self, execution: Execution) -> None:
        if execution.error is not None:
            self._print(_text(str(execution.error), "red"))
        elif execution.text is not None and execution.final_answer is None:
            self._print(_text(f"Value: {_short(execution.text, _MAX_VALUE)}", "blue"))
        if not execution.ok and (execution.state is not State.KEPT or execution.error is None):
            self._print(_text(f"{execution.status}; variables: {execution.state}", "red"))

    def _show_step(self, step: ActionStep) -> None:
        if step.code_action is None and step.model_output.strip():
            self._print(_text(step.model_output.strip(), "italic"))
        for result in step.tool_calls:
            if not result.failed and not step.is_final_answer:  # failures were shown as they happened
                self._print(_text(f"{result.name}: {_short(result.text, _MAX_VALUE)}", "blue"))
        if step.error is not None and step.error.kind != "execution":  # an execution's error was shown at its end
            self._print(_text(step.error.message, "red"))
        usage = step.token_usage
        tokens = f", tokens: {usage.input_tokens} read, {usage.output_tokens} written" if usage else ""
        self._print(_text(f"{_seconds(step.timing.duration)}{tokens}", "dim"))

    def _print(self, what: Text | Panel | Rule | Syntax) -> None:
        if not self._at_line_start:
            self._console.print()
        self._at_line_start = True
        self._console.print(what)


def _text(text: str, style: str = "") -> Text:
    """Cut before it is made safe: a value may have two megabytes, and each of its lines takes a kilobyte to show."""
    return Text(sanitise(truncate(text, MAX_SHOWN)), style)


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds * 1000:.1f} ms"
