"""A model that says what it was told to say: for tests, and for demos without an endpoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orchestrator.errors import ModelUnavailable
from orchestrator.models.model import ChatMessage, ModelReply


class ScriptedModel:
    """Gives ``replies`` in order, exactly as they are (stop sequences do not cut them).

    Attributes:
        requests: the messages of every call so far, oldest first.
    """

    def __init__(self, replies: Iterable[str | ModelReply]) -> None:
        self._replies = [reply if isinstance(reply, ModelReply) else ModelReply(reply) for reply in replies]
        self.requests: list[tuple[ChatMessage, ...]] = []

    async def generate(self, messages: Sequence[ChatMessage], stop_sequences: Sequence[str] = ()) -> ModelReply:
        """The next reply of the script.

        Raises:
            ModelUnavailable: the script has no reply left.
        """
        position = len(self.requests)
        self.requests.append(tuple(messages))
        if position >= len(self._replies):
            raise ModelUnavailable(f"this ScriptedModel has {len(self._replies)} replies, and one more was asked for")
        return self._replies[position]

    def __repr__(self) -> str:
        return f"ScriptedModel({len(self.requests)} of {len(self._replies)} replies given)"
