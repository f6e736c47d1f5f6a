"""A service of sandboxes in this process: a real server on a unix socket, on a thread and an event loop of its own."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, ClassVar

from orchestrator_api.v1 import orchestrator_pb2_grpc

from orchestrator import AsyncSandbox, Config, Sandbox
from orchestrator.client.sandbox import RemoteSandbox
from orchestrator.configured import ServiceSettings
from orchestrator.sandbox.grpc_quiet import grpc
from orchestrator.service.access import Caller
from orchestrator.service.app_tools import HOST_SECONDS, Hosts, Tools
from orchestrator.service.failures import Failures
from orchestrator.service.meters import Meters
from orchestrator.service.metrics import Metrics
from orchestrator.service.opening import ABANDONED_SECONDS, Opening
from orchestrator.service.pools import Pools
from orchestrator.service.quotas import Accounts
from orchestrator.service.registry import Held, Registry
from orchestrator.service.sandboxes import Sandboxes
from orchestrator.service.scopes import RUNS, SANDBOXES
from orchestrator.service.transport import SERVER_OPTIONS

DEADLINE = 60.0  # seconds for anything that is waited for


def somebody(name: str) -> Caller:
    """A caller who sees what is his own."""
    return Caller(name, frozenset({SANDBOXES, RUNS}))


class NothingUsed:
    """No token has used anything, and none of it is kept."""

    cpu_seconds = run_seconds = 0.0

    async def usage(self, token: str, since: float) -> NothingUsed:
        return self

    async def add_usage(self, token: str, **amounts: float) -> None:
        pass


class Serving:
    """Begins to serve when it is made; ``close()`` closes the sandboxes, too.

    Attributes:
        live: all that have not been closed.
    """

    live: ClassVar[list[Serving]] = []

    def __init__(
        self,
        config: Config,
        host_seconds: float = HOST_SECONDS,
        abandoned_seconds: float = ABANDONED_SECONDS,
        settings: Callable[[], ServiceSettings] = ServiceSettings,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="cellblock-service-")
        self.path = Path(self._folder.name) / "service.sock"
        self.address = f"unix:{self.path}"
        self.caller = somebody("local")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="service", daemon=True)
        self._thread.start()
        self.run(self._serve(config, host_seconds, abandoned_seconds, settings))
        self.live.append(self)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Waits for it on the loop of the service."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DEADLINE)

    async def _serve(
        self,
        config: Config,
        host_seconds: float,
        abandoned_seconds: float,
        settings: Callable[[], ServiceSettings],
    ) -> None:
        self.registry, self.hosts, self.metrics = Registry(), Hosts(host_seconds), Metrics()
        self.pools = Pools(settings, look_seconds=0.2)
        meters = Meters(Accounts(NothingUsed()), self.metrics)
        opening = Opening(
            config,
            self.registry,
            self.hosts,
            meters,
            policy=lambda: settings().policy,
            abandoned_seconds=abandoned_seconds,
            pools=self.pools,
            current=(lambda: settings().config) if settings is not ServiceSettings else None,
        )
        self.sandboxes = Sandboxes(opening, self.registry, lambda: self.caller, meters)
        self.server = grpc.aio.server(options=SERVER_OPTIONS, interceptors=(Failures(),))
        orchestrator_pb2_grpc.add_SandboxesServicer_to_server(self.sandboxes, self.server)
        tools = Tools(self.hosts, lambda: self.caller.name)
        orchestrator_pb2_grpc.add_ToolsServicer_to_server(tools, self.server)
        self.server.add_insecure_port(self.address)
        await self.server.start()
        self.pools.start()

    def held(self) -> list[Held]:
        """Every open sandbox."""
        return self.registry.all(self.caller)

    def close(self) -> None:
        """Ends it."""
        self.live.remove(self)
        self.run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE)
        self._loop.close()
        self._folder.cleanup()

    async def _end(self) -> None:
        await self.pools.close()
        await self.sandboxes.close()
        self.hosts.close()
        await self.server.stop(None)


def behind(sandbox: Sandbox) -> AsyncSandbox:
    """The sandbox of this process that this is a face of, or that a service has for it."""
    one: Any = sandbox.asynchronous
    if not isinstance(one, RemoteSandbox):
        return one
    return next(held.sandbox for serving in Serving.live for held in serving.held() if held.id == one.id)
