"""What is in force in this container, read from inside once, for the host to compare with what must be.

One function per fact; none judges. A fact that cannot be read is left out, and the host takes it as not in force.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from executor_api.v1 import executor_pb2 as pb

from executor_image.supervisor import proc
from executor_image.supervisor.staged import Staged

NO_LIMIT = 2**64 - 1
MAX_DEVICES = 64  # nodes below /dev that are told; one too many is enough to be refused
_CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_NULL = os.makedev(1, 3)
_OWN_TO_EVERYBODY = ["0", "0", "4294967295"]  # the id map of a user namespace that is the machine's own
_IO_URING_SETUP = 425  # the same on every processor
_LIMIT_COLUMNS = slice(0, 26), slice(47, 68)  # name and hard limit, in /proc/<pid>/limits
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Mounted:
    """A line of /proc/self/mountinfo."""

    path: str
    options: str  # of the mount, then of the file system
    kind: str

    @property
    def read_only(self) -> bool:
        """The mount is, or its file system."""
        return "ro" in self.options.split(",")


def facts(staged: Staged, opened: pb.Open, python_version: str) -> pb.Ready:
    """What is in force in this container now."""
    mounts = tuple(mounted())
    return pb.Ready(
        processes=processes(),
        interfaces=interfaces(),
        root_read_only=bool(os.statvfs("/").f_flag & os.ST_RDONLY),
        supervisor_uid=os.getuid(),
        runner_uid=staged.runner_uid,
        python_version=python_version,
        kernel=os.uname().release,
        cgroup_version=2 if (proc.CGROUP / "cgroup.controllers").exists() else 1,
        writable_mounts=writable_mounts(mounts, frozenset({os.getuid(), staged.runner_uid})),
        cgroup=cgroup_limits(),
        unmasked_paths=unmasked(opened.masked_paths, mounts),
        writable_paths=writable(opened.read_only_paths),
        devices=devices(),
        runner_limits=limits_of(staged.runner_pid),
        warden_pid=staged.warden_pid,
        kernel_build=os.uname().version,
        own_user_ids=has_own_user_ids(),
        security_label=security_label(),
        landlock_abi=staged.landlock_abi,
        allowed_calls=allowed_calls(),
    )


# -------------------------------------------------------------------------------------------------------- processes


def processes() -> Iterator[pb.Process]:
    """Every process in the container."""
    for pid in proc.pids():
        with suppress(OSError):  # it ended meanwhile
            yield _process(pid)


def _process(pid: int) -> pb.Process:
    status = proc.status(pid)
    held = 0
    for name in _CAPABILITY_SETS:
        held |= int(status[name], 16)
    return pb.Process(
        pid=pid,
        uid=_only(status["Uid"].split()),
        capabilities=held,
        no_new_privileges=status["NoNewPrivs"] == "1",
        seccomp_mode=int(status["Seccomp"]),
        seccomp_filters=int(status.get("Seccomp_filters", "0")),
        oom_score_adj=int(Path(f"/proc/{pid}/oom_score_adj").read_text()),
        inspectable=proc.is_inspectable(pid),
    )


def _only(uids: list[str]) -> int:
    """The uid that a process has in every way; root's, which is refused, if it has more than one."""
    return int(uids[0]) if len(set(uids)) == 1 else 0


def limits_of(pid: int) -> Iterator[pb.Rlimit]:
    """The hard limits of a process, which it can only lower."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]:
            name, hard = (line[column].strip() for column in _LIMIT_COLUMNS)
            yield pb.Rlimit(name=name, hard=NO_LIMIT if hard == "unlimited" else int(hard))


def allowed_calls() -> list[str]:
    """Of the calls that the container's own filter denies and an engine's default does not: those that work here.

    Nothing comes of any of them: a socket is closed at once and leads nowhere, a ring is asked for without parameters.
    """
    return [name for name, attempt in _DENIED.items() if not _fails(attempt)]


def _fails(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError as error:
        return error.errno != errno.EFAULT  # that far a call gets only if it is allowed
    return False


def _socket(family: int) -> None:
    socket.socket(family, socket.SOCK_DGRAM).close()


def _io_uring() -> None:
    if _libc.syscall(_IO_URING_SETUP, 1, None) < 0:
        raise OSError(ctypes.get_errno(), "io_uring_setup")


_DENIED: Mapping[str, Callable[[], object]] = {
    "socket(AF_INET)": lambda: _socket(socket.AF_INET),
    "socket(AF_NETLINK)": lambda: _socket(socket.AF_NETLINK),
    "memfd_create": lambda: os.close(os.memfd_create("probe")),
    "io_uring_setup": _io_uring,
}


# ------------------------------------------------------------------------------------------------------------ places


def interfaces() -> list[str]:
    """As the kernel lists them. The C library would ask by a netlink socket, of which there can be none."""
    lines = Path("/proc/net/dev").read_text().splitlines()[2:]
    return [line.partition(":")[0].strip() for line in lines]


def mounted() -> Iterator[Mounted]:
    """Everything that is mounted, in the order in which it was."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        path, options = before.split()[4:6]
        of_the_file_system = after.split()
        yield Mounted(path, f"{options},{of_the_file_system[-1]}", of_the_file_system[0])


