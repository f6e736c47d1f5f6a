"""The container's entry point: ``python3 -m executor_image.launcher --supervisor-uid S ...``, as root, for a moment.

Forks what becomes the runner (uid R) and the warden (uid R too), then becomes the supervisor (uid S). The runner and
the supervisor share two pipes (what C code writes to descriptors 1 and 2) and one socketpair, the warden and the
supervisor one socketpair, and nothing else. No argument is a secret.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from executor_image.launcher import landlock, privileges, seccomp, visible, warden

RUNNER_PYTHON = "/opt/py/bin/python3"
RUNNER_ARGV = (RUNNER_PYTHON, "-I", "-S", "-B", "-X", "utf8", "-m", "executor_image.runner")
SUPERVISOR_GROUP = 60001  # may read /opt/exec; the runner may not
WORKSPACE = "/workspace"
# Constant: nothing of the engine's or the image's environment reaches user code. One thread per numerical library keeps
# the runner forkable; huge pages make forking a large heap cheap.
RUNNER_ENV = {
    "HOME": WORKSPACE,
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",
    "MPLCONFIGDIR": "/tmp/matplotlib",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
NO_CORE = 1  # byte: no file of that size is written, and no crash handler of the host's is started, as with 0 it is
STACK_BYTES = 8 << 20  # of each thread; counted against the data limit
PROCESS_RESERVE = 20  # of the container's pids, for the supervisor's own threads
LEAST_PROCESSES = 4  # for user code, besides those that hold states


@dataclass(frozen=True)
class Stage:
    """The arguments, all set by the host."""

    supervisor_uid: int
    runner_uid: int
    memory: int  # bytes, of the container
    disk: int  # bytes, of the workspace
    pids: int
    states: int  # of pids: processes that hold a state or watch over them
    nofile: int  # open files of one process of the runner's
    lease: float  # seconds
    lifetime: float  # seconds
    packages: frozenset[str]  # top-level names of what user code may import
    landlock: bool  # is to be in force where the kernel has it


def parse(argv: Sequence[str]) -> Stage:
    """Arguments -> Stage."""
    parser = argparse.ArgumentParser(prog="launcher", allow_abbrev=False)
    for name in ("supervisor-uid", "runner-uid", "memory", "disk", "pids", "states", "nofile"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("lease", "lifetime"):
        parser.add_argument(f"--{name}", type=float, required=True)
    parser.add_argument("--packages", type=lambda text: frozenset(text.split(",")), required=True)
    parser.add_argument("--landlock", type=lambda text: bool(int(text)), required=True)
    return Stage(**vars(parser.parse_args(argv)))


def limit_runner(stage: Stage) -> None:
    """What one process of the runner may take; the container's own limits hold for all of them together."""
    privileges.limit(resource.RLIMIT_CORE, NO_CORE)
    # Below the container's limit, so that Python gets a MemoryError before the kernel kills. The runner lowers it
    # further while user code runs, and so can still do its own work when that has used up its share.
    privileges.limit(resource.RLIMIT_DATA, stage.memory * 9 // 10)
    privileges.limit(resource.RLIMIT_FSIZE, stage.disk)
    privileges.limit(resource.RLIMIT_NOFILE, stage.nofile)
    privileges.limit(resource.RLIMIT_STACK, STACK_BYTES)
    # Counted per uid, and this uid is of this container alone: leaves the supervisor room to start threads.
    privileges.limit(
        resource.RLIMIT_NPROC, max(LEAST_PROCESSES, stage.pids - stage.states - PROCESS_RESERVE) + stage.states
    )


def become_runner(stage: Stage, channel: int, stdout: int, stderr: int, report: int) -> None:
    """Replaces this process by the runner; returns only by raising.

    ``report`` is told the version of Landlock that is in force, 0 for none, once everything is.
    """
    grants = visible.grants(stage.packages)
    os.setsid()
    null = os.open("/dev/null", os.O_RDONLY)
    for target, source in enumerate((null, stdout, stderr, channel)):
        os.dup2(source, target, inheritable=True)
    os.dup2(report, 4, inheritable=False)
    os.closerange(5, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    limit_runner(stage)
    privileges.drop_everything(stage.runner_uid, stage.runner_uid)
    os.chdir(WORKSPACE)
    abi = landlock.version() if stage.landlock else 0
    if abi:
        landlock.restrict(grants, abi)
        landlock.check(forbidden="/etc/passwd", granted=visible.STDLIB)
    seccomp.install()
    os.write(4, bytes([min(abi, 255)]))
    os.execve(RUNNER_PYTHON, RUNNER_ARGV, RUNNER_ENV)  # noqa: S606 (there is no shell here)


def become_warden(stage: Stage, channel: int, report: int) -> None:
    """Makes this process the warden; returns only by raising. It keeps the launcher's memory: there is no secret yet.

    ``report`` is told something once it has given up everything: until then it would be found with privileges.
    What it imports has been imported before: as uid R it cannot read this Python's files.
    """
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for target, source in enumerate((null, null, null, channel)):
        os.dup2(source, target, inheritable=True)
    os.dup2(report, 4, inheritable=False)
    os.closerange(5, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    privileges.drop_everything(stage.runner_uid, stage.runner_uid)
    privileges.forbid_inspection()
    os.write(4, b"\1")
    os.close(4)
    warden.serve(socket.socket(fileno=3))


def forked(become: Callable[[], None]) -> int:
    """A child that becomes something else; its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            become()
        finally:
            os._exit(70)
    return pid


def said_of(report: int) -> int:
    """What a child says when it is confined and about to begin. Without a word of it there is no start."""
    with os.fdopen(report, "rb") as file:
        word = file.read(1)
    if not word:
        raise SystemExit("a process could not be confined")
    return word[0]


def high(fd: int) -> int:
    """A copy of ``fd`` above those that a child puts in place, so that dup2 cannot overwrite one still needed."""
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)


def main() -> None:
    """Sets the stage and becomes the supervisor."""
    stage = parse(sys.argv[1:])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    to_warden, wardens = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    confined, confines = os.pipe()
    guarded, guards = os.pipe()
    runner = forked(
        lambda: become_runner(stage, high(theirs.fileno()), high(out_write), high(err_write), high(confines))
    )
    os.close(confines)
    guard = forked(lambda: become_warden(stage, high(wardens.fileno()), high(guards)))
    os.close(guards)
    for end in (theirs, wardens):
        end.close()
    os.close(out_write)
    os.close(err_write)
    privileges.drop_everything(stage.supervisor_uid, SUPERVISOR_GROUP)
    privileges.forbid_inspection()
    abi = said_of(confined)
    said_of(guarded)
    from executor_image.supervisor.server import run  # only now: none of gRPC's code runs with privileges
    from executor_image.supervisor.staged import Staged

    staged = Staged(stage.runner_uid, runner, ours, (out_read, err_read), guard, to_warden, stage.states, abi)
    run(staged, stage.lease, stage.lifetime)


if __name__ == "__main__":
    main()
