"""About how many tokens messages take. No tokenizer: it would be another one for each model."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.models import ChatMessage, TokenUsage
from orchestrator.sanitise import in_words

CHARACTERS = 4  # of a token, in English and in code
IMAGE_TOKENS = 1_000  # of a picture: providers count from 85 to some 1,600
# By how much an endpoint's own count can correct that: an Asian script has a token a character, and what a provider
# does not count (cached tokens, say) must not make a conversation seem short.
MIN_FACTOR, MAX_FACTOR = 0.5, 4.0


class TokenMeter:
    """Estimates by characters, corrected by what the endpoint said of the last request."""

    def __init__(self) -> None:
        self._factor = 1.0

    def learn(self, messages: Iterable[ChatMessage], usage: TokenUsage | None) -> None:
        """An endpoint counted ``messages``; None changes nothing."""
        if usage is not None and usage.input_tokens > 0:
            factor = usage.input_tokens / max(1.0, _raw(messages))
            self._factor = min(max(factor, MIN_FACTOR), MAX_FACTOR)

    def estimate(self, messages: Iterable[ChatMessage]) -> int:
        """Tokens of ``messages``."""
        return round(_raw(messages) * self._factor)


def _raw(messages: Iterable[ChatMessage]) -> float:
    return sum(_characters(message) / CHARACTERS + IMAGE_TOKENS * len(message.images) for message in messages)


def _characters(message: ChatMessage) -> int:
    return len(message.content) + sum(
        len(call.name) + len(in_words(call.arguments, str)) for call in message.tool_calls
    )
