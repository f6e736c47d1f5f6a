"""Which files the runner can read, write and execute, in words that ``landlock`` makes the kernel's.

Of the third-party packages in the image only those are readable that the import rules name, with what they need.
So this part of the allowlist holds for native code, too. The standard library is readable as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from executor_image.launcher.landlock import EXECUTE, IOCTL_DEV, OWN, READ, READ_DIR, READ_FILE, WRITE_FILE, Grant

PREFIX = "/opt/py"
STDLIB = f"{PREFIX}/lib/python3.13"
PACKAGES = f"{PREFIX}/site-packages"
PACKAGE_MAP = Path("/opt/exec/packages.json")  # made with the image: see bootstrap/packages.py
EVERYTHING = "*"

_LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")
_FIXED = (
    # Executing a file takes both rights. Its mode lets nobody read it: so a process that runs it cannot be inspected.
    Grant(f"{PREFIX}/bin/python3", EXECUTE | READ_FILE),
    Grant(STDLIB, READ),
    Grant("/usr/lib", READ),
    Grant("/usr/share/zoneinfo", READ),
    # The names of all packages can be listed; it is what their files hold that is granted one by one.
    Grant(PACKAGES, READ_DIR),
    *(Grant(f"/dev/{name}", READ_FILE | WRITE_FILE | IOCTL_DEV) for name in ("null", "zero", "full")),
    *(Grant(f"/dev/{name}", READ_FILE | IOCTL_DEV) for name in ("random", "urandom")),
    *(Grant(place, OWN) for place in ("/workspace", "/branches", "/tmp")),
)


def grants(names: frozenset[str]) -> list[Grant]:
    """All that the runner is granted, where user code may import these top-level names."""
    loaders = [Grant(path, EXECUTE | READ_FILE) for path in _LOADERS if Path(path).exists()]
    return [*_FIXED, *loaders, *_packages(names, json.loads(PACKAGE_MAP.read_text("utf-8")))]


def _packages(names: frozenset[str], needs: dict[str, list[str]]) -> Iterator[Grant]:
    if EVERYTHING in names:
        yield Grant(PACKAGES, READ)
        return
    for entry in sorted(_entries(names, needs)):
        yield Grant(f"{PACKAGES}/{entry}", READ)


def _entries(names: Iterable[str], needs: dict[str, list[str]]) -> set[str]:
    """Files and folders of these packages; a name that is none, as one of the standard library's, has none."""
    return {entry for name in names for entry in needs.get(name, ())}
