"""A web server of a test's own on 127.0.0.1: it answers as the test says, also in ways that no server should."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

Write = Callable[[asyncio.StreamWriter], Awaitable[None]]
Answer = bytes | Write


def answer(body: bytes | str = b"", status: int = 200, **headers: str) -> bytes:
    """A response. ``content_type=`` is the header Content-Type."""
    data = body.encode() if isinstance(body, str) else body
    fields = {"content_type": "text/html", "content_length": str(len(data)), "connection": "close"} | headers
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items() if value]
    head = "\r\n".join([f"HTTP/1.1 {status} X", *lines, "", ""])
    return head.encode() + data


def redirect(location: str, status: int = 302) -> bytes:
    """A response that leads elsewhere."""
    return answer(b"", status, location=location)


@dataclass
class Request:
    """What came in."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    """Answers by path; whatever has no answer is 404."""

    answers: Mapping[str, Answer]
    port: int = 0
    scheme: str = "http"
    requests: list[Request] = field(default_factory=list)
    connections: int = 0

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(OSError, asyncio.IncompleteReadError):  # the client may go whenever it likes
            request = await _read(reader)
            self.requests.append(request)
            told = self.answers.get(request.target.partition("?")[0], answer(b"", 404))
            if isinstance(told, bytes):
                writer.write(told)
                await writer.drain()
            else:
                await told(writer)
        writer.close()


async def _read(reader: asyncio.StreamReader) -> Request:
    head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
    method, target, _ = head.split()
    headers = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in lines if line}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, target, headers, body)


@asynccontextmanager
async def serving(answers: Mapping[str, Answer], tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """A server as long as the block lasts."""
    server = Server(answers, scheme="https" if tls else "http")
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
