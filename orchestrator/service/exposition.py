"""``/metrics`` over HTTP, for Prometheus: what is measured, to whoever may connect. Needs the extra ``service``.

Nothing else is served, and nothing is read of a request but its first line. Prometheus names the service by whatever
address it was given, so the Host header is not looked at; and as there is nothing but numbers, no page can steal
anything here.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from orchestrator.configured.tables import host_and_port
from orchestrator.errors import ConfigError, missing_extra
from orchestrator.service.metrics import CONTENT_TYPE

PATH = "/metrics"
MAX_CONNECTIONS = 16  # at the same time: a Prometheus has one, and there are two or three
CONNECTION_SECONDS = 30.0  # that one may be open, busy or not: a scrape takes milliseconds, and comes every 15 s or so
MAX_HEAD = 16 << 10  # bytes of a request's head
STOP_SECONDS = 2.0  # for answers under way, when the service stops


@asynccontextmanager
async def exposed(address: str, read: Callable[[], bytes]) -> AsyncIterator[int]:
    """Serves until the end of the block. Gives the port.

    Args:
        address: ``host:port``; port 0 is one that is free.
        read: gives the exposition; it is called on this event loop.

    Raises:
        ConfigError: a package is missing, or the address cannot be listened at.
    """
    server = _server(read)
    listener = await _listener(address)
    serving = asyncio.create_task(server.serve([listener]), name="metrics")
    try:
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        try:
            async with asyncio.timeout(2 * STOP_SECONDS):
                await serving
        except TimeoutError:
            pass  # it has been cancelled by that
        finally:
            listener.close()


async def _listener(address: str) -> socket.socket:
    """It is open before the server begins: what it would do about one that is taken is to end the process."""
    found = host_and_port(address)
    if found is None:
        raise ConfigError(f"service.metrics is {address!r}; it must be 'host:port'")
    try:
        (family, _, _, _, place), *_ = await asyncio.get_running_loop().getaddrinfo(*found, type=socket.SOCK_STREAM)
        return socket.create_server(place[:2], family=family, backlog=MAX_CONNECTIONS)
    except OSError as error:
        raise ConfigError(f"service.metrics: {address} cannot be listened at: {error.strerror}") from None


def _server(read: Callable[[], bytes]) -> Any:
    try:
        import uvicorn
        from starlette.applications import Starlette
        from starlette.requests import Request
        from starlette.responses import Response
        from starlette.routing import Route
    except ImportError:
        raise missing_extra("service.metrics", "starlette and uvicorn", "service") from None

    async def metrics(request: Request) -> Response:
        return Response(read(), headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"})

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # they are the service's

    config = uvicorn.Config(
        Starlette(routes=[Route(PATH, metrics, methods=["GET"])]),
        http=_protocol(),
        ws="none",
        lifespan="off",
        log_config=None,  # the service's own
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=MAX_HEAD,
        timeout_graceful_shutdown=int(STOP_SECONDS),
    )
    return Server(config)


def _protocol() -> Any:
    """uvicorn's, which would let any number of connections wait for as long as they like before their first request."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Bounded(H11Protocol):
        _limit: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as there
            super().connection_made(transport)
            if len(self.connections) > MAX_CONNECTIONS:
                transport.abort()
                return
            self._limit = asyncio.get_running_loop().call_later(CONNECTION_SECONDS, transport.abort)

        def connection_lost(self, exc: Exception | None) -> None:
            if self._limit:
                self._limit.cancel()
            super().connection_lost(exc)

    return Bounded
