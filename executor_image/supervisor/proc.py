"""What the kernel says of this container while it runs. Nothing here is asked of a runner."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
PAGE = os.sysconf("SC_PAGE_SIZE")


def pids() -> list[int]:
    """Every process in the container."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def status(pid: int) -> dict[str, str]:
    """The fields of /proc/<pid>/status.

    Raises:
        OSError: it has ended.
    """
    lines = Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def alive_of(uid: int) -> dict[int, int]:
    """Processes of that uid that still run, each with its parent.

    A zombie holds nothing but its number; but one with threads runs: only the first of them has ended (proc(5)).
    """
    found = {}
    for pid in pids():
        try:
            fields = status(pid)
        except OSError:  # it ended meanwhile
            continue
        has_ended = fields["State"].startswith(("Z", "X")) and int(fields["Threads"]) <= 1
        if int(fields["Uid"].split()[0]) == uid and not has_ended:
            found[pid] = int(fields["PPid"])
    return found


def thread_count(pid: int) -> int:
    """Threads of a process; 0 if it has ended."""
    try:
        return os.stat(f"/proc/{pid}/task").st_nlink - 2
    except OSError:
        return 0


def is_inspectable(pid: int) -> bool:
    """True if another process of the same user could open its memory: then the kernel gives its files to that user.

    No process that runs our Python is, unless native code has made it so (``task_dump_owner`` in fs/proc/base.c).
    """
    try:
        return os.stat(f"/proc/{pid}/status").st_uid != 0
    except OSError:  # it has ended
        return False


def memory(pid: int) -> tuple[int, int]:
    """Resident size of a process, and the largest it has had, in bytes; zeros if it has ended."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            text = file.read(4096)
        return _number_after(text, b"\nVmRSS:") * 1024, _number_after(text, b"\nVmHWM:") * 1024
    except (OSError, ValueError):
        return 0, 0


def pages_written(pid: int) -> int:
    """Pages that a process has had to be given, as it wrote to them, since it was forked; 0 if it has ended.

    Of a page that it shared with a copy of itself it was given one of its own (``min_flt`` in proc_pid_stat(5)).
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[7])
    except (OSError, IndexError):
        return 0


def anonymous(pid: int) -> int:
    """Bytes of memory of a process that are of no file; 0 if it has ended."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            _, resident, shared = file.read().split()[:3]
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * PAGE


def _first_open(paths: Sequence[str]) -> int:
    for path in paths:
        try:
            return os.open(CGROUP / path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
    return -1


def _number_after(data: bytes, label: bytes) -> int:
    """The label begins with a line break where what is before it may be chosen by somebody, as a process's name is."""
    _, _, rest = data.partition(label)
    return int(rest.split(None, 1)[0]) if rest.strip() else 0


@dataclass(frozen=True)
class Reading:
    """The container's counters at one moment, this process's own share of the cpu time left out."""

    cpu_seconds: float
    oom_kills: int


class Cgroup:
    """The container's own control group, its files kept open. Where one is not visible its counter stays 0."""

    def __init__(self) -> None:
        self._cpu_v1 = _first_open(["cpuacct/cpuacct.usage", "cpu,cpuacct/cpuacct.usage"])
        self._cpu_v2 = _first_open(["cpu.stat"])
        self._oom = _first_open(["memory/memory.oom_control", "memory.events"])
        self._tasks = _first_open(["pids/pids.current", "pids.current"])
        self._usage = _first_open(["memory/memory.usage_in_bytes", "memory.current"])
        self._memory = _first_open(["memory/memory.stat", "memory.stat"])

    def read(self) -> Reading:
        """The counters now."""
        return Reading(self._cpu() - time.process_time(), self._oom_kills())

    def tasks(self) -> int:
        """Processes and threads in the container; -1 if that is not visible."""
        return int(os.pread(self._tasks, 64, 0)) if self._tasks >= 0 else -1

    def holds_more_than(self, limit: float) -> bool:
        """True if more bytes are in use that only the end of a process or a file can free.

        The page cache can go at any time. It is in the kernel's cheap count, which so answers most questions; the
        exact one is asked only then.
        """
        if self._usage >= 0 and int(os.pread(self._usage, 64, 0)) <= limit:
            return False
        stat = os.pread(self._memory, 8192, 0) if self._memory >= 0 else b""
        anonymous = max(_number_after(stat, b"\nrss "), _number_after(b"\n" + stat, b"\nanon "))
        return anonymous + _number_after(stat, b"\nshmem ") > limit

    def _cpu(self) -> float:
        if self._cpu_v1 >= 0:
            return int(os.pread(self._cpu_v1, 64, 0)) / 1e9
        if self._cpu_v2 >= 0:
            return _number_after(os.pread(self._cpu_v2, 512, 0), b"usage_usec ") / 1e6
        return 0.0

    def _oom_kills(self) -> int:
        return _number_after(os.pread(self._oom, 512, 0), b"oom_kill ") if self._oom >= 0 else 0
