"""Installs and starts the system's Docker engine on a machine where nothing answers."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

from orchestrator.errors import EngineError
from orchestrator.stack import commands, debian, places
from orchestrator.stack.report import Report

PACKAGES = ("docker.io",)
PID_FILE = Path("/var/run/docker.pid")  # dockerd's own default, where every tool looks for it
# Sandboxes have no network, so an engine of our own needs no bridge and leaves the machine's firewall as it is.
_FLAGS = ("--bridge=none", "--iptables=false", "--ip6tables=false")
_SYSTEMD = Path("/run/systemd/system")
_SYSTEMCTL_SECONDS = 90
_AFTER_INSTALL_SECONDS = 5.0  # the package may have started the engine by itself
_START_SECONDS = 60.0
_POLL_SECONDS = 0.1
_EXTRA_PATH = "/usr/sbin:/usr/local/sbin:/sbin"  # not on an ordinary user's PATH


def find() -> str | None:
    """The engine's program; the client alone (`docker`) is no engine."""
    return shutil.which("dockerd") or shutil.which("dockerd", path=_EXTRA_PATH)


def can_bring_up() -> bool:
    """The engine may be started here, and is installed or may be."""
    return commands.as_root() is not None and (find() is not None or debian.can_install())


def bring_up(report: Report, system_socket: str) -> None:
    """Installs the engine if it is missing, starts it if nothing else did, waits until it answers.

    Raises:
        EngineError: a step failed; the message has the last lines of the program's output.
    """
    if find() is None:
        debian.install(PACKAGES, report)
        if _answers_within(system_socket, _AFTER_INSTALL_SECONDS):
            return
    prefix = commands.as_root() or ()
    if _SYSTEMD.is_dir():
        report("starting the engine with systemctl")
        commands.run([*prefix, "systemctl", "start", "docker"], seconds=_SYSTEMCTL_SECONDS)
        if not _answers_within(system_socket, _START_SECONDS):
            raise EngineError("systemctl started docker, and it does not answer; see `journalctl -u docker`")
        return
    _start_detached(prefix, report, system_socket)


def _start_detached(prefix: tuple[str, ...], report: Report, system_socket: str) -> None:
    log = places.cache_dir() / "dockerd.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    report(f"starting dockerd (no service manager here); its log: {log}")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*prefix, str(find()), *_FLAGS],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # it outlives this program and its terminal
        )
    if not _answers_within(system_socket, _START_SECONDS, process):
        raise EngineError(f"dockerd does not answer. The end of {log}:\n{commands.last_lines(log.read_bytes())}")


def _answers_within(system_socket: str, seconds: float, process: subprocess.Popen[bytes] | None = None) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if _answers(system_socket):
            return True
        if process and process.poll() is not None:
            return False
        time.sleep(_POLL_SECONDS)
    return False


def _answers(system_socket: str) -> bool:
    """Whether someone accepts connections there. A socket that root alone may use counts: its engine is up."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_POLL_SECONDS)
        try:
            probe.connect(system_socket)
        except PermissionError:
            return True
        except OSError:
            return False
        return True


def started_by_us() -> int | None:
    """The process id of the engine that cellblock started, if it did: nobody else gives it just these flags."""
    try:
        pid = int(PID_FILE.read_text("ascii"))
        arguments = Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace").split("\0")
    except (OSError, ValueError):
        return None
    return pid if set(_FLAGS) <= set(arguments) else None
