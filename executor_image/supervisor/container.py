"""What all branches of a container share: its processes, its warden, its memory, the kernel's word on who has ended."""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

from executor_api.v1 import executor_pb2 as pb

from executor_image.supervisor import proc
from executor_image.supervisor.peer import PeerGone
from executor_image.supervisor.staged import Staged
from executor_image.supervisor.tree import Checkpoint, ForkTree, Numbers
from executor_image.supervisor.warden import Staying, Warden

MAX_BRANCHES = 16  # each has a stream, a workspace, and processes
MAX_PINNED = 32  # checkpoints that were asked for: each is a process, and holds memory that nobody else frees
SECRET_BYTES = 32
UNWATCHED = "the process that watches over the sandbox is gone"
UNENDING = "something that the code has started cannot be ended"
LAST_WORDS = 2.0  # seconds for the host to hear why, before this process ends, and with it the container
LEAVING = 1.0  # seconds; the end of one stream and a request on another are heard in any order
ATTACH_DEADLINE = 20.0  # seconds for somebody to attach to a branch that was made
PRESSURE_POLL = 0.02  # seconds between two looks at the memory while code runs
PRESSURE_SHARE = 0.8  # of the memory limit: while code runs, older checkpoints go above this
_FREED = 0.02  # seconds for a process that was let go to give its memory back


class Branch(Protocol):
    """A session on one branch, as the container sees it."""

    branch: int
    tree: ForkTree

    @property
    def executing(self) -> bool:
        """User code is running in it."""

    def on_head_exit(self, wait_status: int) -> None:
        """The kernel says that its head has ended."""

    def give_up(self) -> None:
        """Nothing can be stopped or brought back any more; the container knows why."""

    def close(self) -> None:
        """Ends it."""


