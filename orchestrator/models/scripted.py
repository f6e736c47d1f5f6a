"""A model that says what it was told to say: for tests, and for demos without an endpoint."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable

from orchestrator.errors import ModelUnavailable
from orchestrator.models.asked import Asked, AskedModel
from orchestrator.models.deltas import pieces_of
from orchestrator.models.model import ChatMessage, ModelDelta, ModelReply


class ScriptedModel(AskedModel):
    """Gives ``replies`` in order, exactly as they are (stop sequences do not cut them). A text is a reply too.

    Streams give a reply word by word. With no reply left a call is ``ModelUnavailable``.

    Attributes:
        requests: the messages of every call so far, oldest first.
    """

    def __init__(self, replies: Iterable[str | ModelReply]) -> None:
        self._replies = [reply if isinstance(reply, ModelReply) else ModelReply(reply) for reply in replies]
        self._calls: list[Asked] = []
        self.requests: list[tuple[ChatMessage, ...]] = []

    @property
    def calls(self) -> tuple[Asked, ...]:
        """Every call so far with all of its arguments, oldest first."""
        return tuple(self._calls)

    async def _reply_to(self, asked: Asked) -> ModelReply:
        return self._next(asked)

    async def _pieces_for(self, asked: Asked) -> AsyncGenerator[ModelDelta, None]:
        for delta in pieces_of(self._next(asked)):
            yield delta

    def _next(self, asked: Asked) -> ModelReply:
        position = len(self._calls)
        self._calls.append(asked)
        self.requests.append(asked.messages)
        if position >= len(self._replies):
            raise ModelUnavailable(f"this ScriptedModel has {len(self._replies)} replies, and one more was asked for")
        return self._replies[position]

    def __repr__(self) -> str:
        return f"ScriptedModel({len(self._calls)} of {len(self._replies)} replies given)"
