"""A second engine, for tests that kill one: data, sockets and namespaces of its own, no network, and nothing left."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import docker
import docker.errors
import requests

from orchestrator import Config
from orchestrator.sandbox.engine import engine
from orchestrator.sandbox.lockdown import Owner
from orchestrator.stack import dockerd
from orchestrator.stack.image import image_tag
from tests.waiting import eventually

START_SECONDS = 90.0
STOP_SECONDS = 60.0


class OwnEngine:
    """``dockerd`` below one folder. Whoever makes it closes it."""

    def __init__(self, data: Path | None = None) -> None:
        self.root = Path("/var/tmp", f"cellblock-engine-{secrets.token_hex(8)}")  # also a name for containerd
        self.root.mkdir(mode=0o700)
        self.data = data or self.root / "data"
        self.address = f"unix://{self.root}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, again perhaps, and waits until it answers."""
        with (self.root / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command(), stdout=log, stderr=log, start_new_session=True)
        eventually(self._answers, self._why, START_SECONDS)

    def _command(self) -> list[str]:
        return [
            str(dockerd.find()),
            *("--data-root", str(self.data), "--exec-root", str(self.root / "run")),
            *("--pidfile", str(self.root / "pid"), "--host", self.address),
            *("--containerd-namespace", self.root.name, "--containerd-plugins-namespace", f"{self.root.name}-plugins"),
            *("--bridge=none", "--iptables=false", "--ip6tables=false"),
        ]

    def _answers(self) -> bool:
        assert self._process
        assert self._process.poll() is None, self._why()
        try:
            client = docker.DockerClient(self.address)
        except (docker.errors.DockerException, requests.RequestException, OSError):
            return False
        client.close()
        return True

    def _why(self) -> str:
        return "dockerd does not answer:\n" + (self.root / "log").read_text("utf-8", "replace")[-2000:]

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Ends it, at once or as it wants to be ended, and waits for that."""
        if self._process:
            self._process.send_signal(number)
            self._process.wait(STOP_SECONDS)
            self._process = None
            self._forget_containerd()

    def _forget_containerd(self) -> None:
        """It dies with its dockerd. Where nobody reaps it, it stays a zombie, which would be taken for alive."""
        file = self.root / "run" / "containerd" / "containerd.pid"
        if file.exists():
            pid = int(file.read_text())
            eventually(lambda: Owner.of(pid) is None, "containerd outlives its dockerd")
            file.unlink(missing_ok=True)

    @property
    def is_down(self) -> bool:
        """True if it has been killed and not been started again."""
        return self._process is None

    def load(self, config: Config) -> None:
        """Gives it the executor image of the usual engine."""
        client = docker.DockerClient(self.address, timeout=300)
        client.images.load(engine(config).get_image(image_tag()))
        client.close()

    def close(self) -> None:
        """Ends it, and whatever it has left: its containers' shims, mounts, files."""
        if self._process is None:  # killed: it has to end its containers first
            with suppress(AssertionError):
                self.start()
        self.kill(signal.SIGTERM)
        for pid in self._relatives():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for mount in reversed(self.mounts()):
            subprocess.run(["umount", "--lazy", mount], check=False)
        shutil.rmtree(self.root, ignore_errors=True)

    def _relatives(self) -> list[int]:
        """Processes that were started with a path of its."""
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):
                if str(self.root).encode() in Path(f"/proc/{name}/cmdline").read_bytes() and int(name) != os.getpid():
                    found.append(int(name))
        return found

    def mounts(self) -> list[str]:
        """Where something is mounted below its folder."""
        points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        return [point for point in points if point.startswith(str(self.root))]


@contextmanager
def own_engine(config: Config, data: Path | None = None) -> Iterator[OwnEngine]:
    """One that runs, with the executor image."""
    made = OwnEngine(data)
    try:
        made.start()
        made.load(config)
        yield made
    finally:
        made.close()
