"""A hub on 127.0.0.1: as much of the Hugging Face Hub's HTTP API as huggingface_hub asks for here, kept in memory.

Repositories with commits and branches, whole: created, committed to (preupload, then one NDJSON body, also as a pull
request), listed, read file by file; collections; private ones, which are there only for who has the token. Files go
the regular way, none by LFS or Xet. A test takes the fixture ``hub`` (import it, and name it as an argument)::

    from tests.unit.hub_server import Hub, hub  # noqa: F401 - a fixture

    def test_push(hub: Hub) -> None:
        thing.push_to_hub("me/thing", token=hub.token)
        assert hub.files("space", "me/thing").keys() == {"tool.py", "app.py", "requirements.txt"}

    def test_load(hub: Hub) -> None:
        hub.put("space", "me/thing", {"tool.py": b"..."})

The fixture points huggingface_hub at the server and gives it an empty cache; nothing else of it is changed.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from huggingface_hub import constants

from tests.unit.hub_api import Hub, Refusal, Reply, Request, answer


@contextmanager
def serving() -> Iterator[Hub]:
    """The hub's server, on a free port of 127.0.0.1."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            address = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            hub.requests.append(f"{self.command} {address.path}")
            hub.tokens.append(token)
            request = Request(hub, self.command, address.path, parse_qs(address.query), token, body)
            try:
                self._send(200, answer(request))
            except Refusal as refusal:
                headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
                self._send(refusal.status, Reply(json.dumps({"error": refusal.message}).encode(), headers))

        do_GET = do_HEAD = do_POST = _handle

        def _send(self, status: int, reply: Reply) -> None:
            self.send_response(int(reply.headers.get(":status", status)))
            self.send_header("Content-Type", reply.kind)
            self.send_header("Content-Length", str(len(reply.body)))
            for name, value in reply.headers.items():
                if value and not name.startswith(":"):
                    self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5.0)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub of the test's own, and huggingface_hub set to use it, with neither cache nor token of whoever runs it."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serving() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", running.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        yield running
