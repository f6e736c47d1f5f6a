"""Asks a model: pieces of the reply as they come, then the reply. Any object with a ``generate`` will do.

A model as smolagents' users write them, with a plain ``def generate`` that gives a message or a text, runs in a thread.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.agents.callbacks import call
from orchestrator.agents.interruption import Interruption
from orchestrator.errors import AgentError, ModelReplyInvalid
from orchestrator.models import (
    ChatMessage,
    ChatToolCall,
    ModelDelta,
    ModelReply,
    StreamingModel,
    TokenUsage,
    ToolSchema,
)
from orchestrator.models.chat_format import parsed_arguments
from orchestrator.models.completion import is_count
from orchestrator.models.deltas import Joined


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked."""

    messages: Sequence[ChatMessage]
    stop_sequences: Sequence[str] = ()
    tools: Sequence[ToolSchema] = ()
    response_format: Mapping[str, Any] | None = None

    def given(self, function: Callable[..., Any]) -> dict[str, Any]:
        """The arguments but the messages that ``function`` takes: a simple model need not know of all of them.

        One that knows no stop sequences is not given any: its reply is parsed anyway.
        """
        asked = {
            "stop_sequences": self.stop_sequences,
            "tools": self.tools,
            "response_format": self.response_format,
        }
        return {name: value for name, value in asked.items() if value and _takes(function, name)}


def checked_model(model: object, streams: bool) -> Any:
    """``model``, if it is one, and can do what is wanted.

    Raises:
        AgentError: it cannot.
    """
    if not callable(getattr(model, "generate", None)):
        raise AgentError(f"model: {model!r} has no generate(messages, stop_sequences)")
    if streams and not isinstance(model, StreamingModel):
        raise AgentError(f"stream_outputs: {type(model).__name__} has no generate_stream; leave it False")
    if streams and inspect.isgeneratorfunction(model.generate_stream):  # type: ignore[attr-defined]
        raise AgentError(f"stream_outputs: make generate_stream of {type(model).__name__} an 'async def'")
    return model


async def answers(
    model: Any, question: Question, interruption: Interruption, *, stream: bool
) -> AsyncGenerator[ModelDelta | ModelReply, None]:
    """The pieces if ``stream``, then exactly one ``ModelReply``."""
    if not stream:
        yield await interruption.guard(_whole(model.generate, question))
        return
    joined = Joined()
    pieces = model.generate_stream(question.messages, **question.given(model.generate_stream))
    try:
        while (piece := await interruption.guard(_next(pieces))) is not None:
            joined.add(piece)
            yield piece
    finally:
        if hasattr(pieces, "aclose"):  # an iterator of somebody's own need not have it
            await pieces.aclose()
    yield joined.reply()


async def _next(pieces: AsyncIterator[ModelDelta]) -> ModelDelta | None:
    return await anext(pieces, None)


async def _whole(generate: Callable[..., Any], question: Question) -> ModelReply:
    return _reply(await call(generate, question.messages, **question.given(generate)))


def _takes(function: Callable[..., Any], name: str) -> bool:
    parameters = inspect.signature(function).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _reply(given: Any) -> ModelReply:
    """What a model of somebody's own gave: a reply, a message with ``content``, or a text."""
    match given:
        case ModelReply():
            return given
        case str():
            return ModelReply(given)
    content = getattr(given, "content", None)
    calls = tuple(_call(made, number) for number, made in enumerate(getattr(given, "tool_calls", None) or ()))
    if not isinstance(content, str) and not (content is None and calls):
        raise ModelReplyInvalid(f"the model gave {type(given).__name__}; it must give a ModelReply or a text")
    return ModelReply(content or "", _usage(getattr(given, "token_usage", None)), calls)


def _call(made: Any, number: int) -> ChatToolCall:
    """A call as we have it, or as smolagents has: with a ``function`` of a name and arguments."""
    if isinstance(made, ChatToolCall):
        return made
    function = getattr(made, "function", made)
    name = getattr(function, "name", None)
    if not isinstance(name, str):
        raise ModelReplyInvalid(f"the model gave a tool call without a name: {type(made).__name__}")
    identity = getattr(made, "id", None)
    return ChatToolCall(name, parsed_arguments(getattr(function, "arguments", None)), str(identity or f"call_{number}"))


def _usage(given: Any) -> TokenUsage | None:
    counts = getattr(given, "input_tokens", None), getattr(given, "output_tokens", None)
    return TokenUsage(*counts) if all(map(is_count, counts)) else None  # type: ignore[arg-type]
