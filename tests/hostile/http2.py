"""A hostile executor below gRPC: HTTP/2 frames by hand, for what no gRPC library would send."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress

from executor_api.v1 import executor_pb2 as pb

from tests.hostile.peer import Heard, Place, Speaker

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
_PREFACE = 24  # bytes that every client begins with
_STREAM = 1  # the client's first


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def header(name: bytes, value: bytes) -> bytes:
    """One header field, spelt out: a literal without indexing, HPACK's plainest form."""
    return b"\0" + _length(name) + name + _length(value) + value


def _length(text: bytes) -> bytes:
    size, rest = len(text), []
    if size < 127:
        return bytes([size])
    size -= 127
    while size >= 128:
        rest.append(size % 128 | 128)
        size //= 128
    return bytes([127, *rest, size])


RESPONSE = header(b":status", b"200") + header(b"content-type", b"application/grpc")


class Wire(Speaker):
    """One connection, as the script of an attack has it."""

    def __init__(self, place: Place, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: Heard) -> None:
        self.place = place
        self._reader = reader
        self._writer = writer
        self._heard = heard
        self._received = b""

    async def greet(self) -> None:
        """What HTTP/2 asks of a server."""
        await self._reader.readexactly(_PREFACE)
        await self.send(frame(SETTINGS, 0, 0))

    async def send(self, *frames: bytes) -> None:
        """Frames, or any bytes."""
        self._writer.write(b"".join(frames))
        await self._writer.drain()

    async def hear(self) -> pb.HostMessage:
        """The host's next message."""
        while (message := self._whole()) is None:
            kind, flags, _, body = await self._frame()
            if kind == DATA:
                self._received += body
            elif kind == SETTINGS and not flags & ACK:
                await self.send(frame(SETTINGS, ACK, 0))
            elif kind == PING and not flags & ACK:
                await self.send(frame(PING, ACK, 0, body))
        self._heard.kinds.append(message.WhichOneof("kind") or "nothing")
        return message

    def _whole(self) -> pb.HostMessage | None:
        if len(self._received) < 5:
            return None
        size = struct.unpack(">I", self._received[1:5])[0]
        if len(self._received) < 5 + size:
            return None
        data, self._received = self._received[5 : 5 + size], self._received[5 + size :]
        return pb.HostMessage.FromString(data)

    async def _frame(self) -> tuple[int, int, int, bytes]:
        head = await self._reader.readexactly(9)
        size = int.from_bytes(head[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        return kind, flags, stream, await self._reader.readexactly(size)

    async def say(self, message: pb.ExecutorMessage | bytes, compressed: bool = False) -> None:
        """One gRPC message."""
        data = message if isinstance(message, bytes) else message.SerializeToString()
        body = struct.pack(">BI", compressed, len(data)) + data
        for start in range(0, len(body), 16_384):
            await self.send(frame(DATA, 0, _STREAM, body[start : start + 16_384]))

    async def open(self) -> None:
        """Greets, proves the token, and is taken for a sandbox."""
        await self.greet()
        hello = (await self.hear()).hello
        await self.respond()
        await self.say(self.challenge(hello))
        await self.hear()
        await self.say(self.ready())

    async def respond(self, *more: bytes) -> None:
        """The headers of the answer to the first stream."""
        await self.send(frame(HEADERS, END_HEADERS, _STREAM, RESPONSE + b"".join(more)))

    async def end(self, *trailers: bytes) -> None:
        """The end of the answer, with these trailers."""
        await self.send(frame(HEADERS, END_HEADERS | END_STREAM, _STREAM, b"".join(trailers)))

    async def stall(self) -> None:
        """Reads what comes, and says nothing."""
        while await self._reader.read(1 << 16):
            pass

    async def sleep(self) -> None:
        """Does nothing at all any more."""
        await asyncio.Event().wait()


WireScript = Callable[[Wire], Awaitable[None]]


class WireServer:
    """Serves one script on the socket of one place. ``stop`` is its owner's duty."""

    def __init__(self, place: Place, script: WireScript, heard: Heard) -> None:
        self._place = place
        self._script = script
        self._heard = heard
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listens, and then shows its socket."""
        self._server = await asyncio.start_unix_server(self._serve, self._place.starting)
        self._place.show()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._connections.add(task)
        self._heard.streams += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._script(Wire(self._place, reader, writer, self._heard))
        finally:
            writer.close()

    async def stop(self) -> None:
        """Ends every connection at once."""
        assert self._server
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
