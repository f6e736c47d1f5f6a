"""Packages of the Debian family."""

from __future__ import annotations

import shlex
from pathlib import Path

from orchestrator.errors import EngineError
from orchestrator.stack import commands
from orchestrator.stack.report import Report

_OS_RELEASE = Path("/etc/os-release")
_APT_SECONDS = 900  # a slow mirror, a slow disk
# `sudo` drops the environment, so these go through `env`.
_QUIET = ("env", "DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_MODE=a")


def parse_os_release(text: str) -> dict[str, str]:
    """The fields of an os-release file (man 5 os-release: shell-like quotes, # comments)."""
    fields = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            fields[name] = "".join(shlex.split(value))
    return fields


def is_family(fields: dict[str, str]) -> bool:
    """Debian itself or something made from it."""
    return "debian" in (fields.get("ID"), *fields.get("ID_LIKE", "").split())


def can_install() -> bool:
    """This is a Debian-family system, and packages may be installed without asking anybody."""
    fields = parse_os_release(_OS_RELEASE.read_text("utf-8")) if _OS_RELEASE.is_file() else {}
    return is_family(fields) and commands.as_root() is not None


def install(packages: tuple[str, ...], report: Report) -> None:
    """Installs distribution packages.

    Raises:
        EngineError: apt-get failed, or may not be used here.
    """
    prefix = commands.as_root()
    if prefix is None:
        raise EngineError(f"needs these packages: {' '.join(packages)}; install them and try again")
    report(f"installing {', '.join(packages)} with apt-get")
    commands.run([*prefix, *_QUIET, "apt-get", "update"], seconds=_APT_SECONDS)
    commands.run([*prefix, *_QUIET, "apt-get", "install", "-y", *packages], seconds=_APT_SECONDS)