class Container:
    """One per container.

    Attributes:
        lock: held by whoever sweeps, or makes processes that are not in a tree yet.
        over: why nothing can be stopped any more; empty as long as it can.
    """

    def __init__(self, staged: Staged, opened: pb.Open) -> None:
        self.opened = opened
        self.uid = staged.runner_uid
        self.cgroup = proc.Cgroup()
        self.numbers = Numbers()
        self.branch_numbers = Numbers()
        self.lock = asyncio.Lock()
        self.branches: list[Branch] = []
        self._left = asyncio.Event()  # a branch has
        self.secrets: dict[int, bytes] = {}  # of branches that nobody has attached to yet
        self.over = ""
        self._given_up = False
        self.warden = Warden(staged.warden, staged.warden_pid, self.give_up)
        self._states = staged.states
        self._watch: asyncio.TimerHandle | None = None
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    def is_watched(self) -> bool:
        """True unless the warden has ended, the kernel asked in this moment."""
        with suppress(ChildProcessError):  # it has been asked before
            self._note(os.waitpid(self.warden.pid, os.WNOHANG)[0])
        return not self.over

    def _note(self, ended: int) -> None:
        if ended == self.warden.pid:
            self.over = UNWATCHED
            asyncio.get_running_loop().call_soon(self.give_up)  # not in the midst of what asked

    def give_up(self, why: str = UNWATCHED) -> None:
        """Something cannot be stopped any more but all together: whoever waits is told, and then this is the end."""
        self.over = self.over or why
        if not self._given_up:
            self._given_up = True
            asyncio.get_running_loop().call_later(LAST_WORDS, os._exit, 0)
            for branch in list(self.branches):
                branch.give_up()

    def _reap(self) -> None:
        """This process is PID 1: it is told of every head's end, and of every orphan's, by the kernel itself."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                self._note(ended[0])
                for branch in list(self.branches):
                    if ended[0] == branch.tree.head.pid:
                        branch.on_head_exit(ended[1])

    # -------------------------------------------------------------------------------------------------- branches

    def attach(self, number: int, secret: bytes) -> Branch | None:
        """The branch of that number, once, for who knows its secret."""
        expected = self.secrets.get(number)
        if expected is None or not hmac.compare_digest(expected, secret):
            return None
        del self.secrets[number]
        return next((b for b in self.branches if b.branch == number), None)

    def new_secret(self) -> tuple[int, bytes]:
        """A number for a new branch, and what whoever attaches to it has to know."""
        number, secret = self.branch_numbers.next(), secrets.token_bytes(SECRET_BYTES)
        self.secrets[number] = secret
        asyncio.get_running_loop().call_later(ATTACH_DEADLINE, self._expire, number)
        return number, secret

    def _expire(self, number: int) -> None:
        if self.secrets.pop(number, None):
            for branch in [b for b in self.branches if b.branch == number]:
                branch.close()

    # ----------------------------------------------------------------------------------------------------- strays

    def has_strays(self, of: Branch) -> bool:
        """True if anything of the runner's uid is alive that belongs to no tree and to no other branch's code."""
        known = self._known()
        if self.cgroup.tasks() - proc.thread_count(os.getpid()) == len(known):
            return False
        running = [b.tree.head.pid for b in self.branches if b is not of and b.executing]
        alive = proc.alive_of(self.uid)
        retired = {pid for b in self.branches for pid in b.tree.retired}
        strays = alive.keys() - known - retired
        return any(not _descends(pid, alive, running) for pid in strays)

    async def clean(self, of: Branch) -> bool:
        """Kills the strays of a branch. False if that cannot be done: nothing is promised then, and this is the end."""
        try:
            async with self.lock:
                if not self.has_strays(of) or not await self.warden.sweep(lambda: self._staying(of)):
                    return True
        except PeerGone:
            self.give_up()
        else:
            self.give_up(UNENDING)
        return False

    async def stop(self, branch: Branch) -> bool:
        """Stops a branch: nothing of the user's runs in it until it is needed again. False as of ``clean``.

        What runs may start processes until it is stopped; only after that it is known who is a stray.
        """
        branch.tree.freeze()
        try:
            await self.warden.check()
        except PeerGone:
            self.give_up()
            return False
        return await self.clean(branch)

    def _staying(self, of: Branch) -> Staying:
        """Who stays when the strays of a branch are swept."""
        spare = [pid for b in self.branches if b is not of for pid in b.tree.known()]  # and the copies they make
        stopped = [pid for b in self.branches for pid in b.tree.stopped]
        return Staying(list(self._known() - set(stopped)), stopped, spare)

    def _known(self) -> set[int]:
        return {self.warden.pid, *(pid for branch in self.branches for pid in branch.tree.known())}

    # ----------------------------------------------------------------------------------------------------- memory

    def _automatic(self) -> Iterator[tuple[ForkTree, Checkpoint]]:
        """The checkpoints that may go, those first that were made or gone back to longest ago.

        Not what a kill would go back to, also where that is an older state because threads are alive.
        """
        found = [(b.tree, c) for b in self.branches for c in b.tree.checkpoints if not c.pinned]
        return iter(sorted(((t, c) for t, c in found if c is not t.nearest()), key=lambda pair: pair[1].used_at))

    def _count(self) -> int:
        return sum(1 + len(branch.tree.checkpoints) for branch in self.branches)

    @property
    def pinned(self) -> int:
        """How many checkpoints were asked for."""
        return sum(c.pinned for branch in self.branches for c in branch.tree.checkpoints)

    def trim(self, tree: ForkTree) -> None:
        """The oldest go first: over the number that a branch keeps, over what there are processes for, over memory."""
        mine = sorted((c for c in tree.checkpoints if not c.pinned), key=lambda c: c.used_at)
        for checkpoint in mine[: max(0, len(mine) - max(1, self.opened.checkpoints))]:
            if checkpoint is not tree.nearest():
                tree.drop(checkpoint)
        for owner, checkpoint in self._automatic():
            if self._count() <= self._states:
                break
            owner.drop(checkpoint)
        self._relieve()

    def _relieve(self) -> None:
        """Lets the oldest go while too much memory is in use, one at a time: pages are shared, and may free nothing."""
        if self.cgroup.holds_more_than(self.opened.checkpoint_share * self.opened.memory_bytes):
            for owner, checkpoint in self._automatic():
                owner.drop(checkpoint)
                asyncio.get_running_loop().call_later(_FREED, self._relieve)
                break

    def watch_memory(self) -> None:
        """While code runs, older checkpoints make room for what it needs."""
        if self._watch is None:
            self._watch = asyncio.get_running_loop().call_later(PRESSURE_POLL, self._look)

    def _look(self) -> None:
        self._watch = None
        if not any(branch.executing for branch in self.branches):
            return
        if self.cgroup.holds_more_than(PRESSURE_SHARE * self.opened.memory_bytes):
            for owner, checkpoint in self._automatic():
                owner.drop(checkpoint)
        self.watch_memory()

    async def make_room(self, needed: Checkpoint | None = None) -> bool:
        """Lets the oldest go that is not ``needed``, because a process could not be made; False if there is none."""
        for owner, checkpoint in self._automatic():
            if checkpoint is not needed:
                owner.drop(checkpoint)
                await asyncio.sleep(_FREED)
                return True
        return False

    async def has_room(self) -> bool:
        """Whether there may be another branch. The end of one that the host has closed just before is waited for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVING):
                while len(self.branches) > MAX_BRANCHES:
                    self._left.clear()
                    await self._left.wait()
        return len(self.branches) <= MAX_BRANCHES

    async def forget(self, branch: Branch, number: int) -> None:
        """A branch is over: what is left of it is killed, and its workspace removed."""
        self.branches.remove(branch)
        self._left.set()
        branch.tree.close()
        if await self.clean(branch):
            with suppress(PeerGone):
                await self.warden.remove(number)


def _descends(pid: int, parents: dict[int, int], roots: list[int]) -> bool:
    for _ in range(len(parents)):
        if pid in roots:
            return True
        if pid not in parents:
            return False
        pid = parents[pid]
    return False
