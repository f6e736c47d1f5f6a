"""Section 3.7: system calls, from native code.

A call counts as reached if it gets past the filters: EPERM and ENOSYS are what those answer (and what a kernel without
it, or a process without capabilities, gets as well, which is as safe). The arguments are such that the call itself does
nothing: where it is reached, the kernel refuses them with another error, or does nothing and says so.
"""

from __future__ import annotations

from tests.attacks.case import Case, Control, Layer, case, no_control
from tests.attacks.native import SYSCALL
from tests.endings import DIED, ERROR, KILLED, OK, OK_LOST

HELD = "EPERM|ENOSYS|signal 31"  # 31: SIGSYS, from a filter that kills
ME = "libc.getpid()"
NAME = "b'x'"
NOBODY = 1 << 22  # above every process id

# id: (what it is, number and arguments)
CALLS = {
    "KRN-01": ("io_uring_setup", "425, 8, (ctypes.c_uint8 * 120)()"),
    "KRN-01b": ("io_uring_enter", "426, -1, 0, 0, 0, 0, 0"),
    "KRN-01c": ("io_uring_register", "427, -1, 0, 0, 0"),
    "KRN-02": ("userfaultfd", "323, 0"),
    "KRN-02b": ("userfaultfd for user mode only", "323, 1"),
    "KRN-04": ("keyctl", "250, 0, -3, 0"),
    "KRN-04b": ("add_key", "248, 0, 0, 0, 0, 0"),
    "KRN-04c": ("request_key", "249, 0, 0, 0, 0"),
    "KRN-05": ("unshare of users", "272, 0x10000000"),
    "KRN-05b": ("unshare of mounts", "272, 0x20000"),
    "KRN-05c": ("unshare of networks", "272, 0x40000000"),
    "KRN-05d": ("clone with a namespace of users", "56, 0x10000200, 0, 0, 0, 0"),  # with CLONE_FS, which cannot be
    "KRN-05e": ("clone3", "435, 0, 0"),  # its flags are behind a pointer, where no filter looks
    "KRN-05f": ("setns", "308, -1, 0"),
    "KRN-07": ("ptrace", f"101, 0x4206, {NOBODY}, 0, 0"),
    "KRN-07b": ("process_vm_readv", f"310, {ME}, 0, 0, 0, 0, 0"),
    "KRN-07c": ("process_vm_writev", f"311, {ME}, 0, 0, 0, 0, 0"),
    "KRN-07d": ("pidfd_getfd", "438, -1, 0, 0"),
    "KRN-07e": ("kcmp", f"312, {ME}, {ME}, 0, 0, 0"),
    "KRN-08": ("memfd_create", f"319, {NAME}, 0"),
    "KRN-08b": ("memfd_secret", "447, 0"),
    "KRN-10": ("open_by_handle_at", "304, -1, 0, 0"),
    "KRN-10b": ("name_to_handle_at", "303, -1, 0, 0, 0, 0"),
    "KRN-11": ("fsopen", "430, 0, 0"),
    "KRN-11b": ("fsconfig", "431, -1, 0, 0, 0, 0"),
    "KRN-11c": ("fsmount", "432, -1, 0, 0"),
    "KRN-11d": ("open_tree", "428, -1, 0, 1"),
    "KRN-11e": ("move_mount", "429, -1, 0, -1, 0, 0"),
    "KRN-11f": ("mount_setattr", "442, -1, 0, 0, 0, 0"),
    "KRN-14": ("vmsplice", "278, -1, 0, 0, 0"),
    "KRN-14b": ("splice", "275, -1, 0, -1, 0, 1, 0"),
    "KRN-14c": ("tee", "276, -1, -1, 1, 0"),
    "KRN-14d": ("move_pages", "279, 0, 0, 0, 0, 0, 0"),
    "KRN-14e": ("mbind", "237, 0, 0, 0, 0, 0, 0"),
    "KRN-14f": ("set_mempolicy", "238, 0, 0, 0"),
    "KRN-16": ("cachestat", "451, -1, 0, 0, 0"),
    "KRN-16b": ("map_shadow_stack", "453, 0, 0, 0"),
    "KRN-16c": ("statmount", "457, 0, 0, 0, 0"),
    "KRN-16d": ("listmount", "458, 0, 0, 0, 0"),
    "KRN-16e": ("lsm_list_modules", "461, 0, 0, 0"),
    "KRN-16f": ("process_mrelease", "448, -1, 0"),
    "KRN-16g": ("process_madvise", "440, -1, 0, 0, 0, 0"),
    "KRN-16h": ("setxattrat", "463, -1, 0, 0, 0, 0, 0"),
    "KRN-16i": ("quotactl_fd", "443, -1, 0, 0, 0"),
    "KRN-18": ("bpf", "321, 0, 0, 0"),
    "KRN-18b": ("perf_event_open", "298, 0, 0, -1, -1, 0"),
    "KRN-18c": ("modify_ldt", "154, 0, 0, 0"),
    "KRN-18d": ("fanotify_init", "300, 0, 0"),
    "KRN-18e": ("personality that reads means execute", "135, 0x0400000"),
    "KRN-18f": ("mknod", "133, 0, 0, 0"),
    "KRN-18g": ("setxattr", "188, 0, 0, 0, 0, 0"),
    "KRN-18h": ("acct", "163, 1"),
    "KRN-18i": ("init_module", "175, 0, 0, 0"),
    "RES-19": ("shared memory of System V", "29, 0, 4096, 0o1600"),
    "RES-19b": ("semaphores of System V", "64, 0, 1, 0o1600"),
    "RES-19c": ("message queues of System V", "68, 0, 0o1600"),
    "RES-19d": ("message queues of POSIX", f"240, {NAME}, 0o102, 0o600, 0"),
    "TIM-04": ("clock_settime", "227, 0, (ctypes.c_int64 * 2)(0, -1)"),  # no such nanosecond
}
# Those that would make more of the process than it is: refused by the kernel itself, filter or not.
GAINS = {
    "KRN-20": ("another user", "105, 0"),
    "KRN-20b": ("another group", "106, 0"),
    "KRN-20c": ("a member of other groups", "116, 1, (ctypes.c_uint32 * 1)(0)"),
    "KRN-20d": ("one with a capability", "126, (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(1, 1, 0)"),
    "KRN-20e": ("one with more priority", "141, 0, 0, -20"),
    "KRN-20f": ("one with larger limits", "160, 7, (ctypes.c_uint64 * 2)(4096, 1 << 20)"),
}
ABSENT = "ENOSYS"  # in the unguarded container: this kernel has no such call


