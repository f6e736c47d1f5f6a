"""The fork tree of one branch: the head, which runs what is to be run, and the checkpoints, which wait.

    head ── executes 1 ── forks ── executes 2 ── forks ── executes 3 ✗
                           └ checkpoint of 1      └ checkpoint of 2: is the head now, and forks another in its place

Everything that a process says is hostile: a lie costs its own branch a state, and nothing else.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from executor_image import frames
from executor_image.supervisor import proc
from executor_image.supervisor.peer import Peer, PeerGone
from executor_image.supervisor.warden import Warden

RETIRED_SECONDS = 1.0  # for a process that was let go to be gone; then it counts as a stray


@dataclass(frozen=True)
class Origin:
    """The state that another one came from: by its execution, and by its checkpoint's number, 0 if it had none."""

    execution: int
    number: int = 0


@dataclass
class Checkpoint:
    """A state, and the process that holds it."""

    number: int
    execution: int  # the last whose work is in it
    origin: Origin | None
    peer: Peer
    name: bytes = b""
    pinned: bool = False  # somebody asked for it: it goes only when asked to
    has_files: bool = False
    made_at: float = field(default_factory=time.monotonic)
    used_at: float = field(default_factory=time.monotonic)  # made, or gone back to: what is used is kept
    maker: int = 0  # pid of the head that it is a copy of
    mark: int = 0  # pages that the maker had written before
    left: int | None = None  # bytes that the maker had left to it alone by the time that it made the next one


@dataclass(frozen=True)
class Woken:
    """A copy is a head now: whose end its state is of, and what became of the workspace's files."""

    execution: int
    files_restored: bool
    reason: bytes


class NoCopy(Exception):
    """There is too little memory, or there are too few processes, for another copy."""


class Listener(Protocol):
    """Who is told what happens in the tree."""

    def on_head_frame(self, kind: int, body: bytes) -> None:
        """The head sent something of an execution or a file request."""

    def fault(self, reason: str) -> None:
        """The head closed its channel or broke the rules; it may still run."""

    def on_forked(self) -> None:
        """The head has made a checkpoint of itself, or could not."""


class Numbers:
    """Numbers of checkpoints and branches: never used twice in a container."""

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> int:
        """The next one."""
        self._last += 1
        return self._last


