"""Events to the browser as they happen: server-sent events, with the numbers that the service gave them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack
from typing import Any

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from orchestrator.console import shown
from orchestrator.console.backend import Failed, Found
from orchestrator.console.sessions import Session

BEAT_SECONDS = 5.0  # between two signs of life, for what stands between to see that the stream is one
MAX_READY = 500  # events that are read ahead
MAX_READY_BYTES = 1 << 20  # of them, or one that is larger
LONG = 1 << 16  # bytes of an event that is read in a thread, so that the loop stays free
_BEAT = b": still here\n\n"

Events = AsyncGenerator[Found, None]
End = Callable[[], Awaitable[Any]]


async def respond(session: Session, events: Events, end: End) -> Response:
    """A stream of ``events``.

    A failure before the first event is a status of its own. The last line of all is ``end``, with what that gives: the
    stream is over, and the browser need not ask again; or ``failed``, with the reason.

    Raises:
        Overloaded: the session has too many.
        Failed: there is no event, and there will be none.
    """
    with ExitStack() as place:
        place.enter_context(session.stream())
        pump = _Pump(session, events)
        try:
            first = await pump.take()
        except BaseException:
            await pump.close()
            raise
        return _Stream(pump, first, end, place.pop_all())


class _Pump:
    """Reads ahead a little, so that events that come in their thousands are sent many at a time."""

    def __init__(self, session: Session, events: Events) -> None:
        self._session = session
        self._events = events
        self._ready: list[Found] = []
        self._bytes = 0
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self._reading, self._logout = asyncio.create_task(self._read()), asyncio.create_task(session.ended.wait())
        for task in (self._reading, self._logout):
            task.add_done_callback(lambda _: self._news.set())

    async def _read(self) -> None:
        async for found in self._events:
            self._ready.append(found)
            self._bytes += len(found[2] or b"")
            self._news.set()
            if len(self._ready) >= MAX_READY or self._bytes >= MAX_READY_BYTES:
                self._room.clear()
                await self._room.wait()

    async def take(self) -> list[Found] | None:
        """What has come, perhaps nothing by the time for a sign of life. None at the end.

        Raises:
            Failed: there is no more, or nobody is logged in any more.
        """
        if not self._news.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS):
                    await self._news.wait()
        if self._session.ended.is_set():
            raise Failed(401, "AccessDenied", "nobody is logged in here")
        found, self._ready, self._bytes = self._ready, [], 0
        self._room.set()
        if not self._reading.done():
            self._news.clear()
        elif not found:
            self._reading.result()  # raises what ended it, if that was no end
            return None
        return found

    async def close(self) -> None:
        """Nobody wants any more."""
        self._reading.cancel()
        self._logout.cancel()
        await asyncio.gather(self._reading, self._logout, return_exceptions=True)
        await self._events.aclose()


class _Stream(StreamingResponse):
    """Gives back what it holds in the end, also if the browser had gone before it began."""

    def __init__(self, pump: _Pump, first: list[Found] | None, end: End, place: ExitStack) -> None:
        super().__init__(_chunks(pump, first, end), media_type="text/event-stream")
        self._pump = pump
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place:
            try:
                await super().__call__(scope, receive, send)
            finally:
                await self._pump.close()


async def _chunks(pump: _Pump, found: list[Found] | None, end: End) -> AsyncGenerator[bytes, None]:
    try:
        while found is not None:
            yield b"".join([await _event(*one) for one in found]) or _BEAT
            found = await pump.take()
        yield _line("end", json.dumps(await end()))
    except Failed as failure:
        yield _line("failed", json.dumps(failure.told()))


async def _event(number: int, time: float, data: bytes | None) -> bytes:
    is_long = data is not None and len(data) > LONG
    text = await asyncio.to_thread(shown.event, number, time, data) if is_long else shown.event(number, time, data)
    return f"id: {number}\n".encode() + _line("event", text)


def _line(kind: str, data: str) -> bytes:
    """JSON has no line breaks but escaped ones, so ``data`` is one line."""
    return f"event: {kind}\ndata: {data}\n\n".encode()
