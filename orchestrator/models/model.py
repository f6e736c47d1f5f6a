"""What an agent asks of a model: messages in, one reply out. Everything a provider does lies behind ``Model``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a conversation."""

    role: Role
    content: str


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


class Model(Protocol):
    """Anything that continues a conversation. Used from one event loop at a time; a cancelled call stops at once."""

    async def generate(self, messages: Sequence[ChatMessage], stop_sequences: Sequence[str] = ()) -> ModelReply:
        """The reply to ``messages``, ending before the first of ``stop_sequences``.

        Raises:
            ModelUnavailable: the endpoint is down, too slow or refuses, after the retries.
            ModelReplyInvalid: it answered with something that is no reply.
        """
        ...


def cut_at_stop(text: str, stop_sequences: Sequence[str]) -> str:
    """``text`` up to the first stop sequence in it: what an endpoint that knows ``stop`` would have sent."""
    ends = [at for stop in stop_sequences if (at := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text
