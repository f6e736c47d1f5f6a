"""A started, proven, opened container: everything between "no sandbox" and "a channel that takes code"."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from executor_api.v1 import executor_pb2 as pb

from orchestrator.audit.records import SandboxStarted
from orchestrator.config import Config, parse_size
from orchestrator.errors import SandboxDied, SandboxStartError
from orchestrator.sandbox.channel import Channel, check_socket
from orchestrator.sandbox.container import Container
from orchestrator.sandbox.isolation import Asked, Isolation, examine, kernel_name, require
from orchestrator.sandbox.lockdown import MASKED_PATHS, READONLY_PATHS
from orchestrator.sandbox.session import Session
from orchestrator.sandbox.ticket import Ticket, digest_of

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
ATTACH_DEADLINE = 20.0  # seconds; the executor waits as long
RESUME_DEADLINE = 24.0  # seconds beyond the grace: the executor takes 21 at most to have ended what was under way
_TO_PROVE = {"masked_paths": MASKED_PATHS, "read_only_paths": READONLY_PATHS}


@dataclass(frozen=True, slots=True)
class Link:
    """One container and the open channel to it, or to one branch in it. Whoever made it closes it."""

    container: Container
    channel: Channel
    directory: int  # descriptor of the socket folder
    isolation: Isolation  # what was found in force
    is_branch: bool = False  # then the container is somebody else's
    forkable: bool = True  # at first
    branch_number: int = 0  # counted here: what the executor calls it is its own affair
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))  # one for all links to the container

    @property
    def name(self) -> str:
        """The sandbox's, for records."""
        session = self.container.session.id
        return f"{session}.{self.branch_number}" if self.is_branch else session

    def started(self, parent: str) -> SandboxStarted:
        """What is recorded when it is there. ``parent`` is the name of the sandbox that it is a branch of."""
        layers = tuple(layer.name for layer in self.isolation.layers if layer.in_force)
        return SandboxStarted(
            image=self.container.session.image,
            container=self.container.id,
            level=self.isolation.level,
            layers=layers,
            kernel=self.isolation.kernel,
            parent=parent,
        )

    @classmethod
    async def start(
        cls,
        config: Config,
        image: str,
        packages: tuple[str, ...],
        settings: Mapping[str, Any],
        judge: Callable[[Isolation, int], None] = require,
        note: str | None = None,
    ) -> Link:
        """Starts a container, connects, proves the token, checks the isolation: all within ``config.start_timeout``.

        ``packages`` are the top-level names that user code may import.
        ``judge`` raises where what was found, and the level that the settings ask for, are reason to refuse.
        With a ``note`` another process can ``resume`` it that finds its ticket, should this one end without closing it.

        Raises:
            ImageMissing, RuntimeUnavailable, EngineError: the engine cannot start it.
            SandboxStartError: it did not come up in time or came up wrong (IsolationError, SettingIgnored).
        """
        container: Container | None = None
        try:
            async with asyncio.timeout(config.start_timeout):
                lasting = note is not None
                container = await Container.start(config, image, packages, lasting=lasting)
                directory, channel = await cls._connected(container)
                try:
                    told = {**settings, **_TO_PROVE, "outlives_host": lasting}
                    ready = await channel.open(container.token, told)
                    found = examine(ready, _asked(container))
                    judge(found, config.min_isolation_level)
                    if note is not None:
                        digest = digest_of(settings, config.limits)
                        container.ticket(ready.SerializeToString(), digest, note).write(container.folder.path)
                except BaseException:
                    await _disconnect(channel, directory)
                    raise
                return cls(container, channel, directory, found)
        except TimeoutError:
            await _abandon(container)
            by = (
                f"the runtime {config.runtime!r} did not bring the container"
                if config.runtime
                else "the container did not come"
            )
            raise SandboxStartError(
                f"{by} up within {config.start_timeout:g} s (start_timeout); what is left is removed in the background"
            ) from None
        except SandboxDied as error:
            await _abandon(container)
            raise SandboxStartError(f"the executor failed while it started: {error}") from None
        except BaseException:
            await _abandon(container)
            raise

    @classmethod
    async def resume(cls, config: Config, ticket: Ticket, settings: Mapping[str, Any], note: str) -> Link:
        """Goes on with a container that another process has left. What ran in it has been interrupted.

        Whatever fails, it is gone; but if another process has it, nothing happens to it. ``note`` is for the next one.

        Raises:
            SandboxStartError: it was made with other settings, or cannot be had.
            SandboxDied, ProtocolViolation: its executor is gone, or failed.
        """
        container = Container.taken_over(config, ticket)
        try:
            if ticket.settings != digest_of(settings, config.limits):
                raise SandboxStartError("a sandbox that is to be gone on with was made with other settings")
            found = examine(pb.Ready.FromString(ticket.ready), _asked(container))
            require(found, config.min_isolation_level)
            async with asyncio.timeout(RESUME_DEADLINE + config.grace):
                directory, channel = await cls._connected(container)
                try:
                    resumed = await channel.resume(ticket.token)
                    replace(ticket, note=note).write(container.folder.path)
                except BaseException:
                    await _disconnect(channel, directory)
                    raise
            return cls(container, channel, directory, found, forkable=resumed.forkable)
        except TimeoutError:
            await container.abandon()
            raise SandboxDied("the executor of a sandbox that is to be gone on with did not answer in time") from None
        except BaseException:
            await container.abandon()
            raise

    @classmethod
    async def _connected(cls, container: Container) -> tuple[int, Channel]:
        """A descriptor of the folder of its socket, and a channel to that socket."""
        try:
            directory = os.open(container.folder.sockets, _DIRECTORY)
        except OSError as error:
            raise SandboxStartError(f"the session's folder cannot be opened: {error.strerror}") from None
        try:
            await container.wait_for_socket(directory)
            return directory, Channel.connect(directory, Session(parse_size(container.config.limits.output)))
        except BaseException:
            os.close(directory)
            raise

    async def branch(self, forked: pb.Forked) -> Link:
        """The link to a branch that has been forked.

        Raises:
            SandboxDied, ProtocolViolation: the executor failed.
            TimeoutError: it did not answer.
        """
        # The connection is open; should it be opened again, it must not be to something else.
        try:
            check_socket(self.directory, self.container.session.supervisor_uid)
        except OSError as error:
            raise SandboxDied(f"the executor's socket is gone: {error}") from None
        async with asyncio.timeout(ATTACH_DEADLINE):
            channel = await self.channel.branch(forked)
        return replace(self, channel=channel, is_branch=True, branch_number=next(self._numbers))

    async def close(self) -> None:
        """Ends the session and removes the container; of a branch only the branch."""
        await self._end(self.container.remove)

    async def abandon(self) -> None:
        """Closes it as ``close`` does, but waits not for long for an engine that hangs, and tells no failure of its."""
        await self._end(self.container.abandon)

    async def _end(self, remove: Callable[[], Awaitable[None]]) -> None:
        if self.is_branch:
            await self.channel.close()
            return
        try:
            if self.container.session.lasting:
                await self.channel.end()
            await _disconnect(self.channel, self.directory)
        finally:
            await remove()

    async def request_file(self, deadline: float, **request: Any) -> pb.FileReply:
        """One file request.

        Raises:
            SandboxDied, ProtocolViolation: the executor failed.
            TimeoutError: it did not answer by the deadline.
        """
        return (await self._request(self.channel.session.begin_file_request, deadline, request)).file_reply

    async def request_state(self, deadline: float, **request: Any) -> pb.StateReply:
        """One state request; errors as of ``request_file``."""
        return (await self._request(self.channel.session.begin_state_request, deadline, request)).state_reply

    async def _request(
        self, begin: Callable[[], None], deadline: float, request: Mapping[str, Any]
    ) -> pb.ExecutorMessage:
        self.channel.require_silence()
        begin()
        self.channel.write(pb.HostMessage(**request))
        async with asyncio.timeout(deadline):
            return await self.channel.read()


async def _disconnect(channel: Channel, directory: int) -> None:
    try:
        await channel.close()
    finally:
        os.close(directory)


def _asked(container: Container) -> Asked:
    here = os.uname()  # the engine is on this machine: sessions' sockets are files
    return Asked(
        container.session.supervisor_uid,
        container.session.runner_uid,
        container.config.limits,
        container.runtime.name,
        container.runtime.may_have_own_kernel,
        kernel_name(here.release, here.version),
    )


async def _abandon(container: Container | None) -> None:
    if container:
        await container.abandon()
