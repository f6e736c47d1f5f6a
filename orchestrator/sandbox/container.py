"""The life of a container: created, compared with what was asked for, started, removed."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass

from orchestrator.config import Config
from orchestrator.errors import EngineError, SandboxStartError
from orchestrator.sandbox import lockdown
from orchestrator.sandbox.channel import check_socket
from orchestrator.sandbox.engine import (
    begun,
    engine,
    engine_errors,
    find_image,
    give_up,
    in_thread,
    is_running,
    remove_container,
    to_the_end,
)
from orchestrator.sandbox.folders import SessionFolder, own_runtime_dir
from orchestrator.sandbox.golden import require_as_asked
from orchestrator.sandbox.ticket import Ticket
from orchestrator.stack import runtimes
from orchestrator.stack.runtimes import Runtime

# Uids of sessions: far above every range that distributions hand out (Debian, subuid, systemd's containers end below
# 1,879,048,192) and drawn at random, two of each pair: sessions of several orchestrators on one host do not meet.
_FIRST_UID, _UID_PAIRS = 1_900_000_000, 50_000_000
_SOCKET_POLL = 0.003  # seconds between two looks for the socket; there is nothing else to wait on
_ALIVE_POLL = 0.25  # seconds between two looks whether the container still runs while it starts

_Started = tuple[str, Runtime]


@dataclass(frozen=True, slots=True)
class Container:
    """A started container whose supervisor has not been spoken to yet. Whoever started it removes it."""

    id: str
    session: lockdown.Session
    folder: SessionFolder
    token: bytes
    config: Config
    runtime: Runtime

    @classmethod
    async def start(cls, config: Config, image: str, packages: tuple[str, ...], *, lasting: bool = False) -> Container:
        """Creates one, in which user code can read no third-party packages but these, compares it with what was asked
        for, and starts it. One that is ``lasting`` is not removed as soon as this process has ended.

        Cancelling it waits until what the engine has made by then is gone; not for long, should the engine hang, and
        then that is removed when it goes on.

        Raises:
            ImageMissing, EngineError: the engine cannot.
            RuntimeUnavailable: it does not have the runtime of the settings.
            SettingIgnored: it made the container with other settings than asked for.
            TooManySandboxes: this process has as many as it may have.
            SandboxStartError: no session folder can be made.
        """
        found = await in_thread(find_image, config, image)
        first = _FIRST_UID + 2 * secrets.randbelow(_UID_PAIRS)
        supervisor = first if os.getuid() == 0 else os.getuid()  # who owns the socket folder may connect
        name, token = secrets.token_hex(8), secrets.token_bytes(32)
        folder = SessionFolder.make(own_runtime_dir(config), name, supervisor, token, config.max_sandboxes)
        session = lockdown.Session(
            id=name,
            image=found.id,
            socket_dir=str(folder.sockets),
            supervisor_uid=supervisor,
            runner_uid=first + 1,
            owner=str(lockdown.Owner.me()),
            created=time.monotonic(),
            lease=config.lease,
            lifetime=config.max_lifetime,
            packages=packages,
            landlock=config.landlock != "off",
            runtime=config.runtime,
            lasting=lasting,
        )
        try:
            starting = begun(_create_and_start, config, session, found.env)
        except EngineError:
            folder.remove()
            raise
        try:
            made, runtime = await asyncio.wrap_future(starting)
        except asyncio.CancelledError:
            await give_up(_remove_when_started, config, session, folder, starting)
            raise
        except BaseException:
            folder.remove()
            raise
        return cls(made, session, folder, token, config, runtime)

    @classmethod
    def taken_over(cls, config: Config, ticket: Ticket) -> Container:
        """One that a process has left which has ended; it is this process's now.

        Raises:
            TooManySandboxes, SandboxStartError: as of ``SessionFolder.adopt``.
        """
        folder = SessionFolder.adopt(own_runtime_dir(config), ticket.session.id, config.max_sandboxes)
        return cls(ticket.container, ticket.session, folder, ticket.token, config, ticket.runtime)

    def ticket(self, ready: bytes, settings: str, note: str) -> Ticket:
        """For the process after this one."""
        return Ticket(self.id, self.session, self.runtime, self.token, ready, settings, note)

    async def wait_for_socket(self, directory: int) -> None:
        """Until the supervisor listens in ``directory``, an open descriptor of the socket folder.

        Raises:
            SandboxStartError: it does not come, or the container ended.
        """
        next_look = time.monotonic() + _ALIVE_POLL
        while True:
            with suppress(FileNotFoundError):
                check_socket(directory, self.session.supervisor_uid)
                return
            if time.monotonic() > next_look:
                next_look = time.monotonic() + _ALIVE_POLL
                if not await in_thread(is_running, self.config, self.id):
                    hint = self.folder.is_on_full_disk() or "'cellblock doctor' says more"
                    raise SandboxStartError(f"the container ended while it started; {hint}")
            await asyncio.sleep(_SOCKET_POLL)

    async def abandon(self) -> None:
        """Removes it as ``remove`` does, but waits not for long for an engine that does not answer; never raises."""
        await give_up(_remove, self.config, self.id, self.folder)

    async def remove(self) -> None:
        """Kills and removes it, and its folder, also if this is cancelled. A second time does nothing.

        Cancelled, it waits for that, but not for long should the engine hang.

        Raises:
            EngineError: the engine failed; what it has left is removed at this process's next start of a sandbox.
        """
        await to_the_end(_remove, self.config, self.id, self.folder)


def _create_and_start(config: Config, session: lockdown.Session, image_env: tuple[str, ...]) -> _Started:
    with engine_errors(config):
        client = engine(config)
        named = runtimes.chosen(session.runtime, client.info()) if session.runtime else None
        body = lockdown.create_body(session, config.limits)
        try:
            created: str = client.create_container_from_config(body, name=session.container)["Id"]
            inspected = client.inspect_container(created)
            runtime = named or runtimes.require_like_runc(inspected["HostConfig"].get("Runtime", ""))
            require_as_asked(body, inspected, image_env)
            client.start(created)
        except BaseException:
            with suppress(EngineError):  # then gc does it; why it could not be started is what matters
                remove_container(config, session.container)  # by name: the answer to its making may have been lost
            raise
        return created, runtime


def _remove(config: Config, container: str, folder: SessionFolder) -> None:
    try:
        remove_container(config, container)
    finally:
        folder.remove()


def _remove_when_started(
    config: Config, session: lockdown.Session, folder: SessionFolder, starting: Future[_Started]
) -> None:
    """Nobody waits for it any more. An engine that hangs in the start does this when it goes on, as it is told now."""
    try:
        with suppress(EngineError):
            if remove_container(config, session.container):
                return
        wait([starting])
        with suppress(EngineError):  # it has been made since, and perhaps the engine's answer to that was lost
            remove_container(config, session.container)
    finally:
        folder.remove()
