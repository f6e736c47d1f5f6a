"""Sandboxes of the real kind whose container is played by the test. Nothing else of the host is replaced."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

from orchestrator.config import Config
from orchestrator.sandbox import AsyncSandbox, life, link, sandbox
from orchestrator.sandbox.folders import SOCKET_NAME
from orchestrator.stack.runtimes import Runtime
from tests.hostile.http2 import WireScript, WireServer
from tests.hostile.peer import Heard, Place, Script, Server
from tests.unit.apart import ORDINARY
from tests.unit.loops import until

MARGIN = 10.0  # seconds that an executor is waited for beyond timeout and grace; 25 in real life
SHORT_MARGIN = 0.5  # for tests of silence, which wait for all of it; their honest executors have a timeout of DEADLINE
TIMEOUT, GRACE = 0.2, 0.1


class Serving(Protocol):
    """What answers on a socket."""

    async def start(self) -> None:
        """Listens."""

    async def stop(self) -> None:
        """Ends."""


@dataclass(frozen=True)
class Below:
    """A script for the level below gRPC."""

    play: WireScript


AnyScript = Script | Below


def server(place: Place, script: AnyScript, heard: Heard) -> Serving:
    """What plays the script."""
    if isinstance(script, Below):
        return WireServer(place, script.play, heard)
    return Server(place, script, heard)


class Played:
    """In the place of a ``Container``: a folder with a socket in it, and who answers there."""

    def __init__(self, folder: Path, config: Config, script: AnyScript) -> None:
        folder.mkdir(mode=0o700)
        self.id = folder.name
        self.config = config
        self.token = secrets.token_bytes(32)
        self.folder = SimpleNamespace(sockets=folder)
        self.session = SimpleNamespace(
            id=folder.name, image=config.image, supervisor_uid=ORDINARY, runner_uid=ORDINARY + 1, lasting=False
        )
        self.runtime = Runtime("runc")
        self.heard = Heard()
        self.removed = 0
        self.server: Serving | None = None
        self._script = script

    @property
    def place(self) -> Place:
        """What its player is told."""
        return Place(self.folder.sockets, self.token, self.session.supervisor_uid, self.session.runner_uid)

    async def start(self) -> None:
        """Begins to play."""
        self.server = server(self.place, self._script, self.heard)
        await self.server.start()

    async def wait_for_socket(self, directory: int) -> None:
        """Until there is one."""
        await until(lambda: SOCKET_NAME in os.listdir(directory))

    async def remove(self) -> None:
        """As the engine would: whoever plays there is gone, whatever it was doing."""
        self.removed += 1
        if self.server:
            serving, self.server = self.server, None
            await serving.stop()
        shutil.rmtree(self.folder.sockets, ignore_errors=True)

    abandon = remove


@dataclass
class Stage:
    """Scripts for the containers to come, in order, and those that have been started."""

    config: Config
    scripts: list[AnyScript]
    player: type[Played] = Played
    played: list[Played] = field(default_factory=list)

    def sandbox(self, *scripts: AnyScript, **settings: Any) -> AsyncSandbox:
        """A sandbox whose containers play these scripts, one after the other."""
        self.scripts += scripts
        return AsyncSandbox(**{"config": self.config, "timeout": TIMEOUT, **settings})

    async def start(self, config: Config, *_: Any, lasting: bool) -> Played:
        """In the place of ``Container.start``. What a real one is told besides does not matter here."""
        assert not lasting
        played = self.player(Path(config.runtime_dir) / f"s{len(self.played)}", config, self.scripts.pop(0))
        self.played.append(played)
        await played.start()
        return played


@contextmanager
def stage(folder: Path, margin: float = MARGIN, player: type[Played] = Played, **settings: Any) -> Iterator[Stage]:
    """From here on, every container of this process is played, by a ``player``."""
    defaults = {"image": "played", "runtime_dir": str(folder), "grace": GRACE, "start_timeout": 5.0}
    made = Stage(Config(**(defaults | settings)), [], player)
    seams: list[tuple[Any, str, Any]] = [
        (link, "Container", made),
        (sandbox, "HOST_MARGIN", margin),
        (life, "ABANDON_DEADLINE", margin),
        (life, "sweep", lambda config: asyncio.sleep(0)),
    ]
    before = [(home, name, getattr(home, name)) for home, name, _ in seams]
    for home, name, value in seams:
        setattr(home, name, value)
    try:
        yield made
    finally:
        for home, name, value in before:
            setattr(home, name, value)
