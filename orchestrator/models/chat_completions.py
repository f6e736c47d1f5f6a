"""What all models behind chat completions over HTTP share: a reply, whole or in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

import openai

from orchestrator.errors import ModelReplyInvalid, ModelUnavailable
from orchestrator.models.asked import Asked, NamedModel
from orchestrator.models.chat_request import ChatSettings
from orchestrator.models.completion import ChunkReader, parse_json, reply_of
from orchestrator.models.endpoint import ChatEndpoint, ParameterRefused
from orchestrator.models.model import ModelDelta, ModelReply, TokenUsage
from orchestrator.models.retry import RetryPolicy, Transient, retry_policy, with_retries
from orchestrator.models.stops import AFTER_STOP, StopFilter, cut_at_stop
from orchestrator.pace import Pace

Result = TypeVar("Result")
Call = Callable[[dict[str, Any], Collection[str]], Awaitable[Result]]


class ChatCompletionsModel(NamedModel):
    """A model behind chat completions. Use one of the classes of this package that say where.

    A parameter that only this class asks for and the server refuses (``stop``, ``tool_choice``) is left out from then
    on. A stream has its usage in the last piece. One without calls of tools ends soon after a stop sequence, even if
    the server goes on; its usage is then unknown. A stream that falls silent, or ends before the reply does, is
    ``ModelUnavailable``, since a server that died and one that hung up look the same.

    Args:
        settings: what each request holds.
        client: makes the client that calls are made with; called once per event loop.
        timeout: seconds for one call; in a stream, for each piece.
        retry: how often and how long to try again; True for the default policy, False for never.
        requests_per_minute: at most so many calls, at even intervals; None for no limit.
        secrets: never shown in errors.

    Raises:
        ConfigError: ``timeout`` or ``requests_per_minute`` is not above 0, or ``retry`` is no policy.
    """

    def __init__(
        self,
        settings: ChatSettings,
        client: Callable[[], openai.AsyncOpenAI],
        *,
        timeout: float,
        retry: RetryPolicy | bool | None,
        requests_per_minute: float | None,
        secrets: Collection[str] = (),
    ) -> None:
        super().__init__(settings.model_id)
        self._settings = settings
        self._secrets = tuple(secrets)
        self._endpoint = ChatEndpoint(settings.model_id, client, timeout, secrets)
        self._retry = retry_policy(retry)
        self._pace = Pace(requests_per_minute)
        self._refused: set[str] = set()  # parameters that the server has refused so far

    async def _reply_to(self, asked: Asked) -> ModelReply:
        reply = await self._tried(lambda: self._accepted(asked, self._reply))
        return replace(reply, text=cut_at_stop(reply.text, asked.stop_sequences))

    async def _pieces_for(self, asked: Asked) -> AsyncGenerator[ModelDelta, None]:
        async def begun(request: dict[str, Any], removable: Collection[str]) -> _Begun:
            pieces = self._pieces(request, removable, StopFilter(asked.stop_sequences), read_on=bool(asked.tools))
            return await anext(pieces), pieces

        first, pieces = await self._tried(lambda: self._accepted(asked, begun))
        async with aclosing(pieces):
            yield first
            try:
                async for piece in pieces:
                    yield piece
            except Transient as failure:
                raise ModelUnavailable(f"model {self.model_id}: {failure.reason} (in the middle of a reply)") from None

    async def _tried(self, call: Callable[[], Awaitable[Result]]) -> Result:
        return await with_retries(f"model {self.model_id}", call, self._retry, self._pace)

    async def _accepted(self, asked: Asked, call: Call[Result]) -> Result:
        """What ``call`` gives for a request that the server takes; what it refuses on the way is remembered."""
        while True:
            request = self._settings.request(asked, self._refused)
            try:
                return await call(request, self._settings.removable(request))
            except ParameterRefused as refusal:  # ends: each is in no request to come
                self._refused.add(refusal.parameter)

    async def _reply(self, request: dict[str, Any], removable: Collection[str]) -> ModelReply:
        completion = parse_json(self.model_id, await self._endpoint.body(request, removable), self._secrets)
        self._endpoint.raise_error_in(completion)
        return reply_of(self.model_id, completion, self._secrets)

    async def _pieces(
        self, request: dict[str, Any], removable: Collection[str], stop: StopFilter, *, read_on: bool
    ) -> AsyncGenerator[ModelDelta, None]:
        """The pieces of a reply; the last has the usage. At least one."""
        reader, usage = ChunkReader(self.model_id, self._secrets), None
        async with aclosing(self._endpoint.events(request, removable)) as events:
            try:
                async for data in events:
                    delta = self._delta(reader, data)
                    usage = delta.token_usage or usage
                    text = stop.feed(delta.text)
                    if text or delta.tool_calls:
                        yield ModelDelta(text, delta.tool_calls)
                    if stop.stopped and not read_on:
                        usage = await self._usage_after_stop(reader, events) or usage
                        break
            except Transient:
                if not reader.finished:  # otherwise nothing is missing but `[DONE]`, and perhaps the usage
                    raise
        yield ModelDelta(stop.rest(), token_usage=usage)

    def _delta(self, reader: ChunkReader, data: str) -> ModelDelta:
        chunk = parse_json(self.model_id, data, self._secrets)
        self._endpoint.raise_error_in(chunk)
        return reader.delta(chunk)

    async def _usage_after_stop(self, reader: ChunkReader, events: AsyncGenerator[str, None]) -> TokenUsage | None:
        """The usage, if the reply ends soon. The text is complete, so nothing that goes wrong here matters."""
        usage = None
        try:
            async with asyncio.timeout(AFTER_STOP):
                async for data in events:
                    usage = self._delta(reader, data).token_usage or usage
        except (TimeoutError, Transient, ModelUnavailable, ModelReplyInvalid):
            return usage
        return usage


_Begun = tuple[ModelDelta, AsyncGenerator[ModelDelta, None]]
