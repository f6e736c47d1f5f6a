"""The console's web server: in the service's process, on its event loop, for this machine alone."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.configured.tables import loopback
from orchestrator.console.sessions import ConsoleSessions
from orchestrator.errors import ConfigError, missing_extra

if TYPE_CHECKING:
    import uvicorn

    from orchestrator.console.backend import Backend

MAX_CONNECTIONS = 256  # of browsers, each with six at most; more are told to come again
MAX_HEAD = 16 << 10  # bytes of a request's head: a browser's has about one thousand
KEEP_SECONDS = 15  # that an idle connection stays open
STOP_SECONDS = 3  # for what is under way to end; streams are told to
BACKLOG = 128


class ConsoleServer:
    """Serves the console from ``start()`` to ``stop()``.

    It speaks plain HTTP, so it listens on a loopback address only. From elsewhere one comes through ``ssh -L``.

    Args:
        address: as the setting ``console`` has it; port 0 is any free one.
        service: the path of the service's socket.

    Attributes:
        sessions: who is logged in.
    """

    def __init__(self, address: str, service: Path) -> None:
        self._host, self._port = loopback(address)
        self._service = service
        self.sessions = ConsoleSessions()
        self._backend: Backend | None = None
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end."""
        return f"http://{_written(self._host, self._port)}"

    def link(self) -> str:
        """An address that logs in the user of the service's socket, once, in the next 5 minutes.

        It is a secret: for a terminal of that user, and no log. The code is behind a ``#``, so it is sent to nobody.
        """
        return f"{self.url}/login#{self.sessions.link()}"

    async def start(self) -> None:
        """Listens; from then on requests are answered.

        Raises:
            ConfigError: Starlette or uvicorn is not installed, or the address cannot be had.
        """
        try:
            from orchestrator.console.app import make_app
            from orchestrator.console.backend import Backend
            from orchestrator.console.serving import web_server
        except ImportError as error:
            if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn"):
                raise
            raise missing_extra("the console", "starlette and uvicorn", "service") from None
        listener = _listener(self._host, self._port)
        self._port = listener.getsockname()[1]
        self._backend = Backend(f"unix:{self._service}")
        app = make_app(self._backend, self.sessions, self._known_as(), f"cellblock-{self._port}")
        self._server = web_server(app)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="console")

    def _known_as(self) -> list[str]:
        return [_written(host, self._port) for host in (self._host, "localhost")]

    async def stop(self) -> None:
        """Logs everybody out, ends the streams, closes. One that was not started, or has been stopped, is no error."""
        self.sessions.end_all()
        if self._server and self._task:
            self._server.should_exit = True
            await asyncio.wait({self._task})
        if self._backend:
            await self._backend.close()
        self._server = self._task = self._backend = None


def _written(host: str, port: int) -> str:
    name = f"[{host}]" if ":" in host else host
    return name if port == 80 else f"{name}:{port}"  # browsers leave out the usual port


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # after a restart, while old connections fade
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(f"the console cannot listen at {_written(host, port)}: {error.strerror}") from None
    return listener
