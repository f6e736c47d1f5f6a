"""What must hold inside a sandbox, compared with what its supervisor found there, at every start, before any code.

One function per restriction; each gives a ``Layer`` with the proof that was read from inside. ``cellblock doctor``
shows them; a start with one that is not in force is refused, and so is one below the level that the settings ask for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from executor_api.v1 import executor_pb2 as pb

from orchestrator.config import Limits
from orchestrator.errors import IsolationError
from orchestrator.sandbox import layers
from orchestrator.sandbox.layers import MAX_PROOF, Layer, listed
from orchestrator.sandbox.lockdown import SOCKET_MOUNT
from orchestrator.sanitise import one_line

WRITABLE_TMPFS = frozenset({"/workspace", "/branches", "/tmp"})  # noqa: S108 (the container's)
# The engine's own devices: terminals and message queues, each with nothing of anybody else's in it.
DEVICE_MOUNTS = frozenset({"/dev/pts", "/dev/mqueue"})
SECCOMP_FILTER = 2
RUNNER_FILTERS = 2  # the container's and the runner's own


@dataclass(frozen=True, slots=True)
class Asked:
    """What the container was asked for, and on what."""

    supervisor_uid: int
    runner_uid: int
    limits: Limits
    runtime: str = "runc"  # by the engine's name for it
    may_have_own_kernel: bool = False  # it is of a kind that brings one
    host_kernel: str = ""  # the host's, by ``kernel_name``


@dataclass(frozen=True, slots=True)
class Isolation:
    """What was found in force in one sandbox when it came up."""

    layers: tuple[Layer, ...]
    kernel: str
    cgroup_version: int
    python_version: str
    runtime: str = "runc"
    landlock_abi: int = 0  # 0: not in force

    @property
    def complete(self) -> bool:
        """True if every layer is in force that a start needs."""
        return self._holds(1)

    @property
    def level(self) -> int:
        """The level of isolation that is reached (``levels.LEVELS``); 0 if a layer is missing that a start needs."""
        if not self._holds(1):
            return 0
        return 3 if self._holds(3) else 2 if self._holds(2) else 1

    def missing(self, level: int) -> tuple[Layer, ...]:
        """The layers that this level needs and that are not in force."""
        needed = (1, 3) if level == 3 else range(1, level + 1)
        return tuple(layer for layer in self.layers if layer.level in needed and not layer.in_force)

    def _holds(self, level: int) -> bool:
        """There are layers of this level, and all are in force."""
        found = [layer.in_force for layer in self.layers if layer.level == level]
        return bool(found) and all(found)


def kernel_name(release: str, build: str) -> str:
    """One text for both parts of uname that tell a kernel from another."""
    return f"{release} {build}"


def examine(ready: pb.Ready, asked: Asked) -> Isolation:
    """The supervisor's findings, judged."""
    kernel = kernel_name(ready.kernel, ready.kernel_build)
    own_kernel = asked.may_have_own_kernel and bool(ready.kernel) and kernel != asked.host_kernel
    found = (
        _two_users(ready, asked.supervisor_uid, asked.runner_uid),
        _no_capabilities(ready.processes),
        _no_new_privileges(ready.processes),
        _system_call_filter(ready),
        _runner_filter(ready),
        layers.closed_processes(ready.processes),
        _no_network(ready),
        _read_only_root(ready),
        _few_writable_places(ready),
        layers.private_folders(ready, asked.limits),
        layers.no_devices(ready.devices),
        layers.nothing_of_the_host(ready, own_kernel),
        layers.kernel_settings(ready, own_kernel),
        layers.memory_limit(ready.cgroup, asked.limits),
        layers.process_limit(ready.cgroup, asked.limits),
        layers.cpu_limit(ready.cgroup, asked.limits),
        layers.limits_of_each_process(ready.runner_limits, asked.limits),
        layers.runner_dies_first(ready),
        layers.landlock(ready.landlock_abi),
        layers.own_kernel(own_kernel, ready.kernel),
        layers.own_user_ids(ready),
        layers.security_module(ready.security_label),
    )
    return Isolation(
        tuple(replace(layer, proof=one_line(layer.proof, MAX_PROOF)) for layer in found),
        one_line(ready.kernel, MAX_PROOF),
        ready.cgroup_version,
        one_line(ready.python_version, MAX_PROOF),
        asked.runtime,
        ready.landlock_abi,
    )


def require(isolation: Isolation, minimum: int = 1) -> None:
    """Raises IsolationError, naming every layer that is missing, unless level ``minimum`` is reached."""
    if not isolation.complete:
        missing = listed(isolation.missing(1))
        raise IsolationError(f"the container came up without what must be in force: {missing}")
    if isolation.level < minimum:
        raise IsolationError(
            f"the container reached isolation level {isolation.level}, and min_isolation_level is {minimum}; "
            f"missing: {listed(isolation.missing(minimum))}"
        )


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


def _system_call_filter(ready: pb.Ready) -> Layer:
    free = [f"not in {p.pid}" for p in ready.processes if p.seccomp_mode != SECCOMP_FILTER]
    wrong = ", ".join([*free, *(f"{call} works" for call in ready.allowed_calls)])
    return Layer("system call filter", not wrong, wrong or "Seccomp 2 in every process, and it is our own that denies")


def _runner_filter(ready: pb.Ready) -> Layer:
    runners = [p for p in ready.processes if p.uid == ready.runner_uid and p.pid != ready.warden_pid]
    free = [f"{p.seccomp_filters} in {p.pid}" for p in runners if p.seccomp_filters < RUNNER_FILTERS]
    proof = ", ".join(free) or "on top of the container's in every process of the runner's"
    return Layer("a narrower filter for the runner", bool(runners) and not free, proof)


def _no_network(ready: pb.Ready) -> Layer:
    return Layer("no network", list(ready.interfaces) == ["lo"], f"interfaces: {', '.join(ready.interfaces)}")


def _read_only_root(ready: pb.Ready) -> Layer:
    return Layer("read-only root", ready.root_read_only, "mounted ro" if ready.root_read_only else "mounted rw")


def _few_writable_places(ready: pb.Ready) -> Layer:
    wrong = [m.path for m in ready.writable_mounts if not _may_be_writable(m)]
    places = ", ".join(wrong or [m.path for m in ready.writable_mounts])
    return Layer("writable places are few and run nothing", not wrong, places)


def _may_be_writable(mount: pb.Mount) -> bool:
    if mount.path in WRITABLE_TMPFS:
        return {"noexec", "nosuid", "nodev"} <= set(mount.options.split(","))
    return mount.path == SOCKET_MOUNT or mount.path in DEVICE_MOUNTS
