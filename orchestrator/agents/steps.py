"""The steps that a run consists of, and the messages that a model is shown of each.

They are frozen, but for what step callbacks assign in smolagents: the plan of a ``PlanningStep``, the observations and
their pictures of an ``ActionStep``. A past code block is sent once, inside the model's own words.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import FrozenInstanceError, dataclass, field
from typing import Any, Literal

from orchestrator.agents.parsing import CodeTags
from orchestrator.events import Execution
from orchestrator.media import AgentImage
from orchestrator.models import ChatMessage, ChatToolCall, TokenUsage
from orchestrator.sanitise import without_roles

RunState = Literal["success", "max_steps_error"]
ErrorKind = Literal["format", "execution", "tool", "final_answer_check"]

_RETRY = (
    "Now let's retry: take care not to repeat previous errors! "
    "If you have retried several times, try a completely different approach."
)
_PROCEED = "Now proceed and carry out this plan."


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


class _Written:
    """A step that can be written down."""

    __slots__ = ()

    def dict(self) -> Mapping[str, Any]:
        """All of it as ``json`` can write it; ``step_from_dict`` in memory_json.py makes a step of that again."""
        from orchestrator.agents.memory_json import step_to_dict  # which makes steps

        return step_to_dict(self)  # type: ignore[arg-type]  # every step is one of these


@dataclass(frozen=True, slots=True)
class SystemPromptStep(_Written):
    """The beginning of every conversation."""

    system_prompt: str

    def to_messages(self) -> Iterator[ChatMessage]:
        """The system message."""
        yield ChatMessage("system", self.system_prompt)


@dataclass(frozen=True, slots=True)
class TaskStep(_Written):
    """What the user wants, with pictures for a model that sees."""

    task: str
    task_images: tuple[AgentImage, ...] = ()

    def to_messages(self) -> Iterator[ChatMessage]:
        """The task as the user's message."""
        yield ChatMessage("user", without_roles(f"New task:\n{self.task}"), self.task_images)


@dataclass(frozen=True, slots=True)
class PlanningStep(_Written):
    """The model's plan; what it was asked to make one is not kept.

    Attributes:
        plan: its words.
        timing: of the model call.
        token_usage: of it, where the endpoint counts.
    """

    plan: str
    timing: Timing
    token_usage: TokenUsage | None = None

    def to_messages(self) -> Iterator[ChatMessage]:
        """The plan as the model's own words, and that it should go on."""
        yield ChatMessage("assistant", self.plan or "(no plan)")
        yield ChatMessage("user", _PROCEED)


@dataclass(frozen=True, slots=True)
class StepError:
    """Why a step failed, in words for the model, which then tries again."""

    kind: ErrorKind
    message: str

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class CallResult:
    """What one tool call of a ``ToolCallingAgent`` came to: its result in words, safe to show, or why there is none."""

    call: ChatToolCall
    text: str
    failed: bool = False

    @property
    def name(self) -> str:
        """The tool's."""
        return self.call.name

    @property
    def arguments(self) -> Any:
        """As the model wrote them."""
        return self.call.arguments

    @property
    def id(self) -> str:
        """The call's."""
        return self.call.id


