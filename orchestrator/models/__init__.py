"""Models: one file per provider behind the small protocol ``Model``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.models.model import ChatMessage, Model, ModelReply, TokenUsage
from orchestrator.models.retry import RetryPolicy
from orchestrator.models.scripted import ScriptedModel

if TYPE_CHECKING:
    from orchestrator.models.openai import OpenAIModel, OpenAIServerModel

__all__ = [
    "ChatMessage",
    "Model",
    "ModelReply",
    "OpenAIModel",
    "OpenAIServerModel",
    "RetryPolicy",
    "ScriptedModel",
    "TokenUsage",
]


def __getattr__(name: str) -> Any:
    # The openai package takes longer to import than a sandbox takes to start; who does not use it does not wait.
    if name in {"OpenAIModel", "OpenAIServerModel"}:
        from orchestrator.models.openai import OpenAIServerModel

        return OpenAIServerModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
