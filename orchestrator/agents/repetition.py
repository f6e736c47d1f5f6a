"""Notices that a model makes the same mistake again and again, which it does not notice itself. No I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence

from orchestrator.agents.steps import ActionStep, KeptStep, StepError

TIMES = 3  # the same error so often in a row is pointed out
_LINE_NUMBERS = re.compile(r"\bline \d+")


def on_repetition(steps: Sequence[KeptStep], error: StepError | None) -> str:
    """What to tell the model about ``error``, which is not in ``steps`` yet; nothing if it is not stuck."""
    if error is None:
        return ""
    before = [step.error for step in steps if isinstance(step, ActionStep)][1 - TIMES :]
    if len(before) < TIMES - 1 or any(_core(earlier) != _core(error) for earlier in before):
        return ""
    return (
        f"This is the same error for the {TIMES}rd time in a row or more. What you try does not work: do not try it "
        "again. Think about why, and solve the task in another way."
    )


def _core(error: StepError | None) -> str | None:
    """What of an error stays the same if the mistake does: its last line, the kind and message of an exception."""
    if error is None:
        return None
    lines = error.message.strip().splitlines() or [""]
    return f"{error.kind}: {_LINE_NUMBERS.sub('line', lines[-1])}"
