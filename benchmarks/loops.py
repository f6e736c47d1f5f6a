"""What a step of an agent costs beside its model: the first steps of a run, and its last ones."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise

from benchmarks.figures import MILLISECOND, Figure, median_of
from orchestrator.agents import ActionStep, CodeAgent, LogLevel
from orchestrator.errors import AgentInterrupted
from orchestrator.models import ScriptedModel
from orchestrator.sandbox import Sandbox

STEPS = 50
EACH = 10  # steps at the beginning and at the end whose median is taken
INTERRUPTS = 5


def step_figures() -> list[Figure]:
    """A run of ``STEPS`` steps: the loop's cost may not grow with the history. The floor is the execution alone."""
    code = "print('x' * 500)"
    with Sandbox() as sandbox:
        floor = median_of(STEPS, lambda: sandbox.run_code(code))
    moments: list[float] = []
    replies = [f"Thought: go on.\n<code>\n{code}\n</code>"] * (STEPS + 1) + ["<code>\nfinal_answer(1)\n</code>"]
    with CodeAgent(
        [], ScriptedModel(replies), max_steps=STEPS + 2, verbosity_level=LogLevel.OFF, step_callbacks=[_noted(moments)]
    ) as agent:
        agent.run("Print.")
    taken = [after - before for before, after in pairwise(moments)][:STEPS]
    return [
        Figure(f"agent step, the first {EACH} of {STEPS}", _median(taken[:EACH]), floor, "run_code"),
        Figure(f"agent step, the last {EACH} of {STEPS}", _median(taken[-EACH:]), floor, "run_code"),
    ]


def interrupt_figure() -> Figure:
    """``interrupt()`` during an execution, until ``run`` has ended."""

    def once() -> float:
        asked: list[float] = []
        replies = ["<code>\nprint('on')\nwhile True: pass\n</code>"]
        with CodeAgent([], ScriptedModel(replies), verbosity_level=LogLevel.OFF) as agent:
            try:
                for event in agent.run("Hang.", stream=True):
                    if getattr(event, "text", "").startswith("on"):
                        asked.append(time.perf_counter())
                        agent.interrupt()
            except AgentInterrupted:
                return time.perf_counter() - asked[0]
        raise RuntimeError("the run was not interrupted")

    return Figure(
        "interrupt() to the end of the run", statistics.median(once() for _ in range(INTERRUPTS)) * MILLISECOND
    )


def _noted(moments: list[float]) -> Callable[[ActionStep], None]:
    return lambda step: moments.append(time.perf_counter())


def _median(seconds: list[float]) -> float:
    return statistics.median(seconds) * MILLISECOND
