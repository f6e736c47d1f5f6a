"""An engine between cellblock and the real one: it passes every call on, except for what a test has it do otherwise."""

from __future__ import annotations

import copy
import http.client
import json
import re
import shutil
import socket
import socketserver
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from orchestrator.stack.engine import address

SECONDS = 60  # for one answer of the real engine
_PASSED_ON = ("content-type", "api-version", "docker-experimental")


@dataclass
class Between:
    """What it does otherwise, and what it has seen.

    Attributes:
        make: changes the body of a create call before it is passed on: then the engine ignores a setting.
        tell: changes the answer to inspect, given what was asked for: then the engine lies.
        held: calls that are not passed on until ``release`` is set: ``"POST /containers/[^/]+/start"``.
        silent: calls that are passed on, and get no answer until then.
        holding: calls that wait at this moment.
    """

    docker_host: str
    make: Callable[[dict[str, Any]], object] = lambda body: None
    tell: Callable[[dict[str, Any], dict[str, Any]], object] = lambda answer, asked: None
    held: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    holding: list[str] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    calls: list[str] = field(default_factory=list)
    asked: dict[str, Any] = field(default_factory=dict)

    def hold(self, call: str, patterns: tuple[str, ...]) -> None:
        """Waits with this call, if it is one of these."""
        if any(re.fullmatch(pattern, call) for pattern in patterns):
            self.holding.append(call)
            self.release.wait(SECONDS)
            self.holding.remove(call)

    def saw(self, call: str) -> bool:
        """True if such a call has been made."""
        return any(re.fullmatch(call, seen) for seen in self.calls)


@contextmanager
def between() -> Iterator[Between]:
    """One that runs until the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="cb-"))  # short: the path of a socket has at most 107 characters
    engine = Between(f"unix://{folder}/s")
    server = _Server(str(folder / "s"), _handler(engine))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield engine
    finally:
        engine.release.set()
        server.shutdown()
        thread.join()
        server.server_close()
        shutil.rmtree(folder)


def as_asked(answer: dict[str, Any], asked: dict[str, Any]) -> None:
    """The lie that everything was made as asked for."""
    answer["HostConfig"].update(copy.deepcopy(asked["HostConfig"]))
    answer["Config"].update({name: copy.deepcopy(value) for name, value in asked.items() if name != "HostConfig"})


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False


def _handler(engine: Between) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            call = f"{self.command} {re.sub(r'^/v[0-9.]+', '', self.path).partition('?')[0]}"
            engine.calls.append(call)
            engine.hold(call, engine.held)
            if call == "POST /containers/create":
                engine.asked = json.loads(body)
                made = copy.deepcopy(engine.asked)
                engine.make(made)
                body = json.dumps(made).encode()
            status, headers, answer = self.ask(body)
            engine.hold(call, engine.silent)
            if re.fullmatch(r"GET /containers/[^/]+/json", call) and status == 200:
                told = json.loads(answer)
                engine.tell(told, engine.asked)
                answer = json.dumps(told).encode()
            self.reply(status, headers, answer)

        do_GET = do_POST = do_DELETE = do_HEAD = pass_on

        def ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            real = http.client.HTTPConnection("localhost", timeout=SECONDS)
            real.sock = socket.socket(socket.AF_UNIX)
            real.sock.settimeout(SECONDS)
            real.sock.connect(address().removeprefix("unix://"))
            headers = {name: self.headers[name] for name in ("Content-Type",) if self.headers[name]}
            try:
                real.request(self.command, self.path, body or None, headers)
                response = real.getresponse()
                kept = {n: v for n, v in response.getheaders() if n.lower() in _PASSED_ON}
                return response.status, kept, response.read()
            finally:
                real.close()

        def reply(self, status: int, headers: dict[str, str], answer: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status not in (204, 304):
                self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            if self.command != "HEAD" and status not in (204, 304):
                self.wfile.write(answer)

        def address_string(self) -> str:
            return ""

        def log_message(self, format: str, *args: object) -> None:
            pass

        def handle(self) -> None:
            with suppress(BrokenPipeError, ConnectionResetError):  # nobody waits for the answer any more
                super().handle()

    return Handler
