"""Kernel restrictions, one function each. Every one raises OSError when the kernel refuses, and that ends the start."""

from __future__ import annotations

import ctypes
import os
import resource

PR_SET_DUMPABLE = 4
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAPABILITY = 63

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def drop_bounding_set() -> None:
    """No exec can ever regain a capability. Needs CAP_SETPCAP, so it comes before the change of uid."""
    for capability in range(_LAST_CAPABILITY + 1):
        if _libc.prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 1:
            _check(_libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0), f"drop capability {capability}")


def become(uid: int, gid: int) -> None:
    """All three uids and gids, and no other group."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def drop_capabilities() -> None:
    """Empties the inheritable, permitted, effective and ambient sets (old engines fill the inheritable one)."""
    _check(_libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "clear ambient capabilities")
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def forbid_new_privileges() -> None:
    """No setuid file or file capability gives anything."""
    _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def forbid_inspection() -> None:
    """No ptrace, no /proc/<pid>/mem, no core dump, even by the same uid."""
    _check(_libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable")


def limit(kind: int, value: int) -> None:
    """A hard resource limit."""
    resource.setrlimit(kind, (value, value))


def drop_everything(uid: int, gid: int) -> None:
    """From uid 0 with three capabilities to ``uid`` with none, for good."""
    drop_bounding_set()
    become(uid, gid)
    drop_capabilities()
    forbid_new_privileges()
