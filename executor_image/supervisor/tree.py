"""The fork tree as the supervisor holds it: the head, its child, and a channel to each.

Everything that comes up a channel is hostile. A frame that breaks the rules is reported as a fault of its process.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Protocol

from executor_image import frames

_READ_SIZE = 256 << 10
_LAST_READS = 4


class Listener(Protocol):
    """Who is told what happens in the tree."""

    def on_ready(self) -> None:
        """The first head has taken its setup in."""

    def on_child_frame(self, kind: int, body: bytes) -> None:
        """The child sent something of an execution or a file request."""

    def on_child_exit(self, wait_status: int) -> None:
        """The child has ended; the head has reaped it."""

    def on_child_fault(self, reason: str) -> None:
        """The child closed its channel or broke the rules; it may still run."""

    def on_fork_failed(self) -> None:
        """The head could not fork."""

    def on_head_lost(self) -> None:
        """The head is gone or broke the rules: nothing can be killed or restored any more."""


class Peer:
    """One runner process and the channel to it."""

    def __init__(self, number: int, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.number = number
        self.pid = 0  # until the head has said so
        self.sock = sock
        self.reader = frames.FrameReader(frames.FROM_RUNNER)
        self.unsent = bytearray()

    def send(self, kind: int, *parts: bytes) -> None:
        """Sends a frame without waiting; what does not fit goes when there is room."""
        self.unsent += frames.pack(kind, *parts)
        self._push()

    def _push(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            del self.unsent[: self.sock.send(self.unsent)]
        except BlockingIOError:
            pass
        except OSError:  # the process is gone; its end is reported where the channel is read
            self.unsent.clear()
        if self.unsent:
            loop.add_writer(self.sock, self._push)
        else:
            loop.remove_writer(self.sock)

    def send_fork(self, number: int, child: socket.socket) -> bool:
        """Asks for a fork whose child gets the channel ``child``; False if the process does not take commands."""
        if self.unsent:
            return False
        try:
            socket.send_fds(self.sock, [frames.pack(frames.FORK, frames.U32.pack(number))], [child.fileno()])
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Forgets the process; one that still waits for commands ends at that."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.sock)
        loop.remove_writer(self.sock)
        self.sock.close()


class ForkTree:
    """Head and child. The child runs what is to be run; the head can kill it and fork another."""

    def __init__(self, first: socket.socket, pid: int, listener: Listener) -> None:
        self.head: Peer | None = Peer(0, first)
        self.head.pid = pid
        self.child: Peer | None = None
        self._listener = listener
        self._count = 0
        self._watch(self.head)

    # ------------------------------------------------------------------------------------------------- commands

    def setup(self, body: bytes) -> None:
        """Tells the first head what it has to know."""
        if self.head:
            self.head.send(frames.SETUP, body)

    def fork(self) -> bool:
        """Makes a child of the head; False if there is no head that could fork."""
        if self.child:
            self.child.close()
            self.child = None
        if not self.head:
            return False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._count += 1
        with theirs:
            if not self.head.send_fork(self._count, theirs):
                ours.close()
                return False
        self.child = Peer(self._count, ours)
        self._watch(self.child)
        return True

    def advance(self) -> bool:
        """The child becomes the head and forks its own child; the old head ends."""
        old, self.head, self.child = self.head, self.child, None
        forked = self.fork()
        if old:
            old.send(frames.RETIRE)
            old.close()
        return forked

    def signal(self, what: int) -> bool:
        """Has the head interrupt the child or kill everything but itself; False if there is no head."""
        if self.head:
            self.head.send(frames.SIGNAL, bytes([what]))
        return self.head is not None

    def pause(self, paused: bool) -> None:
        """Stops or goes on reading the child, so that it has to wait."""
        if self.child and not paused:
            self._watch(self.child)
        elif self.child:
            asyncio.get_running_loop().remove_reader(self.child.sock)

    # --------------------------------------------------------------------------------------------------- reading

    def _watch(self, peer: Peer) -> None:
        asyncio.get_running_loop().add_reader(peer.sock, self._on_readable, peer)

    def _on_readable(self, peer: Peer) -> None:
        try:
            data = peer.sock.recv(_READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._on_closed(peer, "was killed by signal 9 or closed its channel")
            return
        try:
            for kind, body in peer.reader.feed(data):
                self._dispatch(peer, kind, body)
        except frames.FrameViolation as error:
            self._on_closed(peer, f"sent an illegal {error}")

    def _on_closed(self, peer: Peer, reason: str) -> None:
        asyncio.get_running_loop().remove_reader(peer.sock)
        if peer is self.child:
            self._listener.on_child_fault(reason)
        elif peer is self.head:
            peer.close()
            self.head = None
            self._listener.on_head_lost()

    def _dispatch(self, peer: Peer, kind: int, body: bytes) -> None:
        if peer is self.child:
            if kind in (frames.READY, frames.FORKED, frames.CHILD_EXIT):
                raise frames.FrameViolation(f"frame of type {kind}")
            self._listener.on_child_frame(kind, body)
        elif peer is self.head:
            self._on_head_frame(kind, body)

    def _on_head_frame(self, kind: int, body: bytes) -> None:
        if kind == frames.READY and self._count == 0:
            self._listener.on_ready()
        elif kind == frames.FORKED:
            number, pid = frames.CHILD_HEAD.unpack(body)
            self._on_forked(number, pid)
        elif kind == frames.CHILD_EXIT:
            number, status = frames.CHILD_HEAD.unpack(body)
            if self.child and self.child.number == number:
                self._take_what_is_left(self.child)
                self._listener.on_child_exit(status)
        # Anything else is output of a thread that outlived its execution: it belongs to no execution and is dropped.

    def _take_what_is_left(self, dead: Peer) -> None:
        """What a process wrote before it died: at most what a socket holds."""
        for _ in range(_LAST_READS):
            if self.child is dead:
                self._on_readable(dead)

    def _on_forked(self, number: int, pid: int) -> None:
        if self.child is None or self.child.number != number:
            return
        if pid < 0:
            self._listener.on_fork_failed()
        else:
            self.child.pid = pid


def describe_exit(wait_status: int) -> str:
    """How a process ended, for people."""
    code = os.waitstatus_to_exitcode(wait_status)
    return f"killed by signal {-code}" if code < 0 else f"exited with code {code}"
