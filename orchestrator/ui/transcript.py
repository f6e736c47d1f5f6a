"""A run's events as messages of a chat window. No I/O.

Each step is a part with the model's thoughts in it, and the code, its output, tool calls, results and errors as parts
of their own below; it folds when it is done. What a member of the team does is a part of the step that called it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.agents import (
    ActionStep,
    AgentEvent,
    CodeAction,
    FinalAnswerStep,
    Observation,
    Overheard,
    PlanningStep,
    StepStarted,
    TaskStep,
)
from orchestrator.agents.run import Compacted
from orchestrator.agents.steps import CallResult, NoteStep
from orchestrator.events import Execution, Finished, Output, ToolCall, ToolOutcome
from orchestrator.models import ModelDelta
from orchestrator.sanitise import in_words
from orchestrator.ui import content, markup
from orchestrator.ui.messages import RunMessages

MAX_NAME = 80  # characters of a tool's or a member's name in a title
_CAN_ANSWER = "final_answer"
_SHORT_OF_STEPS = "*The steps were used up. This is the model's last word:*"


class Transcript:
    """One run: ``show`` takes its events in their order, ``end`` comes last."""

    def __init__(self, messages: RunMessages) -> None:
        self._messages = messages
        self._speakers: dict[tuple[str, ...], _Speaker] = {(): _Speaker(messages, None)}

    def ask(self, task: str, files: Sequence[str] = ()) -> None:
        """What the visitor wrote, and the names of the files that came along."""
        names = [f"- {markup.title(name, MAX_NAME)}" for name in files]
        self._messages.add("user", "\n".join((markup.plain(task), *([""] if names else []), *names)), always=True)

    def show(self, event: AgentEvent) -> None:
        """The next event."""
        team: tuple[str, ...] = ()
        while isinstance(event, Overheard):
            team += (event.agent,)
            event = event.event
        if team and isinstance(event, TaskStep):
            self._begin(team)
            return
        self._speakers[self._known(team)].show(event)
        if isinstance(event, ToolOutcome) and (*team, event.name) in self._speakers:
            self._speakers[*team, event.name].leave()

    def end(self, problem: str | None = None) -> None:
        """The run has ended; ``problem``, if it did so without an answer, is the host's own word for why."""
        self._messages.end()
        if self._messages.left_out:
            more = f"*{self._messages.left_out:,} further parts of this run are not shown.*"
            self._messages.add("assistant", more, always=True)
        if problem:
            self._messages.add("assistant", markup.plain(problem), always=True)

    def _begin(self, team: tuple[str, ...]) -> None:
        """A member's run begins: a part below the step in which it was called. Its task stands in the call."""
        caller = self._speakers[self._known(team[:-1])]
        part = self._messages.add(
            "assistant",
            title=f"Team member {markup.title(team[-1], MAX_NAME)}",
            parent=caller.part,
            is_pending=True,
            folds=True,
        )
        self._speakers[team] = _Speaker(self._messages, part)

    def _known(self, team: tuple[str, ...]) -> tuple[str, ...]:
        while team not in self._speakers:
            team = team[:-1]
        return team


