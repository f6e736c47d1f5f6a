"""Settings -> the engine's create call, as a pure function. Every restriction is a line here, none is a session's.

Terms are the Engine API's own (``POST /containers/create``). Numbers in brackets: CIS Docker Benchmark 1.6, section 5.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.config import Limits, parse_size
from orchestrator.sandbox import seccomp

LABEL_OWNER = "cellblock.owner"  # who made it: see Owner
LABEL_SESSION = "cellblock.session"
# Seconds of the kernel's monotonic clock, which counts from the boot that the owner's label names: whoever sets the
# machine's clock makes no container older or younger.
LABEL_CREATED = "cellblock.created-monotonic"
LABEL_DEADLINE = "cellblock.deadline-monotonic"  # gc removes it after that, whoever owns it
LABEL_LASTING = "cellblock.lasting"  # it outlives its owner by its lease, for another process to go on with it

SOCKET_MOUNT = "/run/s"
# Bytes: too few for a core file, and the one number with which the kernel starts no crash handler of the host's either;
# with 0 it does (do_coredump() in fs/coredump.c).
NO_CORE = 1
# Processes that hold states (heads and checkpoints of all branches) and the warden: on top of limits.pids, so that they
# take nothing from user code.
STATES = 64
FILES = 512  # open files that the supervisor may need for all states and branches, whatever limits.nofile says
BRANCHES_FACTOR = 4  # all branches' workspaces together, in workspaces; they are memory, which has a limit of its own
TMP_BYTES = 16 << 20  # /tmp: scratch of libraries such as matplotlib's font cache
TMP_INODES = 1024
# The engine's own defaults, which naming any replaces, and what else tells about the host.
MASKED_PATHS = (
    *("/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"),
    *("/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"),
    *("/proc/interrupts", "/proc/config.gz", "/proc/cmdline", "/proc/kallsyms", "/proc/diskstats", "/proc/partitions"),
    *("/proc/pressure", "/proc/zoneinfo", "/proc/vmstat", "/proc/locks", "/proc/fs", "/proc/irq", "/proc/key-users"),
    *("/proc/softirqs", "/proc/buddyinfo", "/proc/pagetypeinfo", "/proc/slabinfo", "/proc/vmallocinfo", "/proc/iomem"),
    *("/proc/ioports", "/proc/devices", "/proc/modules", "/proc/schedstat", "/proc/swaps", "/proc/mtrr", "/proc/misc"),
    *("/proc/crypto", "/proc/consoles", "/proc/tty", "/proc/bus", "/proc/dma", "/proc/execdomains", "/sys/power"),
    *(f"/sys/fs/{name}" for name in ("bpf", "btrfs", "erofs", "ext4", "f2fs", "fuse", "overlayfs", "pstore", "xfs")),
    "/dev/pts/ptmx",  # new terminals are counted for the whole host
    *("/sys/kernel", "/sys/module", "/sys/block", "/sys/class", "/sys/devices", "/sys/bus", "/sys/dev"),
)
READONLY_PATHS = ("/proc/bus", "/proc/sys", "/proc/sysrq-trigger")
# Held by the launcher for milliseconds, to become two other users: a process that must drop root needs them to do so.
BOOT_CAPABILITIES = ("SETUID", "SETGID", "SETPCAP")


@dataclass(frozen=True, slots=True)
class Session:
    """What differs from one sandbox to the next."""

    id: str
    image: str  # by id, so that it is the image that was looked at
    socket_dir: str  # on the host; the only thing of the host that the container sees
    supervisor_uid: int
    runner_uid: int
    owner: str
    created: float  # seconds of the monotonic clock
    lease: float  # seconds
    lifetime: float  # seconds
    packages: tuple[str, ...]  # top-level names that user code may import; of what is installed it can read no other
    landlock: bool  # where the kernel has it
    runtime: str = ""  # by the engine's name for it; empty: the engine's default
    lasting: bool = False  # it waits for another process when its own has gone

    @property
    def container(self) -> str:
        """The container's name."""
        return f"cellblock-{self.id}"


def create_body(session: Session, limits: Limits) -> dict[str, Any]:
    """The body of the create call."""
    memory = parse_size(limits.memory)
    return {
        "Image": session.image,
        "Cmd": _launcher_arguments(session, limits, memory),
        "User": "0:0",  # the launcher's; nothing runs as root after start-up
        "Hostname": "sandbox",
        "Env": [],
        "WorkingDir": "/",
        "Tty": False,
        "OpenStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "NetworkDisabled": True,
        "Healthcheck": {"Test": ["NONE"]},  # a health check is an exec in the container
        "Labels": _labels(session),
        "HostConfig": _host_config(session, limits, memory),
    }


def _launcher_arguments(session: Session, limits: Limits, memory: int) -> list[str]:
    values: Mapping[str, object] = {
        "supervisor-uid": session.supervisor_uid,
        "runner-uid": session.runner_uid,
        "memory": memory,
        "disk": parse_size(limits.disk),
        "pids": limits.pids + STATES,
        "states": STATES,
        "nofile": limits.nofile,
        "lease": session.lease,
        "lifetime": session.lifetime,
        "packages": ",".join(session.packages),
        "landlock": int(session.landlock),
    }
    return [f"--{name}={value}" for name, value in values.items()]


