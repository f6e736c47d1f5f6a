"""A started, proven, opened container: everything between "no sandbox" and "a channel that takes code"."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from executor_api.v1 import executor_pb2 as pb

from orchestrator.config import Config, parse_size
from orchestrator.errors import SandboxDied, SandboxStartError
from orchestrator.sandbox.channel import Channel, check_socket
from orchestrator.sandbox.container import Container, image_id, in_engine_thread
from orchestrator.sandbox.isolation import Isolation, examine, require
from orchestrator.sandbox.session import Session

ATTACH_DEADLINE = 20.0  # seconds; the executor waits as long


@dataclass(frozen=True, slots=True)
class Link:
    """One container and the open channel to it, or to one branch in it. Whoever made it closes it."""

    container: Container
    channel: Channel
    directory: int  # descriptor of the socket folder
    isolation: Isolation  # what was found in force
    is_branch: bool = False  # then the container is somebody else's

    @classmethod
    async def start(cls, config: Config, image: str, settings: Mapping[str, Any]) -> Link:
        """Starts a container, connects, proves the token, checks the isolation.

        Raises:
            ImageMissing, EngineError: the engine cannot start it.
            SandboxStartError: it did not come up in time or came up wrong (IsolationError).
        """
        container = await Container.start(config, await in_engine_thread(image_id, config, image))
        try:
            async with asyncio.timeout(config.start_timeout):
                return await cls._connect(container, settings)
        except TimeoutError:
            await container.remove()
            raise SandboxStartError(f"the container did not come up within {config.start_timeout:g} s") from None
        except SandboxDied as error:
            await container.remove()
            raise SandboxStartError(f"the executor failed while it started: {error}") from None
        except BaseException:
            await container.remove()
            raise

    @classmethod
    async def _connect(cls, container: Container, settings: Mapping[str, Any]) -> Link:
        directory = os.open(container.folder.sockets, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            await container.wait_for_socket(directory)
            channel = Channel.connect(directory, Session(parse_size(container.config.limits.output)))
            try:
                ready = await channel.open(container.token, settings)
                found = examine(ready, container.session.supervisor_uid, container.session.runner_uid)
                require(found)
            except BaseException:
                await channel.close()
                raise
        except BaseException:
            os.close(directory)
            raise
        return cls(container, channel, directory, found)

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
            return replace(self, channel=await self.channel.branch(forked), is_branch=True)

    async def close(self) -> None:
        """Ends the session and removes the container; of a branch only the branch."""
        if self.is_branch:
            await self.channel.close()
            return
        try:
            await self.channel.close()
        finally:
            os.close(self.directory)
            await self.container.remove()

    async def request_file(self, deadline: float, **request: Any) -> pb.FileReply:
        """One file request.

        Raises:
            SandboxDied, ProtocolViolation: the executor failed.
            TimeoutError: it did not answer by the deadline.
        """
        self.channel.session.begin_file_request()
        self.channel.write(pb.HostMessage(**request))
        async with asyncio.timeout(deadline):
            return (await self.channel.read()).file_reply

    async def request_state(self, deadline: float, **request: Any) -> pb.StateReply:
        """One state request; errors as of ``request_file``."""
        self.channel.session.begin_state_request()
        self.channel.write(pb.HostMessage(**request))
        async with asyncio.timeout(deadline):
            return (await self.channel.read()).state_reply
