"""What carrying out a model's reply came to, and whether the run ends with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.agents.parsing import CodeTags
from orchestrator.agents.steps import ActionStep, CallResult, FinalAnswerStep, StepError, Stopwatch
from orchestrator.errors import AnswerRefused
from orchestrator.events import Execution, FinalAnswer
from orchestrator.models import TokenUsage


@dataclass(frozen=True, slots=True)
class Outcome:
    """What carrying out a reply came to; the fields are those of ``ActionStep``."""

    model_output: str
    code_action: str | None = None
    observations: str | None = None
    remarks: str = ""
    error: StepError | None = None
    execution: Execution | None = None
    action_output: Any = None
    final_answer: FinalAnswer | None = None
    tool_calls: tuple[CallResult, ...] = ()
    native_calls: bool = False
    code_tags: CodeTags | None = None

    def step(self, number: int, watch: Stopwatch, token_usage: TokenUsage | None) -> ActionStep:
        """What is remembered of it."""
        final = self.final_answer
        return ActionStep(
            step_number=number,
            timing=watch.timing(),
            model_output=self.model_output,
            code_action=self.code_action,
            observations=self.observations,
            remarks=self.remarks,
            error=self.error,
            execution=self.execution,
            token_usage=token_usage,
            is_final_answer=final is not None,
            action_output=self.action_output if final is None else final.value,
            tool_calls=self.tool_calls,
            native_calls=self.native_calls,
            code_tags=self.code_tags,
        )


def end_of_run(step: ActionStep, limit: int) -> FinalAnswerStep | None:
    """The end of a run of ``limit`` steps, if ``step`` is its last: the answer, or what was said in its place after.

    Raises:
        AnswerRefused: that did not pass the checks.
    """
    if step.is_final_answer:
        return FinalAnswerStep(step.action_output)
    if step.step_number <= limit:
        return None
    if step.error:
        raise AnswerRefused(f"the steps were used up, and the answer asked for then was refused: {step.error}")
    return FinalAnswerStep(step.action_output, "max_steps_error")
