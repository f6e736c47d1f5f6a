"""Runs the programs that set this machine up: as root where that is allowed, always with a deadline."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from orchestrator.errors import EngineError

_SUDO_SECONDS = 10
_LAST_LINES = 15  # of a failed program's output; the reason stands at the end


def run(command: Sequence[str], *, seconds: float, env: Mapping[str, str] | None = None) -> None:
    """Runs ``command`` without a terminal.

    Raises:
        EngineError: it failed or took too long; the message ends with its last lines.
    """
    name = " ".join(command[:4])
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            env={**os.environ, **(env or {})},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"`{name} …` took longer than {seconds:g} s.\n{last_lines(error.stdout)}") from None
    except OSError as error:
        raise EngineError(f"`{name} …` cannot be run: {error}") from None
    if done.returncode:
        raise EngineError(f"`{name} …` failed (exit {done.returncode}).\n{last_lines(done.stdout)}")


def last_lines(output: bytes | None) -> str:
    """The end of a program's output."""
    return "\n".join((output or b"").decode("utf-8", "replace").strip().splitlines()[-_LAST_LINES:])


@functools.cache
def as_root() -> tuple[str, ...] | None:
    """What to put before a command to run it as root: nothing, ``sudo -n``, or None where that is not possible."""
    if os.geteuid() == 0:
        return ()
    if not shutil.which("sudo"):
        return None
    try:
        run(("sudo", "-n", "true"), seconds=_SUDO_SECONDS)
    except EngineError:
        return None
    return ("sudo", "-n")
