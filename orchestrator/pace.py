"""How often something may be asked that wants no more: at most so many calls in a time, whoever makes them."""

from __future__ import annotations

import asyncio
import threading
import time
from weakref import WeakKeyDictionary

from orchestrator.errors import ConfigError


class Pace:
    """Lets callers through at even intervals, in the order in which they came.

    A caller that is cancelled while it waits leaves the queue, and its turn is the next one's. Callers of several event
    loops and threads share the pace; only those of one loop share a queue.

    Args:
        limit: calls; None for no limit.
        seconds: in which so many may be made.
        setting: what the limit is called, for the error.

    Raises:
        ConfigError: it is not above 0.
    """

    def __init__(self, limit: float | None, seconds: float = 60.0, setting: str = "requests_per_minute") -> None:
        if limit is not None and not limit > 0:
            raise ConfigError(f"{setting} is {limit!r}; it must be above 0, or None for no limit")
        self._interval = seconds / limit if limit else 0.0
        self._next = 0.0  # the earliest start of the next call, on the monotonic clock
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
        self._lock = threading.Lock()  # between the loops; held for no longer than it takes to look

    async def turn(self) -> None:
        """Waits until the caller may make one call."""
        if not self._interval:
            return
        async with self._queue():  # asyncio's lock is first come, first served
            # Again and again, because another loop may have been quicker, and that one has no event to wait for here.
            while (wait := self._wait()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(wait)

    def _wait(self) -> float:
        """Seconds until the next turn; if it is now, it is the caller's."""
        with self._lock:
            now = time.monotonic()
            wait = self._next - now
            if wait <= 0:
                self._next = now + self._interval
            return wait

    def _queue(self) -> asyncio.Lock:
        with self._lock:
            return self._queues.setdefault(asyncio.get_running_loop(), asyncio.Lock())
