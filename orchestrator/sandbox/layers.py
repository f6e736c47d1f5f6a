"""One restriction each: what must hold, and the proof that was read from inside. ``isolation`` puts them together.

Here are those of places, resources and kernel; those of processes' rights are in ``isolation``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from executor_api.v1 import executor_pb2 as pb

from orchestrator.config import Limits, parse_size
from orchestrator.sandbox.lockdown import BRANCHES_FACTOR, NO_CORE, SOCKET_MOUNT, STATES, TMP_BYTES, TMP_INODES

MAX_PROOF = 300  # characters; the supervisor's words, but printed on a terminal
MAX_NAMED = 8  # things of one kind that a proof names
PAGE = 64 << 10  # the largest page of any kernel: sizes are rounded to one
CPU_ROUNDING = 1e-6  # cores; the kernel counts in microseconds of a period
NO_LIMIT = 2**64 - 1
OOM_FIRST = 1000  # the kernel's own largest: such a process is killed before any other
PRIVATE = 0o700
# Nodes that give nothing away: the engine's own list, by path -> (major, minor).
HARMLESS_DEVICES = {
    "/dev/null": (1, 3),
    "/dev/zero": (1, 5),
    "/dev/full": (1, 7),
    "/dev/random": (1, 8),
    "/dev/urandom": (1, 9),
    "/dev/tty": (5, 0),
    "/dev/pts/ptmx": (1, 3),  # masked
}
SCOPING_ABI = 6  # of Landlock: from there on signals and abstract sockets are kept in as well


@dataclass(frozen=True, slots=True)
class Layer:
    """One restriction: whether it is in force, and what was seen that says so.

    Attributes:
        level: the isolation level that cannot be had without it; 1: no start without it; 0: told, asked for nowhere.
    """

    name: str
    in_force: bool
    proof: str
    level: int = 1


def _named(things: Iterable[str]) -> str:
    found = list(things)
    more = f" and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
    return ", ".join(found[:MAX_NAMED]) + more


def listed(layers: Iterable[Layer]) -> str:
    """In one line, each with its proof."""
    return "; ".join(f"{layer.name} ({layer.proof})" for layer in layers)


# ------------------------------------------------------------------------------------------------------- resources


def memory_limit(found: pb.CgroupLimits, limits: Limits) -> Layer:
    """The container's memory is capped, and there is no swap on top of it."""
    asked = parse_size(limits.memory)
    capped = found.HasField("memory") and asked - PAGE < found.memory <= asked
    no_swap = not found.machine_swap or (found.HasField("swap") and found.swap == 0)
    swap = _number(found, "swap") if found.machine_swap else "none on this machine"
    return Layer("memory limit, without swap", capped and no_swap, f"memory {_number(found, 'memory')}, swap {swap}")


def process_limit(found: pb.CgroupLimits, limits: Limits) -> Layer:
    """The container's processes and threads are counted and capped."""
    in_force = found.HasField("pids") and found.pids == limits.pids + STATES
    return Layer("limit of processes", in_force, f"{_number(found, 'pids')} processes and threads")


def cpu_limit(found: pb.CgroupLimits, limits: Limits) -> Layer:
    """The container's processor time is capped."""
    in_force = found.HasField("cpus") and 0 < found.cpus <= limits.cpus + CPU_ROUNDING
    return Layer("limit of processor time", in_force, f"{_number(found, 'cpus')} cores")


def _number(found: pb.CgroupLimits, name: str) -> str:
    if not found.HasField(name):
        return "not visible"
    value = getattr(found, name)
    return "without limit" if value in (NO_LIMIT, float("inf")) else f"{value:,}"


def limits_of_each_process(found: Iterable[pb.Rlimit], limits: Limits) -> Layer:
    """What one process of the runner may take, and cannot raise."""
    at_most = {
        "Max core file size": NO_CORE,
        "Max data size": parse_size(limits.memory),
        "Max file size": parse_size(limits.disk),
        "Max open files": limits.nofile,
        "Max processes": limits.pids + STATES,
        "Max stack size": parse_size(limits.memory),
        "Max locked memory": 0,
        "Max msgqueue size": 0,
    }
    hard = {limit.name: limit.hard for limit in found}
    wrong = [name for name, most in at_most.items() if hard.get(name, NO_LIMIT) > most]
    proof = f"too much or unknown: {_named(wrong)}" if wrong else _named(f"{n[4:]} {hard[n]}" for n in at_most)
    return Layer("limits of each process", not wrong, proof)


def runner_dies_first(ready: pb.Ready) -> Layer:
    """Where the kernel has to kill for memory, it takes a process of the code's, never the supervisor."""
    runners = [p for p in ready.processes if p.uid == ready.runner_uid and p.pid != ready.warden_pid]
    others = [p for p in ready.processes if p.uid != ready.runner_uid or p.pid == ready.warden_pid]
    in_force = bool(runners and others) and all(p.oom_score_adj == OOM_FIRST for p in runners)
    in_force = in_force and all(p.oom_score_adj < OOM_FIRST for p in others)
    proof = ", ".join(f"{p.pid}: {p.oom_score_adj}" for p in ready.processes[:MAX_NAMED])
    return Layer("the runner goes first when memory is short", in_force, f"oom_score_adj {proof}")


