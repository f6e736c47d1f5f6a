"""The tool calls of one execution as its events tell them, for an error that ends it."""

from __future__ import annotations

from typing import TypeVar

from orchestrator.errors import AuditError, CellblockError, NotFound, OutcomeUnknown, SandboxDied, SandboxError
from orchestrator.events import Ending, ExecutionEvent, ToolCall, ToolOutcome

E = TypeVar("E", bound=CellblockError)


class Ledger:
    """What has been called, and what came of it."""

    def __init__(self) -> None:
        self._open: dict[int, ToolCall] = {}
        self._ended: list[ToolOutcome] = []

    def add(self, event: ExecutionEvent) -> None:
        """The next event."""
        if isinstance(event, ToolCall):
            self._open[event.id] = event
        elif isinstance(event, ToolOutcome):
            self._open.pop(event.id, None)
            self._ended.append(event)

    def told(self, error: SandboxError | AuditError | NotFound) -> CellblockError:
        """The error with these calls, as ``AsyncSandbox`` tells it."""
        told: SandboxError | AuditError | NotFound = error
        if isinstance(error, NotFound):  # the service has been started again: nobody has ended these calls
            self._ended += [_unknown(call) for call in self._open.values()]
            told = SandboxDied("the service does not have this sandbox any more; reset() makes another")
            if any(call.effect_unknown for call in self._ended):
                gone = told
                told = OutcomeUnknown(f"{gone}; tools ran for it, and whether they took effect is not known")
                told.__cause__ = gone
        if isinstance(told, SandboxError | AuditError):
            told.tool_calls = tuple(self._ended)
        return told


def _unknown(call: ToolCall) -> ToolOutcome:
    error = "Cancelled: the service ended before it did; whether it took effect is not known"
    return ToolOutcome(call.id, call.name, error, 0.0, Ending.CANCELLED)
