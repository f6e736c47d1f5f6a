"""The arguments of a call as one value: what models are asked, from ``Model``'s two methods on to those that answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.made_with import MadeWith
from orchestrator.models.model import ChatMessage, ModelDelta, ModelReply, ToolSchema


@dataclass(frozen=True, slots=True)
class Asked:
    """The arguments of ``Model.generate``, or with ``stream`` those of ``StreamingModel.generate_stream``."""

    messages: tuple[ChatMessage, ...]
    stop_sequences: tuple[str, ...] = ()
    tools: tuple[ToolSchema, ...] = ()
    response_format: Mapping[str, Any] | None = None
    stream: bool = False


class AskedModel(MadeWith, ABC):
    """A ``Model`` and a ``StreamingModel`` that says how it answers in ``_reply_to`` and ``_pieces_for``."""

    async def generate(
        self,
        messages: Sequence[ChatMessage],
        stop_sequences: Sequence[str] = (),
        *,
        tools: Sequence[ToolSchema] = (),
        response_format: Mapping[str, Any] | None = None,
    ) -> ModelReply:
        """The reply to ``messages``; see ``Model``."""
        return await self._reply_to(Asked(tuple(messages), tuple(stop_sequences), tuple(tools), response_format))

    def generate_stream(
        self,
        messages: Sequence[ChatMessage],
        stop_sequences: Sequence[str] = (),
        *,
        tools: Sequence[ToolSchema] = (),
        response_format: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[ModelDelta, None]:
        """The reply to ``messages`` in pieces; see ``StreamingModel``."""
        return self._pieces_for(Asked(tuple(messages), tuple(stop_sequences), tuple(tools), response_format, True))

    @abstractmethod
    async def _reply_to(self, asked: Asked) -> ModelReply:
        """As ``generate``."""

    @abstractmethod
    def _pieces_for(self, asked: Asked) -> AsyncGenerator[ModelDelta, None]:
        """As ``generate_stream``."""


class NamedModel(AskedModel):
    """One that is made for a model of that name. Another name needs another model: much is settled by it at once."""

    def __init__(self, model_id: str) -> None:
        self._model_id = model_id

    @property
    def model_id(self) -> str:
        """The model's name."""
        return self._model_id
