"""What must hold inside a sandbox, compared with what its supervisor found there. Asked at every start, before any code."""

from __future__ import annotations

from collections.abc import Iterator

from executor_api.v1 import executor_pb2 as pb
from orchestrator.errors import IsolationError
from orchestrator.sandbox.lockdown import SOCKET_MOUNT

WRITABLE = frozenset({"/workspace", "/tmp", SOCKET_MOUNT})  # noqa: S108 (the container's)
DEVICE_MOUNTS = frozenset({"/dev", "/dev/pts", "/dev/mqueue", "/dev/shm"})  # noqa: S108 (of the engine; owned by root)
SECCOMP_FILTER = 2


def faults(ready: pb.Ready, supervisor_uid: int, runner_uid: int) -> Iterator[str]:
    """Each restriction that is not in force, in words. Nothing if all are."""
    if (ready.supervisor_uid, ready.runner_uid) != (supervisor_uid, runner_uid) or supervisor_uid == runner_uid:
        yield f"the supervisor's uid is {ready.supervisor_uid} and the runner's {ready.runner_uid}"
    if {process.uid for process in ready.processes} != {supervisor_uid, runner_uid}:
        yield "a process runs as another uid"
    for process in ready.processes:
        yield from _process_faults(process)
    if list(ready.interfaces) != ["lo"]:
        yield f"network interfaces: {', '.join(ready.interfaces)}"
    if not ready.root_read_only:
        yield "the root file system is writable"
    for mount in ready.writable_mounts:
        if mount.path not in WRITABLE | DEVICE_MOUNTS:
            yield f"{mount.path} is writable"
        elif mount.path in WRITABLE - {SOCKET_MOUNT} and not {"noexec", "nosuid", "nodev"} <= set(mount.options.split(",")):
            yield f"{mount.path} lacks noexec, nosuid or nodev"


def _process_faults(process: pb.Process) -> Iterator[str]:
    if process.capabilities:
        yield f"process {process.pid} holds capabilities {process.capabilities:#x}"
    if not process.no_new_privileges:
        yield f"process {process.pid} may gain privileges"
    if process.seccomp_mode != SECCOMP_FILTER:
        yield f"process {process.pid} has no system call filter"


def require(ready: pb.Ready, supervisor_uid: int, runner_uid: int) -> None:
    """Raises IsolationError, with everything that is missing, unless all of it is in force."""
    if missing := [ascii(fault)[1:-1][:200] for fault in faults(ready, supervisor_uid, runner_uid)]:
        raise IsolationError("the container came up without restrictions that must be in force: " + "; ".join(missing))
