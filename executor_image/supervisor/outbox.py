"""What waits to be sent to the host: in order, output coalesced while the stream is busy, bounded by back-pressure."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from executor_api.v1 import executor_pb2 as pb

HIGH_WATER = 2 << 20  # bytes queued: stop reading the runner
LOW_WATER = 512 << 10  # and go on below this
MAX_MESSAGE_TEXT = 256 << 10  # of one Output
MESSAGE_WEIGHT = 256  # bytes that a message counts for besides its content


@dataclass
class _Piece:
    """Output that can still grow."""

    id: int
    stream: pb.Output.Stream
    dropped_before: int
    text: bytearray = field(default_factory=bytearray)

    def message(self) -> pb.ExecutorMessage:
        output = pb.Output(id=self.id, stream=self.stream, text=bytes(self.text), dropped_before=self.dropped_before)
        return pb.ExecutorMessage(output=output)


class Outbox:
    """A queue with one reader. ``on_pressure(True)`` asks for less, ``on_pressure(False)`` for more."""

    def __init__(self, on_pressure: Callable[[bool], None]) -> None:
        self._items: deque[pb.ExecutorMessage | _Piece] = deque()
        self._bytes = 0
        self._pressed = False
        self._on_pressure = on_pressure
        self._waiter: asyncio.Future[None] | None = None

    def put(self, message: pb.ExecutorMessage) -> None:
        """Queues a message."""
        self._items.append(message)
        self._bytes += _weight(message)
        self._press()
        self._wake()

    def put_output(self, execution: int, stream: pb.Output.Stream, text: bytes, dropped_before: int = 0) -> None:
        """Queues output, as part of the piece that waits last if it is of the same stream."""
        last = self._items[-1] if self._items else None
        if not (
            isinstance(last, _Piece)
            and (last.id, last.stream, dropped_before) == (execution, stream, 0)
            and len(last.text) + len(text) <= MAX_MESSAGE_TEXT
        ):
            last = _Piece(execution, stream, dropped_before)
            self._items.append(last)
        last.text += text
        self._bytes += len(text)
        self._press()
        self._wake()

    async def get(self) -> pb.ExecutorMessage:
        """The next message, when there is one."""
        while not self._items:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        item = self._items.popleft()
        self._bytes -= len(item.text) if isinstance(item, _Piece) else _weight(item)
        self._press()
        return item.message() if isinstance(item, _Piece) else item

    @property
    def is_empty(self) -> bool:
        """Nothing waits to be sent."""
        return not self._items

    def _press(self) -> None:
        if self._bytes > HIGH_WATER and not self._pressed:
            self._pressed = True
            self._on_pressure(True)
        elif self._bytes < LOW_WATER and self._pressed:
            self._pressed = False
            self._on_pressure(False)

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)


def _weight(message: pb.ExecutorMessage) -> int:
    return message.ByteSize() + MESSAGE_WEIGHT
