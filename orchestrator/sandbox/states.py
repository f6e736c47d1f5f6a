"""What a sandbox does with its states: it keeps them, lists them, and goes back to them. Part of ``AsyncSandbox``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from executor_api.v1 import executor_pb2 as pb

from orchestrator.audit import Journal
from orchestrator.audit.records import StateRequested
from orchestrator.sandbox.link import Link
from orchestrator.sandbox.state import (
    Checkpoint,
    Rollback,
    Which,
    ask,
    changed,
    checkpoint_of,
    name_bytes,
    only,
    rollback_of,
    target,
)


class States(ABC):
    """Every method may raise AuditError: then nothing was changed, or the change could not be recorded."""

    _journal: Journal
    _forkable: bool

    @abstractmethod
    def _use(self) -> AbstractAsyncContextManager[Link]:
        """The running link, alone."""

    @property
    def forkable(self) -> bool:
        """False while threads of the code are alive: no checkpoint and no branch can be made of such a process."""
        return self._forkable

    async def checkpoint(self, name: str = "") -> Checkpoint:
        """Keeps the present state until it is dropped, also when newer ones push older ones out.

        Args:
            name: to go back by; not used by another one; at most 200 bytes. Without, the answer or the count will do.

        Raises:
            CheckpointError: the name is used, threads of the code are alive, or there is no room.
            SandboxDied: the container went away.
        """
        request = pb.Checkpoint(name=name_bytes(name))
        async with self._use() as link:
            reply = await self._change(link, f"checkpoint({name!r})", checkpoint=request)
            return checkpoint_of(only(reply), link.container.id)

    async def rollback(self, to: Which) -> Rollback:
        """Goes back to a checkpoint, as often as wanted: variables, and the workspace if it is part of it.

        Args:
            to: a ``Checkpoint``, a name, or an execution's count: the state at that execution's end, 0 the first one.

        Raises:
            CheckpointError: there is no such checkpoint (the message lists what there is), or it cannot be woken.
            SandboxDied: the container went away.
        """
        named = to if isinstance(to, Checkpoint) else repr(to)
        return await self._rollback(lambda container: pb.Rollback(to=target(to, container)), f"rollback({named})")

    async def undo(self, execution: int | None = None) -> Rollback:
        """Goes back to the state that the present one came from: before the last execution.

        Args:
            execution: the count of the execution to take back, where others may have run code since: nothing happens
                if the present state is another's.

        Raises:
            CheckpointError: that state is not kept any more (the message lists what there is), there is none, or the
                present one is of another execution.
            SandboxDied: the container went away.
        """
        request = pb.Rollback(to=pb.Target(before_last=True), only_from=execution)
        return await self._rollback(lambda _: request, "undo()")

    async def _rollback(self, request: Callable[[str], pb.Rollback], what: str) -> Rollback:
        async with self._use() as link:
            container = link.container.id
            rollback = rollback_of(await self._change(link, what, rollback=request(container)), container)
            self._forkable = True  # a checkpoint has no threads
            return rollback

    async def checkpoints(self) -> list[Checkpoint]:
        """Every state that is kept, oldest first, with the memory that it alone holds. Takes some milliseconds each."""
        async with self._use() as link:
            reply = await ask(link, "checkpoints", list_checkpoints=pb.ListCheckpoints())
            return [checkpoint_of(info, link.container.id) for info in reply.checkpoints]

    async def drop(self, checkpoint: Which) -> None:
        """Lets a checkpoint go, and with it the memory that it alone holds.

        That of the present state stays, unnamed, until newer ones push it out: a killed execution goes back to it.

        Raises:
            CheckpointError: there is no such checkpoint.
            SandboxDied: the container went away.
        """
        async with self._use() as link:
            request = pb.DropCheckpoint(target=target(checkpoint, link.container.id))
            await self._change(link, f"drop({checkpoint!r})", drop_checkpoint=request)

    async def _change(self, link: Link, what: str, **request: object) -> pb.StateReply:
        """One state request, recorded before and after; errors as of ``ask``."""
        await self._journal.record(StateRequested(what))
        reply = await ask(link, what, **request)
        await self._journal.record(changed(what, reply))
        return reply
