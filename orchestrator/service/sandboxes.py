"""The API's ``Sandboxes``: what apps ask for, done with sandboxes of this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar

from google.protobuf.message import Message
from orchestrator_api.v1 import orchestrator_pb2 as pb
from orchestrator_api.v1 import orchestrator_pb2_grpc

from orchestrator.audit import concern
from orchestrator.client.connection import AGAIN_METADATA
from orchestrator.client.sandbox_messages import (
    EXECUTION_METADATA,
    FORKABLE_METADATA,
    PIECE,
    RUNNING_METADATA,
    checkpoint_message,
    isolation_bytes,
    rollback_message,
    which_of,
)
from orchestrator.errors import (
    ConfigError,
    ProtocolViolation,
    SandboxClosed,
    ServiceError,
)
from orchestrator.sandbox.sandbox import AsyncSandbox
from orchestrator.sandbox.session import MAX_PATH
from orchestrator.sandbox.state import Checkpoint, Rollback
from orchestrator.sandbox.values import decode_variables
from orchestrator.service.access import Caller
from orchestrator.service.executions import Begun, digest_of
from orchestrator.service.messages import MAX_LIST, key_of, metadata_of, pieces
from orchestrator.service.meters import Meters
from orchestrator.service.once import Once
from orchestrator.service.opening import Opening
from orchestrator.service.registry import Held, Registry
from orchestrator.service.shares import Shares

T = TypeVar("T")
MAX_FILES = 4  # of one owner that are read, or written, at the same time: each is held whole, as large as it may be
MAX_RESETS = 2  # of one owner at the same time; each waits for what runs in its sandbox
_FORGOTTEN = (
    "the service was started again after this was first sent: whether it was done is not known, and an execution was "
    "interrupted; the sandbox is there, and can be asked"
)


class Sandboxes(orchestrator_pb2_grpc.SandboxesServicer):
    """The API's ``Sandboxes``.

    Args:
        opening: how they come about.
        registry: where they are kept.
        caller: whose the call under way is.
        meters: what is used is counted there, and refused there.
    """

    def __init__(self, opening: Opening, registry: Registry, caller: Callable[[], Caller], meters: Meters) -> None:
        self._opening = opening
        self._registry = registry
        self._caller = caller
        self._meters = meters
        self._once = Once()
        self._reading, self._writing, self._resetting = Shares(MAX_FILES), Shares(MAX_FILES), Shares(MAX_RESETS)

    def stop(self) -> None:
        """Begins nothing new from now on. What is there can be used until ``close()``, but for executions."""
        self._opening.stop()

    async def drained(self) -> None:
        """Waits until no execution is under way."""
        await self._registry.drained()

    async def close(self) -> None:
        """Stops what has been begun, and closes every sandbox."""
        self._opening.close()
        await self._once.close()
        await self._registry.close_all()

    # -------------------------------------------------------------------------------------------------------- life

    async def Create(self, request: pb.CreateSandbox, context: Any) -> pb.Sandbox:
        """Makes and starts one."""
        who = self._caller()
        concern(owner=who.name)
        if id := self._opening.recovered(who.name, request.key):
            return self._held(id).message()
        made = await self._once.do(who.name, "Create", request.key, request, lambda: self._opening.open(request, who))
        return made.message()

    async def List(self, request: pb.ListSandboxes, context: Any) -> pb.SandboxList:
        """Those that the caller sees, oldest first."""
        found = [held.message() for held in self._registry.all(self._caller())]
        for message in found:
            if message.ByteSize() > MAX_LIST // len(found):  # ``Get`` tells all of it
                message.ClearField("authorized_imports")
                message.ClearField("tool_names")
        return pb.SandboxList(sandboxes=found)

    async def Get(self, request: pb.SandboxId, context: Any) -> pb.Sandbox:
        """One of them."""
        return self._held(request.id).message()

    async def Close(self, request: pb.SandboxId, context: Any) -> pb.Done:
        """Closes it; a second time does nothing."""
        if not self._registry.was_closed(request.id, self._caller()):
            await self._registry.close(self._apart(request.id, "close"))
        return pb.Done()

    async def Reset(self, request: pb.SandboxId, context: Any) -> pb.Sandbox:
        """Gives it another container."""
        held, owner = self._apart(request.id, "reset"), self._caller().name

        async def reset() -> None:
            self._opening.require_serving()
            async with self._resetting.one(owner):
                await held.sandbox.reset()
            await self._registry.forget_branches(held)

        await self._do(context, "Reset", key_of(context), request, reset)
        return held.message()

    async def Isolation(self, request: pb.SandboxId, context: Any) -> pb.IsolationReport:
        """What holds it."""
        return pb.IsolationReport(json=isolation_bytes(await self._held(request.id).sandbox.isolation()))

    def _held(self, id: str) -> Held:
        who = self._caller()
        held = self._registry.get(id, who)
        concern(**held.concerns(who.name))
        return held

    def _apart(self, id: str, what: str) -> Held:
        """For what may not be done where an agent works."""
        held = self._held(id)
        held.require_own(what)
        return held

    async def _do(
        self, context: Any, method: str, key: str, request: Message, work: Callable[[], Coroutine[Any, Any, T]]
    ) -> T:
        name = self._caller().name
        if self._may_be_forgotten(context) and not self._once.has_begun(name, method, key):
            raise ServiceError(_FORGOTTEN)
        return await self._once.do(name, method, key, request, work)

    def _may_be_forgotten(self, context: Any) -> bool:
        """It may have arrived at a service before this one, whose sandboxes are here."""
        return self._opening.has_recovered and AGAIN_METADATA in metadata_of(context)

    # --------------------------------------------------------------------------------------------------- executing

    async def Execute(self, request: pb.Execution, context: Any) -> AsyncIterator[pb.Event]:
        """Begins one, or goes on with it."""
        held = self._apart(request.sandbox, "run code in")
        if not held.executions.has_begun(request.key):
            self._opening.require_serving()
            await self._meters.check(self._caller())
        begun = _begun(held, request, forgotten=self._may_be_forgotten(context))
        try:
            async with aclosing(begun.read(request.after)) as events:
                async for event in events:
                    for piece in pieces(event.number, event.time, event.json):
                        yield piece
        finally:
            context.set_trailing_metadata(_flags(held.sandbox))

    async def Interrupt(self, request: pb.SandboxId, context: Any) -> pb.Done:
        """Stops the execution under way; or the one that is named, which its reader has left."""
        held = self._held(request.id)
        named = metadata_of(context).get(EXECUTION_METADATA)
        await (held.sandbox.interrupt() if named is None else held.executions.abandon(named))
        return pb.Done()

    # ------------------------------------------------------------------------------------------------------- state

    async def Checkpoint(self, request: pb.MakeCheckpoint, context: Any) -> pb.CheckpointInfo:
        """Keeps the present state."""
        held = self._held(request.sandbox)

        async def keep() -> Checkpoint:
            return await held.at_rest("keep its state", lambda: held.sandbox.checkpoint(request.name))

        return checkpoint_message(await self._do(context, "Checkpoint", request.key, request, keep))

    async def ListCheckpoints(self, request: pb.SandboxId, context: Any) -> pb.CheckpointList:
        """Those that are kept."""
        held = self._held(request.id)
        kept = await held.at_rest("list its states", held.sandbox.checkpoints)
        return pb.CheckpointList(checkpoints=map(checkpoint_message, kept))

    async def Rollback(self, request: pb.RollbackTo, context: Any) -> pb.RolledBack:
        """Goes back."""
        held = self._held(request.sandbox)
        back = _back(held.sandbox, request)
        return rollback_message(await self._do(context, "Rollback", request.key, request, lambda: held.take_back(back)))

    async def DropCheckpoint(self, request: pb.Which, context: Any) -> pb.Done:
        """Lets one go."""
        sandbox, which = self._apart(request.sandbox, "drop states of").sandbox, which_of(request)
        await self._do(context, "DropCheckpoint", key_of(context), request, lambda: sandbox.drop(which))
        return pb.Done()

    async def Fork(self, request: pb.ForkAt, context: Any) -> pb.Sandbox:
        """Makes a branch."""
        held = self._held(request.sandbox)
        return await self._do(context, "Fork", request.key, request, lambda: self._fork(held, request))

    async def _fork(self, held: Held, request: pb.ForkAt) -> pb.Sandbox:
        self._opening.require_serving()
        at = which_of(request.at) if request.HasField("at") else None
        branch = await held.at_rest("fork it", lambda: held.sandbox.fork(at))
        if held.run:  # an agent's tools are for what its model says, and not for the code of whoever looks on
            branch.revoke_tools()
        if not self._registry.is_open(held):  # it was closed meanwhile: nobody would close this one
            await branch.close()
            raise SandboxClosed("this sandbox has been closed")
        return self._registry.add(
            Held(branch, held.owner, held.disk, parent=held.id, root=held.root, run=held.run, counted=held.counted)
        ).message()

    # ------------------------------------------------------------------------------------------------------- files

    async def ReadFile(self, request: pb.FilePath, context: Any) -> AsyncIterator[pb.FilePiece]:
        """A file's content, in pieces."""
        held, path = self._held(request.sandbox), _path(request.path)
        async with self._reading.one(self._caller().name):
            content = await held.at_rest("read its files", lambda: held.sandbox.files.read(path))
            for start in range(0, len(content), PIECE):
                yield pb.FilePiece(data=content[start : start + PIECE])

    async def WriteFile(self, requests: AsyncIterator[pb.FilePiece], context: Any) -> pb.Done:
        """Writes a file, once all of it has come."""
        first = await anext(requests, None)
        if first is None:
            raise ConfigError("it is not said which file is meant")
        held, path = self._apart(first.sandbox, "write files in"), _path(first.path)
        async with self._writing.one(self._caller().name):
            content = await _content(first, requests, held.disk + PIECE)
            named = pb.FilePath(sandbox=first.sandbox, path=first.path)
            await self._do(
                context, "WriteFile", key_of(context), named, lambda: held.sandbox.files.write(path, content)
            )
        return pb.Done()

    async def ListFiles(self, request: pb.SandboxId, context: Any) -> pb.FileList:
        """The regular files of the workspace."""
        held = self._held(request.id)
        found = await held.at_rest("list its files", held.sandbox.files.list)
        entries = [pb.FileEntry(path=e.path.encode("utf-8", "surrogateescape"), size=e.size) for e in found]
        return pb.FileList(entries=entries)


