"""The time an execution has left. It stands still while others have the word: who is asked, a tool of its own time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from enum import Enum

LONGEST = 86400.0  # seconds that a tool without a timeout may take: no container lives longer


class _Pace(Enum):
    """What becomes of the time that goes by."""

    RUNNING = 1  # it is the code's
    ASKING = 2  # it is patience, and when that is used up the code's
    WORKING = 3  # it is a tool's, which has bounds of its own


class Clock:
    """Counts from when it is made, or started again.

    Args:
        seconds: that the execution may run.
        patience: seconds that it may stand still for questions in all; then it goes on, so that an execution always
            ends.
        margin: seconds that the executor may take beyond, until it counts as dead.
        tell: is told the seconds that are left, whenever that has changed by more than time going by.
    """

    def __init__(self, seconds: float, patience: float, margin: float, tell: Callable[[float], None]) -> None:
        self._left = seconds
        self._patience = patience
        self._margin = margin
        self._tell = tell
        self._since = _now()  # when that was left
        self._asked = 0  # questions that have not been answered
        self._working = 0  # calls that have not ended, of tools that take their own time
        self._waiting: asyncio.Timeout | None = None

    def start(self) -> None:
        """Counts from now."""
        self._since = _now()

    @property
    def deadline(self) -> float:
        """When the executor must have answered, by the time of the event loop."""
        return self._since + self._left + self._added + self._margin

    @property
    def _pace(self) -> _Pace:
        if self._working:
            return _Pace.WORKING
        return _Pace.ASKING if self._asked else _Pace.RUNNING

    @property
    def _added(self) -> float:
        """Seconds that may go by before those that are left."""
        return {_Pace.RUNNING: 0.0, _Pace.ASKING: self._patience, _Pace.WORKING: LONGEST}[self._pace]

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Waits inside for the executor, up to the deadline, also if that changes meanwhile.

        Raises:
            TimeoutError: it has passed.
        """
        async with asyncio.timeout_at(self.deadline) as self._waiting:
            try:
                yield
            finally:
                self._waiting = None

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stands still inside while somebody is asked, as long as patience lasts."""
        before, self._asked = self._pace, self._asked + 1
        self._change(before)
        try:
            yield
        finally:
            before, self._asked = self._pace, self._asked - 1
            self._change(before)

    @contextmanager
    def handed_over(self) -> Iterator[None]:
        """Stands still inside while a tool works that takes its own time."""
        before, self._working = self._pace, self._working + 1
        self._change(before)
        try:
            yield
        finally:
            before, self._working = self._pace, self._working - 1
            self._change(before)

    def _change(self, before: _Pace) -> None:
        """Settles what has gone by at the pace before, and tells what is left, if the pace is another now."""
        if self._pace is before:
            return
        self._settle(before)
        self._tell(self._left + self._added)
        if self._waiting and not self._waiting.expired():
            self._waiting.reschedule(self.deadline)

    def _settle(self, pace: _Pace) -> None:
        elapsed, self._since = _now() - self._since, _now()
        if pace is _Pace.ASKING:
            elapsed, self._patience = max(0.0, elapsed - self._patience), max(0.0, self._patience - elapsed)
        if pace is not _Pace.WORKING:
            self._left = max(0.0, self._left - elapsed)


def _now() -> float:
    return asyncio.get_running_loop().time()