class _Speaker:
    """The agent, or a member of its team. ``home`` is the part that its own parts belong to."""

    def __init__(self, messages: RunMessages, home: int | None) -> None:
        self._messages = messages
        self._home = home
        self._step: int | None = None
        self._is_in_step = False
        self._draft: int | None = None  # what the model writes outside of a step: a plan, the last answer
        self._said = _Growing()
        self._output: int | None = None
        self._written: _Growing | None = None
        self._calls: dict[int, int | None] = {}

    @property
    def part(self) -> int | None:
        """Where what happens now belongs."""
        return self._step if self._is_in_step else self._home

    def leave(self) -> None:
        """It was called, and has ended, with an answer or without."""
        self._messages.set(self._home, is_pending=False)

    def show(self, event: AgentEvent) -> None:
        """One of its own events."""
        match event:
            case StepStarted(number, limit):
                self._start(f"Step {number} of at most {limit}")
            case ModelDelta(text) if text:
                self._say(text)
            case PlanningStep(plan):
                key = self._draft or self._add("Plan")
                self._draft, self._said = None, _Growing()
                self._messages.put(key, markup.prose(plan))
                self._messages.set(key, title="Plan", is_pending=False, seconds=event.timing.duration)
            case CodeAction(code, thought):
                self._messages.put(self._step, markup.prose(thought))
                self._add("Code", markup.block(code, "python"))
                self._output, self._written = None, None
            case Output(_, text):
                self._print(text)
            case ToolCall():
                self._call(event)
            case ToolOutcome():
                self._called(event)
            case Finished(execution):
                self._ran(execution)
            case Observation(_, remarks) if remarks:
                self._add("Note", markup.plain(remarks))
            case NoteStep(note, summary):
                self._add("Note", "\n\n".join(filter(None, (markup.prose(summary), markup.plain(note)))))
            case Compacted(before, after):
                self._add("Note", f"The conversation was shortened, from about {before:,} tokens to {after:,}.")
            case ActionStep():
                self._end_step(event)
            case FinalAnswerStep(output, state):
                self._answer(content.value(output), state)

    def _add(self, title: str, text: str = "", **more: Any) -> int | None:
        return self._messages.add("assistant", text, title=title, parent=self.part, **more)

    def _start(self, title: str) -> None:
        self._is_in_step = False
        self._step = self._add(title, is_pending=True, folds=True)
        self._is_in_step = self._step is not None
        self._said, self._calls = _Growing(), {}

    def _say(self, text: str) -> None:
        """A piece of the model's reply."""
        if not self._is_in_step and self._draft is None:
            self._draft = self._add("Thinking", is_pending=True)
        self._said.add(text)
        said = self._said
        self._messages.draft(self._step if self._is_in_step else self._draft, lambda: markup.prose(said.text))

    def _print(self, text: str) -> None:
        if self._written is None:
            self._output, self._written = self._add("Output"), _Growing()
        self._written.add(text)
        written = self._written
        self._messages.draft(self._output, lambda: markup.block(written.text))

    def _call(self, call: ToolCall) -> None:
        name = markup.title(call.name, MAX_NAME)
        self._calls[call.id] = self._add(f"Tool {name}", markup.block(_arguments(call), "python"), is_pending=True)
        self._output, self._written = None, None  # what is printed after it stands below it

    def _called(self, outcome: ToolOutcome) -> None:
        key = self._calls.get(outcome.id)
        self._messages.set(key, is_pending=False, seconds=outcome.seconds)
        if outcome.error:
            self._messages.set(key, note=str(outcome.ending))
            self._messages.more(key, markup.block(outcome.error))

    def _ran(self, execution: Execution) -> None:
        if execution.error is not None:
            self._add("Error", markup.block(str(execution.error)))
        elif not execution.ok:
            self._add("Error", markup.plain(f"{execution.status}; variables: {execution.state}"))
        elif execution.text not in (None, "None") and execution.final_answer is None:
            self._add("Value", markup.block(execution.text or ""))
        if pictures := content.pictures(execution.value, execution.results):
            self._add("Pictures", pictures)

    def _end_step(self, step: ActionStep) -> None:
        if not self._is_in_step:  # the answer that was asked for after the last step, which is shown as such
            return
        if step.code_action is None:
            self._messages.put(self._step, markup.prose(step.model_output))
        others = [result for result in step.tool_calls if result.call.name != _CAN_ANSWER]
        for number, result in enumerate(others, 1):
            self._result(number, result)
        if step.error is not None and step.error.kind in ("format", "final_answer_check"):
            self._add("Error", markup.block(step.error.message))
        self._messages.set(self._step, is_pending=False, seconds=step.timing.duration, note=_tokens(step))
        self._is_in_step = False

    def _result(self, number: int, result: CallResult) -> None:
        """What a call gave. A failure was told when it happened."""
        if not result.failed:
            self._messages.more(self._calls.get(number), markup.block(result.text))

    def _answer(self, answer: str, state: str) -> None:
        text = answer if state == "success" else f"{_SHORT_OF_STEPS}\n\n{answer}"
        if self._home is not None:
            self._add("Answer", text)
        else:
            self._messages.add("assistant", text, always=True)


class _Growing:
    """Text that comes in pieces; what passes the limit is counted, and not kept."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._size = 0
        self._missing = 0

    def add(self, piece: str) -> None:
        kept = piece[: max(0, markup.MAX_SHOWN - self._size)]
        self._size += len(kept)
        self._missing += len(piece) - len(kept)
        if kept:
            self._pieces.append(kept)

    @property
    def text(self) -> str:
        """All of it."""
        self._pieces = ["".join(self._pieces)]
        more = f"\n[… {self._missing:,} more characters are not shown …]" if self._missing else ""
        return self._pieces[0] + more


def _arguments(call: ToolCall) -> str:
    given = [*map(in_words, call.args)]
    given += [f"{name}={in_words(value)}" for name, value in call.kwargs.items()]
    return f"{call.name}({', '.join(given)})"


def _tokens(step: ActionStep) -> str:
    usage = step.token_usage
    return f"{usage.input_tokens:,} tokens read, {usage.output_tokens:,} written" if usage else ""
