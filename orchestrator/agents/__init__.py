"""Agents: a model thinks, code or tools act, and the loop in loop.py goes round until there is an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.lazily import lazily

if TYPE_CHECKING:
    from orchestrator.agents.branching import Best
    from orchestrator.agents.code import CodeAgent
    from orchestrator.agents.compaction import Conversation, ShortenOldest, SummariseOldest
    from orchestrator.agents.logger import AgentLogger, LogLevel
    from orchestrator.agents.loop import MultiStepAgent
    from orchestrator.agents.memory import AgentMemory
    from orchestrator.agents.observation import Observation
    from orchestrator.agents.parsing import CodeAction
    from orchestrator.agents.printer import RunPrinter
    from orchestrator.agents.prompts import PromptTemplates
    from orchestrator.agents.run import AgentEvent, Compacted, Overheard, Rebuilt, RunResult, StepStarted
    from orchestrator.agents.steps import (
        ActionStep,
        CallResult,
        FinalAnswerStep,
        NoteStep,
        PlanningStep,
        StepError,
        SystemPromptStep,
        TaskStep,
        Timing,
    )
    from orchestrator.agents.tool_calling import ToolCallingAgent
    from orchestrator.agents.workplace import SandboxSettings

__all__ = [
    "ActionStep",
    "AgentEvent",
    "AgentLogger",
    "AgentMemory",
    "Best",
    "CallResult",
    "CodeAction",
    "CodeAgent",
    "Compacted",
    "Conversation",
    "FinalAnswerStep",
    "LogLevel",
    "MultiStepAgent",
    "NoteStep",
    "Observation",
    "Overheard",
    "PlanningStep",
    "PromptTemplates",
    "Rebuilt",
    "RunPrinter",
    "RunResult",
    "SandboxSettings",
    "ShortenOldest",
    "StepError",
    "StepStarted",
    "SummariseOldest",
    "SystemPromptStep",
    "TaskStep",
    "Timing",
    "ToolCallingAgent",
]

_LAZY = {
    "ActionStep": "steps",
    "AgentEvent": "run",
    "AgentLogger": "logger",
    "AgentMemory": "memory",
    "Best": "branching",
    "CallResult": "steps",
    "CodeAction": "parsing",
    "CodeAgent": "code",
    "Compacted": "run",
    "Conversation": "compaction",
    "FinalAnswerStep": "steps",
    "LogLevel": "logger",
    "MultiStepAgent": "loop",
    "NoteStep": "steps",
    "Observation": "observation",
    "Overheard": "run",
    "PlanningStep": "steps",
    "PromptTemplates": "prompts",
    "Rebuilt": "run",
    "RunPrinter": "printer",
    "RunResult": "run",
    "SandboxSettings": "workplace",
    "ShortenOldest": "compaction",
    "StepError": "steps",
    "StepStarted": "run",
    "SummariseOldest": "compaction",
    "SystemPromptStep": "steps",
    "TaskStep": "steps",
    "Timing": "steps",
    "ToolCallingAgent": "tool_calling",
}
__getattr__ = lazily(__name__, _LAZY)