class ForkTree:
    """Holds the processes of one branch.

    Attributes:
        head: runs executions.
        checkpoints: oldest first.
        current: the checkpoint that is the present state; None while there is none, as with threads.
        execution: the last execution whose work is in the present state.
        origin: the state that it came from; None for the first.
    """

    def __init__(self, head: Peer, listener: Listener, warden: Warden, numbers: Numbers) -> None:
        self.checkpoints: list[Checkpoint] = []
        self.current: Checkpoint | None = None
        self.execution = 0
        self.origin: Origin | None = None
        self.retired: dict[int, float] = {}  # pids that were let go, and when
        self._asked: Checkpoint | None = None  # asked for, not reported yet
        self._listener = listener
        self._warden = warden
        self._numbers = numbers
        self._lead(head)

    def _lead(self, head: Peer) -> None:
        self.head = head
        head.listen(self._on_head_frame, self._on_head_closed)

    # ------------------------------------------------------------------------------------------------- the head

    def advance(self, execution: int) -> None:
        """An execution has ended and left a state of its own."""
        self.origin = Origin(self.execution, self.current.number if self.current else 0)
        self.execution, self.current = execution, None

    def signal(self, number: int) -> None:
        """Signals the head."""
        self._warden.signal(self.head.pid, number)

    def freeze(self) -> None:
        """Stops every process of the tree: nothing in it runs until it is needed again."""
        for peer in (self.head, *(c.peer for c in self.checkpoints)):
            if not peer.stopped:
                peer.stopped = True
                self._warden.signal(peer.pid, signal.SIGSTOP)

    def thaw(self, peer: Peer | None = None) -> None:
        """Has a process go on, the head if no other is named."""
        peer = peer or self.head
        if peer.stopped:
            peer.stopped = False
            self._warden.signal(peer.pid, signal.SIGCONT)

    @property
    def stopped(self) -> list[int]:
        """The pids that are stopped."""
        return [p.pid for p in (self.head, *(c.peer for c in self.checkpoints)) if p.stopped]

    def _on_head_frame(self, peer: Peer, kind: int, body: bytes) -> None:
        if peer is not self.head:
            return
        if kind == frames.FORKED:
            self._on_forked(body)
        else:
            self._listener.on_head_frame(kind, body)

    def _on_head_closed(self, peer: Peer, reason: str) -> None:
        if peer is self.head:
            self._listener.fault(reason)

    # ------------------------------------------------------------------------------------------------ checkpoints

    def fork(self) -> None:
        """Has the head make a checkpoint of the present state; ``on_forked`` tells when it has, or could not."""
        self.thaw()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        made = Checkpoint(self._numbers.next(), self.execution, self.origin, Peer(ours))
        with theirs:
            body = frames.FORK_BODY.pack(made.number, frames.FORK_CHECKPOINT)
            if self.head.send_fds(frames.FORK, body, [theirs.fileno()]):
                self._asked = made
            else:
                made.peer.close()

    @property
    def forking(self) -> bool:
        """True if a checkpoint has been asked for that is not there yet."""
        return self._asked is not None

    def _on_forked(self, body: bytes) -> None:
        made, self._asked = self._asked, None
        number, pid, has_files = frames.FORKED_BODY.unpack(body)
        if made is None or made.number != number:
            raise frames.FrameViolation("report of a fork that was not asked for")
        if pid > 0:
            made.peer.pid, made.has_files = pid, bool(has_files)
            self._add(made)
        else:
            made.peer.close()
        self._listener.on_forked()

    def _add(self, made: Checkpoint) -> None:
        """Another of the same state, made because its files changed, takes the place of the one before."""
        before = self.checkpoints[-1] if self.checkpoints else None
        if before and not before.pinned and (before.execution, before.origin) == (made.execution, made.origin):
            self.drop(before)
        self._made_by(self.head.pid, made)
        self._watch(made)
        self.checkpoints.append(made)
        self.current = made

    def _watch(self, checkpoint: Checkpoint) -> None:
        checkpoint.peer.listen(self._on_checkpoint_frame, self._on_checkpoint_closed)

    def _on_checkpoint_frame(self, peer: Peer, _kind: int, _body: bytes) -> None:
        self._on_checkpoint_closed(peer)

    def _on_checkpoint_closed(self, peer: Peer, _reason: str = "") -> None:
        """It has died, as one that user code killed does, or it said what it was not asked."""
        for checkpoint in [c for c in self.checkpoints if c.peer is peer]:
            self.drop(checkpoint)

    def drop(self, checkpoint: Checkpoint) -> None:
        """Lets a checkpoint go; its process ends."""
        self.checkpoints.remove(checkpoint)
        if self.current is checkpoint:
            self.current = None
        self._retire(checkpoint.peer)

    def _retire(self, peer: Peer) -> None:
        if peer.stopped:
            self._warden.signal(peer.pid, signal.SIGKILL)  # it would not hear that its channel is closed
        peer.close()
        if peer.pid:
            self.retired[peer.pid] = time.monotonic()

    def known(self) -> list[int]:
        """The pids that belong to the tree; what is let go belongs to it for a moment more."""
        now = time.monotonic()
        self.retired = {pid: at for pid, at in self.retired.items() if now - at < RETIRED_SECONDS}
        return [self.head.pid, *(c.peer.pid for c in self.checkpoints)]

    # -------------------------------------------------------------------------------------------------- going back

    def nearest(self) -> Checkpoint | None:
        """The present state, or what comes nearest to it: the state that it came from, or the newest there is."""
        return self.current or self._same() or self.parent() or next(reversed(self.checkpoints), None)

    def _same(self) -> Checkpoint | None:
        """The present variables with other files: the host has written some since."""
        mine = (self.execution, self.origin)
        return next((c for c in reversed(self.checkpoints) if (c.execution, c.origin) == mine), None)

    def parent(self) -> Checkpoint | None:
        """The state that the present one came from, if it is kept."""
        if self.origin is None:
            return None
        if self.origin.number:
            return next((c for c in self.checkpoints if c.number == self.origin.number), None)
        return next((c for c in reversed(self.checkpoints) if c.execution == self.origin.execution), None)

    async def promote(self, checkpoint: Checkpoint, *, spend: bool = True) -> Woken:
        """The checkpoint's process becomes the head, after it has left a copy of itself in its place.

        The head of before is killed, unless it is dead. If no copy can be made there is one checkpoint less, with
        ``spend``; without it nothing has happened.

        Raises:
            NoCopy: no copy can be made.
            PeerGone: the checkpoint's process does not answer. The present state is the same still; if the head has
                been killed already, ``current`` holds it.
        """
        peer = checkpoint.peer
        self._wake_up(peer)
        copy = await self._copy(checkpoint)
        if copy is None and not spend:
            raise NoCopy
        self._settle_accounts(self.head.pid)
        self._replace_head(peer)
        if copy:
            checkpoint.peer = copy
            self._made_by(peer.pid, checkpoint)
            self._watch(checkpoint)
        if copy and checkpoint not in self.checkpoints:  # it has been dropped meanwhile
            self.checkpoints.append(checkpoint)
        elif not copy and checkpoint in self.checkpoints:
            self.checkpoints.remove(checkpoint)
        checkpoint.used_at = time.monotonic()
        woken = await self.wake(0, checkpoint.execution)
        self.execution, self.origin = checkpoint.execution, checkpoint.origin
        self.current = checkpoint if copy else None
        return woken

    def _wake_up(self, peer: Peer) -> None:
        peer.stopped = True  # also by user code, which nobody has been told of
        self.thaw(peer)

    async def _copy(self, checkpoint: Checkpoint) -> Peer | None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        copy = Peer(ours)
        with theirs:
            pid, _ = await self._ask_to_fork(checkpoint.peer, checkpoint.number, frames.FORK_COPY, [theirs.fileno()])
        if pid <= 0:
            copy.close()
            return None
        copy.pid = pid
        return copy

    async def _ask_to_fork(self, peer: Peer, number: int, kind: int, descriptors: Sequence[int]) -> tuple[int, bool]:
        """The pid of the copy, and whether it has the files."""
        answer = peer.expect(frames.FORKED)
        if not peer.send_fds(frames.FORK, frames.FORK_BODY.pack(number, kind), descriptors):
            raise PeerGone("the process takes no commands")
        forked, pid, has_files = frames.FORKED_BODY.unpack(await answer)
        if forked != number:
            raise PeerGone("the process speaks of another fork")
        return pid, bool(has_files)

    def _replace_head(self, peer: Peer) -> None:
        old = self.head
        if self._asked:
            self._asked.peer.close()
            self._asked = None
        if not old.closed:
            self._warden.signal(old.pid, signal.SIGKILL)
            self._retire(old)
        self._lead(peer)

    async def wake(self, branch: int, execution: int) -> Woken:
        """Has a head that was a copy take its workspace over: as it was, or, of a branch, in a place of its own.

        ``execution`` is the one at whose end its state is.

        Raises:
            PeerGone: it does not answer.
        """
        body = await self.head.ask(frames.WAKE, frames.U32.pack(branch), frames.WOKEN)
        return Woken(execution, bool(body[0]), body[1:])

    async def fork_branch(self, source: Checkpoint | None, sock: socket.socket, pipes: Sequence[int]) -> bool:
        """Has the head, or a checkpoint, make the first head of a branch. False if it cannot.

        Raises:
            PeerGone: it does not answer.
        """
        peer = source.peer if source else self.head
        kind = frames.FORK_BRANCH if source else frames.FORK_PRESENT_BRANCH
        self._wake_up(peer)
        pid, _ = await self._ask_to_fork(peer, self._numbers.next(), kind, [sock.fileno(), *pipes])
        return pid >= 0

    # ---------------------------------------------------------------------------------------------------- memory

    def held(self, checkpoint: Checkpoint) -> int:
        """Bytes that it alone holds, at the most: what its maker has written to or let go of since."""
        left = self._left_to(checkpoint) if checkpoint.left is None else checkpoint.left
        return min(left, proc.anonymous(checkpoint.peer.pid))

    def _left_to(self, checkpoint: Checkpoint) -> int:
        written = max(0, proc.pages_written(checkpoint.maker) - checkpoint.mark) * proc.PAGE
        grown = proc.anonymous(checkpoint.maker) - proc.anonymous(checkpoint.peer.pid)  # was new to the maker
        return max(0, written - grown) if grown > 0 else written - grown

    def _made_by(self, maker: int, made: Checkpoint) -> None:
        """From now on what this process writes is what the checkpoint alone holds; no longer what another one does."""
        self._settle_accounts(maker)
        made.maker, made.mark, made.left = maker, proc.pages_written(maker), None

    def _settle_accounts(self, maker: int) -> None:
        for checkpoint in self.checkpoints:
            if checkpoint.maker == maker and checkpoint.left is None:
                checkpoint.left = self._left_to(checkpoint)

    # --------------------------------------------------------------------------------------------------- the end

    def close(self) -> None:
        """Ends all processes of the tree."""
        self.signal(signal.SIGKILL)
        for checkpoint in list(self.checkpoints):
            self.drop(checkpoint)
        if self._asked:
            self._asked.peer.close()
        self._retire(self.head)


def describe_exit(wait_status: int) -> str:
    """How a process ended, for people."""
    code = os.waitstatus_to_exitcode(wait_status)
    return f"killed by signal {-code}" if code < 0 else f"exited with code {code}"
