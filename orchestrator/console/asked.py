"""A request to the console's API: whose it is, what is in it; and the answer, or why there is none."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from orchestrator.console.backend import Backend, Failed
from orchestrator.console.sessions import ConsoleSessions, Session
from orchestrator.errors import AccessDenied, CellblockError, Overloaded

MAX_BODY = 8 << 20  # bytes: a task or code of 1 MiB, each byte written as an escape
MAX_LOGIN = 4 << 10  # bytes, of somebody whom nobody knows yet
CSRF = "x-cellblock-csrf"
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of somebody who is logged in.

    Attributes:
        session: whose it is.
        id: of the run or sandbox that its path names; else empty.
        query: behind the path.
        body: of a POST.
        after: the number of the last event that the page has seen.
    """

    session: Session
    backend: Backend
    id: str
    query: Mapping[str, str]
    body: Fields
    after: int = 0

    async def runs(self, method: str, message: Message) -> Any:
        """The answer of the API's ``Runs``. Raises Failed."""
        return await self.backend.ask(self.session, "Runs", method, message)

    async def sandboxes(self, method: str, message: Message) -> Any:
        """The answer of the API's ``Sandboxes``. Raises Failed."""
        return await self.backend.ask(self.session, "Sandboxes", method, message)


Answer = Callable[[Asked], Awaitable[Response]]


class Fields:
    """The fields of a JSON object, each asked for by the type that it has to have."""

    def __init__(self, data: object) -> None:
        if not isinstance(data, dict):
            raise Failed(400, "BadRequest", "a JSON object is expected")
        self._data = data

    def text(self, name: str, default: str = "") -> str:
        """A text. Raises Failed: it is something else."""
        value: str = self._of(name, str, default)
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Failed(400, "BadRequest", f"{name!r} has halves of characters in it") from None
        return value

    def number(self, name: str) -> int | None:
        """A whole number of 32 bits; None if it is not there. Raises Failed: it is something else."""
        value: int | None = self._of(name, int, None)
        if value is not None and not 0 <= value < 1 << 32:
            raise Failed(400, "BadRequest", f"{name!r} is too small or too large")
        return value

    def flag(self, name: str) -> bool:
        """True or false, and nothing else: it has to be said. Raises Failed."""
        value: bool | None = self._of(name, bool, None)
        if value is None:
            raise Failed(400, "BadRequest", f"{name!r} is missing")
        return value

    def key(self) -> str:
        """The page's name for this request, so that it can be sent again; else one that is."""
        return self.text("key") or secrets.token_hex(16)

    def _of(self, name: str, kind: type[Any], default: Any) -> Any:
        value = self._data.get(name, default)
        if value is not default and type(value) is not kind:
            raise Failed(400, "BadRequest", f"{name!r} is no {kind.__name__}")
        return value


async def fields(request: Request, most: int = MAX_BODY) -> Fields:
    """The body of a request. Raises Failed: it is too large, or no JSON object."""
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > most:
            raise Failed(413, "TooLarge", f"a request has at most {most:,} bytes")
    try:
        return Fields(json.loads(data))
    except (ValueError, RecursionError):
        raise Failed(400, "BadRequest", "that is no JSON") from None


class Endpoint:
    """Puts one answer behind the login.

    Args:
        sessions: who is logged in.
        backend: the service.
        cookie: its name.
    """

    def __init__(self, sessions: ConsoleSessions, backend: Backend, cookie: str) -> None:
        self._sessions = sessions
        self._backend = backend
        self._cookie = cookie

    def __call__(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        """``answer`` for Starlette."""

        async def endpoint(request: Request) -> Response:
            return await told(self._answered(request, answer))

        return endpoint

    async def _answered(self, request: Request, answer: Answer) -> Response:
        cookie = request.cookies.get(self._cookie, "")
        session = self._sessions.find(cookie, request.headers.get(CSRF, ""))
        body = await fields(request) if request.method == "POST" else Fields({})
        asked = Asked(session, self._backend, _id(request), request.query_params, body, _after(request))
        try:
            return await answer(asked)
        except Failed as failure:
            if failure.status == 401:  # the token has been revoked, or has expired
                self._sessions.end(cookie)
            raise


def _id(request: Request) -> str:
    id = str(request.path_params.get("id", ""))
    if id and not _ID.fullmatch(id):
        raise Failed(404, "NotFound", "there is nothing of that name")
    return id


def _after(request: Request) -> int:
    """The browser's ``Last-Event-ID``."""
    text = request.headers.get("last-event-id", "")
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Failed(400, "BadRequest", "Last-Event-ID is the number of an event")
    return int(text)


async def told(answer: Awaitable[Response]) -> Response:
    """The answer, or what stands for it."""
    try:
        return await answer
    except Failed as failure:
        return refused(failure)
    except CellblockError as error:  # of the console's own: who is logged in, how much there may be
        return refused(_failure(error))


def refused(failure: Failed) -> Response:
    """A failure as a response."""
    headers = {"retry-after": str(int(failure.retry_after) + 1)} if failure.retry_after else {}
    return JSONResponse(failure.told(), failure.status, headers)


def _failure(error: CellblockError) -> Failed:
    match error:
        case AccessDenied():
            return Failed(401, "AccessDenied", str(error))
        case Overloaded():
            return Failed(429, "Overloaded", str(error), error.retry_after)
    return Failed(500, type(error).__name__, str(error))
