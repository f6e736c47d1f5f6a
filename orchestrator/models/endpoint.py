"""Calls of chat completions over HTTP, bounded in time and size, and what their failures are called here.

The one place where models call the ``openai`` package; they only choose which of its clients is made. Bodies are read
as they are: the client takes any JSON for a completion, and any amount of it.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

import anyio
import httpx2
import openai

from orchestrator.errors import ConfigError, ModelReplyInvalid, ModelUnavailable
from orchestrator.models.completion import as_text
from orchestrator.models.failures import NO_CREDIT, may_heal, reason
from orchestrator.models.refusals import refused_parameter
from orchestrator.models.retry import Transient, checked_timeout, retry_after
from orchestrator.models.sse import EventData
from orchestrator.models.stops import LONGEST_STREAM

MAX_BODY = 32 << 20  # bytes of a reply that is held in memory, or of one event; models' longest are below 1 MiB
MAX_STREAM = 256 << 20  # bytes of a stream, which is not held; each token comes with some 250 bytes around it
_MAX_ERROR = 64 << 10  # bytes of an error's body
_CREDENTIALS = ("api_key", "azure_ad_token")  # by their names among a client's arguments
# What the client's methods take besides the fields of a request.
_OPTIONS = frozenset({"extra_headers", "extra_query", "timeout"})


class ParameterRefused(Exception):
    """The endpoint does not take ``parameter``."""

    def __init__(self, parameter: str) -> None:
        super().__init__(parameter)
        self.parameter = parameter


class ChatEndpoint:
    """A server's chat completions.

    Args:
        name: for errors.
        client: makes the client that calls are made with; called once per event loop.
        timeout: seconds for one call, from sending it to the last byte of its reply; in a stream, to the next event.
        secrets: never shown in errors.
    """

    def __init__(
        self, name: str, client: Callable[[], openai.AsyncOpenAI], timeout: float, secrets: Collection[str]
    ) -> None:
        self._name = name
        self._make_client = client
        self._timeout = checked_timeout(timeout)
        self._secrets = secrets
        # A client's connections belong to the loop they were opened on; `run` and `arun` use different loops.
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, openai.AsyncOpenAI] = WeakKeyDictionary()

    async def body(self, request: Mapping[str, Any], removable: Collection[str] = ()) -> str:
        """The body of the reply to ``request``, unread. ``removable``: parameters of it that may be left out.

        Raises:
            Transient, ModelUnavailable: it failed.
            ModelReplyInvalid: it is too large.
            ParameterRefused: of those in ``removable``.
        """
        # The client's timeout is one of silence: a reply that drips byte by byte would pass it.
        async with self._translated(removable):
            sent = self._sent(request)  # which may make the client: that is not the server's time
            async with asyncio.timeout(self._timeout), sent as response:
                return await self._whole(response)

    async def events(self, request: Mapping[str, Any], removable: Collection[str] = ()) -> AsyncGenerator[str, None]:
        """The data of each event of the reply to ``request``, up to ``[DONE]``. Closing it closes the connection.

        A body that is no event stream is given as one event: some servers answer as if no stream had been asked for.

        Raises:
            Transient: it failed; also if it ended without ``[DONE]``.
            ModelUnavailable, ModelReplyInvalid, ParameterRefused: as ``body``.
        """
        async with self._translated(removable), AsyncExitStack() as open_until_closed:
            sent = self._sent(request)
            async with asyncio.timeout(self._timeout):
                response = await open_until_closed.enter_async_context(sent)
                if "json" in response.headers.get("content-type", ""):
                    whole: str | None = await self._whole(response)
                else:
                    whole = None
            if whole is not None:
                yield whole
                return
            async with aclosing(self._event_data(response)) as events:
                async for data in events:
                    if data.strip() == "[DONE]":
                        return
                    yield data
            raise Transient("the stream ended in the middle of the reply")

    async def _event_data(self, response: Any) -> AsyncGenerator[str, None]:
        loop = asyncio.get_running_loop()
        end = loop.time() + LONGEST_STREAM
        silent_until = min(end, loop.time() + self._timeout)
        decoder, size = EventData(), 0
        async with aclosing(response.iter_bytes()) as pieces:
            while True:
                async with asyncio.timeout_at(silent_until):
                    piece = await anext(pieces, None)
                if piece is None:
                    break
                size += len(piece)
                for data in decoder.feed(piece):
                    yield data
                    silent_until = min(end, loop.time() + self._timeout)
                self._check(size, MAX_STREAM)
                self._check(decoder.held, MAX_BODY)
        for data in decoder.rest():
            yield data

    async def _whole(self, response: Any) -> str:
        body = bytearray()
        async with aclosing(response.iter_bytes()) as pieces:
            async for piece in pieces:
                body += piece
                self._check(len(body), MAX_BODY)
        return body.decode("utf-8", "replace")

    def _check(self, size: int, limit: int) -> None:
        if size > limit:
            raise ModelReplyInvalid(f"model {self._name}: the endpoint's answer is larger than {limit:,} bytes")

    def _sent(self, request: Mapping[str, Any]) -> AbstractAsyncContextManager[Any]:
        """The request sent, the reply's headers read. What the client has no name for may be known to the server."""
        options = {name: value for name, value in request.items() if name in _OPTIONS}
        named = {name: request[name] for name in ("model", "messages", "stream") if name in request}
        rest = {name: value for name, value in request.items() if name not in {*options, *named, "extra_body"}}
        completions = self._client().chat.completions.with_streaming_response
        return completions.create(**named, **options, extra_body=rest | request.get("extra_body", {}))

    def _client(self) -> openai.AsyncOpenAI:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            self._clients[loop] = self._make_client()
        return self._clients[loop]

    # What went wrong.

    @asynccontextmanager
    async def _translated(self, removable: Collection[str]) -> AsyncIterator[None]:
        try:
            yield
        except _failures() as error:
            self._translate(error, removable)

    def _translate(self, error: Exception, removable: Collection[str]) -> NoReturn:
        """Raises what the failure is called here; ``from None``, as the original holds the request, and so the key."""
        match error:
            case TimeoutError() | openai.APITimeoutError():
                raise Transient(f"no reply within {self._timeout:g} s") from None
            case openai.APIStatusError():
                self._translate_status(error, removable)
            case openai.APIConnectionError():
                raise Transient(f"no connection: {self._shown(error.__cause__ or error)}") from None
            case openai.OpenAIError():
                raise ModelUnavailable(f"model {self._name}: {self._shown(error)}") from None
            case _:
                raise Transient(f"the connection broke: {self._shown(error)}") from None

    def _translate_status(self, error: openai.APIStatusError, removable: Collection[str]) -> NoReturn:
        said = _said(error.body)
        if parameter := refused_parameter(error.status_code, said, error.param, removable):
            raise ParameterRefused(parameter) from None
        text = f"HTTP {error.status_code}: {self._shown(said or 'no reason given')}"
        if may_heal(error.status_code, error.code):
            headers = {name.lower(): value for name, value in error.response.headers.items()}
            raise Transient(text, retry_after(headers)) from None
        raise ModelUnavailable(f"model {self._name}: {text}") from None

    def raise_error_in(self, answer: Any) -> None:
        """Some servers report failures with status 200, as the body or as an event of the stream.

        Raises:
            Transient, ModelUnavailable: ``answer`` is such a report.
        """
        match answer:
            case {"choices": _}:
                pass
            case {"error": {"message": str(text), **error}}:
                self._raise_reported(text, error.get("code"))
            case {"error": str(text)}:
                self._raise_reported(text, None)

    def _raise_reported(self, text: str, code: Any) -> NoReturn:
        said = f"the endpoint reports: {self._shown(text)}"
        if code == NO_CREDIT or (isinstance(code, int) and not may_heal(code)):
            raise ModelUnavailable(f"model {self._name}: {said}")
        raise Transient(said)

    def _shown(self, error: BaseException | str) -> str:
        return reason(error, self._secrets)


