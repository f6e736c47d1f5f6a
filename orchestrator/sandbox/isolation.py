"""What must hold inside a sandbox, compared with what its supervisor found there, at every start, before any code.

One function per restriction; each gives a ``Layer`` with the proof that was read from inside. ``cellblock doctor``
shows them; a start with one that is not in force is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from executor_api.v1 import executor_pb2 as pb

from orchestrator.errors import IsolationError
from orchestrator.sandbox.lockdown import SOCKET_MOUNT

WRITABLE_TMPFS = frozenset({"/workspace", "/branches", "/tmp"})  # noqa: S108 (the container's)
# The engine's own devices: terminals and message queues, each with nothing of anybody else's in it.
DEVICE_MOUNTS = frozenset({"/dev/pts", "/dev/mqueue"})
SECCOMP_FILTER = 2
MAX_PROOF = 300  # characters; the supervisor's words, but printed on a terminal


@dataclass(frozen=True, slots=True)
class Layer:
    """One restriction: whether it is in force, and what was seen that says so."""

    name: str
    in_force: bool
    proof: str


@dataclass(frozen=True, slots=True)
class Isolation:
    """What was found in force in one sandbox when it came up."""

    layers: tuple[Layer, ...]
    kernel: str
    cgroup_version: int
    python_version: str

    @property
    def complete(self) -> bool:
        """True if every layer is in force."""
        return all(layer.in_force for layer in self.layers)


def examine(ready: pb.Ready, supervisor_uid: int, runner_uid: int) -> Isolation:
    """The supervisor's findings, judged."""
    layers = (
        _two_users(ready, supervisor_uid, runner_uid),
        _no_capabilities(ready.processes),
        _no_new_privileges(ready.processes),
        _system_call_filter(ready.processes),
        _no_network(ready),
        _read_only_root(ready),
        _few_writable_places(ready),
    )
    return Isolation(layers, _plain(ready.kernel), ready.cgroup_version, _plain(ready.python_version))


def require(isolation: Isolation) -> None:
    """Raises IsolationError, naming every layer that is not in force, unless all are."""
    missing = [f"{layer.name} ({layer.proof})" for layer in isolation.layers if not layer.in_force]
    if missing:
        raise IsolationError("the container came up without what must be in force: " + "; ".join(missing))


def _plain(text: str) -> str:
    return "".join(c for c in text[:MAX_PROOF] if c.isprintable())


def _two_users(ready: pb.Ready, supervisor_uid: int, runner_uid: int) -> Layer:
    uids = sorted({process.uid for process in ready.processes})
    expected = supervisor_uid != runner_uid and uids == sorted((supervisor_uid, runner_uid))
    told = (ready.supervisor_uid, ready.runner_uid) == (supervisor_uid, runner_uid)
    return Layer("two unprivileged users", expected and told and 0 not in uids, f"uids {', '.join(map(str, uids))}")


def _no_capabilities(processes: Iterable[pb.Process]) -> Layer:
    held = [f"{p.pid}: {p.capabilities:#x}" for p in processes if p.capabilities]
    return Layer("no capabilities in any process", not held, ", ".join(held) or "all five sets of every process are 0")


def _no_new_privileges(processes: Iterable[pb.Process]) -> Layer:
    free = [str(p.pid) for p in processes if not p.no_new_privileges]
    return Layer(
        "no new privileges", not free, f"not in {', '.join(free)}" if free else "NoNewPrivs 1 in every process"
    )


def _system_call_filter(processes: Iterable[pb.Process]) -> Layer:
    free = [str(p.pid) for p in processes if p.seccomp_mode != SECCOMP_FILTER]
    return Layer("system call filter", not free, f"not in {', '.join(free)}" if free else "Seccomp 2 in every process")


def _no_network(ready: pb.Ready) -> Layer:
    return Layer("no network", list(ready.interfaces) == ["lo"], _plain(f"interfaces: {', '.join(ready.interfaces)}"))


def _read_only_root(ready: pb.Ready) -> Layer:
    return Layer("read-only root", ready.root_read_only, "mounted ro" if ready.root_read_only else "mounted rw")


def _few_writable_places(ready: pb.Ready) -> Layer:
    wrong = [m.path for m in ready.writable_mounts if not _may_be_writable(m)]
    places = ", ".join(wrong or [m.path for m in ready.writable_mounts])
    return Layer("writable places are few and run nothing", not wrong, _plain(places))


def _may_be_writable(mount: pb.Mount) -> bool:
    if mount.path in WRITABLE_TMPFS:
        return {"noexec", "nosuid", "nodev"} <= set(mount.options.split(","))
    return mount.path == SOCKET_MOUNT or mount.path in DEVICE_MOUNTS
