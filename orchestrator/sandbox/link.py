"""A started, proven, opened container: everything between "no sandbox" and "a channel that takes code"."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
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

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
ATTACH_DEADLINE = 20.0  # seconds; the executor waits as long


@dataclass(frozen=True, slots=True)
class Link:
    """One container and the open channel to it, or to one branch in it. Whoever made it closes it."""

    container: Container
    channel: Channel
    directory: int  # descriptor of the socket folder
    isolation: Isolation  # what was found in force
    is_branch: bool = False  # then the container is somebody else's
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
    ) -> Link:
        """Starts a container, connects, proves the token, checks the isolation: all within ``config.start_timeout``.

        ``packages`` are the top-level names that user code may import.
        ``judge`` raises where what was found, and the level that the settings ask for, are reason to refuse.

        Raises:
            ImageMissing, RuntimeUnavailable, EngineError: the engine cannot start it.
            SandboxStartError: it did not come up in time or came up wrong (IsolationError, SettingIgnored).
        """
        container: Container | None = None
        try:
            async with asyncio.timeout(config.start_timeout):
                container = await Container.start(config, image, packages)
                link = await cls._connect(container, settings)
                try:
                    judge(link.isolation, config.min_isolation_level)
                except BaseException:
                    await link._disconnect()
                    raise
                return link
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
    async def _connect(cls, container: Container, settings: Mapping[str, Any]) -> Link:
        try:
            directory = os.open(container.folder.sockets, _DIRECTORY)
        except OSError as error:
            raise SandboxStartError(f"the session's folder cannot be opened: {error.strerror}") from None
        try:
            await container.wait_for_socket(directory)
            channel = Channel.connect(directory, Session(parse_size(container.config.limits.output)))
            try:
                to_prove = {"masked_paths": MASKED_PATHS, "read_only_paths": READONLY_PATHS}
                found = examine(await channel.open(container.token, {**settings, **to_prove}), _asked(container))
            except BaseException:
                await channel.close()
                raise
        except BaseException:
            os.close(directory)
            raise
        return cls(container, channel, directory, found)

    async def _disconnect(self) -> None:
        try:
            await self.channel.close()
        finally:
            os.close(self.directory)

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
        if self.is_branch:
            await self.channel.close()
            return
        try:
            await self._disconnect()
        finally:
            await self.container.remove()

    async def abandon(self) -> None:
        """Closes it as ``close`` does, but waits not for long for an engine that hangs, and tells no failure of its."""
        if self.is_branch:
            await self.channel.close()
            return
        try:
            await self._disconnect()
        finally:
            await self.container.abandon()

    async def request_file(self, deadline: float, **request: Any) -> pb.FileReply:
        """One file request.

        Raises:
            SandboxDied, ProtocolViolation: the executor failed.
            TimeoutError: it did not answer by the deadline.
        """
        self.channel.require_silence()
        self.channel.session.begin_file_request()
        self.channel.write(pb.HostMessage(**request))
        async with asyncio.timeout(deadline):
            return (await self.channel.read()).file_reply

    async def request_state(self, deadline: float, **request: Any) -> pb.StateReply:
        """One state request; errors as of ``request_file``."""
        self.channel.require_silence()
        self.channel.session.begin_state_request()
        self.channel.write(pb.HostMessage(**request))
        async with asyncio.timeout(deadline):
            return (await self.channel.read()).state_reply


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
