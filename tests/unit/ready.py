"""What a supervisor finds in a container in which everything is in force, and what the layers are called."""

from __future__ import annotations

from executor_api.v1 import executor_pb2 as pb

from orchestrator.config import Limits
from orchestrator.sandbox.isolation import Asked, kernel_name
from orchestrator.sandbox.layers import NO_LIMIT
from orchestrator.sandbox.lockdown import STATES, Session

SUPERVISOR, RUNNER = 1000, 200_007
SAFE = "rw,noexec,nosuid,nodev,relatime,size=64m"
LIMITS = Limits()
DISK, MEMORY = 64 << 20, 512 << 20
HOST_KERNEL = kernel_name("6.12.0", "#1 SMP")
SESSION = Session(  # what a container is made for
    id="s1",
    image="sha256:abc",
    socket_dir="/host/s1",
    supervisor_uid=SUPERVISOR,
    runner_uid=RUNNER,
    owner="12:345:boot",
    created=1000.9,
    lease=60.0,
    lifetime=86400.0,
    packages=("json", "numpy"),
    landlock=True,
)
ASKED = Asked(SUPERVISOR, RUNNER, LIMITS, host_kernel=HOST_KERNEL)
USERS, CAPABILITIES, PRIVILEGES, FILTER, CLOSED, NETWORK, ROOT, PLACES, FOLDERS, DEVICES = (
    "two unprivileged users",
    "no capabilities in any process",
    "no new privileges",
    "system call filter",
    "no process can be opened by another",
    "no network",
    "read-only root",
    "writable places are few and run nothing",
    "folders are private and capped",
    "no devices but harmless ones",
)
MASKED, SETTINGS, MEMORY_LIMIT, PROCESS_LIMIT, CPU_LIMIT, EACH_PROCESS, OOM = (
    "masked paths show nothing",
    "kernel settings are read-only",
    "memory limit, without swap",
    "limit of processes",
    "limit of processor time",
    "limits of each process",
    "the runner goes first when memory is short",
)
RUNNER_FILTER = "a narrower filter for the runner"
LANDLOCK, OWN_KERNEL = "files and packages are out of sight (Landlock)", "a kernel of its own"
NEEDED = (
    *(USERS, CAPABILITIES, PRIVILEGES, FILTER, RUNNER_FILTER, CLOSED),
    *(NETWORK, ROOT, PLACES, FOLDERS, DEVICES, MASKED, SETTINGS),
    *(MEMORY_LIMIT, PROCESS_LIMIT, CPU_LIMIT, EACH_PROCESS, OOM),
)
FURTHER = (LANDLOCK, OWN_KERNEL, "user ids are not the host's", "AppArmor or SELinux")


def process(pid: int, uid: int, oom_score_adj: int = 1000) -> pb.Process:
    return pb.Process(
        pid=pid, uid=uid, no_new_privileges=True, seccomp_mode=2, seccomp_filters=2, oom_score_adj=oom_score_adj
    )


def folder(path: str, uid: int = RUNNER, size: int = DISK, inodes: int = 4096, options: str = SAFE) -> pb.Mount:
    return pb.Mount(path=path, options=options, uid=uid, mode=0o700, bytes=size, inodes=inodes)


def good() -> pb.Ready:
    return pb.Ready(
        processes=[process(1, SUPERVISOR, 100), process(7, RUNNER), process(8, RUNNER), process(9, RUNNER, 100)],
        warden_pid=9,
        interfaces=["lo"],
        root_read_only=True,
        supervisor_uid=SUPERVISOR,
        runner_uid=RUNNER,
        python_version="3.13.5",
        kernel="6.12.0",
        kernel_build="#1 SMP",
        cgroup_version=2,
        writable_mounts=[
            folder("/workspace"),
            folder("/tmp", size=16 << 20, inodes=1024),
            folder("/branches", size=4 * DISK, inodes=4 * 4096),
            folder("/run/s", SUPERVISOR, 1 << 40, 0, "rw,relatime"),
            pb.Mount(path="/dev/pts", options="rw,nosuid,noexec"),
            pb.Mount(path="/dev/mqueue", options="rw,nosuid,nodev,noexec"),
        ],
        cgroup=pb.CgroupLimits(memory=MEMORY, swap=0, pids=64 + STATES, cpus=1.0, machine_swap=1 << 30),
        devices=[pb.Device(path="/dev/null", major=1, minor=3), pb.Device(path="/dev/tty", major=5, minor=0)],
        runner_limits=[
            pb.Rlimit(name="Max core file size", hard=1),
            pb.Rlimit(name="Max data size", hard=MEMORY * 9 // 10),
            pb.Rlimit(name="Max file size", hard=DISK),
            pb.Rlimit(name="Max open files", hard=256),
            pb.Rlimit(name="Max processes", hard=108),
            pb.Rlimit(name="Max stack size", hard=8 << 20),
            pb.Rlimit(name="Max locked memory", hard=0),
            pb.Rlimit(name="Max msgqueue size", hard=0),
            pb.Rlimit(name="Max cpu time", hard=NO_LIMIT),
        ],
    )
