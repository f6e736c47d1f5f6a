"""The console as an ASGI application: its page, its files, its API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from orchestrator.console import runs, sandboxes
from orchestrator.console.asked import Answer, Endpoint
from orchestrator.console.backend import Backend
from orchestrator.console.guard import Guard
from orchestrator.console.login import Login
from orchestrator.console.sessions import ConsoleSessions

STATIC = Path(__file__).parent / "static"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_RUN, _SANDBOX = "/api/runs/{id}", "/api/sandboxes/{id}"
_ANSWERS: Mapping[tuple[str, str], Answer] = {
    ("GET", "/api/status"): runs.status,
    ("GET", "/api/runs"): runs.list_runs,
    ("POST", "/api/runs"): runs.start,
    ("GET", _RUN): runs.get,
    ("GET", f"{_RUN}/events"): runs.events,
    ("POST", f"{_RUN}/interrupt"): runs.interrupt,
    ("POST", f"{_RUN}/resume"): runs.resume,
    ("POST", f"{_RUN}/decide"): runs.decide,
    ("GET", "/api/sandboxes"): sandboxes.list_sandboxes,
    ("POST", "/api/sandboxes"): sandboxes.create,
    ("GET", _SANDBOX): sandboxes.get,
    ("POST", f"{_SANDBOX}/run"): sandboxes.run_code,
    ("POST", f"{_SANDBOX}/interrupt"): sandboxes.interrupt,
    ("POST", f"{_SANDBOX}/close"): sandboxes.close,
    ("GET", f"{_SANDBOX}/isolation"): sandboxes.isolation,
    ("GET", f"{_SANDBOX}/checkpoints"): sandboxes.checkpoints,
    ("POST", f"{_SANDBOX}/checkpoints"): sandboxes.checkpoint,
    ("POST", f"{_SANDBOX}/rollback"): sandboxes.rollback,
    ("POST", f"{_SANDBOX}/fork"): sandboxes.fork,
}


def make_app(backend: Backend, sessions: ConsoleSessions, hosts: Iterable[str], cookie: str) -> ASGIApp:
    """All of it.

    Args:
        backend: the service.
        sessions: who is logged in.
        hosts: what a Host header may say.
        cookie: its name.
    """
    behind, login = Endpoint(sessions, backend, cookie), Login(sessions, backend, cookie)
    files = {path.name: _File(path) for path in STATIC.iterdir() if path.suffix in _TYPES}
    routes = [
        Route("/", files["index.html"].get),
        Route("/login", files["index.html"].get, methods=["GET"]),
        Route("/login", login.login, methods=["POST"]),
        Route("/logout", login.logout, methods=["POST"]),
        *[Route(f"/static/{name}", file.get) for name, file in files.items()],
        *[Route(path, behind(answer), methods=[method]) for (method, path), answer in _ANSWERS.items()],
    ]
    app = Starlette(routes=routes, exception_handlers={404: _missing, 405: _missing, Exception: _broken})
    app.router.redirect_slashes = False
    return Guard(app, hosts)


class _File:
    """One file of the page, read once."""

    def __init__(self, path: Path) -> None:
        self._content = path.read_bytes()
        self._type = _TYPES[path.suffix]

    async def get(self, request: Request) -> Response:
        return Response(self._content, media_type=self._type)


async def _missing(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "NotFound", "message": "there is nothing of that name"}, 404)


async def _broken(request: Request, error: Exception) -> Response:
    """What went wrong is in the log, and nowhere else."""
    return JSONResponse({"error": "Internal", "message": "the console failed; the service's log says why"}, 500)
