"""What every request to the console has to pass, and what every response tells the browser.

A page of the internet that is open in the same browser can send requests to 127.0.0.1, and with a name of its own that
resolves to it (DNS rebinding) read the answers. So: the Host has to be one of ours; whatever changes something has to
come from our own page. Scripts and styles are the console's own files, and nothing is loaded from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SAFE = frozenset({"GET", "HEAD"})
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)
HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


class Guard:
    """Around the whole app; only HTTP gets through.

    Args:
        app: the console.
        hosts: what a Host header may say, in lower case.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            return  # no web sockets here: uvicorn refuses what is not accepted
        refusal = self._refusal(scope["method"], Headers(scope=scope))
        app = _refused(refusal) if refusal else self._app
        await app(scope, receive, _with_headers(send))

    def _refusal(self, method: str, headers: Headers) -> str:
        """Why this must not be answered; empty if it may."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return "the console is not known by that name"
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not _is_visit(method, headers):
            return "another page asks"
        if method in _SAFE:
            return ""
        if headers.getlist("origin") != [f"http://{hosts[0].lower()}"]:
            return "another page asks"
        return "" if headers.get("content-type", "").partition(";")[0] == "application/json" else "JSON is expected"


def _is_visit(method: str, headers: Headers) -> bool:
    """Somebody follows a link to the console: the page alone says nothing and does nothing."""
    return (
        method in _SAFE and headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    )


def _refused(reason: str) -> ASGIApp:
    return JSONResponse({"error": "Refused", "message": reason}, 403)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
        await send(message)

    return sending
