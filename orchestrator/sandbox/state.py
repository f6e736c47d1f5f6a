"""Checkpoints of a sandbox: what the host knows of one, and what going back to one came to.

A checkpoint is a process in the container that holds a copy of the state and waits. The supervisor makes one after each
execution and keeps the newest; ``checkpoint()`` keeps one for good. See docs/state.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from executor_api.v1 import executor_pb2 as pb

from orchestrator.audit.records import StateChanged
from orchestrator.errors import CheckpointError, ProtocolViolation
from orchestrator.events import Files
from orchestrator.sandbox.execution import MAX_REASON_SHOWN
from orchestrator.sanitise import one_line

if TYPE_CHECKING:  # an app that has its sandboxes at a service needs no engine
    from orchestrator.sandbox.link import Link

STATE_DEADLINE = 30.0  # seconds for one request; the executor gives up after half of it
MAX_NAME = 200  # bytes of a checkpoint's name


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A state that ``rollback()`` and ``fork()`` can go back to, as it was when it was listed.

    Attributes:
        number: tells it apart from every other of this container.
        name: as it was given to ``checkpoint()``; empty for one that was made by itself.
        execution_count: the last execution whose work is in it; 0 for a fresh interpreter.
        follows: the execution count of the state that it came from, which ``undo()`` goes back to; None for the first.
        age: seconds since it was made.
        memory_bytes: memory that it alone holds, and that dropping it would free; 0 where it was not measured.
        has_files: the workspace is part of it.
        is_current: the sandbox is in this very state.
    """

    number: int
    name: str
    execution_count: int
    follows: int | None = None
    age: float = 0.0
    memory_bytes: int = 0
    has_files: bool = True
    is_current: bool = False
    container: str = field(default="", repr=False)  # that it is in: numbers of another mean other states

    def __str__(self) -> str:
        return f"{self.name!r} (execution {self.execution_count})" if self.name else f"execution {self.execution_count}"


@dataclass(frozen=True, slots=True)
class Rollback:
    """What going back came to: the state that the sandbox is in now, and what became of the workspace.

    ``files`` is ``restored`` if the workspace is as it was then, else ``kept``, and ``files_reason`` says why.
    """

    checkpoint: Checkpoint
    files: Files
    files_reason: str = ""


Which = Checkpoint | str | int
"""A checkpoint as it was listed, by its name, or by the execution at whose end it was made."""


def target(which: Which, container: str) -> pb.Target:
    """What the executor of ``container`` is told of the checkpoint that is meant.

    Raises:
        TypeError: it is none of these.
        CheckpointError: there can be no such checkpoint.
    """
    match which:
        case Checkpoint() if which.container != container:
            raise CheckpointError(f"the container that held {which} is gone, or is another sandbox's")
        case Checkpoint():
            return pb.Target(number=which.number)
        case str():
            return pb.Target(name=name_bytes(which))
        case int() if not isinstance(which, bool):
            if not 0 <= which < 1 << 64:
                raise CheckpointError(f"there is no checkpoint of execution {which}")
            return pb.Target(execution=which)
    raise TypeError(f"a checkpoint, its name or an execution's count is needed, not {type(which).__name__}")


def name_bytes(name: str) -> bytes:
    """A checkpoint's name as it travels.

    Raises:
        CheckpointError: it is too long, or not printable.
    """
    if not isinstance(name, str):
        raise TypeError(f"a checkpoint's name must be a str, not {type(name).__name__}")
    if not name.isprintable() or len(name.encode("utf-8", "replace")) > MAX_NAME:
        raise CheckpointError(f"{name[:50]!r} is no name of a checkpoint: at most {MAX_NAME} bytes, all printable")
    return name.encode()


async def ask(link: Link, what: str, **request: object) -> pb.StateReply:
    """One state request. ``what`` is what was wanted, for the message of an error.

    Raises:
        CheckpointError: it was not done.
    """
    reply = await link.request_state(STATE_DEADLINE, **request)
    if reply.missing:
        there = ", ".join(str(checkpoint_of(info, "")) for info in reply.checkpoints) or "none"
        raise CheckpointError(f"{what}: there is no such checkpoint. Kept are: {there}")
    if reply.error:
        raise CheckpointError(f"{what}: {one_line(reply.error, MAX_REASON_SHOWN)}")
    return reply


def changed(what: str, reply: pb.StateReply) -> StateChanged:
    """What is recorded of a request that was done."""
    if reply.HasField("forked"):
        return StateChanged(what, reply.forked.execution)
    return StateChanged(what, reply.checkpoints[0].execution if reply.checkpoints else None)


def checkpoint_of(info: pb.CheckpointInfo, container: str) -> Checkpoint:
    """A checkpoint as the executor lists it."""
    return Checkpoint(
        number=info.number,
        name=_name(info.name),
        execution_count=info.execution,
        follows=info.parent if info.has_parent else None,
        age=info.age_seconds,
        memory_bytes=info.memory_bytes,
        has_files=info.has_files,
        is_current=info.current,
        container=container,
    )


def _name(data: bytes) -> str:
    """The very name that was given, where it can be one: going back by it must find it."""
    name = data.decode("utf-8", "replace")
    return name if name.isprintable() and len(data) <= MAX_NAME else one_line(name, MAX_NAME)


def only(reply: pb.StateReply) -> pb.CheckpointInfo:
    """The one checkpoint of an answer.

    Raises:
        ProtocolViolation: there is not one.
    """
    if len(reply.checkpoints) != 1:
        raise ProtocolViolation("the executor answered about another number of checkpoints than one")
    return reply.checkpoints[0]


def forked_of(reply: pb.StateReply) -> pb.Forked:
    """How to attach to the branch that was made.

    Raises:
        ProtocolViolation: it is not said.
    """
    if not reply.HasField("forked"):
        raise ProtocolViolation("the executor did not say what it has forked")
    return reply.forked


def rollback_of(reply: pb.StateReply, container: str) -> Rollback:
    """What going back came to."""
    files = Files.RESTORED if reply.files_restored else Files.KEPT
    reason = one_line(reply.files_reason.decode("utf-8", "replace"), MAX_REASON_SHOWN)
    return Rollback(checkpoint_of(only(reply), container), files, reason)
