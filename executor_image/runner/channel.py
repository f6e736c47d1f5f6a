"""One generation's end of its socketpair: blocking, shared by the threads of user code."""

from __future__ import annotations

import array
import select
import socket
import threading
from collections import deque

from executor_image.frames import TO_RUNNER, FrameReader, pack

_READ_SIZE = 64 << 10  # memory may be nearly used up when the next command is read


class ChannelClosed(Exception):
    """The supervisor is gone, or has closed this generation's channel."""


class Shield:
    """Holds SIGINT back in the main thread (the only one that Python runs signal handlers in)."""

    def __init__(self) -> None:
        self._depth = 0
        self._late = False
        self._main = threading.main_thread().ident

    def __enter__(self) -> None:
        if threading.get_ident() == self._main:
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        if threading.get_ident() == self._main:
            self._depth -= 1
            if self._late and not self._depth:
                self._late = False
                raise KeyboardInterrupt

    def interrupt(self) -> None:
        """What the signal handler calls: raises KeyboardInterrupt now, or when the shield is lowered."""
        if not self._depth:
            raise KeyboardInterrupt
        self._late = True

    def forget(self) -> None:
        """Drops an interrupt that came too late to reach user code."""
        self._late = False


class Channel:
    """Sends and receives frames. An interrupt may arrive at any moment and never tears a frame.

    Waiting happens in ``poll``, where KeyboardInterrupt may be raised; reading is one ``recv`` that cannot block, and
    it and sending are shielded from interrupts.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._reader = FrameReader(TO_RUNNER)
        self._frames: deque[tuple[int, bytes]] = deque()
        self._fds: deque[int] = deque()
        self._send_lock = threading.Lock()
        self.shield = Shield()

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._sock.fileno()

    def forget(self) -> None:
        """Lets go of a descriptor that has been closed already."""
        self._sock.detach()

    def send(self, kind: int, *parts: bytes) -> None:
        """Sends one frame whole; blocks while the supervisor is busy."""
        frame = pack(kind, *parts)
        with self.shield, self._send_lock:
            self._sock.sendall(frame)

    def receive(self) -> tuple[int, bytes]:
        """The next frame.

        Raises:
            ChannelClosed: there will be none.
        """
        while not self._frames:
            poll = select.poll()
            poll.register(self._sock, select.POLLIN)
            poll.poll()
            self._read_available()
        return self._frames.popleft()

    def readable(self) -> bool:
        """True if ``receive`` would not wait."""
        if self._frames:
            return True
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(0))

    def take_fd(self) -> int:
        """The descriptor that came with the frame just received."""
        return self._fds.popleft()

    def _read_available(self) -> None:
        with self.shield:
            try:
                data, ancillary, _, _ = self._sock.recvmsg(_READ_SIZE, socket.CMSG_SPACE(4), socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:  # user code may have closed or replaced the descriptor
                raise ChannelClosed from error
            if not data:
                raise ChannelClosed
            for _level, _kind, payload in ancillary:
                self._fds.extend(array.array("i", payload))
            self._frames.extend(self._reader.feed(data))
