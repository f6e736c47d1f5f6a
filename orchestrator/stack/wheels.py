"""Downloads, on the host, the locked and hashed wheels that the image build installs without a network."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

from orchestrator.errors import EngineError
from orchestrator.stack import commands, places
from orchestrator.stack.report import Report

_DOWNLOAD_SECONDS = 900
# glibc of the base is 2.41 (trixie); pip wants every tag that it may take spelt out.
_NEWEST_GLIBC, _OLDEST_GLIBC = 41, 17
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def ensure_wheels(locks: list[Path], architecture: str, report: Report) -> Path:
    """The folder that holds exactly the wheels of ``locks`` for CPython 3.13; downloads them on the first call.

    Raises:
        EngineError: an architecture without wheels, no pip, or the download failed.
    """
    machine = _MACHINES.get(architecture)
    if machine is None:
        raise EngineError(f"the engine runs on {architecture}; the executor image exists for {', '.join(_MACHINES)}")
    folder = places.cache_dir() / "wheels" / f"{_key(locks)}-{machine}"
    if not folder.is_dir():
        report("wheels: downloading what the lock files name")
        _download(locks, machine, folder)
    return folder


def _key(locks: list[Path]) -> str:
    return hashlib.sha256(b"\0".join(lock.read_bytes() for lock in locks)).hexdigest()[:12]


def _download(locks: list[Path], machine: str, folder: Path) -> None:
    if importlib.util.find_spec("pip") is None:
        raise EngineError(f"downloading wheels needs pip in this environment: run `{sys.executable} -m ensurepip`")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Into a folder of another name first: a folder with the right name is complete.
    partial = Path(tempfile.mkdtemp(prefix="partial-", dir=folder.parent))
    try:
        commands.run([*_command(locks, machine), "--dest", str(partial)], seconds=_DOWNLOAD_SECONDS)
        os.rename(partial, folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster, with the same files
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _command(locks: list[Path], machine: str) -> list[str]:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--require-hashes", "--only-binary=:all:", "--no-deps"]
    command += ["--implementation", "cp", "--python-version", "3.13", "--abi", "cp313"]
    for minor in range(_NEWEST_GLIBC, _OLDEST_GLIBC - 1, -1):
        command += ["--platform", f"manylinux_2_{minor}_{machine}"]
    command += ["--platform", f"manylinux2014_{machine}"]
    for lock in locks:
        command += ["--requirement", str(lock)]
    return command