def _calls() -> list[Case]:
    return [
        case(
            id,
            f"{name} gets past the filter",
            f"{SYSCALL}tell(call({arguments}))",
            held_by=Layer.CONTAINER,
            native=True,
            denied=True,
            endings=(OK, ERROR, DIED),
            says=HELD,
            control=Control(absent=ABSENT),
        )
        for id, (name, arguments) in CALLS.items()
    ]


# What only the runner's own filter takes away: the container's has to leave it to others.
RUNNERS = {
    "KRN-19": ("memory that is written and run", "9, 0, 4096, 7, 0x22, -1, 0"),
    "KRN-19b": ("memory that comes from no file and is run", "9, 0, 4096, 5, 0x22, -1, 0"),
    "KRN-19c": ("memory that is made executable", "10, call(9, 0, 4096, 3, 0x22, -1, 0), 4096, 5"),
    "KRN-19d": ("a process that may be inspected", "157, 4, 1, 0, 0, 0"),
    "KRN-19e": ("a socket of its own", "41, 1, 1, 0"),
    "KRN-19g": ("a second view of memory that is run", "9, 0, 4096, 5, 1, call(2, b'/dev/zero', 2), 0"),
    "KRN-19h": ("a pair of sockets that reaches others", "53, 1, 2, 0, (ctypes.c_int * 2)()"),
    "KRN-19f": ("other limits for another process", "302, 1, 7, 0, (ctypes.c_uint64 * 2)()"),
}


def _runners() -> list[Case]:
    return [
        case(
            id,
            f"there is {what}",
            f"{SYSCALL}got = call({arguments})\nprint(got, {{R}} if isinstance(got, int) else '')",
            held_by=Layer.RUNNER,
            native=True,
            denied=True,
            says="EPERM|EACCES|ESRCH",
        )
        for id, (what, arguments) in RUNNERS.items()
    ]


def _gains() -> list[Case]:
    return [
        case(
            id,
            f"the process becomes {what}",
            f"{SYSCALL}got = call({arguments})\nprint(got, {{R}} if got == 0 else '')",
            held_by=Layer.CONTAINER,
            native=True,
            denied=True,
            says="EPERM|EACCES",
            control=Control(absent="EPERM"),  # an engine may not have every capability itself
        )
        for id, (what, arguments) in GAINS.items()
    ]


INT_80 = "/opt/py/lib/python3.13/lib-dynload/int80.so"  # see images.py


def _other_abis() -> list[Case]:
    """The same kernel by other doors, whose calls have other numbers."""
    return [
        case(
            "KRN-13",
            "a system call of i386 is made",
            f"import ctypes\ngot = ctypes.CDLL('{INT_80}').int80(20)\nprint(got, {{R}} if got > 0 else '')",
            held_by=Layer.CONTAINER,
            native=True,
            denied=True,
            endings=(OK, ERROR, DIED),
            says="-1|-38|signal 31",
        ),
        case(
            "KRN-13b",
            "a system call of x32 is made",
            f"{SYSCALL}tell(call(0x40000000 + 39))",
            held_by=Layer.CONTAINER,
            native=True,
            denied=True,
            endings=(OK, ERROR, DIED),
            says=HELD,
            control=Control(absent=ABSENT),
        ),
    ]


FILTER = (
    SYSCALL
    + """
import struct
# One instruction: everything fails with EPERM.
program = ctypes.create_string_buffer(struct.pack('<HBBI', 0x06, 0, 0, 0x00050001))
filter_ = ctypes.create_string_buffer(struct.pack('<HxxxxxxQ', 1, ctypes.addressof(program)))
libc.prctl(38, 1, 0, 0, 0)
call(317, 1, 0, ctypes.addressof(filter_))
"""
)


def _own_filter() -> Case:
    return case(
        "KRN-17",
        "a filter of the code's own harms more than its own step",
        FILTER,
        held_by=Layer.SUPERVISOR,
        native=True,
        denied=True,
        endings=(OK, ERROR, DIED, KILLED, OK_LOST),
        timeout=1.0,
        control=no_control("nothing is reached: what is shown is that the next step works"),
    )


CASES = [*_calls(), *_gains(), *_runners(), *_other_abis(), _own_filter()]
