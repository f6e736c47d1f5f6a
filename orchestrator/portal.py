"""One background event loop per process: for the synchronous faces, and for what has to outlive its caller's loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# Seconds for a cancelled coroutine to stop what it had under way: an execution, or its container where that fails.
CANCEL_DEADLINE = 25.0


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
        call = _Call(coroutine)
        try:
            loop.call_soon_threadsafe(call.start)
            return call.future.result()
        except BaseException:
            if not call.ended.is_set():  # Ctrl-C, here or while waiting
                loop.call_soon_threadsafe(call.stop)
                call.ended.wait(CANCEL_DEADLINE)
            raise

    @staticmethod
    async def carried(coroutine: Coroutine[Any, Any, T]) -> T:
        """Awaits ``coroutine`` on the background loop, from whatever loop; the waiting one stays free.

        For what lives on that loop and is called from others. If the caller is cancelled, it is, too.
        """
        loop = Portal._running_loop()
        if asyncio.get_running_loop() is loop:
            return await coroutine
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))

    @staticmethod
    def iterate(source: AsyncGenerator[T, None]) -> Iterator[T]:
        """Drives an asynchronous generator; closing this one closes it.

        One that still runs, since it needs longer than CANCEL_DEADLINE to stop, is left to end by itself.
        """
        try:
            while True:
                try:
                    yield Portal.run(_next(source))
                except StopAsyncIteration:
                    return
        finally:
            Portal.run(_close(source))


class _Call(Generic[T]):
    """A coroutine that another thread waits for. ``start`` and ``stop`` are called on the loop, in that order.

    Ctrl-C may come between any two steps of whoever waits, who then does not know whether it has been started: ``stop``
    does, and whatever it finds, the coroutine has ended once ``ended`` is set.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self._task: asyncio.Task[T] | None = None
        self.future: Future[T] = Future()
        self.ended = threading.Event()

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._coroutine)
        self._task.add_done_callback(self._end)

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        else:
            self._coroutine.close()
            self.ended.set()

    def _end(self, task: asyncio.Task[T]) -> None:
        self.ended.set()
        if task.cancelled():
            self.future.cancel()
            self.future.set_running_or_notify_cancel()
        elif (error := task.exception()) is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(task.result())


async def _next(source: AsyncGenerator[T, None]) -> T:
    return await anext(source)


async def _close(source: AsyncGenerator[T, None]) -> None:
    # Closing one that runs is an error, which would stand in the place of the Ctrl-C that led here.
    if not getattr(source, "ag_running", False):
        await source.aclose()
