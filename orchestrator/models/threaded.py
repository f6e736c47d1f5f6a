"""A blocking iterator on a thread of its own, its items on the event loop: for SDKs that can only block."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Source = Callable[[], Generator[Item, None, None]]

MAX_WAITING = 64  # items read ahead of a slow caller; after that the thread, and so the other end, has to wait


async def from_thread(source: Source[Item]) -> AsyncGenerator[Item, None]:
    """The items of ``source()``, which runs on a daemon thread and may block; what it raises is raised here.

    Closing this generator lets the thread go at once: nobody waits for it, and it closes its own generator as soon as
    it comes back from what it is blocked in. A daemon thread, because a call that hangs must neither use up a pool nor
    hold up the program's exit.
    """
    pump = _Pump(source)
    threading.Thread(
        target=contextvars.copy_context().run, args=(pump.run,), name="cellblock-model", daemon=True
    ).start()
    try:
        while (news := await pump.next()) is not None:
            yield news.item
    finally:
        pump.let_go()


@dataclass(frozen=True, slots=True)
class _News(Generic[Item]):
    item: Item


class _Pump(Generic[Item]):
    def __init__(self, source: Source[Item]) -> None:
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._news: asyncio.Queue[_News[Item] | BaseException | None] = asyncio.Queue()
        self._room = threading.Semaphore(MAX_WAITING)
        self._wanted = True

    async def next(self) -> _News[Item] | None:
        """The next item; None after the last.

        Raises:
            BaseException: what the source raised.
        """
        news = await self._news.get()
        self._room.release()
        if isinstance(news, BaseException):
            raise news
        return news

    def let_go(self) -> None:
        self._wanted = False
        self._room.release()  # it may be waiting for room

    def run(self) -> None:
        """On the thread."""
        try:
            with closing(self._source()) as items:
                for item in items:
                    self._room.acquire()
                    if not self._wanted:
                        return
                    self._hand_over(_News(item))
        except BaseException as error:  # noqa: BLE001 - whatever it raises is the caller's to hear
            self._hand_over(error)
        else:
            self._hand_over(None)

    def _hand_over(self, news: _News[Item] | BaseException | None) -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile: nobody listens any more
            self._loop.call_soon_threadsafe(self._news.put_nowait, news)
