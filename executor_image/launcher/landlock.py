"""Landlock: what files the runner can open at all, whom it can signal, and that it has no TCP. See landlock(7).

It holds for native code as well, and for all that the runner starts, for good. What a kernel is too old for is left
out, and its version is told: 1 files, 2 renames between folders, 3 truncation, 4 TCP, 5 device control, 6 signals and
abstract sockets. What Landlock does not see: stat, readlink, chdir, and descriptors that are open already.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass

_CREATE, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every processor
_VERSION, _PATH_BENEATH = 1, 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE, MAKE_CHAR, MAKE_DIR, MAKE_REG = 1 << 4, 1 << 5, 1 << 6, 1 << 7, 1 << 8
MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = 1 << 9, 1 << 10, 1 << 11, 1 << 12
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_FILES_SINCE = {1: (1 << 13) - 1, 2: REFER, 3: TRUNCATE, 5: IOCTL_DEV}
_TCP_SINCE, _TCP = 4, 0b11  # bind, connect
_SCOPES_SINCE, _SCOPES = 6, 0b11  # abstract sockets, signals

READ = READ_FILE | READ_DIR
CHANGE = REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SOCK | MAKE_FIFO | MAKE_SYM | REFER
OWN = READ | WRITE_FILE | TRUNCATE | CHANGE  # a workspace: everything but programs and devices
_ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV  # the others make sense for folders alone

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Grant:
    """What may be done with a file, or with everything below a folder."""

    path: str
    rights: int


def version() -> int:
    """The kernel's Landlock version; 0 if it has none, or has it switched off."""
    return max(0, int(_libc.syscall(_CREATE, None, ctypes.c_size_t(0), _VERSION)))


def restrict(grants: Iterable[Grant], abi: int) -> None:
    """Only this is possible from now on, to this thread and all that come from it. Needs no_new_privs.

    Raises:
        OSError: the kernel refuses, or a path is not there.
    """
    files = _handled(abi)
    tcp = _TCP if abi >= _TCP_SINCE else 0
    scopes = _SCOPES if abi >= _SCOPES_SINCE else 0
    attributes = struct.pack("QQQ", files, tcp, scopes)  # struct landlock_ruleset_attr; an old kernel takes zeros
    ruleset = _call(_CREATE, attributes, ctypes.c_size_t(len(attributes)), 0)
    try:
        for grant in grants:
            _add(ruleset, grant, files)
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _handled(abi: int) -> int:
    handled = 0
    for since, rights in _FILES_SINCE.items():
        handled |= rights if abi >= since else 0
    return handled


def _add(ruleset: int, grant: Grant, handled: int) -> None:
    place = os.open(grant.path, os.O_PATH | os.O_CLOEXEC)
    try:
        rights = grant.rights & handled
        if not os.path.isdir(grant.path):
            rights &= _ON_FILES
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, place), 0)
    finally:
        os.close(place)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"landlock: {os.strerror(ctypes.get_errno())}")
    return result


def check(forbidden: str, granted: str) -> None:
    """Tries it: the one cannot be opened, the other can.

    Raises:
        OSError: it is not so.
    """
    os.close(os.open(granted, os.O_RDONLY))
    try:
        os.close(os.open(forbidden, os.O_RDONLY))
    except PermissionError:
        return
    raise OSError(errno.EBADE, f"landlock is in force, and {forbidden} can be opened all the same")
