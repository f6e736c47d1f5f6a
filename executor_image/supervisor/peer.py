"""One other process and the channel to it. Everything that comes up is hostile.

A frame that breaks the rules is told as the end of the channel, with the reason.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress

from executor_image import frames

MAX_UNSENT = 32 << 20  # bytes: results of a dozen tool calls that run at the same time
_READ_SIZE = 256 << 10
_LAST_READS = 4  # at most what a socket holds
_CREDENTIALS = struct.Struct("iII")  # pid, uid, gid; see unix(7)

OnFrame = Callable[["Peer", int, bytes], None]
OnClosed = Callable[["Peer", str], None]


class PeerGone(Exception):
    """The process has closed its channel, or broken the rules, before it answered."""


class Peer:
    """A channel that never waits to send, and reports frames to whoever listens.

    ``pid`` is what this program was told until the process has sent something; from then on it is the kernel's word.
    """

    def __init__(self, sock: socket.socket, pid: int = 0, legal: frames.Legal = frames.FROM_RUNNER) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.sock = sock
        self.pid = pid
        self.closed = False
        self._ended = ""  # why its channel has come to its end
        self.stopped = False  # by a signal; it hears nothing until it is told to go on
        self._known = False  # the pid is the kernel's word
        self._reader = frames.FrameReader(legal)
        self._unsent = bytearray()
        self._waits = False  # for room to send
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        self._on_frame: OnFrame | None = None
        self._on_closed: OnClosed | None = None

    # --------------------------------------------------------------------------------------------------- sending

    def send(self, kind: int, *parts: bytes) -> None:
        """Sends a frame without waiting; what does not fit goes when there is room."""
        if not self.closed:
            self._unsent += frames.pack(kind, *parts)
            self._push()

    @property
    def stuffed(self) -> bool:
        """True if the process does not take what it is sent, which must not fill this one's memory."""
        return len(self._unsent) > MAX_UNSENT

    def _push(self) -> None:
        try:
            del self._unsent[: self.sock.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:  # the process is gone; its end is reported where the channel is read
            self._unsent.clear()
        loop = asyncio.get_running_loop()
        if self._unsent and not self._waits:
            loop.add_writer(self.sock, self._push)
        elif self._waits and not self._unsent:
            loop.remove_writer(self.sock)
        self._waits = bool(self._unsent)

    def send_fds(self, kind: int, body: bytes, descriptors: Sequence[int]) -> bool:
        """Sends a frame with descriptors. False if the process does not take commands."""
        if self._unsent or self.closed:
            return False
        try:
            socket.send_fds(self.sock, [frames.pack(kind, body)], list(descriptors))
        except OSError:
            return False
        return True

    # --------------------------------------------------------------------------------------------------- reading

    def listen(self, on_frame: OnFrame, on_closed: OnClosed) -> None:
        """From now on, these are told. The channel is read from the first time on."""
        first = self._on_frame is None
        self._on_frame, self._on_closed = on_frame, on_closed
        if first:
            self.pause(False)

    def pause(self, paused: bool) -> None:
        """Stops or goes on reading, so that the process has to wait."""
        loop = asyncio.get_running_loop()
        if paused or self.closed or self._ended:
            loop.remove_reader(self.sock)
        else:
            loop.add_reader(self.sock, self._on_readable)

    def expect(self, kind: int) -> asyncio.Future[bytes]:
        """The body of the next frame of that type, which then is not told to the listener.

        Its exception is PeerGone if the channel ends first.
        """
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        if self.closed or self._ended:
            future.set_exception(PeerGone(f"the process {self._ended or 'has ended'}"))
        else:
            self._asked[kind] = future
        return future

    async def ask(self, kind: int, body: bytes, answer: int) -> bytes:
        """Sends a command and waits for its answer.

        Raises:
            PeerGone: there will be none.
        """
        future = self.expect(answer)
        self.send(kind, body)
        return await future

    def read_rest(self) -> None:
        """What a process that is dead wrote before."""
        for _ in range(_LAST_READS):
            self._on_readable()

    def _on_readable(self) -> None:
        if self.closed or self._ended:
            return
        try:
            data = self._receive()
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end("closed its channel")
            return
        try:
            for kind, body in self._reader.feed(data):
                self._dispatch(kind, body)
        except frames.FrameViolation as error:
            self._end(f"sent an illegal {error}")

    def _receive(self) -> bytes:
        if self._known:
            return self.sock.recv(_READ_SIZE)
        data, ancillary, _, _ = self.sock.recvmsg(_READ_SIZE, socket.CMSG_SPACE(_CREDENTIALS.size))
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and data:
                pid = _CREDENTIALS.unpack(payload[: _CREDENTIALS.size])[0]
                self.pid, self._known = pid or self.pid, pid > 0
        return data

    def _dispatch(self, kind: int, body: bytes) -> None:
        future = self._asked.pop(kind, None)
        if future and not future.done():
            future.set_result(body)
        elif self._on_frame and not future:
            self._on_frame(self, kind, body)

    def _end(self, reason: str) -> None:
        self._ended = reason
        asyncio.get_running_loop().remove_reader(self.sock)
        self._refuse(reason)
        if self._on_closed:
            self._on_closed(self, reason)

    def _refuse(self, reason: str) -> None:
        asked, self._asked = self._asked, {}
        for future in asked.values():
            if not future.done():
                future.set_exception(PeerGone(f"the process {reason}"))
                future.exception()  # nobody may be waiting any more, and then nobody is to be told

    def close(self) -> None:
        """Forgets the process; one that waits for commands ends at that."""
        if not self.closed:
            self.closed = True
            self._refuse("is not needed any more")
            loop = asyncio.get_running_loop()
            loop.remove_reader(self.sock)
            loop.remove_writer(self.sock)
            with suppress(OSError):
                self.sock.close()
