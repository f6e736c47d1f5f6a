"""What streams out of an execution, as frozen dataclasses.

``AsyncSandbox.stream(code)`` yields ``Output``, ``ToolCall`` and ``ToolOutcome`` as they happen and ends with exactly
one ``Finished``. A run of the orchestrator service adds what its policy asked and what was decided. Everything here is
plain data: text has been decoded, nothing refers back to the container.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

Stream = Literal["stdout", "stderr"]
_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")


def kind_of(record: object) -> str:
    """How a record's kind is written: the snake_case name of its class, which may be given in its place."""
    kind = record if isinstance(record, type) else type(record)
    return _CAPITAL.sub("_", kind.__name__).lower()


class Status(StrEnum):
    """How an execution ended. Written by the supervisor, not by what the code claims."""

    OK = "ok"
    ERROR = "error"  # the code raised
    IMPORT_DENIED = "import_denied"  # it raised because an import is not on the allowlist
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"
    OUT_OF_MEMORY = "out_of_memory"
    DIED = "died"  # the process crashed or exited
    OUTPUT_LIMIT = "output_limit"  # it wrote so much that it was stopped
    REFUSED = "refused"  # it was not approved, and nothing was run


class State(StrEnum):
    """What became of the Python variables."""

    KEPT = "kept"  # as the code left them
    RESTORED = "restored"  # as they were before this execution
    LOST = "lost"  # neither can be promised; an older state follows (``restored_to``), or a fresh interpreter


class Files(StrEnum):
    """What became of the workspace's files where the variables went back to an earlier state."""

    RESTORED = "restored"  # as they were then
    KEPT = "kept"  # as the code left them


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of text that the code wrote, in order across both streams."""

    stream: Stream
    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """Code in the sandbox called a host tool. ``id`` is unique within the execution."""

    id: int
    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class Ending(StrEnum):
    """How a tool call ended."""

    OK = "ok"
    FAILED = "failed"  # the tool raised, or its result could not be sent
    REFUSED = "refused"  # it was never made
    TIMED_OUT = "timed_out"  # the tool had not ended in time; what it still does or gives is nobody's
    CANCELLED = "cancelled"  # the execution ended first; the same


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """A tool call ended. ``Execution.tool_calls`` holds one of each.

    Attributes:
        id: of the ``ToolCall``; unique within the execution.
        name: as the code called it.
        error: None, or what the code saw as the exception's ``TypeName: message``.
        seconds: from the call to its end, the time for its approval included.
        ending: how it ended.
        refused_by: the rule that refused it: ``not_granted``, ``max_calls``, ``max_bytes``, ``max_running``,
            ``arguments``, ``approver``, ``approval_failed``, or ``execution_ended``; else empty.
        arguments_sha256: of the arguments as they came over the wire.
        arguments_bytes: their size.
        result_bytes: size of the result that was sent.
    """

    id: int
    name: str
    error: str | None
    seconds: float
    ending: Ending = Ending.OK
    refused_by: str = ""
    arguments_sha256: str = ""
    arguments_bytes: int = 0
    result_bytes: int = 0

    @property
    def effect_unknown(self) -> bool:
        """True if nobody can tell whether the tool did what it does."""
        return self.ending in (Ending.TIMED_OUT, Ending.CANCELLED)


@dataclass(frozen=True, slots=True)
class Logs:
    """Everything the code wrote, head and tail kept when it wrote more than ``Limits.output``.

    ``stdout`` and ``stderr`` are text, with a mark for what is no UTF-8 and a line where bytes were left out; sanitise
    them before they are shown. ``raw_stdout`` and ``raw_stderr`` are the bytes, without that line.
    """

    stdout: str = ""
    stderr: str = ""
    dropped_bytes: int = 0
    undecoded: Mapping[Stream, bytes] | None = field(default=None, repr=False, hash=False)
    """The bytes of a stream, where its text does not say them all."""

    @property
    def raw_stdout(self) -> bytes:
        """What was written to standard output, as it was written."""
        return self._raw("stdout", self.stdout)

    @property
    def raw_stderr(self) -> bytes:
        """What was written to standard error, as it was written."""
        return self._raw("stderr", self.stderr)

    def _raw(self, stream: Stream, text: str) -> bytes:
        kept = (self.undecoded or {}).get(stream)
        return text.encode("utf-8", "surrogatepass") if kept is None else kept


@dataclass(frozen=True, slots=True)
class ExecutionError:
    """An exception of the code. ``traceback`` is trimmed to the user's code, with its line numbers."""

    name: str
    value: str
    traceback: str = ""

    def __str__(self) -> str:
        return self.traceback or f"{self.name}: {self.value}"


@dataclass(frozen=True, slots=True)
class Usage:
    """What one execution used."""

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    output_bytes: int = 0
    tool_calls: int = 0


@dataclass(frozen=True, slots=True)
class FinalAnswer:
    """The code called ``final_answer(value)``: a message of its own on the wire, never a string in stdout."""

    value: Any


@dataclass(frozen=True, slots=True)
class Execution:
    """The whole outcome of one ``run_code``.

    ``value`` is the last expression as a plain Python value (``Opaque`` where it cannot travel), ``text`` its repr.
    ``results`` holds MIME bundles: type -> text or bytes. ``error`` is None unless the code failed.
    Where ``state`` is not ``kept``, ``restored_to`` is the count of the execution at whose end the variables are again
    (0 for a fresh interpreter), and ``files`` what became of the workspace, with ``files_reason`` where it was kept.
    ``tool_calls`` is the ledger, in the order in which the calls ended: every call that was made, and of those that
    were refused the first 1,000 of each rule; long errors are cut. ``usage.tool_calls`` counts all.
    """

    status: Status
    state: State
    execution_count: int
    value: Any = None
    text: str | None = None
    logs: Logs = field(default_factory=Logs)
    results: tuple[Mapping[str, str | bytes], ...] = ()
    error: ExecutionError | None = None
    usage: Usage = field(default_factory=Usage)
    final_answer: FinalAnswer | None = None
    restored_to: int | None = None
    files: Files = Files.KEPT
    files_reason: str = ""
    tool_calls: tuple[ToolOutcome, ...] = ()

    @property
    def outcome_unknown(self) -> tuple[ToolOutcome, ...]:
        """The tool calls of which nobody can tell whether they took effect. None of them is made again by itself."""
        return tuple(call for call in self.tool_calls if call.effect_unknown)

    @property
    def ok(self) -> bool:
        """True if the code ran to its end without an exception."""
        return self.status is Status.OK


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of an execution."""

    execution: Execution


ExecutionEvent = Output | ToolCall | ToolOutcome | Finished


@dataclass(frozen=True, slots=True)
class ApprovalAsked:
    """A run waits until somebody decides whether this may be done.

    Attributes:
        question: its id.
        tool: of a tool call; empty: code is to be run.
        arguments: of a tool call, by the names of the tool's parameters; of code, the variables that it is given.
        code: that is to be run; of a tool call, empty.
        deadline: in seconds since the epoch; from then on it counts as refused.
        agent: whose code or model wants it, in a team the member.
        reason: why somebody is asked; perhaps empty.
    """

    question: str
    tool: str
    arguments: Mapping[str, Any]
    code: str
    deadline: float
    agent: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ApprovalDecided:
    """A question has been answered, or its time is up. ``by`` says who did: the name of a token, or of a rule."""

    question: str
    approved: bool
    reason: str
    by: str


class RunState(StrEnum):
    """What has become of a run of the service."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"  # for a decision
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen in it by itself."""
        return self in (RunState.SUCCEEDED, RunState.FAILED, RunState.INTERRUPTED)
