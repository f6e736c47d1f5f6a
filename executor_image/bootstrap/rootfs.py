"""Everything around the prefixes: mount points, accounts, time zones, owners and modes, and the last check."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from executor_image.bootstrap.layout import EXEC_GID, PREFIXES, Prefix

# The engine mounts on these. /workspace, /tmp and /run are absent on purpose: over a folder that exists in the image
# runc 1.1 gives a tmpfs the folder's mode instead of the one asked for; where none exists, it makes one.
_MOUNT_POINTS = ("proc", "sys", "dev", "etc")
_ACCOUNTS = "root:x:0:0:root:/:/nonexistent\nnobody:x:65534:65534:nobody:/:/nonexistent\n"
_GROUP = f"root:x:0:\nexec:x:{EXEC_GID}:\nnogroup:x:65534:\n"
_ZONES = "usr/share/zoneinfo"
_ANY_DAY = 946684800  # 2000-01-01: the same tree gives the same layer
_SCRATCH = "/scratch"  # matplotlib insists on a folder to write to
_CHECK_SECONDS = 60


def create_skeleton(root: Path) -> None:
    """The mount points, and accounts for root and nobody: sessions run under numbers that have no name."""
    for name in _MOUNT_POINTS:
        (root / name).mkdir(parents=True)
    (root / "etc/passwd").write_text(_ACCOUNTS)
    (root / "etc/group").write_text(_GROUP)


def move_time_zones(root: Path) -> None:
    """The tzdata wheel's zones go where both zoneinfo and the C library look."""
    for package in root.glob("opt/*/**/tzdata"):
        shutil.move(package / "zoneinfo", root / _ZONES)
        shutil.rmtree(package)
    for leftover in (root / _ZONES).rglob("__init__.py"):
        leftover.unlink()


def set_owners_and_modes(root: Path) -> None:
    """Root owns all; nobody else may write; the supervisor's prefix is closed to those outside its group."""
    for spec in PREFIXES:
        _set_tree(root / spec.path, spec.gid)
    for entry in root.iterdir():
        if entry.name != "opt":
            _set_tree(entry, 0)
    for folder in (root / "opt", root):
        _set_one(folder, 0)


def _set_tree(top: Path, gid: int) -> None:
    for folder, _folders, files in os.walk(top, topdown=False):
        for name in files:
            _set_one(Path(folder, name), gid)
        _set_one(Path(folder), gid)


def _set_one(path: Path, gid: int) -> None:
    executable = path.is_dir() or path.name == "python3" or path.name.startswith("ld-linux")
    mode = 0o755 if executable else 0o644
    if path.name == "python3" and not gid:
        # The kernel makes a process that runs what it may not read non-dumpable. So the runner's processes cannot open
        # each other's memory, and a checkpoint is what it was when it was made.
        mode = 0o711
    os.chown(path, 0, gid)
    os.chmod(path, mode & 0o770 if gid else mode)  # also drops any setuid bit
    os.utime(path, (_ANY_DAY, _ANY_DAY))


def check_imports(spec: Prefix, root: Path) -> None:
    """Runs the prefix's Python locked into the new tree: what is missing there ends the build here."""
    third_party = f"/{spec.path}/{spec.third_party}"
    code = f"import sys; sys.path.append({third_party!r}); import {', '.join(spec.promises)}"
    subprocess.run(
        [f"/{spec.path}/bin/python3", "-I", "-S", "-B", "-c", code],
        preexec_fn=lambda: os.chroot(root),
        cwd="/",
        env={"MPLCONFIGDIR": _SCRATCH},
        check=True,
        timeout=_CHECK_SECONDS,
    )
    shutil.rmtree(root / _SCRATCH.lstrip("/"), ignore_errors=True)
