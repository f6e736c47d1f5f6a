"""A workspace's folder as tests see it: by themselves, without the code that is tested."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.unit.apart import wait_until

TICK = 20_000_000  # nanoseconds; what is older has a change time that tells every later change
Tree = dict[bytes, tuple[object, ...]]


def tree(root: Path, prefix: bytes = b"") -> Tree:
    """Everything below ``root``: kind, mode, time, and content or target."""
    found: Tree = {}
    for entry in os.scandir(os.path.join(os.fsencode(root), prefix)):
        status, path = entry.stat(follow_symlinks=False), prefix + entry.name
        mode, kind = stat.S_IMODE(status.st_mode), stat.S_IFMT(status.st_mode)
        if stat.S_ISDIR(status.st_mode):
            found[path] = "folder", mode, status.st_mtime_ns
            found |= tree(root, path + b"/")
        elif stat.S_ISLNK(status.st_mode):
            found[path] = "link", os.readlink(entry.path)
        elif stat.S_ISREG(status.st_mode):
            with open(entry.path, "rb") as file:
                found[path] = "file", mode, status.st_mtime_ns, file.read()
        else:
            found[path] = ("pipe", mode, status.st_mtime_ns) if kind == stat.S_IFIFO else ("socket",)
    return found


def change_times(root: Path) -> dict[bytes, int]:
    """When each thing was changed last, by the kernel's word."""
    paths = [os.path.join(os.fsencode(root), path) for path in tree(root)]
    return {path: os.lstat(path).st_ctime_ns for path in [os.fsencode(root), *paths]}


def age(root: Path) -> None:
    """Until everything in the folder is older than a tick."""
    youngest = max(change_times(root).values())
    wait_until(lambda: time.time_ns() - youngest > TICK, "a tick")


@dataclass
class Touched:
    """The files of a folder that were opened meanwhile; Python itself tells. Only in a child: a hook stays."""

    read: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    timed: set[str] = field(default_factory=set)


def touched(root: Path, call: Callable[[], object]) -> Touched:
    """What the call opens below ``root``, and whose time it sets."""
    found, listening = Touched(), True

    def hear(event: str, args: tuple[Any, ...]) -> None:
        if listening and event in ("open", "os.utime") and str(args[0]).startswith(f"{root}/"):
            writes = event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR)
            which = found.timed if event == "os.utime" else found.written if writes else found.read
            which.add(str(args[0])[len(str(root)) + 1 :])

    sys.addaudithook(hear)
    call()
    listening = False
    return found
