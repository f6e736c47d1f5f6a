"""Coming in and going out."""

from __future__ import annotations

import re

from orchestrator_api.v1 import orchestrator_pb2 as pb
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from orchestrator.console.asked import CSRF, MAX_LOGIN, Fields, fields, told
from orchestrator.console.backend import Backend, Failed
from orchestrator.console.sessions import ConsoleSessions, Session

_TOKEN = re.compile(r"[!-~]{1,200}")  # what can stand in a header; the service says whether it is a token
_STRICT = "; HttpOnly; SameSite=Strict; Path=/"


class Login:
    """The two requests that are made without a session.

    Args:
        sessions: who is logged in.
        backend: the service, which says whether a token is good.
        cookie: its name.
    """

    def __init__(self, sessions: ConsoleSessions, backend: Backend, cookie: str) -> None:
        self._sessions = sessions
        self._backend = backend
        self._cookie = cookie

    async def login(self, request: Request) -> Response:
        """A session for a token, or for the code of a link."""
        return await told(self._logged_in(request))

    async def _logged_in(self, request: Request) -> Response:
        cookie, session = await self._session(await fields(request, MAX_LOGIN))
        response = JSONResponse({"csrf": session.csrf, "as": "token" if session.token else "local"})
        response.headers.append("set-cookie", f"{self._cookie}={cookie}{_STRICT}")
        return response

    async def _session(self, body: Fields) -> tuple[str, Session]:
        if code := body.text("code"):
            return self._sessions.redeem(code)
        token = body.text("token").strip()
        if not _TOKEN.fullmatch(token):  # an empty one above all: that would be the socket's user
            raise Failed(401, "AccessDenied", "that is no valid token")
        try:
            await self._backend.ask_as(token, "Service", "Status", pb.StatusRequest())
        except Failed as failure:
            if failure.status != 401:
                raise
            raise Failed(401, "AccessDenied", "that is no valid token") from None
        return self._sessions.begin(token)

    async def logout(self, request: Request) -> Response:
        """Ends the session; its streams end, too."""
        return await told(self._logged_out(request))

    async def _logged_out(self, request: Request) -> Response:
        cookie = request.cookies.get(self._cookie, "")
        self._sessions.find(cookie, request.headers.get(CSRF, ""))
        self._sessions.end(cookie)
        response = JSONResponse({})
        response.headers.append("set-cookie", f"{self._cookie}={_STRICT}; Max-Age=0")
        return response