def _labels(session: Session) -> dict[str, str]:
    return {
        LABEL_OWNER: session.owner,
        LABEL_SESSION: session.id,
        LABEL_CREATED: str(int(session.created)),
        LABEL_DEADLINE: str(int(session.created + session.lifetime)),
        **({LABEL_LASTING: "1"} if session.lasting else {}),
    }


def _tmpfs(uid: int, size: int, inodes: int) -> str:
    return f"rw,noexec,nosuid,nodev,size={size},nr_inodes={inodes},uid={uid},gid={uid},mode=0700"


def _ulimit(name: str, value: int) -> dict[str, Any]:
    return {"Name": name, "Soft": value, "Hard": value}


def _host_config(session: Session, limits: Limits, memory: int) -> dict[str, Any]:
    socket_mount = {
        "Type": "bind",
        "Source": session.socket_dir,
        "Target": SOCKET_MOUNT,
        "ReadOnly": False,
        "BindOptions": {"Propagation": "rprivate"},
    }
    return {
        # Namespaces: no network [5.10], no shared memory with anybody [5.17], nothing of the host's [5.16, 5.21].
        "NetworkMode": "none",
        "IpcMode": "none",
        "PidMode": "",
        "UTSMode": "",
        "CgroupnsMode": "private",
        # Privileges and system calls [5.4, 5.5, 5.22, 5.26].
        "Privileged": False,
        "CapDrop": ["ALL"],
        "CapAdd": list(BOOT_CAPABILITIES),
        "SecurityOpt": ["no-new-privileges:true", f"seccomp={json.dumps(seccomp.profile())}"],
        "Devices": [],
        # Files: a read-only root [5.13], three size- and inode-capped tmpfs, the socket directory [5.6, 5.20, 5.32].
        "ReadonlyRootfs": True,
        "Tmpfs": {
            "/workspace": _tmpfs(session.runner_uid, parse_size(limits.disk), limits.inodes),
            "/branches": _tmpfs(
                session.runner_uid, BRANCHES_FACTOR * parse_size(limits.disk), BRANCHES_FACTOR * limits.inodes
            ),
            "/tmp": _tmpfs(session.runner_uid, TMP_BYTES, TMP_INODES),  # noqa: S108 (the container's, not ours)
        },
        "Mounts": [socket_mount],
        "MaskedPaths": list(MASKED_PATHS),
        "ReadonlyPaths": list(READONLY_PATHS),
        # Resources [5.11, 5.12, 5.19, 5.29]. Memory and swap equal: no swap.
        "Memory": memory,
        "MemorySwap": memory,
        "NanoCpus": int(limits.cpus * 1e9),
        "CpuShares": 128,  # an eighth of the default: the host's own work comes first
        "PidsLimit": limits.pids + STATES,
        "OomScoreAdj": 100,
        "Ulimits": [
            _ulimit("core", NO_CORE),
            _ulimit("nofile", max(limits.nofile, FILES)),  # the launcher lowers the runner's
            _ulimit("memlock", 0),
            _ulimit("msgqueue", 0),
        ],
        # Life: nobody restarts it [5.15], no log can grow; the engine removes it when its first process ends.
        "RestartPolicy": {"Name": "no"},
        "AutoRemove": True,
        "LogConfig": {"Type": "none"},
        "Init": False,  # the supervisor is a PID 1 that reaps
        **({"Runtime": session.runtime} if session.runtime else {}),
    }


_OWNER = re.compile(r"(?P<pid>[0-9]{1,10}):[0-9]+:(?P<boot>[0-9a-f-]+):(?P<namespace>[0-9]+)")


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, told apart from a later one with the same pid and from one before the last boot."""

    pid: int
    started: str  # clock ticks after boot
    boot: str
    namespace: str  # of pids: an orchestrator in a container of its own counts its own

    @classmethod
    def of(cls, pid: int) -> Owner | None:
        """The process of that pid, if one runs. A zombie is none: its parent may never ask for it.

        Raises:
            OSError: that cannot be told, because this process has no descriptors left for example.
        """
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            state, threads, started = fields[0], int(fields[17]), fields[19].decode()
            if state in (b"Z", b"X") and threads <= 1:  # with more, only its first thread has ended
                return None
            with open("/proc/sys/kernel/random/boot_id") as file:
                return cls(pid, started, file.read().strip(), _pid_namespace())
        except (FileNotFoundError, ProcessLookupError, IndexError):
            return None

    @classmethod
    def me(cls) -> Owner:
        """This process; errors as of ``of``."""
        found = cls.of(os.getpid())
        assert found
        return found

    def __str__(self) -> str:
        return f"{self.pid}:{self.started}:{self.boot}:{self.namespace}"


def _pid_namespace() -> str:
    return os.readlink("/proc/self/ns/pid").strip("pid:[]")


def owner_is_alive(label: str) -> bool:
    """True if the process that a label names still runs, or may: one of another pid namespace cannot be looked for.

    Raises:
        OSError: that cannot be told.
    """
    match = _OWNER.fullmatch(label)  # whoever may make containers writes labels as well
    if match is None or match["boot"] != Owner.me().boot:
        return False
    if match["namespace"] != _pid_namespace():
        return True  # its deadline will do
    pid = int(match["pid"])
    return str(Owner.of(pid)) == label or _is_hidden(pid)


def _is_hidden(pid: int) -> bool:
    """It runs, and /proc does not show it to this user (``hidepid``, see proc(5)): its deadline will do, too."""
    if os.path.exists(f"/proc/{pid}"):
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        pass
    return False
