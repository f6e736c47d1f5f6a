"""What stands before the pages: who may ask at all, and what a page may fetch. ASGI, with no framework.

An agent that is served on this host without a password can be asked by everything that runs here, a browser included.
A site that the browser shows must not be able to use it: what such a site sends is refused, and so is a name that
stands for this host but was given by somebody else (DNS rebinding).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

# Whatever stands on a page, nothing is fetched from elsewhere, and no other site can frame it. Gradio's own scripts
# are partly in the page.
_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    )
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """Wraps an application.

    Args:
        app: what is wrapped.
        hosts: names, without ports, by which the server may be called; empty for any.
        uploads: files may be sent.
    """

    def __init__(self, app: App, hosts: Sequence[str] = (), *, uploads: bool = False) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, or lets the application do so."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _refuse(send, refusal)

    def _refusal(self, scope: Scope) -> str | None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if self._hosts and _name(host) not in self._hosts:
            return "this server is not called by that name"
        if scope.get("method") in ("GET", "HEAD", "OPTIONS"):
            return None
        if not _is_own(headers, host):
            return "another site may not use this"
        if "/call/" in scope["path"]:  # gradio's interface for programs: each call would be a visitor without a page
            return "this is a page, and no interface for programs"
        if not self._uploads and scope["path"].rstrip("/").endswith("/upload"):
            return "files are not taken here"
        return None


def _is_own(headers: Mapping[bytes, bytes], host: str) -> bool:
    """Whether a page of this server sent it, or no page at all. Browsers say so; of old ones the origin tells."""
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site in (b"same-origin", b"none")
    origin = headers.get(b"origin", b"").decode("latin-1").lower()
    return not origin or origin.partition("://")[2] == host


def _name(host: str) -> str:
    """Without the port."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _with_headers(send: Send) -> Send:
    async def sent(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_HEADERS]
        await send(message)

    return sent


async def _refuse(send: Send, why: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *_HEADERS]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": why.encode()})
