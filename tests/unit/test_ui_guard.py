"""Who may use the server: by name, by where a request comes from; and what every page is told not to fetch."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from orchestrator.ui.guard import LOOPBACK, Guard


def answer(method: str = "POST", path: str = "/gradio_api/queue/join", *, guard: Any = None, **headers: str) -> int:
    """The status of the answer to a request; its headers are checked."""
    said: list[MutableMapping[str, Any]] = []
    given = {"host": "127.0.0.1:7860"} | {name.replace("_", "-"): value for name, value in headers.items()}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def send(message: MutableMapping[str, Any]) -> None:
        said.append(message)

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request"}

    scope = {"type": "http", "method": method, "path": path}
    scope["headers"] = [(name.encode(), value.encode()) for name, value in given.items()]  # type: ignore[assignment]
    asyncio.run((guard or (lambda app: Guard(app, LOOPBACK)))(app)(scope, receive, send))
    policy = dict(said[0]["headers"])[b"content-security-policy"].decode()
    assert "default-src 'self'" in policy
    assert "http" not in policy
    return int(said[0]["status"])


def test_a_page_of_its_own_and_a_program_may_ask() -> None:
    assert answer() == 200
    assert answer(sec_fetch_site="same-origin", origin="http://127.0.0.1:7860") == 200
    assert answer(origin="http://127.0.0.1:7860") == 200
    assert answer(host="localhost:7860", origin="http://localhost:7860") == 200
    assert answer(host="[::1]:7860") == 200
    assert answer("GET", sec_fetch_site="cross-site") == 200  # a link to the page


@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},  # another server of this host
        {"sec_fetch_site": "cross-site", "origin": "http://127.0.0.1:7860"},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:8000"},
        {"origin": "null"},
    ],
)
def test_another_site_may_not(headers: dict[str, str]) -> None:
    assert answer(**headers) == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "", "localhost.evil"])
def test_a_name_that_somebody_else_gave_is_refused(host: str) -> None:
    assert answer("GET", "/", host=host) == 403


def test_any_name_will_do_where_none_is_set() -> None:
    assert answer("GET", "/", host="agents.example", guard=Guard) == 200


def test_files_are_refused_unless_they_are_wanted() -> None:
    assert answer(path="/gradio_api/upload") == 403
    assert answer(path="/gradio_api/upload/") == 403
    assert answer(path="/gradio_api/upload", guard=lambda app: Guard(app, LOOPBACK, uploads=True)) == 200


def test_calls_without_a_page_are_refused() -> None:
    assert answer(path="/gradio_api/call/send") == 403
    assert answer(path="/gradio_api/call/v2/send") == 403


def test_a_websocket_of_another_site_is_closed() -> None:
    said: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        said.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/", "headers": [(b"host", b"localhost"), (b"origin", b"http://evil")]}
    asyncio.run(Guard(app, LOOPBACK)(scope, receive, send))
    assert [message["type"] for message in said] == ["websocket.close"]
