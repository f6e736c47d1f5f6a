"""uvicorn as the console needs it: no signals of its own, no logs of requests, everything bounded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from orchestrator.console.server import BACKLOG, KEEP_SECONDS, MAX_CONNECTIONS, MAX_HEAD, STOP_SECONDS


class _Server(uvicorn.Server):
    """Signals are the service's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def web_server(app: ASGIApp) -> uvicorn.Server:
    """A server that is run with ``serve()``, and ended with ``should_exit``."""
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # there is no proxy before it: what says so is not believed
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        backlog=BACKLOG,
        h11_max_incomplete_event_size=MAX_HEAD,
        timeout_keep_alive=KEEP_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    return _Server(config)
