"""What is the same for every model behind a provider's library: retries, time, stops, and what failures are called."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from orchestrator.errors import ModelError, ModelUnavailable
from orchestrator.models.asked import Asked, NamedModel
from orchestrator.models.failures import may_heal
from orchestrator.models.model import ModelDelta, ModelReply, TokenUsage
from orchestrator.models.refusals import refused_parameter
from orchestrator.models.retry import RetryPolicy, Transient, checked_timeout, retry_after, retry_policy, with_retries
from orchestrator.models.stops import AFTER_STOP, LONGEST_STREAM, StopFilter, cut_at_stop
from orchestrator.pace import Pace

Request = dict[str, Any]
Pieces = AsyncGenerator[ModelDelta, None]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer of HTTP that is no success. ``text`` is fit to be shown; ``headers`` by their names in lower case."""

    status: int
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)
    heals: bool = False  # whatever the status says


class SdkModel(NamedModel):
    """A model whose adapter says what a request is, how it is asked and streams, and what went wrong.

    A stream has its usage in the last piece. One without calls of tools ends soon after a stop sequence, even if the
    model goes on; its usage is then unknown.

    Args:
        model_id: the model's name.
        timeout: seconds for one call; in a stream, for each piece.
        retry: how often and how long to try again; True for the default policy, False for never.
        requests_per_minute: at most so many calls, at even intervals; None for no limit.

    Raises:
        ConfigError: ``timeout`` or ``requests_per_minute`` is not above 0, or ``retry`` is no policy.
    """

    def __init__(
        self, model_id: str, timeout: float, retry: RetryPolicy | bool | None, requests_per_minute: float | None
    ) -> None:
        super().__init__(model_id)
        self._name = f"model {model_id}"
        self._timeout = checked_timeout(timeout)
        self._retry = retry_policy(retry)
        self._pace = Pace(requests_per_minute)
        self._refused: set[str] = set()  # parameters that the endpoint has refused so far

    async def _reply_to(self, asked: Asked) -> ModelReply:
        reply = await self._tried(asked, self._whole)
        return replace(reply, text=cut_at_stop(reply.text, asked.stop_sequences))

    async def _pieces_for(self, asked: Asked) -> Pieces:
        first, rest = await self._tried(asked, self._begun)
        stops, usage = StopFilter(asked.stop_sequences), None
        async with aclosing(_chained(first, rest)) as pieces:
            try:
                async for piece in pieces:
                    usage = piece.token_usage or usage
                    text = stops.feed(piece.text)
                    if text or piece.tool_calls:
                        yield ModelDelta(text, piece.tool_calls)
                    if stops.stopped and not asked.tools:
                        usage = await _usage_after_stop(pieces) or usage
                        break
            except Transient as failure:
                raise ModelUnavailable(f"{self._name}: {failure.reason} (in the middle of a reply)") from None
        yield ModelDelta(stops.rest(), token_usage=usage)

    # What an adapter says.

    @abstractmethod
    def _request(self, asked: Asked, without: Collection[str]) -> Request:
        """What the library is called with. ``without``: parameters that the endpoint is known to refuse."""

    @abstractmethod
    def _removable(self, request: Request) -> Collection[str]:
        """Parameters of ``request`` that may be left out, since nobody but the adapter asked for them."""

    @abstractmethod
    async def _ask(self, request: Request) -> ModelReply:
        """One call. What the library raises, it may raise."""

    @abstractmethod
    def _stream(self, request: Request) -> Pieces:
        """The pieces of one call, empty ones among them. What the library raises, it may raise."""

    @abstractmethod
    def _failure(self, error: Exception) -> Refusal | Transient | ModelError:
        """What went wrong: the one place that knows the library's errors."""

    # How a call is made.

    async def _tried(self, asked: Asked, call: Callable[[Request], Awaitable[Result]]) -> Result:
        return await with_retries(self._name, lambda: self._accepted(asked, call), self._retry, self._pace)

    async def _accepted(self, asked: Asked, call: Callable[[Request], Awaitable[Result]]) -> Result:
        """What ``call`` gives for a request that the endpoint takes; what it refuses on the way is remembered."""
        while True:
            try:
                return await call(self._request(asked, self._refused))
            except _ParameterRefused as refusal:  # ends: each is removable once
                self._refused.add(refusal.parameter)

    async def _whole(self, request: Request) -> ModelReply:
        try:
            # The library's timeout is one of silence: a reply that drips byte by byte would pass it.
            async with asyncio.timeout(self._timeout):
                return await self._ask(request)
        except Exception as error:  # noqa: BLE001 - what a library makes of a hostile answer may be any error
            raise self._called(error, request) from None

    async def _begun(self, request: Request) -> tuple[ModelDelta | None, Pieces]:
        """The first piece and the others: until it is there, the call can be made again."""
        pieces = self._timed(request)
        return await anext(pieces, None), pieces

    async def _timed(self, request: Request) -> Pieces:
        """The pieces that say something."""
        loop = asyncio.get_running_loop()
        end = loop.time() + LONGEST_STREAM
        try:
            async with aclosing(self._stream(request)) as pieces:
                while (piece := await _next(pieces, min(end, loop.time() + self._timeout))) is not None:
                    if piece != ModelDelta():
                        yield piece
        except Exception as error:  # noqa: BLE001 - as above
            raise self._called(error, request) from None

    def _called(self, error: Exception, request: Request) -> Exception:
        """``from None`` wherever this is raised: the original holds the request, and so the key."""
        match error:
            case Transient() | ModelError():
                return error
            case TimeoutError():
                return Transient(f"no reply within {self._timeout:g} s")
        match self._failure(error):
            case Refusal() as refusal:
                return self._refusal(refusal, set(self._removable(request)) - self._refused)
            case failure:
                return failure

    def _refusal(self, refusal: Refusal, removable: Collection[str]) -> Exception:
        if parameter := refused_parameter(refusal.status, refusal.text, None, removable):
            return _ParameterRefused(parameter)
        if refusal.heals or may_heal(refusal.status):
            return Transient(refusal.text, retry_after(refusal.headers))
        return ModelUnavailable(f"{self._name}: {refusal.text}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model_id!r})"


class _ParameterRefused(Exception):
    def __init__(self, parameter: str) -> None:
        super().__init__(parameter)
        self.parameter = parameter


async def _next(pieces: Pieces, deadline: float) -> ModelDelta | None:
    # Around each piece, not around all: a timeout must begin and end in the task that waits.
    async with asyncio.timeout_at(deadline):
        return await anext(pieces, None)


async def _chained(first: ModelDelta | None, rest: Pieces) -> Pieces:
    async with aclosing(rest):
        if first is not None:
            yield first
            async for piece in rest:
                yield piece


async def _usage_after_stop(pieces: Pieces) -> TokenUsage | None:
    """The usage, if the reply ends soon. The text is complete, so nothing that goes wrong here matters."""
    usage = None
    try:
        async with asyncio.timeout(AFTER_STOP):
            async for piece in pieces:
                usage = piece.token_usage or usage
    except (TimeoutError, Transient, ModelError):
        return usage
    return usage
