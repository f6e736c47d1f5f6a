"""cellblock: run untrusted agent code in a locked-down container, with an agent layer on top.

Names are looked up when they are first used, so that what needs only a part (the command line, ``make up``) does not
wait for gRPC or a model's client to be imported.
"""

from __future__ import annotations

import importlib
from typing import Any

_NAMES = {
    "orchestrator.agents": (
        "ActionStep",
        "AgentMemory",
        "Best",
        "CodeAgent",
        "FinalAnswerStep",
        "MultiStepAgent",
        "RunResult",
        "SandboxSettings",
        "SystemPromptStep",
        "TaskStep",
    ),
    "orchestrator.config": ("Config", "Limits"),
    "orchestrator.errors": ("CellblockError",),
    "orchestrator.events": (
        "Ending",
        "Execution",
        "ExecutionError",
        "Files",
        "Finished",
        "Output",
        "State",
        "Status",
        "ToolCall",
        "ToolOutcome",
    ),
    "orchestrator.models": ("ChatMessage", "OpenAIModel", "OpenAIServerModel", "ScriptedModel"),
    "orchestrator.policy": ("ExecutionRequest", "ToolCallRequest", "Verdict"),
    "orchestrator.sandbox": ("AsyncSandbox", "Checkpoint", "NDArray", "Opaque", "Rollback", "Sandbox"),
    "orchestrator.tools": ("Tool", "tool"),
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
