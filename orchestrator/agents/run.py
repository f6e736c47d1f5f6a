"""What a run streams, and what it gives in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

from orchestrator.agents.memory import (
    ActionStep,
    AgentMemory,
    FinalAnswerStep,
    MemoryStep,
    RunState,
    TaskStep,
    Timing,
)
from orchestrator.agents.parsing import CodeAction
from orchestrator.events import ExecutionEvent
from orchestrator.models import TokenUsage


@dataclass(frozen=True, slots=True)
class StepStarted:
    """The model is asked for the next step."""

    step_number: int
    max_steps: int


@dataclass(frozen=True, slots=True)
class RunResult:
    """The whole outcome of one run.

    Attributes:
        output: the final answer.
        state: ``success``, or ``max_steps_error`` when the model was asked for its answer as the steps were used up.
        steps: the memory after the run, the system prompt first.
        token_usage: of all model calls of this run; None if the endpoint did not count one of them.
        timing: from the call to the answer.
    """

    output: Any
    state: RunState
    steps: tuple[MemoryStep, ...]
    token_usage: TokenUsage | None
    timing: Timing


AgentEvent = TaskStep | StepStarted | CodeAction | ExecutionEvent | ActionStep | FinalAnswerStep
"""In this order: the task; for each step its start, its code, what its execution does, the step; the final answer."""


def run_result(events: Sequence[ActionStep | FinalAnswerStep], memory: AgentMemory, timing: Timing) -> RunResult:
    """The result of a run that ended with the last of ``events``, a ``FinalAnswerStep``."""
    final = events[-1]
    assert isinstance(final, FinalAnswerStep)
    usages = [event.token_usage for event in events if isinstance(event, ActionStep)]
    counted = [usage for usage in usages if usage is not None]
    total = reduce(add, counted) if len(counted) == len(usages) else None
    return RunResult(final.output, final.state, memory.all_steps(), total, timing)
