"""One background event loop per process, for the synchronous faces."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

CANCEL_DEADLINE = 15.0  # seconds for a cancelled coroutine to stop what it had under way, such as an execution


class Portal:
    """Runs coroutines on the process's background loop, from any thread but that loop's own."""

    _loop: asyncio.AbstractEventLoop | None = None
    _thread: threading.Thread | None = None
    _lock = threading.Lock()

    @classmethod
    def _running_loop(cls) -> asyncio.AbstractEventLoop:
        with cls._lock:
            if cls._loop is None or cls._thread is None or not cls._thread.is_alive():
                cls._loop = asyncio.new_event_loop()
                cls._thread = threading.Thread(target=cls._loop.run_forever, name="cellblock-loop", daemon=True)
                cls._thread.start()
            return cls._loop

    @staticmethod
    def run(coroutine: Coroutine[Any, Any, T]) -> T:
        """Waits for ``coroutine``. If the wait is interrupted (Ctrl-C), it is cancelled, and that is waited for.

        Raises:
            RuntimeError: called on the background loop itself, where waiting would never end.
        """
        loop = Portal._running_loop()
        if threading.current_thread() is Portal._thread:
            coroutine.close()
            raise RuntimeError("the synchronous API cannot be used on its own event loop; use the asynchronous one")
        ended = threading.Event()
        future = asyncio.run_coroutine_threadsafe(_announced(coroutine, ended), loop)
        try:
            return future.result()
        except BaseException:
            if not ended.is_set():  # Ctrl-C while waiting
                future.cancel()
                ended.wait(CANCEL_DEADLINE)
            raise

    @staticmethod
    def iterate(source: AsyncGenerator[T, None]) -> Iterator[T]:
        """Drives an asynchronous generator; closing this one closes it."""
        try:
            while True:
                try:
                    yield Portal.run(_next(source))
                except StopAsyncIteration:
                    return
        finally:
            Portal.run(source.aclose())


async def _announced(coroutine: Coroutine[Any, Any, T], ended: threading.Event) -> T:
    try:
        return await coroutine
    finally:
        ended.set()


async def _next(source: AsyncGenerator[T, None]) -> T:
    return await anext(source)
