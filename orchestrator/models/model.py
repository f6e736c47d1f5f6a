"""What an agent asks of a model: messages in, one reply out. Everything a provider does lies behind ``Model``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from orchestrator.media import AgentImage

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ChatToolCall:
    """A tool call as a model wrote it, in a reply or in the history.

    Attributes:
        name: the tool.
        arguments: the parsed JSON; the text itself where that is no JSON.
        id: what the answer to it refers to; unique within one reply.
    """

    name: str
    arguments: Any
    id: str


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a conversation.

    Attributes:
        role: who says it; ``tool`` answers one call of the assistant message before it.
        content: its text.
        images: shown after the text, to a model that sees.
        tool_calls: of an assistant message.
        tool_call_id: of a ``tool`` message: the call that it answers.
    """

    role: Role
    content: str
    images: tuple[AgentImage, ...] = ()
    tool_calls: tuple[ChatToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens that the endpoint says it read and wrote."""

    input_tokens: int
    output_tokens: int

    @property
    def total_tokens(self) -> int:
        """Both together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens)


@dataclass(frozen=True, slots=True)
class ModelReply:
    """What a model answered. ``token_usage`` is None where the endpoint does not count."""

    text: str
    token_usage: TokenUsage | None = None
    tool_calls: tuple[ChatToolCall, ...] = ()

    @property
    def content(self) -> str:
        """``text``, as a message calls it."""
        return self.text


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call: ``index`` says of which one in the reply, ``arguments`` is a piece of its JSON text.

    ``id`` and ``name`` come whole, with the first piece or with each.
    """

    index: int
    arguments: str = ""
    name: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class ModelDelta:
    """A piece of a reply. ``token_usage`` is that of the whole reply, in one of the pieces."""

    text: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    token_usage: TokenUsage | None = None


@dataclass(frozen=True, slots=True)
class ToolSchema:
    """A tool as a model is told of it. ``parameters`` is a JSON schema of type ``object``."""

    name: str
    description: str
    parameters: Mapping[str, Any]


class Model(Protocol):
    """Anything that continues a conversation. Used from one event loop at a time; a cancelled call stops at once."""

    async def generate(
        self,
        messages: Sequence[ChatMessage],
        stop_sequences: Sequence[str] = (),
        *,
        tools: Sequence[ToolSchema] = (),
        response_format: Mapping[str, Any] | None = None,
    ) -> ModelReply:
        """The reply to ``messages``, ending before the first of ``stop_sequences``.

        Args:
            messages: the conversation.
            stop_sequences: where the text of the reply ends; they are no part of it.
            tools: what the model may call; with any, it must call at least one.
            response_format: as OpenAI's: ``{"type": "json_schema", "json_schema": {…}}``.

        Raises:
            ModelUnavailable: the endpoint is down, too slow or refuses, after the retries.
            ModelReplyInvalid: it answered with something that is no reply.
        """
        ...


@runtime_checkable
class StreamingModel(Protocol):
    """A model whose replies can be had piece by piece."""

    def generate_stream(
        self,
        messages: Sequence[ChatMessage],
        stop_sequences: Sequence[str] = (),
        *,
        tools: Sequence[ToolSchema] = (),
        response_format: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[ModelDelta]:
        """The pieces of what ``generate`` would give: no text behind a stop sequence is among them.

        Closing the generator ends the call. Only what fails before the first piece is tried again.

        Raises:
            ModelUnavailable, ModelReplyInvalid: as ``generate``; also in the middle of a reply.
        """
        ...
