"""What an app begins with: a client of an orchestrator service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from orchestrator.agents.run import RunEvent
from orchestrator.client.connection import PATIENCE, AsyncConnection
from orchestrator.client.runs import AsyncRuns, Runs
from orchestrator.client.sandbox import RemoteSandbox
from orchestrator.errors import ConfigError
from orchestrator.portal import Portal
from orchestrator.sandbox.blocking import Sandbox


class AsyncClient:
    """A client of an orchestrator service, for code that awaits. It belongs to the event loop that uses it first.

    Args:
        address: ``unix:/path`` or ``host:port``. Default: the socket of this user's own service.
        token: as ``cellblock token create`` gave it; for ``host:port``, which always uses TLS.
        tls: root certificates in PEM, or the path of their file, if those that gRPC brings are not enough.
        patience: seconds that the service may be gone before ServiceUnavailable is raised.

    Raises:
        ConfigError: the arguments do not go together.

    Nothing is connected until it is used. ``close()``, or the end of ``async with``, closes its sandboxes, too.
    """

    def __init__(
        self, address: str = "", *, token: str = "", tls: bytes | str | Path | None = None, patience: float = PATIENCE
    ) -> None:
        self.connection = AsyncConnection(address, token=token, tls=tls, patience=patience)
        self.runs = AsyncRuns(self.connection)

    def sandbox(self, **settings: Any) -> RemoteSandbox:
        """A sandbox at the service; the arguments are those of ``AsyncSandbox`` but ``config``.

        Or one of a pool of the service's: ``sandbox(pool="name")``; its settings are the pool's.

        Raises:
            ConfigError, ToolError: as ``AsyncSandbox``.
        """
        if "config" in settings:
            raise ConfigError("config: the settings of its sandboxes are the service's own")
        return RemoteSandbox(self.connection, **settings)

    def run(self, task: str, agent: str = "", **more: Any) -> AsyncGenerator[RunEvent, None]:
        """A run of an agent of the service: its events, as of ``agent.astream(task)``. See ``AsyncRuns.run``."""
        return self.runs.run(task, agent, **more)

    async def close(self) -> None:
        """Closes its sandboxes, as far as the service can be reached, and the connection."""
        closing = [sandbox.close() for sandbox in self.connection.open_sandboxes if not sandbox.is_branch]
        await asyncio.gather(*closing, return_exceptions=True)
        await self.connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Client:
    """``AsyncClient`` for code that does not await: the same arguments, methods and errors; usable from any thread."""

    def __init__(
        self, address: str = "", *, token: str = "", tls: bytes | str | Path | None = None, patience: float = PATIENCE
    ) -> None:
        self._client = AsyncClient(address, token=token, tls=tls, patience=patience)
        self.runs = Runs(self._client.runs)

    @property
    def asynchronous(self) -> AsyncClient:
        """The client behind this face. It lives on the background loop of ``Portal``."""
        return self._client

    def sandbox(self, **settings: Any) -> Sandbox:
        """See ``AsyncClient.sandbox``."""
        return Sandbox._around(self._client.sandbox(**settings))

    def run(self, task: str, agent: str = "", **more: Any) -> Iterator[RunEvent]:
        """See ``AsyncClient.run``: the events of ``agent.run(task, stream=True)``."""
        return self.runs.run(task, agent, **more)

    def close(self) -> None:
        """See ``AsyncClient.close``."""
        Portal.run(self._client.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
