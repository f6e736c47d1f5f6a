"""What is said of sandboxes in the API, to and from what it is in Python: both directions, for both ends."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from orchestrator_api.v1 import orchestrator_pb2 as pb

from orchestrator.config import Limits
from orchestrator.errors import CheckpointError, ConfigError, ServiceError
from orchestrator.events import Files
from orchestrator.sandbox.isolation import Isolation
from orchestrator.sandbox.layers import Layer
from orchestrator.sandbox.state import Checkpoint, Rollback, Which, name_bytes

KEY_METADATA = "cellblock-key"  # of a request whose message has no field for its key
EXECUTION_METADATA = "cellblock-execution"  # the one execution that an Interrupt is for
FORKABLE_METADATA, RUNNING_METADATA = "cellblock-forkable", "cellblock-running"  # with the end of an execution
PIECE = 1 << 20  # bytes of a file or an event in one message


# What a sandbox of a pool has already: fields of CreateSandbox, and the arguments that they are in Python.
_OF_A_POOL = {
    "authorized_imports": "authorized_imports",
    "tools": "tools",
    "limits": "limits",
    "timeout_seconds": "timeout",
    "env": "env",
    "tool_timeout_seconds": "tool_timeout",
    "approve": "approve",
}


def require_no_settings(request: pb.CreateSandbox) -> None:
    """A sandbox of a pool is as the pool's are.

    Raises:
        ConfigError: the request has settings of its own beside the pool; the message names them.
    """
    given = [_OF_A_POOL[field.name] for field, _ in request.ListFields() if field.name in _OF_A_POOL]
    if request.pool and given:
        raise ConfigError(f"a sandbox of a pool has the pool's settings: leave out {', '.join(given)}")


# ------------------------------------------------------------------------------------------------------------ limits


def limits_message(limits: Limits | None) -> pb.Limits | None:
    """Limits as they are sent.

    Raises:
        ConfigError: one is of another type than it should be.
    """
    try:
        return None if limits is None else pb.Limits(**dataclasses.asdict(limits))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"limits: {error}") from None


def limits_of(message: pb.Limits, default: Limits) -> Limits:
    """The limits that were sent; what is not set is as in ``default``.

    Raises:
        ConfigError: one is out of range.
    """
    given = {field.name: value for field, value in message.ListFields()}
    return dataclasses.replace(default, **given)


# ------------------------------------------------------------------------------------------------------- checkpoints


def which_message(which: Which, sandbox: str) -> pb.Which:
    """The checkpoint that is meant, as it is sent.

    Raises:
        TypeError: it is none of these.
        CheckpointError: there can be no such checkpoint.
    """
    match which:
        case Checkpoint():
            return pb.Which(sandbox=sandbox, number=which.number, container=which.container)
        case str():
            return pb.Which(sandbox=sandbox, name=name_bytes(which).decode())
        case int() if not isinstance(which, bool):
            if not 0 <= which < 1 << 64:
                raise CheckpointError(f"there is no checkpoint of execution {which}")
            return pb.Which(sandbox=sandbox, execution=which)
    raise TypeError(f"a checkpoint, its name or an execution's count is needed, not {type(which).__name__}")


def which_of(message: pb.Which) -> Which:
    """The checkpoint that is meant.

    Raises:
        ConfigError: none is.
    """
    match message.WhichOneof("kind"):
        case "number":
            return Checkpoint(message.number, "", 0, container=message.container)
        case "name":
            return message.name
        case "execution":
            return message.execution
    raise ConfigError("it is not said which checkpoint is meant")


def checkpoint_message(checkpoint: Checkpoint) -> pb.CheckpointInfo:
    """A checkpoint as it is sent."""
    return pb.CheckpointInfo(
        number=checkpoint.number,
        name=checkpoint.name,
        execution_count=checkpoint.execution_count,
        follows=checkpoint.follows,
        age_seconds=checkpoint.age,
        memory_bytes=checkpoint.memory_bytes,
        has_files=checkpoint.has_files,
        is_current=checkpoint.is_current,
        container=checkpoint.container,
    )


def checkpoint_of(info: pb.CheckpointInfo) -> Checkpoint:
    """A checkpoint as the service lists it."""
    return Checkpoint(
        number=info.number,
        name=info.name,
        execution_count=info.execution_count,
        follows=info.follows if info.HasField("follows") else None,
        age=info.age_seconds,
        memory_bytes=info.memory_bytes,
        has_files=info.has_files,
        is_current=info.is_current,
        container=info.container,
    )


def rollback_message(rollback: Rollback) -> pb.RolledBack:
    """What going back came to, as it is sent."""
    restored = rollback.files is Files.RESTORED
    checkpoint = checkpoint_message(rollback.checkpoint)
    return pb.RolledBack(checkpoint=checkpoint, files_restored=restored, files_reason=rollback.files_reason)


def rollback_of(message: pb.RolledBack) -> Rollback:
    """What going back came to."""
    files = Files.RESTORED if message.files_restored else Files.KEPT
    return Rollback(checkpoint_of(message.checkpoint), files, message.files_reason)


# --------------------------------------------------------------------------------------------------------- isolation


def isolation_bytes(isolation: Isolation) -> bytes:
    """As ``cellblock doctor --json`` has what it found inside."""
    data = {
        "schema": 1,
        "level": isolation.level,
        "runtime": isolation.runtime,
        "kernel": {"inside": isolation.kernel},
        "cgroup_version": isolation.cgroup_version,
        "landlock_abi": isolation.landlock_abi,
        "python": isolation.python_version,
        "layers": [dataclasses.asdict(layer) for layer in isolation.layers],
    }
    return json.dumps(data).encode()


def isolation_of(data: bytes) -> Isolation:
    """What was found.

    Raises:
        ServiceError: it is not said so.
    """
    try:
        found = json.loads(data)
        return Isolation(
            layers=tuple(_layer(layer) for layer in found["layers"]),
            kernel=str(found["kernel"]["inside"]),
            cgroup_version=int(found["cgroup_version"]),
            python_version=str(found["python"]),
            runtime=str(found["runtime"]),
            landlock_abi=int(found["landlock_abi"]),
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ServiceError(f"the service sent a report that cannot be read: {type(error).__name__}") from None


def _layer(data: Any) -> Layer:
    return Layer(str(data["name"]), data["in_force"] is True, str(data["proof"]), int(data["level"]))