def new_fence() -> str:
    """A name for one step's fence that the code in that step cannot guess."""
    return f"output-{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class ActionStep(_Written):
    """One turn: what the model wrote, the code or the tool calls in it, and what came of it.

    Attributes:
        step_number: from 1 in each run.
        timing: from asking the model to the end of the action.
        model_output: the model's words, code included.
        code_action: the code that ran; None if none was found (``error`` says so) or none was wanted.
        observations: what the code wrote and gave, or what the tools gave, safe to show, shortened. Text of the
            sandbox or of tools, not of the host.
        remarks: the host's words about the step: that code was stopped, what became of the variables.
        error: None unless the step failed.
        execution: the outcome as the sandbox gave it, unshortened; with ``on_error="rollback"`` one that failed has the
            state ``restored``, if the agent went back.
        token_usage: of the model call, where the endpoint counts.
        is_final_answer: whether ``action_output`` is the answer of the run.
        action_output: the final answer, else the value of the code's last expression.
        tool_calls: of a ``ToolCallingAgent``, in the model's order, each with its result.
        native_calls: whether they are calls of the model's API, and no text that was read as such.
        observations_images: pictures for the model. A step callback may assign some, of Pillow too, or None.
        fence: the name of the marks around ``observations`` in the prompt.
        code_tags: what the model was told to put around code; None for the usual ones. Another agent may show the step.
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
    tool_calls: tuple[CallResult, ...] = ()
    native_calls: bool = False
    observations_images: tuple[AgentImage, ...] = ()
    fence: str = field(default_factory=new_fence)
    code_tags: CodeTags | None = None

    def to_messages(self) -> Iterator[ChatMessage]:
        """The model's words, then what came of them.

        What the sandbox or a tool wrote is fenced by a name it could not know when it wrote, so it cannot leave the
        fence; what the host says stands outside.
        """
        calls = self.tool_calls if self.native_calls else ()
        yield ChatMessage("assistant", self._said(), tool_calls=tuple(result.call for result in calls))
        for result in calls:
            yield ChatMessage("tool", self._fenced(result.text), tool_call_id=result.call.id)
        report = "\n".join(self._report())
        if report or self.observations_images:
            yield ChatMessage("user", report, self.observations_images)

    def _said(self) -> str:
        return self.model_output or ("" if self.native_calls else "(no text)")

    def _fenced(self, text: str) -> str:
        return f"<{self.fence}>\n{without_roles(text)}\n</{self.fence}>"

    def _report(self) -> Iterator[str]:
        inside = [self.observations] if self.observations and not self.native_calls else []
        if self.error and self.error.kind in ("execution", "final_answer_check"):  # the latter may quote the answer
            inside.append(f"Error:\n{self.error.message}")
        if inside:
            text = self._fenced("\n".join(inside))
            yield f"Observation:\n{text}"
        if self.error and self.error.kind == "format":
            yield f"Error:\n{self.error.message}"
        if self.remarks:
            yield without_roles(self.remarks)  # a reason in them may quote what the sandbox said
        if self.error:
            yield _RETRY


@dataclass(frozen=True, slots=True)
class NoteStep(_Written):
    """What the host says between steps: that earlier ones are left out, that variables may differ.

    Attributes:
        note: the host's words.
        summary: the model's own words before them: its summary of what is left out.
        left_out: how many steps it stands for.
    """

    note: str
    summary: str = ""
    left_out: int = 0

    def to_messages(self) -> Iterator[ChatMessage]:
        """The summary as the model's own words, and the note as the user's message."""
        if self.summary:
            yield ChatMessage("assistant", self.summary)
        yield ChatMessage("user", without_roles(self.note))


@dataclass(frozen=True, slots=True)
class FinalAnswerStep:
    """The end of a run; streamed, not kept in memory (the last ``ActionStep`` holds the answer)."""

    output: Any
    state: RunState = "success"


KeptStep = TaskStep | PlanningStep | ActionStep | NoteStep
MemoryStep = SystemPromptStep | KeptStep

_ASSIGNABLE: Mapping[type[Any], tuple[str, ...]] = {
    PlanningStep: ("plan",),
    ActionStep: ("observations", "observations_images"),
}


def _assign(step: Any, name: str, value: Any) -> None:
    """What ``step.name = value`` does.

    Raises:
        FrozenInstanceError: only some of the fields may be assigned.
    """
    if name not in _ASSIGNABLE[type(step)]:
        allowed = " and ".join(_ASSIGNABLE[type(step)])
        raise FrozenInstanceError(f"cannot assign to {name!r} of a step, only to {allowed}")
    if name == "observations_images":
        value = tuple(AgentImage.of(picture) for picture in value or ())
    object.__setattr__(step, name, value)


for _kind in _ASSIGNABLE:
    _kind.__setattr__ = _assign  # type: ignore[assignment] # a frozen dataclass allows no own in its body


def assigned(step: MemoryStep) -> tuple[object, ...]:
    """The present values of what may be assigned."""
    return tuple(getattr(step, name) for name in _ASSIGNABLE.get(type(step), ()))
