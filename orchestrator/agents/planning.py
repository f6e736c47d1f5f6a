"""A plan every so many steps: what the model is asked, and when. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.agents.memory import merged
from orchestrator.agents.prompts import PlanningTemplates, render
from orchestrator.agents.replies import Question
from orchestrator.agents.steps import KeptStep, NoteStep, PlanningStep
from orchestrator.errors import AgentError
from orchestrator.models import ChatMessage

END_OF_PLAN = "<end_plan>"


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to plan: before the first step, and before every ``interval`` steps; never if that is None.

    Raises:
        AgentError: the interval is no number of steps.
    """

    interval: int | None = None

    def __post_init__(self) -> None:
        if self.interval is not None and (type(self.interval) is not int or self.interval < 1):
            raise AgentError(f"planning_interval is {self.interval!r}; it must be a whole number, at least 1")

    def is_due(self, step_number: int) -> bool:
        """Whether a plan comes before that step."""
        return self.interval is not None and (step_number - 1) % self.interval == 0


def planned(steps: Sequence[KeptStep]) -> bool:
    """Whether the newest step but for notes is a plan: one was made, and then the run was gone on with."""
    newest = next((step for step in reversed(steps) if not isinstance(step, NoteStep)), None)
    return isinstance(newest, PlanningStep)


def planning_question(
    templates: PlanningTemplates, history: Sequence[ChatMessage], is_first: bool, **variables: Any
) -> Question:
    """The conversation so far, its pictures too, and that a plan is wanted now.

    Args:
        templates: of the agent.
        history: as the model is shown it; what is asked comes after it, so that it stays the beginning.
        is_first: whether the run has no plan yet.
        variables: for the templates.
    """
    parts = ["initial_plan"] if is_first else ["update_plan_pre_messages", "update_plan_post_messages"]
    asked = [ChatMessage("user", render(templates[part], **variables)) for part in parts]  # type: ignore[literal-required]
    return Question(merged([*history, *asked]), (END_OF_PLAN,))
