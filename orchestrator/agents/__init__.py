"""Agents: a model thinks, code or tools act, and the loop in loop.py goes round until there is an answer."""

from orchestrator.agents.branching import Best
from orchestrator.agents.code import CodeAgent
from orchestrator.agents.loop import MultiStepAgent
from orchestrator.agents.memory import (
    ActionStep,
    AgentMemory,
    FinalAnswerStep,
    StepError,
    SystemPromptStep,
    TaskStep,
    Timing,
)
from orchestrator.agents.observation import truncate
from orchestrator.agents.parsing import CodeAction
from orchestrator.agents.run import AgentEvent, RunResult, StepStarted
from orchestrator.agents.workplace import SandboxSettings
from orchestrator.sanitise import sanitise

__all__ = [
    "ActionStep",
    "AgentEvent",
    "AgentMemory",
    "Best",
    "CodeAction",
    "CodeAgent",
    "FinalAnswerStep",
    "MultiStepAgent",
    "RunResult",
    "SandboxSettings",
    "StepError",
    "StepStarted",
    "SystemPromptStep",
    "TaskStep",
    "Timing",
    "sanitise",
    "truncate",
]
