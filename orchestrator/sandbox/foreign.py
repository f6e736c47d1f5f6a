"""Runs code that is not ours, a tool or an approver: apart from us, and for so long only.

It may raise anything, never end, or not hear that it has been cancelled. What is given up goes on by itself, and is
counted until it ends.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any


class Raised(Exception):
    """It raised ``error``."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(type(error).__name__)
        self.error = error


class Overdue(Exception):
    """It had not ended in time, and has been given up."""


def words_of(error: BaseException) -> str:
    """What such an error says. A KeyError's text is a repr, which would be quoted again where it is told."""
    if isinstance(error, KeyError) and len(error.args) == 1 and isinstance(error.args[0], str):
        return error.args[0]
    try:
        return str(error)
    except Exception:  # noqa: BLE001 — its text is code that is not ours, too
        return "(its text cannot be shown)"


# Its value, and what it raised: a pair, because a future refuses some exceptions and a task ends its loop with others.
Ended = tuple[Any, BaseException | None]


class Foreign:
    """Where such code runs."""

    def __init__(self) -> None:
        self._left: dict[asyncio.Future[Any], int] = {}

    @property
    def left(self) -> int:
        """How many calls were given up and still run, each counted with its weight."""
        return sum(self._left.values())

    async def run(self, call: Callable[[], Any], *, is_async: bool, seconds: float | None, weight: int = 1) -> Any:
        """What ``call`` gives, or what that gives if it has to be awaited.

        A plain function runs in a thread of its own, so it may block. If the caller is cancelled, it is given up.
        What it holds counts for ``weight`` calls as long as it runs.

        Raises:
            Raised: it raised.
            Overdue: it took longer than ``seconds``, which None never is.
        """
        task = asyncio.create_task(self._ended(call, is_async, weight))
        try:
            await asyncio.wait({task}, timeout=seconds)
        finally:
            if not task.done():
                task.cancel()
                self._leave(task, weight)
        if not task.done():
            raise Overdue
        value, error = (None, asyncio.CancelledError()) if task.cancelled() else task.result()
        if error is not None:
            raise Raised(error)
        return value

    async def settled(self) -> None:
        """Waits until nothing that was given up runs any more."""
        while self._left:
            await asyncio.wait(set(self._left))

    async def _ended(self, call: Callable[[], Any], is_async: bool, weight: int) -> Ended:
        if is_async:
            return await _awaited(call)
        value, error = await self._in_thread(call, weight)
        return await _awaited(lambda: value) if isinstance(value, Awaitable) else (value, error)

    async def _in_thread(self, call: Callable[[], Any], weight: int) -> Ended:
        """In a daemon thread: one that hangs must neither use up a pool nor hold up the program's exit."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Ended] = loop.create_future()

        def work() -> None:
            ended = _called(call)
            with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
                loop.call_soon_threadsafe(done.set_result, ended)

        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(work,), name="cellblock-tool", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # this process can have no more threads
            return None, error
        try:
            return await asyncio.shield(done)
        finally:
            if not done.done():
                self._leave(done, weight)

    def _leave(self, work: asyncio.Future[Any], weight: int) -> None:
        self._left[work] = weight
        work.add_done_callback(lambda done: self._left.pop(done, None))


def _called(call: Callable[[], Any]) -> Ended:
    try:
        return call(), None
    except BaseException as error:  # noqa: BLE001 — SystemExit in it must not vanish with its thread
        return None, error


async def _awaited(call: Callable[[], Awaitable[Any]]) -> Ended:
    try:
        return await call(), None
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():  # it has been given up; otherwise it raised that itself
            raise
        return None, error
    except BaseException as error:  # noqa: BLE001 — whatever it raises, SystemExit too, is its caller's to hear
        return None, error