# ----------------------------------------------------------------------------------------------------------- places


def private_folders(ready: pb.Ready, limits: Limits) -> Layer:
    """What may be written is there once, belongs to one user, lets nobody else in, and is as large as asked for.

    Some runtimes take the mode of a folder that is in the image already, instead of the one that was asked for.
    """
    disk, inodes = parse_size(limits.disk), limits.inodes
    expected = {
        "/workspace": (ready.runner_uid, disk, inodes),
        "/branches": (ready.runner_uid, BRANCHES_FACTOR * disk, BRANCHES_FACTOR * inodes),
        "/tmp": (ready.runner_uid, TMP_BYTES, TMP_INODES),  # noqa: S108 (the container's)
        SOCKET_MOUNT: (ready.supervisor_uid, None, None),  # the host's own file system
    }
    mounts = [mount for mount in ready.writable_mounts if mount.path in expected]
    wrong = [m for m in mounts if not _is_private(m, *expected[m.path])]
    missing = sorted(set(expected) - {mount.path for mount in mounts})
    in_force = not wrong and not missing and len(mounts) == len(expected)
    proof = [f"{m.path} of {m.uid}, mode {m.mode:04o}, {m.bytes:,} bytes" for m in wrong or mounts]
    return Layer("folders are private and capped", in_force, _named([*proof, *(f"no {path}" for path in missing)]))


def _is_private(mount: pb.Mount, uid: int, size: int | None, inodes: int | None) -> bool:
    capped = size is None or inodes is None or (0 < mount.bytes < size + PAGE and 0 < mount.inodes <= inodes)
    return mount.uid == uid and mount.mode == PRIVATE and capped


def nothing_of_the_host(ready: pb.Ready, own_kernel: bool) -> Layer:
    """What /proc and /sys tell of the host is covered; a runtime with a kernel of its own has nothing of the host's."""
    shown = list(ready.unmasked_paths)
    proof = f"shown: {_named(shown)}" if shown else "every masked path is empty"
    if shown and own_kernel:
        proof = "what is shown is of the runtime's own kernel"
    return Layer("masked paths show nothing", own_kernel or not shown, proof)


def kernel_settings(ready: pb.Ready, own_kernel: bool) -> Layer:
    """Settings of the kernel cannot be written, whoever has which rights."""
    writable = list(ready.writable_paths)
    proof = f"writable: {_named(writable)}" if writable else "mounted read-only"
    if writable and own_kernel:
        proof = "what is writable is of the runtime's own kernel"
    return Layer("kernel settings are read-only", own_kernel or not writable, proof)


def no_devices(found: Iterable[pb.Device]) -> Layer:
    """No device node but those that give nothing away."""
    nodes = list(found)
    wrong = [n for n in nodes if n.block or HARMLESS_DEVICES.get(n.path) != (n.major, n.minor)]
    told = [f"{n.path} {'b' if n.block else 'c'} {n.major}:{n.minor}" for n in wrong] or [n.path for n in nodes]
    return Layer("no devices but harmless ones", bool(nodes) and not wrong, _named(told) or "none found")


# ---------------------------------------------------------------------------------------------- processes, kernel


def closed_processes(processes: Iterable[pb.Process]) -> Layer:
    """No process lets another of its user open its memory, its descriptors or its environment."""
    every = list(processes)
    wrong = [str(p.pid) for p in every if p.inspectable]
    proof = f"may be opened: {_named(wrong)}" if wrong else "files in /proc of every process are root's"
    return Layer("no process can be opened by another", bool(every) and not wrong, proof)


def landlock(abi: int) -> Layer:
    """The runner reads its own installation and the granted packages alone, whatever code runs in it."""
    scoped = "; signals and abstract sockets are kept in" if abi >= SCOPING_ABI else ""
    proof = f"ABI {abi}{scoped}" if abi else "not in force"
    return Layer("files and packages are out of sight (Landlock)", abi > 0, proof, level=2)


def own_kernel(in_force: bool, kernel: str) -> Layer:
    """System calls are answered by a kernel that is not the host's."""
    proof = f"another than the host's: {kernel}" if in_force else f"the host's: {kernel}"
    return Layer("a kernel of its own", in_force, proof, level=3)


def own_user_ids(ready: pb.Ready) -> Layer:
    """Root in the container would not be root outside. The engine's setting (userns-remap, rootless)."""
    proof = "a user namespace of its own" if ready.own_user_ids else "user ids are the host's"
    return Layer("user ids are not the host's", ready.own_user_ids, proof, level=0)


def security_module(label: str) -> Layer:
    """AppArmor or SELinux hold the container as well. The host's setting."""
    in_force = bool(label) and not label.startswith("unconfined")
    return Layer("AppArmor or SELinux", in_force, label or "neither on this host", level=0)
