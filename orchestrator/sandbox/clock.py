"""The time an execution has left. It stands still while somebody is asked about one of its tool calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager


class Clock:
    """Counts from when it is made, or started again.

    Args:
        seconds: that the execution may run.
        patience: seconds that it may stand still in all; then it goes on, so that an execution always ends.
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
        self._waiting: asyncio.Timeout | None = None

    def start(self) -> None:
        """Counts from now."""
        self._since = _now()

    @property
    def deadline(self) -> float:
        """When the executor must have answered, by the time of the event loop."""
        return self._since + self._left + (self._patience if self._asked else 0) + self._margin

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
        """Stands still inside."""
        self._asked += 1
        if self._asked == 1:
            self._left = max(0.0, self._left - self._elapsed())
            self._change(self._left + self._patience)
        try:
            yield
        finally:
            self._asked -= 1
            if self._asked == 0:
                asked = self._elapsed()
                self._left = max(0.0, self._left - max(0.0, asked - self._patience))
                self._patience = max(0.0, self._patience - asked)
                self._change(self._left)

    def _change(self, seconds: float) -> None:
        self._tell(seconds)
        if self._waiting and not self._waiting.expired():
            self._waiting.reschedule(self.deadline)

    def _elapsed(self) -> float:
        before, self._since = self._since, _now()
        return self._since - before


def _now() -> float:
    return asyncio.get_running_loop().time()
