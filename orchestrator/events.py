"""What streams out of an execution, as frozen dataclasses.

``AsyncSandbox.stream(code)`` yields ``Output``, ``ToolCall`` and ``ToolOutcome`` as they happen and ends with exactly
one ``Finished``. Everything here is plain data: text has been decoded, nothing refers back to the container.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

Stream = Literal["stdout", "stderr"]


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


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """A tool call ended. ``error`` is None, or what the code saw as the exception's ``TypeName: message``."""

    id: int
    name: str
    error: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Logs:
    """Everything the code wrote, head and tail kept when it wrote more than ``Limits.output``."""

    stdout: str = ""
    stderr: str = ""
    dropped_bytes: int = 0


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

    @property
    def ok(self) -> bool:
        """True if the code ran to its end without an exception."""
        return self.status is Status.OK


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of an execution."""

    execution: Execution


ExecutionEvent = Output | ToolCall | ToolOutcome | Finished
