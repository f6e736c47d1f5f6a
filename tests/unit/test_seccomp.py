"""The two system call filters: the container's as it is sent, the runner's as the kernel carries it out."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import re
import resource
import socket
import struct
import tempfile
import threading
from collections.abc import Callable
from typing import IO

import pytest

from executor_image.launcher import privileges
from executor_image.launcher import seccomp as runners
from orchestrator.sandbox import seccomp
from tests.unit.apart import apart

# What the engine's own profile of 20.10 allows, or allows with a capability, and nobody here has a use for.
NEVER = (
    *("io_uring_setup", "io_uring_enter", "io_uring_register", "ptrace", "process_vm_readv", "process_vm_writev"),
    *("process_madvise", "process_mrelease", "pidfd_open", "pidfd_getfd", "pidfd_send_signal", "kcmp", "memfd_create"),
    *("memfd_secret", "userfaultfd", "bpf", "perf_event_open", "keyctl", "add_key", "request_key", "unshare", "setns"),
    *("mount", "umount2", "fsopen", "fsmount", "fsconfig", "fspick", "open_tree", "move_mount", "mount_setattr"),
    *("pivot_root", "chroot", "open_by_handle_at", "name_to_handle_at", "modify_ldt", "personality", "shmget"),
    *("shmat", "shmctl", "shmdt", "msgget", "msgsnd", "msgrcv", "msgctl", "semget", "semop", "semctl", "semtimedop"),
    *("mq_open", "mq_unlink", "mq_timedsend", "mq_timedreceive", "mq_notify", "mq_getsetattr", "vmsplice", "splice"),
    *("tee", "move_pages", "migrate_pages", "mbind", "set_mempolicy", "get_mempolicy", "fanotify_init", "quotactl"),
    *("fanotify_mark", "syslog", "acct", "swapon", "swapoff", "reboot", "kexec_load", "kexec_file_load"),
    *("init_module", "finit_module", "delete_module", "iopl", "ioperm", "settimeofday", "clock_settime", "adjtimex"),
    *("clock_adjtime", "stime", "setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr"),
    *("io_setup", "io_submit", "lookup_dcookie", "nfsservctl", "remap_file_pages", "sync", "syncfs", "vhangup"),
    *("sethostname", "setdomainname", "sched_setscheduler", "sched_setattr", "sched_setparam", "ioprio_set"),
    *("pkey_alloc", "pkey_mprotect", "pkey_free", "uselib", "ustat", "sysfs", "statmount", "listmount", "cachestat"),
    *("map_shadow_stack", "lsm_set_self_attr", "lsm_get_self_attr", "lsm_list_modules", "mseal", "setxattrat"),
)


# ------------------------------------------------------------------------------------------------------ the container


def test_what_is_not_named_fails_and_other_architectures_are_not_there() -> None:
    profile = seccomp.profile()
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert profile["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"]  # no X86, no X32
    assert {rule["action"] for rule in profile["syscalls"]} == {"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"}
    assert json.loads(json.dumps(profile)) == profile


@pytest.mark.parametrize("name", NEVER)
def test_what_nobody_here_needs_is_not_named(name: str) -> None:
    assert name not in {n for rule in seccomp.profile()["syscalls"] for n in rule["names"]}


@pytest.mark.parametrize("name", ["socket", "socketpair", "clone", "clone3", "mknod", "mknodat", "ioctl"])
def test_what_is_allowed_in_part_is_not_allowed_as_a_whole(name: str) -> None:
    rules = [rule for rule in seccomp.profile()["syscalls"] if name in rule["names"]]
    assert rules
    assert all(rule["args"] or rule["action"] == "SCMP_ACT_ERRNO" for rule in rules)


def test_no_call_is_named_twice() -> None:
    assert len(set(seccomp.ALLOWED)) == len(seccomp.ALLOWED)
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in seccomp.ALLOWED)


# ---------------------------------------------------------------------------------------------------------- the runner


def test_the_numbers_are_those_of_each_processor() -> None:
    """Two tables that disagree on a name would leave a call open on one of them."""
    used = {call for rule in runners.RULES for call in rule.calls}
    for machine in runners.MACHINES.values():
        assert set(machine.numbers) == used
        assert len(set(machine.numbers.values())) == len(machine.numbers)


def outcome(machine: runners.Machine, number: int, *arguments: int, audit: int | None = None) -> int:
    """What the program says of a call: a small interpreter of its own for the instructions that it has."""
    data = struct.pack("<iIQ6Q", number, audit or machine.audit, 0, *(arguments + (0,) * 6)[:6])
    program = [struct.unpack("<HBBI", step) for step in runners.assembled(machine)]
    at, accumulator = 0, 0
    while True:
        code, if_true, if_false, operand = program[at]
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, operand)
            case 0x15:
                at += if_true if accumulator == operand else if_false
            case 0x35:
                at += if_true if accumulator >= operand else if_false
            case 0x45:
                at += if_true if accumulator & operand else if_false
            case 0x06:
                return operand
            case _:
                raise AssertionError(f"instruction {code:#x}")


ALLOW, KILL = 0x7FFF0000, 0x80000000


@pytest.mark.parametrize("machine", runners.MACHINES.values(), ids=runners.MACHINES)
def test_the_program_decides_as_its_rules_say(machine: runners.Machine) -> None:
    def of(call: str, *arguments: int) -> int:
        return outcome(machine, machine.numbers[call], *arguments)

    eperm, eacces = 0x50000 | errno.EPERM, 0x50000 | errno.EACCES
    assert {of(call) for call in ("socket", "connect", "accept", "accept4", "bind", "listen")} == {eacces}
    read, write, execute, private, anonymous = 1, 2, 4, 2, 32
    assert of("mmap", 0, 4096, read | write, private | anonymous) == ALLOW
    assert of("mmap", 0, 4096, read | execute, private) == ALLOW  # a library
    assert of("mmap", 0, 4096, read | execute, private | anonymous) == eperm
    assert of("mmap", 0, 4096, read | write | execute, private) == eperm
    assert (of("mprotect", 0, 4096, read), of("mprotect", 0, 4096, read | execute)) == (ALLOW, eperm)
    assert (of("prlimit64", 0), of("prlimit64", 7)) == (ALLOW, eperm)
    assert (of("sched_setaffinity", 0), of("sched_setaffinity", 7)) == (ALLOW, eperm)
    assert (of("setpriority", 0, 0), of("setpriority", 0, 7), of("setpriority", 2, 0)) == (ALLOW, eperm, eperm)
    assert (of("prctl", 15), of("prctl", 4), of("prctl", 22), of("prctl", 24)) == (ALLOW, eperm, eperm, eperm)
    assert of("seccomp") == eperm
    shared = 1
    assert of("mmap", 0, 4096, read | write, shared) == ALLOW
    assert {of("mmap", 0, 4096, read | execute, kind) for kind in (shared, 3)} == {eperm}  # 3: MAP_SHARED_VALIDATE
    stream, datagram, raw, packets, others = 1, 2, 3, 5, 0x80800  # and SOCK_CLOEXEC | SOCK_NONBLOCK
    assert {of("socketpair", 1, kind | others) for kind in (stream, packets)} == {ALLOW}
    assert {of("socketpair", 1, kind | others) for kind in (datagram, raw)} == {eacces}
    assert {of("setsockopt", 3, 1, option) for option in (26, 50, 51, 52)} == {eperm}
    assert (of("setsockopt", 3, 1, 7), of("setsockopt", 3, 6, 26)) == (ALLOW, ALLOW)
    done = 0x50000
    assert {of("fcntl", 3, command) for command in (6, 7, 37, 38)} == {done}
    assert {of("fcntl", 3, command) for command in (0, 1, 2, 3, 4, 5, 1030, 1031)} == {ALLOW}
    assert outcome(machine, 1_000) == ALLOW  # the container's filter has the word there


def test_another_architectures_calls_end_the_process() -> None:
    x86, arm = runners.MACHINES["x86_64"], runners.MACHINES["aarch64"]
    assert outcome(x86, 0, audit=0x40000003) == KILL  # i386
    assert outcome(x86, 0, audit=arm.audit) == KILL
    assert outcome(x86, 0x40000000 + 1) == KILL  # x32
    assert outcome(arm, 0, audit=x86.audit) == KILL


def fails(call: Callable[[], object]) -> int:
    """The error number that a call ends with, 0 for none."""
    try:
        call()
    except OSError as error:
        return error.errno or -1
    return 0


def memory(executable: bool) -> None:
    read, write, execute, private, anonymous = 1, 2, 4, 2, 32
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    size = ctypes.c_size_t(4096)
    made = libc.mmap(None, size, read | (execute if executable else write), private | anonymous, -1, ctypes.c_long(0))
    if made == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")
    libc.munmap(ctypes.c_void_p(made), size)


def is_locked(file: IO[bytes]) -> bool:
    """Whether another process finds a lock in its way."""
    child = os.fork()
    if child == 0:
        os._exit(fails(lambda: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)) != 0)
    return os.waitpid(child, 0)[1] != 0


def test_without_the_filter_a_record_lock_is_in_the_way() -> None:
    with tempfile.TemporaryFile() as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        assert is_locked(file)


@apart
def test_the_kernel_carries_it_out_also_in_threads_and_children() -> None:
    privileges.forbid_new_privileges()
    runners.install()
    parent, libc = os.getppid(), ctypes.CDLL(None, use_errno=True)

    def expect() -> None:
        assert fails(socket.socket) == errno.EACCES
        assert fails(lambda: memory(executable=True)) == errno.EPERM
        assert fails(lambda: memory(executable=False)) == 0
        assert fails(lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE)) == errno.EPERM
        assert fails(lambda: os.setpriority(os.PRIO_PROCESS, parent, 1)) == errno.EPERM
        assert fails(lambda: os.sched_setaffinity(parent, {0})) == errno.EPERM
        assert (libc.prctl(4, 1, 0, 0, 0), ctypes.get_errno()) == (-1, errno.EPERM)
        for end in socket.socketpair():
            end.close()
        assert fails(lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)) == errno.EACCES
        with tempfile.TemporaryFile() as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            assert not is_locked(file)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.setpriority(os.PRIO_PROCESS, 0, 1)

    seen: list[BaseException] = []

    def in_thread() -> None:
        try:
            expect()
        except BaseException as error:  # noqa: BLE001 — it is raised again below
            seen.append(error)

    expect()
    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert seen == []
    child = os.fork()
    if child == 0:
        expect()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


@apart
def test_without_no_new_privileges_or_on_an_unknown_processor_it_is_an_error() -> None:
    runners.MACHINES.clear()
    with pytest.raises(OSError, match="no system call filter for the processor"):
        runners.install()
