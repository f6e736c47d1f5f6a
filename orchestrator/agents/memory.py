"""What an agent remembers, and the messages that its model is shown of it.

History is append-only and steps never change, so each request begins with the very text of the one before it: providers
that cache prompts by their beginning can. A past code block is sent once, inside the model's own words.
"""

from __future__ import annotations

import copy
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.events import Execution
from orchestrator.models import ChatMessage, TokenUsage

RunState = Literal["success", "max_steps_error"]
ErrorKind = Literal["format", "execution", "final_answer_check"]

# What chat templates of open models take for the start of a role or a turn, if it stands in a message's text:
# <|im_start|>, <｜User｜>, [INST], <<SYS>>, <start_of_turn>, </s>. Servers that template text may not escape it.
_ROLE_TOKENS = re.compile(r"<(?=[|｜])|\[(?=/?INST\])|<(?=</?SYS>>)|<(?=/?s>)|<(?=(?:start|end)_of_turn>)")
_RETRY = (
    "Now let's retry: take care not to repeat previous errors! "
    "If you have retried several times, try a completely different approach."
)


@dataclass(frozen=True, slots=True)
class Timing:
    """When something began (seconds since the epoch) and how long it took (seconds)."""

    start_time: float
    duration: float

    @property
    def end_time(self) -> float:
        """When it ended, in seconds since the epoch."""
        return self.start_time + self.duration


class Stopwatch:
    """Runs from its making. The duration is by the monotonic clock: the other one may be set while it runs."""

    def __init__(self) -> None:
        self._start = time.time()
        self._monotonic = time.monotonic()

    def timing(self) -> Timing:
        """From the start until now."""
        return Timing(self._start, time.monotonic() - self._monotonic)


@dataclass(frozen=True, slots=True)
class SystemPromptStep:
    """The beginning of every conversation."""

    system_prompt: str

    def to_messages(self) -> Iterator[ChatMessage]:
        """The system message."""
        yield ChatMessage("system", self.system_prompt)


@dataclass(frozen=True, slots=True)
class TaskStep:
    """What the user wants."""

    task: str

    def to_messages(self) -> Iterator[ChatMessage]:
        """The task as the user's message."""
        yield ChatMessage("user", f"New task:\n{self.task}")


@dataclass(frozen=True, slots=True)
class StepError:
    """Why a step failed, in words for the model, which then tries again."""

    kind: ErrorKind
    message: str

    def __str__(self) -> str:
        return self.message


def new_fence() -> str:
    """A name for one step's fence that the code in that step cannot guess."""
    return f"output-{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class ActionStep:
    """One turn: what the model wrote, the code in it, and what came of it.

    Attributes:
        step_number: from 1 in each run.
        timing: from asking the model to the end of the execution.
        model_output: the model's words, code included.
        code_action: the code that ran; None if none was found (``error`` says so) or none was wanted.
        observations: what the code wrote and gave, safe to show, shortened. Text of the sandbox, not of the host.
        remarks: the host's words about the execution: that it was stopped, what became of the variables.
        error: None unless the step failed.
        execution: the outcome as the sandbox gave it, unshortened; with ``on_error="rollback"`` one that failed has the
            state ``restored``, if the agent went back.
        token_usage: of the model call, where the endpoint counts.
        is_final_answer: whether ``action_output`` is the answer of the run.
        action_output: the final answer, else the value of the code's last expression.
        fence: the name of the marks around ``observations`` in the prompt.
    """

    step_number: int
    timing: Timing
    model_output: str
    code_action: str | None = None
    observations: str | None = None
    remarks: str = ""
    error: StepError | None = None
    execution: Execution | None = None
    token_usage: TokenUsage | None = None
    is_final_answer: bool = False
    action_output: Any = None
    fence: str = field(default_factory=new_fence)

    def to_messages(self) -> Iterator[ChatMessage]:
        """The model's words, then what came of them.

        What the sandbox wrote is fenced by a name it could not know when it wrote, so it cannot leave the fence; what
        the host says stands outside.
        """
        yield ChatMessage("assistant", self.model_output or "(no text)")
        report = "\n".join(self._report())
        if report:
            yield ChatMessage("user", report)

    def _report(self) -> Iterator[str]:
        from_host = self.error is not None and self.error.kind == "format"
        inside = [self.observations] if self.observations else []
        if self.error and not from_host:
            inside.append(f"Error:\n{self.error.message}")
        if inside:
            text = _ROLE_TOKENS.sub(r"\g<0> ", "\n".join(inside))
            yield f"Observation:\n<{self.fence}>\n{text}\n</{self.fence}>"
        if self.remarks:
            yield _ROLE_TOKENS.sub(r"\g<0> ", self.remarks)  # a reason in them may quote what the sandbox said
        if self.error:
            yield f"Error:\n{self.error.message}\n{_RETRY}" if from_host else _RETRY


@dataclass(frozen=True, slots=True)
class FinalAnswerStep:
    """The end of a run; streamed, not kept in memory (the last ``ActionStep`` holds the answer)."""

    output: Any
    state: RunState = "success"


MemoryStep = SystemPromptStep | TaskStep | ActionStep


class AgentMemory:
    """The system prompt and all steps since the last reset.

    Attributes:
        system_prompt: the first step; stays over resets.
        steps: the others, oldest first.
    """

    def __init__(self, system_prompt: str) -> None:
        self.system_prompt = SystemPromptStep(system_prompt)
        self.steps: list[TaskStep | ActionStep] = []
        self._written: list[tuple[MemoryStep, tuple[ChatMessage, ...]]] = []

    def append(self, step: TaskStep | ActionStep) -> None:
        """Adds the newest step."""
        self.steps.append(step)

    def reset(self) -> None:
        """Forgets all steps."""
        self.steps = []

    def copy(self) -> AgentMemory:
        """Another memory with the same steps, which never change, in a list of its own."""
        twin = copy.copy(self)
        twin.steps = list(self.steps)
        twin._written = list(self._written)
        return twin

    def all_steps(self) -> tuple[MemoryStep, ...]:
        """The system prompt and every step."""
        return (self.system_prompt, *self.steps)

    def to_messages(self) -> list[ChatMessage]:
        """The conversation so far. Neighbours of one role are one message: some templates want roles to alternate."""
        return _merged(message for _, messages in self._write() for message in messages)

    def _write(self) -> list[tuple[MemoryStep, tuple[ChatMessage, ...]]]:
        """Each step with its messages, written once: the hundredth request should cost no more than the first."""
        for place, step in enumerate(self.all_steps()):
            if place < len(self._written) and self._written[place][0] is not step:
                del self._written[place:]
            if place == len(self._written):
                self._written.append((step, tuple(step.to_messages())))
        del self._written[1 + len(self.steps) :]
        return self._written

    def return_full_code(self) -> str:
        """All code that ran, in order."""
        return "\n\n".join(s.code_action for s in self.steps if isinstance(s, ActionStep) and s.code_action)


def _merged(messages: Iterable[ChatMessage]) -> list[ChatMessage]:
    merged: list[ChatMessage] = []
    for message in messages:
        if merged and merged[-1].role == message.role:
            message = ChatMessage(message.role, f"{merged.pop().content}\n\n{message.content}")
        merged.append(message)
    return merged
