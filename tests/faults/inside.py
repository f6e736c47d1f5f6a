"""The processes of a sandbox as the host sees them, to be killed by its root."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from orchestrator import Config
from orchestrator.sandbox.engine import engine
from tests.faults.traces import uid_of

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to signal processes of other users")


class Inside:
    """The processes of one container."""

    def __init__(self, config: Config, container: str) -> None:
        self.supervisor = int(engine(config).inspect_container(container)["State"]["Pid"])

    def kill(self, who: str, head: int, number: int = signal.SIGKILL) -> None:
        """Kills by role; ``head`` is the pid that the code has of its own process."""
        os.kill(self.pid_of(who, head), number)

    def pid_of(self, who: str, head: int) -> int:
        """The host's pid of the supervisor, the warden, the head, or the newest checkpoint."""
        if who == "supervisor":
            return self.supervisor
        heads = [pid for pid in self._others() if _inner_pid(pid) == head]
        if who == "head":
            return heads[0]
        is_warden = {pid: b"executor_image.launcher" in _arguments(pid) for pid in self._others()}
        if who == "warden":
            return next(pid for pid, warden in is_warden.items() if warden)
        return max(pid for pid, warden in is_warden.items() if not warden and pid not in heads)

    def _others(self) -> list[int]:
        """Everything in the supervisor's pid namespace but itself."""
        namespace = os.readlink(f"/proc/{self.supervisor}/ns/pid")
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):
                if int(name) != self.supervisor and os.readlink(f"/proc/{name}/ns/pid") == namespace:
                    found.append(int(name))
        return [pid for pid in found if uid_of(pid) != -1]


def _inner_pid(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return -1


def _arguments(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