def _back(sandbox: AsyncSandbox, request: pb.RollbackTo) -> Callable[[], Coroutine[Any, Any, Rollback]]:
    """What is asked for."""
    match request.WhichOneof("to"):
        case "which":
            return partial(sandbox.rollback, which_of(request.which))
        case "before_last":
            return sandbox.undo
        case "undo":
            return partial(sandbox.undo, request.undo)
    raise ConfigError("it is not said where to go back to")


def _begun(held: Held, request: pb.Execution, *, forgotten: bool) -> Begun:
    try:
        code = request.code.decode("utf-8", "surrogatepass")
        variables = decode_variables(request.variables) if request.variables else {}
    except (UnicodeDecodeError, ProtocolViolation) as error:
        raise ConfigError(f"the code or its variables are none: {error}") from None
    timeout = request.timeout_seconds if request.HasField("timeout_seconds") else None
    digest = digest_of(request.code, request.variables)
    if forgotten and not held.executions.has_begun(request.key):
        raise ServiceError(_FORGOTTEN)
    return held.executions.begin(request.key, digest, request.after, code, timeout, variables)


async def _content(first: pb.FilePiece, rest: AsyncIterator[pb.FilePiece], most: int) -> bytes:
    """All of it; no more than a little over what fits into the workspace, whose refusal that will be."""
    content = bytearray(first.data)
    async for piece in rest:
        if len(content) <= most:
            content += piece.data
    return bytes(content)


def _flags(sandbox: AsyncSandbox) -> tuple[tuple[str, str], ...]:
    return (FORKABLE_METADATA, str(int(sandbox.forkable))), (RUNNING_METADATA, str(int(sandbox.is_running)))


def _path(data: bytes) -> str:
    if len(data) > MAX_PATH:
        raise ConfigError("a path is too long")
    return data.decode("utf-8", "surrogateescape")
