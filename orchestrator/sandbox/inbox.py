"""Messages that have come and that nobody has read yet: bounded, so that who floods has to wait."""

from __future__ import annotations

import asyncio
from collections import deque

MAX_MESSAGES = 16  # taken in before their reader asks; then gRPC's flow control makes the sender wait
MAX_BYTES = 1 << 20  # the same; one message more is taken in, whatever its size


class Inbox:
    """A queue of bytes with one sender and one reader, and an end that is an exception."""

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque()
        self._bytes = 0
        self._end: Exception | None = None
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()

    @property
    def failure(self) -> Exception | None:
        """The reason of the end, if it has come."""
        return self._end

    @property
    def is_empty(self) -> bool:
        """Nothing has come that has not been read."""
        return not self._messages

    async def put(self, message: bytes) -> None:
        """Takes one in, then waits while that is as much as may lie here."""
        self._messages.append(message)
        self._bytes += len(message)
        self._arrived.set()
        while len(self._messages) >= MAX_MESSAGES or self._bytes >= MAX_BYTES:
            self._room.clear()
            await self._room.wait()

    def end(self, reason: Exception) -> None:
        """Nothing follows. Only the first reason counts."""
        self._end = self._end or reason
        self._arrived.set()

    async def get(self) -> bytes:
        """The next one, when it has come. If the wait is cancelled, nothing is lost.

        Raises:
            Exception: the reason of the end, once what came before it has been read.
        """
        while not self._messages:
            if self._end is not None:
                raise self._end
            self._arrived.clear()
            await self._arrived.wait()
        message = self._messages.popleft()
        self._bytes -= len(message)
        self._room.set()
        return message