def writable_mounts(mounts: Iterable[Mounted], uids: frozenset[int]) -> Iterator[pb.Mount]:
    """Mounts that one of these uids could write to: not read-only, and by owner or for everybody."""
    for mount in mounts:
        if "rw" not in mount.options.partition(",")[0].split(","):
            continue
        found = os.stat(mount.path)
        if stat.S_ISCHR(found.st_mode):  # a path masked by the null device
            continue
        if found.st_uid in uids or found.st_mode & stat.S_IWOTH:
            size = os.statvfs(mount.path)
            yield pb.Mount(
                path=mount.path,
                options=mount.options,
                uid=found.st_uid,
                mode=stat.S_IMODE(found.st_mode),
                bytes=size.f_blocks * size.f_frsize,
                inodes=size.f_files,
            )


def unmasked(paths: Iterable[str], mounts: Iterable[Mounted]) -> Iterator[str]:
    """Those that show something: not absent, not the null device, not an empty read-only folder mounted over it."""
    covers = {mount.path for mount in mounts if mount.kind == "tmpfs" and mount.read_only}
    for path in paths:
        try:
            found = os.lstat(path)
            is_null = stat.S_ISCHR(found.st_mode) and found.st_rdev == _NULL
            is_empty = path in covers and stat.S_ISDIR(found.st_mode) and not os.listdir(path)
        except (FileNotFoundError, NotADirectoryError):  # it, or the folder above it that is masked as well
            continue
        except OSError:  # not known, so not masked as far as anybody knows
            is_null = is_empty = False
        if not is_null and not is_empty:
            yield path


def writable(paths: Iterable[str]) -> Iterator[str]:
    """Those that are not mounted read-only."""
    for path in paths:
        with suppress(FileNotFoundError):
            if not os.statvfs(path).f_flag & os.ST_RDONLY:
                yield path


def devices(root: str = "/dev") -> list[pb.Device]:
    """Device nodes below a folder; links are not followed."""
    found: list[pb.Device] = []
    waiting = [root]
    while waiting and len(found) < MAX_DEVICES:
        with suppress(PermissionError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(entry.path)
                elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                    found.append(_device(entry.path, status))
    return found[:MAX_DEVICES]


def _device(path: str, status: os.stat_result) -> pb.Device:
    number = status.st_rdev
    return pb.Device(path=path, block=stat.S_ISBLK(status.st_mode), major=os.major(number), minor=os.minor(number))


# ------------------------------------------------------------------------------------------- control group, users


def cgroup_limits(root: Path = proc.CGROUP) -> pb.CgroupLimits:
    """What the kernel holds this container to; of version 2, else of version 1."""
    limits = pb.CgroupLimits(machine_swap=_machine_swap())
    memory = _number(root / "memory.max", root / "memory/memory.limit_in_bytes")
    with_swap = _number(root / "memory/memory.memsw.limit_in_bytes")
    swap = _number(root / "memory.swap.max")
    if swap is None and memory is not None and with_swap is not None:
        swap = max(0, with_swap - memory)
    for name, value in (
        ("memory", memory),
        ("swap", swap),
        ("pids", _number(root / "pids.max", root / "pids/pids.max")),
        ("cpus", _cpus(root)),
    ):
        if value is not None:
            setattr(limits, name, value)
    return limits


def _text(*files: Path) -> str | None:
    for file in files:
        with suppress(OSError):
            return file.read_text().strip()
    return None


def _number(*files: Path) -> int | None:
    text = _text(*files)
    return None if text is None else NO_LIMIT if text == "max" else int(text)


def _cpus(root: Path) -> float | None:
    if (text := _text(root / "cpu.max")) is not None:
        quota, period = text.split()
    else:
        folders = root / "cpu", root / "cpu,cpuacct"
        found = [_text(*(folder / f"cpu.cfs_{name}_us" for folder in folders)) for name in ("quota", "period")]
        if found[0] is None or found[1] is None:
            return None
        quota, period = found[0], found[1]
    return float("inf") if quota in ("max", "-1") else int(quota) / int(period)


def _machine_swap() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("SwapTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def has_own_user_ids() -> bool:
    """True in a user namespace, of a remapped or a rootless engine."""
    return Path("/proc/self/uid_map").read_text().split() != _OWN_TO_EVERYBODY


def security_label() -> str:
    """What AppArmor or SELinux holds this process to; empty where there is neither."""
    return (_text(Path("/proc/self/attr/current")) or "").strip("\0")
