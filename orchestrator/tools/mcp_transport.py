"""How an MCP server is reached: a program of one's own over its standard streams, or an address over HTTP."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx2

from orchestrator.errors import ConfigError
from orchestrator.sanitise import one_line

MAX_MESSAGE = 48 << 20  # bytes of one message over HTTP: a result of mcp_content.MAX_BYTES in base64, and some more
TIMEOUT = 30.0  # seconds for an HTTP request to be answered
READ_TIMEOUT = 300.0  # seconds between two events of a stream
MAX_LAST_WORDS = 2000  # bytes of a program's stderr that are kept to say why it ended

LAST_WORDS_WAIT = 0.2  # seconds for them once it has ended; longer only if a child of its own still holds its stderr


class Server(Protocol):
    """Where a server is."""

    @property
    def name(self) -> str:
        """For messages; tells no credentials."""
        ...

    def transport(self) -> AbstractAsyncContextManager[Any]:
        """Connected streams, as the mcp package's clients take them."""
        ...

    def last_words(self) -> str:
        """What it wrote to say why it ended, if anything."""
        ...


@dataclass(slots=True)
class Program:
    """A program that is started here, with the rights of this process and mcp's short list of its environment.

    Its standard error is read, and the end of it kept. It could fill memory with one endless line: it is a program
    that somebody chose to run on the host, which can do that anyway.
    """

    parameters: Any
    _tail: bytearray = field(default_factory=bytearray)

    @property
    def name(self) -> str:
        return f"the MCP server {os.path.basename(self.parameters.command)!r}"

    @asynccontextmanager
    async def transport(self) -> AsyncIterator[Any]:
        from mcp.client.stdio import stdio_client

        with self._listening() as errors:
            async with stdio_client(self.parameters, errlog=errors) as streams:
                yield streams

    @contextmanager
    def _listening(self) -> Iterator[Any]:
        """A file for its stderr. Not this process's own: what it writes could drive the user's terminal."""
        read, write = os.pipe()
        reader = threading.Thread(target=self._read, args=(read,), name="cellblock-mcp-stderr", daemon=True)
        reader.start()
        try:
            with os.fdopen(write, "w") as errors:
                yield errors
        finally:
            reader.join(LAST_WORDS_WAIT)

    def _read(self, source: int) -> None:
        """Until the last process that holds the other end has ended."""
        with os.fdopen(source, "rb", buffering=0) as errors:
            while piece := errors.read(4096):
                self._tail += piece
                del self._tail[:-MAX_LAST_WORDS]

    def last_words(self) -> str:
        return one_line(bytes(self._tail).decode("utf-8", "replace"), MAX_LAST_WORDS)


@dataclass(frozen=True, slots=True)
class Address:
    """A server over HTTP. ``streaming`` is the transport "streamable-http"; otherwise it is the older "sse"."""

    url: str
    streaming: bool = True
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = TIMEOUT
    sse_read_timeout: float = READ_TIMEOUT
    auth: Any = field(default=None, repr=False)

    @property
    def name(self) -> str:
        parts = urlsplit(self.url)
        return f"the MCP server at {one_line(f'{parts.scheme}://{parts.hostname}', 200)}"

    @asynccontextmanager
    async def transport(self) -> AsyncIterator[Any]:
        from mcp.client.sse import sse_client
        from mcp.client.streamable_http import streamable_http_client

        if not self.streaming:
            async with sse_client(self.url, httpx_client_factory=self._client) as streams:
                yield streams
            return
        async with (
            self._client() as client,
            streamable_http_client(self.url, http_client=client, max_sse_event_size=MAX_MESSAGE) as streams,
        ):
            yield streams

    def _client(self, *_: Any, **__: Any) -> httpx2.AsyncClient:
        """Takes what mcp's own factory takes, and follows these settings."""
        return httpx2.AsyncClient(
            headers={**self.headers, "Accept-Encoding": "identity"},  # a compressed body has no bound
            timeout=httpx2.Timeout(self.timeout, read=self.sse_read_timeout),
            auth=self.auth,
            event_hooks={"response": [_bound]},
        )

    def last_words(self) -> str:
        return ""


async def _bound(response: httpx2.Response) -> None:
    """Makes reading a body of more than MAX_MESSAGE fail. Of a stream of events each is bounded where it is read."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise httpx2.DecodingError(
            "the server compresses its answers, which was not asked for", request=response.request
        )
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        response.stream = _Bounded(response.stream)


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MAX_MESSAGE
        async for piece in self._stream:
            left -= len(piece)
            if left < 0:
                raise httpx2.StreamError(f"the server's answer has more than {MAX_MESSAGE:,} bytes")
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


def servers(parameters: Any) -> tuple[Server, ...]:
    """The servers that ``server_parameters`` names: one, or a list.

    Raises:
        ConfigError: one is neither mcp's StdioServerParameters nor a dict with a url, or has a key that is not known.
    """
    if not isinstance(parameters, (list, tuple)):
        return (_server(parameters),)
    if not parameters:
        raise ConfigError("server_parameters: name at least one MCP server")
    return tuple(_server(one) for one in parameters)


def _server(parameters: Any) -> Server:
    if isinstance(parameters, Mapping):
        return _address(dict(parameters))
    if hasattr(parameters, "command"):
        return Program(parameters)
    raise ConfigError(
        "server_parameters: give mcp.StdioServerParameters, a dict such as {'url': 'http://…/mcp'}, or a list of "
        f"those, not {type(parameters).__name__}"
    )


def _address(parameters: dict[str, Any]) -> Address:
    transport = parameters.pop("transport", "streamable-http")
    if transport not in ("streamable-http", "sse"):
        raise ConfigError(f"server_parameters: transport is {transport!r}; it must be 'streamable-http' or 'sse'")
    unknown = sorted(map(str, parameters.keys() - {"url", "headers", "timeout", "sse_read_timeout", "auth"}))
    if unknown:
        raise ConfigError(f"server_parameters: unknown key {', '.join(unknown)}")
    url = parameters.get("url")
    if not isinstance(url, str) or urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError("server_parameters: 'url' must be an http or https address")
    given = {key: value for key, value in parameters.items() if value is not None}
    return Address(**given, streaming=transport == "streamable-http")
