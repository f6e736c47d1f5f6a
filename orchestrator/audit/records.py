"""What is recorded, as frozen dataclasses: names, numbers, sizes and hashes. No code, no arguments, no texts of errors.

The class says the record's ``kind`` (``ToolEnded`` -> ``tool_ended``), its fields are the record's ``data``.
A tool's name is whatever the code wrote there. Everything else that is text is the host's own, or one of a few words.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from orchestrator.audit.chain import canonical, digest
from orchestrator.events import Execution, Status, ToolOutcome, kind_of

MAX_TEXT = 300  # bytes of one text, as it is written
MAX_ITEMS = 32  # of one list; all of them, as long as they may be, leave room in a line
MAX_SECONDS = 10**9  # longer times are the invention of a hostile executor
_LIMITS = {Status.TIMEOUT: "time", Status.OUT_OF_MEMORY: "memory", Status.OUTPUT_LIMIT: "output"}


@dataclass(frozen=True, slots=True)
class Happening:
    """What one record tells of. ``durable``: it is on the disk before what it tells of goes on."""

    durable: ClassVar[bool] = True

    @property
    def kind(self) -> str:
        """The record's kind."""
        return kind_of(self)

    def data(self) -> dict[str, Any]:
        """The record's data, every part of a bounded size."""
        return {field.name: _bounded(getattr(self, field.name)) for field in dataclasses.fields(self)}


def _bounded(value: Any) -> Any:
    if isinstance(value, str):
        return _short(value)
    return [_bounded(item) for item in value[:MAX_ITEMS]] if isinstance(value, tuple) else value


def _short(text: str) -> str:
    kept = text[:MAX_TEXT]
    while len(canonical(kept)) > MAX_TEXT + len('""'):
        kept = kept[: len(kept) * 3 // 4]
    return kept if kept == text else f"{kept}…"


def milliseconds(seconds: float) -> int:
    """Whole ones: numbers with a fraction could be written in more than one way."""
    return round(min(max(seconds, 0.0), MAX_SECONDS) * 1000) if seconds == seconds else 0


@dataclass(frozen=True, slots=True)
class SandboxStarted(Happening):
    """A container is up, and what must be in force in it is.

    ``level`` is the isolation level that was reached. ``parent`` is the sandbox that it is a branch of, if it is one.
    """

    image: str
    container: str
    level: int
    layers: tuple[str, ...]
    kernel: str
    parent: str


@dataclass(frozen=True, slots=True)
class SandboxRefused(Happening):
    """None came up, or one without what must be in force: the error's name."""

    error: str


@dataclass(frozen=True, slots=True)
class SandboxEnded(Happening):
    """Its container, or its branch, is gone."""

    reason: str


@dataclass(frozen=True, slots=True)
class ExecutionBegun(Happening):
    """Code is about to be sent, with variables or without."""

    execution: int
    code_sha256: str
    code_bytes: int
    timeout_ms: int
    variables_sha256: str
    variables_bytes: int

    @classmethod
    def of(cls, execution: int, code: bytes, seconds: float, variables: bytes = b"") -> Self:
        """Of both as they are sent."""
        given = digest(variables) if variables else ""
        return cls(execution, digest(code), len(code), milliseconds(seconds), given, len(variables))


@dataclass(frozen=True, slots=True)
class ExecutionFinished(Happening):
    """It ended, as its supervisor says. ``limits`` are those that it met."""

    execution: int
    status: str
    state: str
    limits: tuple[str, ...]
    wall_ms: int
    cpu_ms: int
    peak_memory_bytes: int
    output_bytes: int
    dropped_bytes: int
    tool_calls: int
    restored_to: int | None

    @classmethod
    def of(cls, execution: Execution) -> Self:
        """Of its outcome."""
        usage = execution.usage
        return cls(
            execution=execution.execution_count,
            status=str(execution.status),
            state=str(execution.state),
            limits=_limits(execution),
            wall_ms=milliseconds(usage.wall_seconds),
            cpu_ms=milliseconds(usage.cpu_seconds),
            peak_memory_bytes=usage.peak_memory_bytes,
            output_bytes=usage.output_bytes,
            dropped_bytes=execution.logs.dropped_bytes,
            tool_calls=usage.tool_calls,
            restored_to=execution.restored_to,
        )


def _limits(execution: Execution) -> tuple[str, ...]:
    met = [_LIMITS[execution.status]] if execution.status in _LIMITS else []
    if execution.logs.dropped_bytes and "output" not in met:
        met.append("output")
    return tuple(met + sorted({call.refused_by for call in execution.tool_calls if call.refused_by.startswith("max_")}))


@dataclass(frozen=True, slots=True)
class ExecutionUnfinished(Happening):
    """It did not come to an end that the host saw: the name of the error, or that nobody waited for it any more."""

    execution: int
    reason: str


@dataclass(frozen=True, slots=True)
class ToolBegun(Happening):
    """A tool is about to be called."""

    durable: ClassVar[bool] = False  # there may be thousands in one execution
    execution: int
    call: int
    tool: str
    arguments_sha256: str
    arguments_bytes: int


@dataclass(frozen=True, slots=True)
class ToolEnded(Happening):
    """A call ended, or was refused and never made."""

    durable: ClassVar[bool] = False
    execution: int
    call: int
    tool: str
    ending: str
    refused_by: str
    effect_unknown: bool
    arguments_sha256: str
    arguments_bytes: int
    result_bytes: int
    ms: int

    @classmethod
    def of(cls, execution: int, outcome: ToolOutcome) -> Self:
        """Of a line of the ledger."""
        return cls(
            execution=execution,
            call=outcome.id,
            tool=outcome.name,
            ending=str(outcome.ending),
            refused_by=outcome.refused_by,
            effect_unknown=outcome.effect_unknown,
            arguments_sha256=outcome.arguments_sha256,
            arguments_bytes=outcome.arguments_bytes,
            result_bytes=outcome.result_bytes,
            ms=milliseconds(outcome.seconds),
        )


@dataclass(frozen=True, slots=True)
class Approval(Happening):
    """An approver decided. ``what`` is the tool's name, or ``code``; ``sha256`` that of the arguments or the code."""

    what: str
    sha256: str
    allowed: bool
    by: str
    ms: int


@dataclass(frozen=True, slots=True)
class StateRequested(Happening):
    """The host is about to ask for another state, to keep one or to drop one: the method's name and argument."""

    what: str


@dataclass(frozen=True, slots=True)
class StateChanged(Happening):
    """It was done. ``execution``: at whose end the state was made that was kept, gone back to or forked."""

    what: str
    execution: int | None
