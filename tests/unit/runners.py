"""A fork tree of real processes, each a runner in a few lines: its state is a namespace, and code may change anything.

Only for tests ``in_own_namespace``: what a process says of pids may be a lie, and the warden's signals are real.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from executor_image import frames
from executor_image.frames import FORKED_BODY, pack
from executor_image.launcher import warden
from executor_image.supervisor.peer import Peer
from executor_image.supervisor.tree import Checkpoint, ForkTree, Numbers
from executor_image.supervisor.warden import Warden
from tests.unit.apart import in_own_namespace, wait_until
from tests.unit.loops import in_loop, until


class Runner:
    """Waits for commands; what it does at each is a method, which code may replace by one that misbehaves."""

    def __init__(self, sock: socket.socket) -> None:
        self.space: dict[str, Any] = {"self": self, "os": os, "frames": frames, "pack": pack, "x": 0}
        self.take(sock)

    def take(self, sock: socket.socket) -> None:
        self.sock, self.reader = sock, frames.FrameReader(frames.TO_RUNNER)

    def send(self, kind: int, *parts: bytes) -> None:
        self.sock.sendall(pack(kind, *parts))

    def serve(self) -> NoReturn:
        with suppress(OSError):
            while True:
                sock = self.sock
                data, fds, _, _ = socket.recv_fds(sock, 1 << 16, 3)
                if not data:
                    break
                for kind, body in self.reader.feed(data):
                    self.obey(kind, body, fds)
                    if self.sock is not sock:
                        break
        os._exit(0)

    def obey(self, kind: int, body: bytes, fds: list[int]) -> None:
        if kind == frames.EXECUTE:
            exec(body[frames.EXECUTE_HEAD.size :], self.space)
            self.send(frames.STDOUT, repr(self.space["x"]).encode())
        elif kind == frames.FORK:
            self.fork(*frames.FORK_BODY.unpack(body), fds)
        elif kind == frames.WAKE:
            self.wake(*frames.U32.unpack(body))

    def fork(self, number: int, kind: int, fds: list[int]) -> None:
        is_branch = kind in (frames.FORK_BRANCH, frames.FORK_PRESENT_BRANCH)
        pid = os.fork()
        if pid == 0 and is_branch and os.fork():
            os._exit(0)
        if pid == 0:
            self.sock.close()
            self.take(socket.socket(fileno=fds[0]))
            self.copied()
            return
        for fd in fds:
            os.close(fd)
        self.send(frames.FORKED, FORKED_BODY.pack(number, 0 if is_branch else pid, True))

    def copied(self) -> None:
        """In the copy."""

    def wake(self, branch: int) -> None:
        self.send(frames.WOKEN, b"\1" if not branch else b"\0a branch %d" % branch)


def process(act: Any) -> int:
    """A child that does this and never comes back."""
    pid = os.fork()
    if pid == 0:
        faulthandler.disable()  # some are to crash, which is nobody's to read of
        with suppress(BaseException):
            act()
        os._exit(1)
    return pid


class Grove:
    """A tree, its warden, and what its listener has been told."""

    def __init__(self) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        ours, theirs = socket.socketpair()
        mine, wardens = socket.socketpair()
        self.guard = process(lambda: [ours.close(), mine.close(), theirs.close(), warden.serve(wardens)])
        pid = process(lambda: [ours.close(), mine.close(), wardens.close(), Runner(theirs).serve()])
        theirs.close()
        wardens.close()
        self.warden = Warden(mine, self.guard, lambda: None)
        self.frames: list[tuple[int, bytes]] = []
        self.faults: list[str] = []
        self.forks = 0
        self.executions = 0
        self.tree = ForkTree(Peer(ours, pid), self, self.warden, Numbers())

    # What the tree tells.

    def on_head_frame(self, kind: int, body: bytes) -> None:
        self.frames.append((kind, body))

    def fault(self, reason: str) -> None:
        self.faults.append(reason)

    def on_forked(self) -> None:
        self.forks += 1

    # What a session does.

    async def run(self, code: str = "pass", tree: ForkTree | None = None, told: Grove | None = None) -> str:
        """An execution; what `x` is after it."""
        tree, told = tree or self.tree, told or self
        told.frames.clear()
        self.executions += 1
        tree.head.send(frames.EXECUTE, frames.EXECUTE_HEAD.pack(bytes(16), self.executions, 0), code.encode())
        await until(lambda: told.frames)
        tree.advance(self.executions)
        return told.frames[0][1].decode()

    async def value(self) -> str:
        """What `x` is in the head; no execution."""
        self.frames.clear()
        self.tree.head.send(frames.EXECUTE, frames.EXECUTE_HEAD.pack(bytes(16), 0, 0), b"")
        await until(lambda: self.frames)
        return self.frames[0][1].decode()

    async def checkpoint(self) -> Checkpoint:
        """A checkpoint of the present state."""
        forks = self.forks
        self.tree.fork()
        await until(lambda: self.forks > forks)
        assert self.tree.current
        return self.tree.current

    async def grow(self, number: int) -> list[Checkpoint]:
        """So many executions, each of which adds one to `x`, and their checkpoints."""
        made = []
        for _ in range(number):
            await self.run("x += 1")
            made.append(await self.checkpoint())
        return made

    # What there is.

    def alive(self) -> set[int]:
        """The runners that run or are stopped; this process reaps the others."""
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        return {found.pid for found in warden.processes()} - {self.guard}

    async def only(self, *pids: int) -> None:
        """Waits until these are the only runners."""
        with suppress(TimeoutError):
            async with asyncio.timeout(15):
                await until(lambda: self.alive() == set(pids))
        alive = self.alive()
        assert alive == set(pids), f"too many: {alive - set(pids)}, missing: {set(pids) - alive}"


def state(pid: int) -> str:
    """R, S, T (stopped), Z or nothing."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def stop(pid: int) -> None:
    """Stops a process, as user code may do."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: state(pid) == "T", "a stopped process")


def kill(pid: int) -> None:
    """Kills a process, as user code may do; when this returns it runs no more."""
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: state(pid) in ("", "Z"), "a dead process")


@asynccontextmanager
async def grove() -> AsyncIterator[Grove]:
    """A tree with a head whose first state is checkpointed; all its processes end at the end."""
    made = Grove()
    await made.checkpoint()
    yield made
    made.tree.close()
    await made.only()


Test = Callable[[Grove], Awaitable[None]]


def with_grove(test: Test) -> Callable[[], None]:
    """The test gets a tree, in a loop and a namespace of its own."""

    def run() -> None:
        async def main() -> None:
            async with grove() as it:
                await test(it)

        in_loop(main())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return in_own_namespace(run)
