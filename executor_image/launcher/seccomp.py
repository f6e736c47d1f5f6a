"""The runner's own system call filter, on top of the container's: classic BPF, assembled here and given to the kernel.

It holds for the runner's Python and all that it starts. It takes away what the container's filter has to leave to the
launcher, the supervisor and the warden. Each rule is a line of ``RULES``, in the order in which they are tried.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
PROT_WRITE, PROT_EXEC, MAP_ANONYMOUS = 2, 4, 32
PRIO_PROCESS = 0
_PRCTLS = (3, 15, 16, 39)  # GET_DUMPABLE, SET_NAME, GET_NAME, GET_NO_NEW_PRIVS
_MAP_SHARED = 1  # also a bit of MAP_SHARED_VALIDATE
_SOCK_DGRAM = 2  # also a bit of SOCK_RAW
_SOL_SOCKET, _ATTACHED_PROGRAMS = 1, (26, 50, 51, 52)  # SO_ATTACH_FILTER, _BPF, _REUSEPORT_CBPF, _REUSEPORT_EBPF
_RECORD_LOCKS = (6, 7, 37, 38)  # F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW

_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000  # SECCOMP_RET_*
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF_LD|W|ABS, BPF_JMP|..
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data; arguments are 8 bytes, low half first
_X32_BIT = 0x40000000
_INSTRUCTION = struct.Struct("HBBI")  # struct sock_filter


@dataclass(frozen=True)
class Machine:
    """A processor, and its numbers of the calls that a rule speaks of."""

    audit: int  # AUDIT_ARCH_*
    numbers: dict[str, int]


_X86_64 = Machine(0xC000003E, {
    "socket": 41, "connect": 42, "accept": 43, "accept4": 288, "bind": 49, "listen": 50, "mmap": 9, "mprotect": 10,
    "fcntl": 72, "socketpair": 53, "setsockopt": 54,
    "prctl": 157, "prlimit64": 302, "sched_setaffinity": 203, "seccomp": 317, "setpriority": 141,
})  # fmt: skip
_AARCH64 = Machine(0xC00000B7, {
    "socket": 198, "connect": 203, "accept": 202, "accept4": 242, "bind": 200, "listen": 201, "mmap": 222,
    "fcntl": 25, "socketpair": 199, "setsockopt": 208,
    "mprotect": 226, "prctl": 167, "prlimit64": 261, "sched_setaffinity": 122, "seccomp": 277, "setpriority": 140,
})  # fmt: skip
MACHINES = {"x86_64": _X86_64, "aarch64": _AARCH64}


@dataclass(frozen=True)
class Bits:
    """All of these bits are set in the low half of an argument."""

    argument: int
    bits: tuple[int, ...]


@dataclass(frozen=True)
class Is:
    """The low half of an argument is this."""

    argument: int
    value: int


@dataclass(frozen=True)
class OneOf:
    """The low half of an argument is one of these."""

    argument: int
    values: tuple[int, ...]


@dataclass(frozen=True)
class Rule:
    """These calls fail with ``error``, if all of ``where`` holds, and unless ``but`` does.

    With ``error`` 0 they do nothing and succeed.
    """

    calls: tuple[str, ...]
    error: int = errno.EPERM
    where: tuple[Bits | Is, ...] = ()
    but: OneOf | None = None


RULES = (
    # No way to anybody. A socketpair, which asyncio needs, reaches nobody but its own children; one of datagrams would,
    # as each message of one may name another receiver.
    Rule(("socket", "connect", "accept", "accept4", "bind", "listen"), errno.EACCES),
    Rule(("socketpair",), errno.EACCES, where=(Bits(1, (_SOCK_DGRAM,)),)),
    *(Rule(("setsockopt",), where=(Is(1, _SOL_SOCKET), Is(2, option))) for option in _ATTACHED_PROGRAMS),
    # No memory that is written and run, and none that is run without having come from a file.
    Rule(("mmap",), where=(Bits(2, (PROT_EXEC,)), Bits(3, (MAP_ANONYMOUS,)))),
    Rule(("mmap",), where=(Bits(2, (PROT_EXEC, PROT_WRITE)),)),
    Rule(("mmap",), where=(Bits(2, (PROT_EXEC,)), Bits(3, (_MAP_SHARED,)))),  # of which mremap makes a second view
    Rule(("mprotect",), where=(Bits(2, (PROT_EXEC,)),)),
    # Nothing of other processes: the warden has the same user.
    Rule(("prlimit64", "sched_setaffinity"), but=OneOf(0, (0,))),
    Rule(("setpriority",), but=OneOf(0, (PRIO_PROCESS,))),
    Rule(("setpriority",), but=OneOf(1, (0,))),
    # Not PR_SET_DUMPABLE: what could be opened could be read, and written.
    Rule(("prctl",), but=OneOf(0, _PRCTLS)),
    Rule(("seccomp",)),
    # The kernel counts the memory of record locks for nobody, so there are none: whoever wants one is told that it has
    # it, and SQLite works. Who else could have it is the same code.
    *(Rule(("fcntl",), 0, where=(Is(1, command),)) for command in _RECORD_LOCKS),
)


def install() -> None:
    """Puts the filter in force for this thread and all that come from it, for good. Needs no_new_privs.

    Raises:
        OSError: the kernel refuses, or this is a processor that no rule speaks of.
    """
    machine = MACHINES.get(os.uname().machine)
    if machine is None:
        raise OSError(errno.ENOSYS, f"no system call filter for the processor {os.uname().machine}")
    code = b"".join(assembled(machine))
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(code) // _INSTRUCTION.size, ctypes.addressof(buffer))  # struct sock_fprog
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")


def assembled(machine: Machine) -> Iterator[bytes]:
    """The filter's instructions: a block for each call of each rule; what it does not concern goes on behind it."""
    yield from (_step(_LOAD, _ARCHITECTURE), _step(_JUMP_EQUAL, machine.audit, if_true=1), _step(_RETURN, _KILL))
    yield _step(_LOAD, _NUMBER)
    if machine is _X86_64:  # x32 calls have the same architecture
        yield from (_step(_JUMP_AT_LEAST, _X32_BIT, if_false=1), _step(_RETURN, _KILL))
    for rule in RULES:
        block = list(_block(rule))
        for call in rule.calls:
            yield from (_step(_LOAD, _NUMBER), _step(_JUMP_EQUAL, machine.numbers[call], if_false=len(block)), *block)
    yield _step(_RETURN, _ALLOW)


def _block(rule: Rule) -> Iterator[bytes]:
    tests = [test for condition in rule.where for test in _tests_of(condition)]
    tests += _tests_of_values(rule.but) if rule.but else []
    for index, (code, value, ends_if) in enumerate(tests):
        to_the_end = len(tests) - index
        yield _step(
            code, value, if_true=to_the_end if ends_if is True else 0, if_false=to_the_end if ends_if is False else 0
        )
    yield _step(_RETURN, _ERRNO | rule.error)


# A test is an instruction, its operand, and the outcome at which the rule does not concern this call.


def _tests_of(condition: Bits | Is) -> Iterator[tuple[int, int, bool | None]]:
    yield _LOAD, _ARGUMENTS + 8 * condition.argument, None
    if isinstance(condition, Is):
        yield _JUMP_EQUAL, condition.value, False
        return
    for bit in condition.bits:
        yield _JUMP_ANY_BIT, bit, False


def _tests_of_values(condition: OneOf) -> Iterator[tuple[int, int, bool | None]]:
    yield _LOAD, _ARGUMENTS + 8 * condition.argument, None
    for value in condition.values:
        yield _JUMP_EQUAL, value, True


def _step(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, if_true, if_false, operand)