def client_of(
    kind: type[openai.AsyncOpenAI], arguments: Mapping[str, Any], client_kwargs: Mapping[str, Any] | None
) -> Callable[[], openai.AsyncOpenAI]:
    """What makes a client of that kind; ``client_kwargs`` go over ``arguments``.

    Raises:
        ConfigError: the client takes no such argument.
    """
    given = dict(client_kwargs or {})
    if unknown := given.keys() - inspect.signature(kind).parameters.keys():
        raise ConfigError(f"client_kwargs: {kind.__name__} takes no {', '.join(sorted(unknown))}")
    # No retries by the client: that is retry.py's work, and theirs knows no budget.
    usual = {"max_retries": 0, **arguments}
    return lambda: kind(**({"http_client": http_client()} if "http_client" not in given else {}) | usual | given)


def credentials_of(*arguments: Mapping[str, Any]) -> list[str]:
    """The credentials among arguments of a client."""
    return [given[name] for given in arguments for name in _CREDENTIALS if isinstance(given.get(name), str)]


def http_client() -> httpx2.AsyncClient:
    """The client's own kind of HTTP client, but for the bodies of errors, which it would read without a bound."""
    return openai.DefaultAsyncHttpx2Client(event_hooks={"response": [_bounded_error]})


async def _bounded_error(response: httpx2.Response) -> None:
    if response.is_success:
        return
    # Unpacked here, in pieces: 64 KiB can be packed from 60 MB. Another response, as each is read once.
    packed = httpx2.Response(
        response.status_code, headers=response.headers, stream=response.stream, request=response.request
    )
    body = bytearray()
    async with aclosing(packed.aiter_bytes()) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) >= _MAX_ERROR:
                break
    response.headers.pop("Content-Encoding", None)
    response.headers.pop("Content-Length", None)
    response.stream = httpx2.ByteStream(bytes(body[:_MAX_ERROR]))


def _said(body: object) -> str:
    """What an error's body says: in OpenAI's form, in that of FastAPI (``detail``), or in none."""
    match body:
        case None:
            return ""
        case str():
            return body
        case {"message": str(text)}:
            return text
        case _:
            return as_text(body)


def _failures() -> tuple[type[Exception], ...]:
    """Whatever the client raises, while it sends and while a body is read; a client of the old httpx may be in use."""
    old = sys.modules.get("httpx")
    ours = (openai.OpenAIError, httpx2.HTTPError, OSError, TimeoutError, anyio.EndOfStream)
    return ours if old is None else (*ours, old.HTTPError)
