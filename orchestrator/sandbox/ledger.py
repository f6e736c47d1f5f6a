"""The ledger of one execution: every tool call, how it ended, and what the execution has spent on them. No I/O."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace

from orchestrator.audit.chain import digest
from orchestrator.events import Ending, ToolOutcome
from orchestrator.policy import Spent
from orchestrator.sandbox.invocation import Answer

# Calls refused by one rule that are written down: code can have a million refused, and `usage` counts them. Of each
# rule, so that none of them is hidden behind another.
MAX_REFUSED = 1000
# Values in the arguments of a call that make it count for one more among those that run: a value of four bytes on the
# wire may take two hundred here, and a tool holds on to its arguments.
PARTS_OF_A_CALL = 10_000
MAX_ERROR = 200  # characters of an error that is kept: it may be 8 KiB, ten thousand times


@dataclass(slots=True)
class OpenCall:
    """A call that has not ended. ``made`` once the tool may have been called."""

    id: int
    name: str
    arguments_sha256: str
    arguments_bytes: int
    started: float = field(default_factory=time.monotonic)
    made: bool = False
    parts: int = 0  # values that its arguments consist of

    @property
    def weight(self) -> int:
        """For how many it counts among those that run."""
        return 1 + self.parts // PARTS_OF_A_CALL


class Ledger:
    """Written as calls begin and end; read once the execution has ended."""

    def __init__(self) -> None:
        self._calls = 0
        self._bytes = 0
        self._refused: Counter[str] = Counter()  # by rule
        self._open: dict[int, OpenCall] = {}
        self._ended: list[ToolOutcome] = []

    @property
    def ended(self) -> tuple[ToolOutcome, ...]:
        """The calls that have ended, in that order."""
        return tuple(self._ended)

    @property
    def open(self) -> tuple[OpenCall, ...]:
        """The calls that have not ended."""
        return tuple(self._open.values())

    def writes(self, outcome: ToolOutcome) -> bool:
        """Whether it is one that is written down."""
        return outcome.ending is not Ending.REFUSED or self._refused[outcome.refused_by] <= MAX_REFUSED

    def spent(self, left: int) -> Spent:
        """What was spent, given how many calls were given up earlier and still run."""
        return Spent(self._calls, self._bytes, sum(call.weight for call in self._open.values()) + left)

    def begin(self, call: int, name: str, arguments: bytes) -> OpenCall:
        """A call has come in."""
        self._calls += 1
        self._open[call] = begun = OpenCall(call, name, digest(arguments), len(arguments))
        return begun

    def charge(self, size: int) -> None:
        """So many bytes passed between the code and a tool."""
        self._bytes += size

    def end(self, call: OpenCall, answer: Answer) -> ToolOutcome | None:
        """It has ended so. None if it had ended before: the execution was over first."""
        if self._open.pop(call.id, None) is None:
            return None
        outcome = ToolOutcome(
            id=call.id,
            name=call.name,
            error=answer.error,
            seconds=time.monotonic() - call.started,
            ending=answer.ending,
            refused_by=answer.refused_by,
            arguments_sha256=call.arguments_sha256,
            arguments_bytes=call.arguments_bytes,
            result_bytes=len(answer.value),
        )
        self._write(outcome)
        return outcome

    def _write(self, outcome: ToolOutcome) -> None:
        if outcome.ending is Ending.REFUSED:
            self._refused[outcome.refused_by] += 1
        if self.writes(outcome):
            kept = outcome.error[:MAX_ERROR] if outcome.error else outcome.error
            self._ended.append(replace(outcome, error=kept))
