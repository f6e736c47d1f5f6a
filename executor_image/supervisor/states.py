"""What the host asks about states: checkpoints, going back, branches. Coroutines, one at a time on each branch.

Whatever is refused leaves everything as it was, and the answer says why.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable
from typing import Protocol, TypeVar

from executor_api.v1 import executor_pb2 as pb

from executor_image import frames
from executor_image.supervisor.container import MAX_BRANCHES, MAX_PINNED, Container
from executor_image.supervisor.peer import Peer, PeerGone
from executor_image.supervisor.tree import Checkpoint, ForkTree, NoCopy, Woken

MAX_NAME = 200  # bytes
MAX_ERROR = 500  # characters
STATE_DEADLINE = 15.0  # seconds for one request; a fork of a few GiB takes a tenth of one, files of 64 MiB another
BIRTH_DEADLINE = 3.0  # seconds for the first process of a branch: other branches' kills may have to wait for that
THREADS = "threads of the code are alive, and they cannot be copied: let them end, or go back to a state without them"

TOO_MANY = f"there are {MAX_BRANCHES} branches already; close one first"
FULL = "there is too little memory, or there are too few processes or descriptors left"

Answer = TypeVar("Answer")


class Refused(Exception):
    """It is not done; the message says why."""


class Missing(Refused):
    """There is no such checkpoint."""


class Home(Protocol):
    """The branch that is asked, as far as its states need it."""

    tree: ForkTree

    def has_threads(self) -> bool:
        """Threads of the code are alive in the head."""

    async def fork_now(self) -> None:
        """Another checkpoint of the present state, if one can be made."""

    def adopt(self, number: int, head: Peer, pipes: tuple[int, int]) -> Home:
        """A new branch of this head, which owns the pipes from now on."""

    def begin(self) -> None:
        """The first head is there."""

    def close(self) -> None:
        """Ends the branch."""


class States:
    """Answers the requests of one branch's stream. Its present state has a checkpoint already, if it can have one."""

    def __init__(self, container: Container, home: Home) -> None:
        self._container = container
        self._home = home

    @property
    def _tree(self) -> ForkTree:
        return self._home.tree

    async def answer(self, message: pb.HostMessage) -> pb.StateReply:
        """Does what was asked for."""
        try:
            async with asyncio.timeout(STATE_DEADLINE):
                return await self._do(message)
        except Missing:
            there = [self._info(checkpoint) for checkpoint in self._tree.checkpoints]
            return pb.StateReply(missing=True, error="there is no such checkpoint", checkpoints=there)
        except Refused as refused:
            return pb.StateReply(error=str(refused)[:MAX_ERROR])
        except PeerGone:
            return pb.StateReply(error="the process that holds that state has ended")
        except TimeoutError:
            return pb.StateReply(error="it took too long, and was given up")

    async def _do(self, message: pb.HostMessage) -> pb.StateReply:
        match message.WhichOneof("kind"):
            case "checkpoint":
                return await self._checkpoint(message.checkpoint.name)
            case "rollback":
                return await self._rollback(message.rollback)
            case "fork":
                at = message.fork.at
                return await self._fork(self._find(at) if at.WhichOneof("kind") else None)
            case "drop_checkpoint":
                return self._drop(self._find(message.drop_checkpoint.target))
            case _:
                return pb.StateReply(checkpoints=[self._info(c, self._tree.held(c)) for c in self._tree.checkpoints])

    # ------------------------------------------------------------------------------------------------ checkpoints

    async def _checkpoint(self, name: bytes) -> pb.StateReply:
        if len(name) > MAX_NAME:
            raise Refused(f"a name of more than {MAX_NAME} bytes")
        if name and any(c.name == name for c in self._tree.checkpoints):
            raise Refused("there is a checkpoint of that name already; drop it first, or choose another name")
        if self._container.pinned >= MAX_PINNED:
            raise Refused(f"{MAX_PINNED} checkpoints are kept already, here and in branches; drop one first")
        if name and self._require_current().pinned:
            await self._home.fork_now()  # two names for one state are two checkpoints
        made = self._require_current()
        if name and made.pinned:
            raise Refused(FULL)
        made.pinned, made.name = True, made.name or name
        return pb.StateReply(checkpoints=[self._info(made)])

    def _require_current(self) -> Checkpoint:
        if self._tree.current:
            return self._tree.current
        raise Refused(THREADS if self._home.has_threads() else FULL)

    def _find(self, target: pb.Target) -> Checkpoint:
        match target.WhichOneof("kind"):
            case "number":
                found = [c for c in self._tree.checkpoints if c.number == target.number]
            case "name":
                found = [c for c in self._tree.checkpoints if c.name and c.name == target.name]
            case "execution":
                found = [c for c in self._tree.checkpoints if c.execution == target.execution]
            case _:
                parent = self._tree.parent()
                found = [parent] if parent else []
        if not found:
            raise Missing
        return found[-1]

    def _drop(self, checkpoint: Checkpoint) -> pb.StateReply:
        """That of the present state is only not kept for good any more: a kill goes back to it."""
        info = self._info(checkpoint)
        checkpoint.pinned, checkpoint.name = False, b""
        if checkpoint is not self._tree.current:
            self._tree.drop(checkpoint)
        return pb.StateReply(checkpoints=[info])

    def _info(self, checkpoint: Checkpoint, held: int = 0) -> pb.CheckpointInfo:
        return pb.CheckpointInfo(
            number=checkpoint.number,
            name=checkpoint.name,
            execution=checkpoint.execution,
            has_parent=checkpoint.origin is not None,
            parent=checkpoint.origin.execution if checkpoint.origin else 0,
            age_seconds=time.monotonic() - checkpoint.made_at,
            memory_bytes=held,
            has_files=checkpoint.has_files,
            current=checkpoint is self._tree.current,
        )

    # -------------------------------------------------------------------------------------------------- going back

    async def _rollback(self, request: pb.Rollback) -> pb.StateReply:
        if request.HasField("only_from") and request.only_from != self._tree.execution:
            raise Refused(f"the present state is not that of execution {request.only_from} any more")
        checkpoint = self._find(request.to)
        info = self._info(checkpoint)
        woken = await self._promoted(checkpoint)
        info.current = True
        return pb.StateReply(checkpoints=[info], files_restored=woken.files_restored, files_reason=woken.reason)

    async def _promoted(self, checkpoint: Checkpoint) -> Woken:
        while True:
            try:
                return await self._tree.promote(checkpoint, spend=False)
            except NoCopy:
                if not await self._container.make_room(needed=checkpoint):
                    raise Refused(FULL) from None

    # --------------------------------------------------------------------------------------------------- branches

    async def _fork(self, source: Checkpoint | None) -> pb.StateReply:
        if source is None and self._home.has_threads():
            raise Refused(THREADS)
        if not await self._container.has_room():
            raise Refused(TOO_MANY)
        at = source or self._tree
        # While there is a process that is in no tree, nobody sweeps; and nobody waits long for one that is hostile.
        async with self._container.lock, asyncio.timeout(BIRTH_DEADLINE):
            if len(self._container.branches) > MAX_BRANCHES:  # another was made meanwhile
                raise Refused(TOO_MANY)
            head, pipes = await self._born(source)
            number, secret = self._container.new_secret()
            branch = self._home.adopt(number, head, pipes)
            try:
                await closing(branch, head.expect(frames.BORN))
            except PeerGone:
                raise Refused(FULL) from None
        woken = await closing(branch, branch.tree.wake(number, at.execution))
        if not woken.files_restored:
            branch.close()
            raise Refused(f"the workspace cannot be copied: {woken.reason.decode('utf-8', 'replace')}")
        branch.tree.execution, branch.tree.origin = at.execution, at.origin
        branch.begin()
        return pb.StateReply(forked=pb.Forked(branch=number, secret=secret, execution=at.execution))

    async def _born(self, source: Checkpoint | None) -> tuple[Peer, tuple[int, int]]:
        """The first head of a branch, and what its descriptors 1 and 2 write to."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        head, out, err = Peer(ours), os.pipe(), os.pipe()
        try:
            while not await self._tree.fork_branch(source, theirs, (out[1], err[1])):
                if not await self._container.make_room(needed=source):
                    raise Refused(FULL)
        except BaseException:
            head.close()
            os.close(out[0])
            os.close(err[0])
            raise
        finally:
            theirs.close()
            os.close(out[1])
            os.close(err[1])
        return head, (out[0], err[0])


async def closing(branch: Home, answer: Awaitable[Answer]) -> Answer:
    """The answer; if there is none, the branch is closed."""
    try:
        return await answer
    except BaseException:
        branch.close()
        raise
