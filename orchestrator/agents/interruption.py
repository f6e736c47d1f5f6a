"""``interrupt()`` from any thread, felt by the one run that is under way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from orchestrator.errors import AgentInterrupted

Result = TypeVar("Result")
_STOP_AGAIN = 0.1  # seconds; of the second within which an interruption is to be felt


class Interruption:
    """Belongs to one run and to the loop it runs on. Set once, never unset."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Asks the run to stop. Thread-safe; does nothing if the loop is gone, and the run with it."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._asked.set)

    def check(self) -> None:
        """Raises if it was asked.

        Raises:
            AgentInterrupted: it was.
        """
        if self._asked.is_set():
            raise AgentInterrupted("the agent was interrupted; its memory holds the steps until then")

    async def guard(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What ``work`` gives, unless the run is interrupted first: then ``work`` is cancelled.

        Raises:
            AgentInterrupted: it was.
        """
        task = asyncio.ensure_future(work)
        asked = asyncio.ensure_future(self._asked.wait())
        try:
            await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                self.check()
            return task.result()
        finally:
            await _cancelled(task, asked)

    @contextlib.asynccontextmanager
    async def passed_on(self, stop: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """While inside, an interruption calls ``stop()``; the work inside then ends by itself.

        Again and again until it has: a ``stop()`` that comes before the work has really begun finds nothing to stop.
        """

        async def watch() -> None:
            await self._asked.wait()
            while True:
                await stop()
                await asyncio.sleep(_STOP_AGAIN)

        watcher = asyncio.ensure_future(watch())
        try:
            yield
        finally:
            await _cancelled(watcher)


async def _cancelled(*tasks: asyncio.Future[Any]) -> None:
    """Cancels what is not done, and waits until it is; a result that nobody asked for any more is let go."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
