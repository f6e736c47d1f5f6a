"""The fork tree as the supervisor holds it: the head, its checkpoint, and a channel to each.

Everything that comes up a channel is hostile. A frame that breaks the rules is reported as a fault of its process.
"""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass
from typing import Protocol

from executor_image import frames

_READ_SIZE = 256 << 10
_LAST_READS = 4
MAX_UNSENT = 32 << 20  # bytes: results of a dozen tool calls that run at the same time


@dataclass(frozen=True)
class Runner:
    """What the launcher made: the first process of the fork tree and the ways to it."""

    pid: int
    uid: int
    channel: socket.socket
    pipes: tuple[int, int]  # what its descriptors 1 and 2 write to


class Listener(Protocol):
    """Who is told what happens in the tree."""

    def on_ready(self) -> None:
        """The first head has taken its setup in."""

    def on_head_frame(self, kind: int, body: bytes) -> None:
        """The head sent something of an execution or a file request."""

    def on_head_fault(self, reason: str) -> None:
        """The head closed its channel or broke the rules; it may still run."""

    def on_forked(self, forked: bool) -> None:
        """The head has made a checkpoint of itself, or could not."""


class Peer:
    """One runner process and the channel to it."""

    def __init__(self, number: int, sock: socket.socket, pid: int = 0) -> None:
        sock.setblocking(False)
        self.number = number
        self.pid = pid  # 0 until it is known
        self.sock = sock
        self.reader = frames.FrameReader(frames.FROM_RUNNER)
        self.unsent = bytearray()
        self._waits = False  # for room to send

    def send(self, kind: int, *parts: bytes) -> None:
        """Sends a frame without waiting; what does not fit goes when there is room."""
        self.unsent += frames.pack(kind, *parts)
        self._push()

    @property
    def stuffed(self) -> bool:
        """True if the process does not take what it is sent, which must not fill this one's memory."""
        return len(self.unsent) > MAX_UNSENT

    def _push(self) -> None:
        try:
            del self.unsent[: self.sock.send(self.unsent)]
        except BlockingIOError:
            pass
        except OSError:  # the process is gone; its end is reported where the channel is read
            self.unsent.clear()
        if self.unsent and not self._waits:
            asyncio.get_running_loop().add_writer(self.sock, self._push)
        elif self._waits and not self.unsent:
            asyncio.get_running_loop().remove_writer(self.sock)
        self._waits = bool(self.unsent)

    def send_fork(self, number: int, checkpoint: socket.socket) -> bool:
        """Asks for a fork; the copy gets the channel ``checkpoint``. False if the process does not take commands."""
        if self.unsent:
            return False
        try:
            socket.send_fds(self.sock, [frames.pack(frames.FORK, frames.U32.pack(number))], [checkpoint.fileno()])
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Forgets the process; one that waits for commands ends at that."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.sock)
        loop.remove_writer(self.sock)
        self.sock.close()


class ForkTree:
    """The head runs what is to be run; the checkpoint can kill it and take its place."""

    def __init__(self, runner: Runner, listener: Listener) -> None:
        self.head = Peer(0, runner.channel, runner.pid)
        self.checkpoint: Peer | None = None
        self.retired: set[int] = set()  # pids of checkpoints that the head was to kill and that may not be gone yet
        self._next: Peer | None = None  # asked for, not reported yet
        self._listener = listener
        self._count = 0
        self._watch(self.head)

    # ------------------------------------------------------------------------------------------------- commands

    def fork(self) -> bool:
        """Has the head make a checkpoint of itself; the present one is let go once that is done."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._count += 1
        with theirs:
            if not self.head.send_fork(self._count, theirs):
                ours.close()
                return False
        self._next = Peer(self._count, ours)
        return True

    def signal(self, what: int) -> bool:
        """Has the checkpoint interrupt the head, or kill everything but itself; False if there is no checkpoint."""
        if self.checkpoint:
            self.checkpoint.send(frames.SIGNAL, frames.SIGNAL_BODY.pack(what, self.head.pid))
        return self.checkpoint is not None

    @property
    def forking(self) -> bool:
        """True if a checkpoint has been asked for that is not there yet."""
        return self._next is not None

    def restore(self) -> bool:
        """The head is dead: the checkpoint takes its place and forks another. False if there is none."""
        if self.checkpoint is None:
            return False
        self.head.close()
        if self._next:
            self._next.close()
        self.head, self.checkpoint, self._next = self.checkpoint, None, None
        self._watch(self.head)
        return self.fork()

    def pause(self, paused: bool) -> None:
        """Stops or goes on reading the head, so that it has to wait."""
        if paused:
            asyncio.get_running_loop().remove_reader(self.head.sock)
        else:
            self._watch(self.head)

    def take_what_is_left(self) -> None:
        """What a head that is dead wrote before: at most what a socket holds."""
        head = self.head
        for _ in range(_LAST_READS):
            self._on_readable(head)

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
            self._on_closed(peer, "closed its channel")
            return
        try:
            for kind, body in peer.reader.feed(data):
                self._dispatch(peer, kind, body)
        except frames.FrameViolation as error:
            self._on_closed(peer, f"sent an illegal {error}")

    def _on_closed(self, peer: Peer, reason: str) -> None:
        asyncio.get_running_loop().remove_reader(peer.sock)
        if peer is self.head:
            self._listener.on_head_fault(reason)
        elif peer is self.checkpoint:
            peer.close()
            self.checkpoint = None

    def _dispatch(self, peer: Peer, kind: int, body: bytes) -> None:
        if peer is not self.head:
            raise frames.FrameViolation(f"frame of type {kind} from a checkpoint")
        if kind == frames.READY:
            self._listener.on_ready()
        elif kind == frames.FORKED:
            self._on_forked(*frames.FORKED_BODY.unpack(body))
        else:
            self._listener.on_head_frame(kind, body)

    def _on_forked(self, number: int, pid: int) -> None:
        made, self._next = self._next, None
        if made is None or made.number != number:
            raise frames.FrameViolation("report of a fork that was not asked for")
        if pid <= 0:
            made.close()
        else:
            made.pid = pid
            self._let_go()
            self.checkpoint = made
            self._watch(made)
        self._listener.on_forked(pid > 0)

    def _let_go(self) -> None:
        if self.checkpoint:
            self.retired.add(self.checkpoint.pid)
            self.checkpoint.close()


def describe_exit(wait_status: int) -> str:
    """How a process ended, for people."""
    code = os.waitstatus_to_exitcode(wait_status)
    return f"killed by signal {-code}" if code < 0 else f"exited with code {code}"
