"""What a run streams, and what it gives in the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any

from orchestrator.agents.dataclass_json import written_record
from orchestrator.agents.memory import AgentMemory
from orchestrator.agents.observation import Observation
from orchestrator.agents.parsing import CodeAction
from orchestrator.agents.steps import (
    ActionStep,
    FinalAnswerStep,
    MemoryStep,
    NoteStep,
    PlanningStep,
    RunState,
    TaskStep,
    Timing,
)
from orchestrator.events import ApprovalAsked, ApprovalDecided, ExecutionEvent
from orchestrator.models import ModelDelta, TokenUsage


@dataclass(frozen=True, slots=True)
class StepStarted:
    """The model is asked for the next step. ``max_steps`` is 0 where it is not known, in a replay."""

    step_number: int
    max_steps: int


@dataclass(frozen=True, slots=True)
class Overheard:
    """``event`` happened in a run of ``agent``, a member of the team. Members of a member's team nest."""

    agent: str
    event: AgentEvent


@dataclass(frozen=True, slots=True)
class Compacted:
    """From now on the model is shown less of the conversation, which had become long.

    Attributes:
        tokens_before: about how many the next request would have had.
        tokens_after: about how many it has.
        token_usages: of the model calls for it, such as for a summary; None where the endpoint does not count.
    """

    tokens_before: int
    tokens_after: int
    token_usages: tuple[TokenUsage | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A run goes on, in a sandbox whose state was made again.

    Attributes:
        actions: how many executions were run again.
        differences: what may not be as it was, in words; the model is told the same. Empty if nothing is known of any.
    """

    actions: int
    differences: tuple[str, ...] = ()


AgentEvent = (
    TaskStep
    | PlanningStep
    | Rebuilt
    | NoteStep
    | Compacted
    | StepStarted
    | ModelDelta
    | CodeAction
    | ExecutionEvent
    | Overheard
    | Observation
    | ActionStep
    | FinalAnswerStep
)
"""In this order: the task, or of a run that is gone on with what had to be made again and a note on it; for each step
whether the conversation was shortened before it, a plan if one is due, its start, the pieces of the reply if the agent
streams them, its code, what its execution or its tool calls do and what members of the team do meanwhile, what the
model will be told of it, the step; the final answer."""

RunEvent = AgentEvent | ApprovalAsked | ApprovalDecided
"""What a run of the service streams: the agent's events, and between them what its policy asked."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """The whole outcome of one run.

    Attributes:
        output: the final answer.
        state: ``success``, or ``max_steps_error`` when the model was asked for its answer as the steps were used up.
        steps: the memory after the run, the system prompt first.
        token_usage: of all model calls of this run, those of the team included; None if the endpoint did not count one
            of them.
        timing: from the call to the answer.
        differences: of a run that was gone on with: what may not be as it was, in words.
    """

    output: Any
    state: RunState
    steps: tuple[MemoryStep, ...]
    token_usage: TokenUsage | None
    timing: Timing
    differences: tuple[str, ...] = ()

    def dict(self) -> Mapping[str, Any]:
        """All of it as ``json`` can write it; each step as its own ``dict()`` gives it."""
        return {**written_record(replace(self, steps=())), "steps": [step.dict() for step in self.steps]}


def usages_of(event: AgentEvent) -> Sequence[TokenUsage | None]:
    """Of the model calls that ``event`` tells of, those of the team included; None where one was not counted."""
    inner = event
    while isinstance(inner, Overheard):
        inner = inner.event
    if isinstance(inner, (ActionStep, PlanningStep)):
        return (inner.token_usage,)
    return inner.token_usages if isinstance(inner, Compacted) else ()


class Tally:
    """What of a run's events its result is made of."""

    def __init__(self) -> None:
        self._usages: list[TokenUsage | None] = []
        self._final: FinalAnswerStep | None = None
        self._differences: tuple[str, ...] = ()

    def add(self, event: AgentEvent) -> None:
        """Takes the next event."""
        if isinstance(event, FinalAnswerStep):
            self._final = event
        if isinstance(event, Rebuilt):
            self._differences = event.differences
        self._usages.extend(usages_of(event))

    def result(self, memory: AgentMemory, timing: Timing) -> RunResult:
        """The result of a run that has ended with a ``FinalAnswerStep``."""
        assert self._final
        steps, usage = memory.all_steps(), _sum(self._usages)
        return RunResult(self._final.output, self._final.state, steps, usage, timing, self._differences)


def _sum(usages: Sequence[TokenUsage | None]) -> TokenUsage | None:
    counted = [usage for usage in usages if usage is not None]
    return reduce(add, counted) if counted and len(counted) == len(usages) else None
