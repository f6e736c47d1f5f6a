"""Recorded runs gone on with in a real container; only the model's words are scripted."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.agents import ActionStep, CodeAgent, SandboxSettings
from orchestrator.errors import ModelUnavailable
from orchestrator.events import State, Status
from orchestrator.models import ScriptedModel
from orchestrator.tools import tool
from tests.unit.scripted_agents import step

pytestmark = pytest.mark.docker

DEADLINE = 60.0  # seconds for a program, a container's start included


class Outside:
    """What tools change."""

    def __init__(self) -> None:
        self.paid: list[int] = []
        self._lock = threading.Lock()

    def tools(self) -> list[Any]:
        @tool
        def pay(amount: int) -> dict[str, Any]:
            """Pays.

            Args:
                amount: how much
            """
            with self._lock:
                self.paid.append(amount)
            if amount > 100:
                raise ValueError(f"{amount} is too much")
            return {"amount": amount, "to": ("a", b"\x00"), "sum": sum(self.paid)}

        @tool
        async def rate(city: str) -> float:
            """A rate.

            Args:
                city: where
            """
            with self._lock:
                self.paid.append(len(city))
            return float("inf")

        return [pay, rate]


def agent(path: Path, codes: Sequence[str], outside: Outside, **more: Any) -> CodeAgent:
    return CodeAgent(
        outside.tools(), ScriptedModel([step(code) for code in codes]), record=path, verbosity_level=-1, **more
    )


STEPS = [
    "first = pay(7)\ndef double(n): return 2 * n\nwritten = open('notes.txt', 'w').write('kept')",
    "try:\n    pay(500)\nexcept ValueError as error:\n    refused = str(error)",
    "import asyncio\nboth = await asyncio.gather(rate('Oslo'), rate('Rome'))",
    "1/0",
    "import concurrent.futures\nwith concurrent.futures.ThreadPoolExecutor() as pool:\n"
    "    sums = sorted(r['amount'] for r in pool.map(pay, [1, 2, 3, 4]))",
]
ANSWER = "final_answer([first['to'], double(first['amount']), refused, both, sums, open('notes.txt').read(), extra])"
EXPECTED = [("a", b"\x00"), 14, "500 is too much", [float("inf")] * 2, [1, 2, 3, 4], "kept", {"k": (1,)}]
IMPORTS = ["asyncio", "concurrent.*"]


def test_variables_files_and_results_are_there_again_and_nothing_is_done_twice(tmp_path: Path) -> None:
    path, outside = tmp_path / "run.jsonl", Outside()
    with (
        agent(path, STEPS, outside, additional_authorized_imports=IMPORTS) as first,
        pytest.raises(ModelUnavailable),
    ):
        first.run("Task.", additional_args={"extra": {"k": (1,)}})
    assert [s.error for s in first.memory.steps if isinstance(s, ActionStep) and s.step_number != 4] == [None] * 4
    paid = list(outside.paid)
    with agent(path, [ANSWER], outside, additional_authorized_imports=IMPORTS) as again:
        result = again.resume(strict=True, return_full_result=True)
    assert result.output == EXPECTED
    assert result.differences == ()
    assert outside.paid == paid
    assert sorted(paid) == [1, 2, 3, 4, 4, 4, 7, 500]


KILLED = """
import os, sys
from orchestrator.agents import CodeAgent
from orchestrator.models import ScriptedModel
from orchestrator.tools import tool

@tool
def pay(amount: int) -> int:
    '''Pays.

    Args:
        amount: how much
    '''
    with open(sys.argv[2], "a") as file: file.write(f"{amount}\\n")
    if amount == 2: os._exit(9)  # in the middle of the second step
    return amount

codes = ["x = pay(1)", "y = pay(2)", "final_answer(0)"]
replies = [f"Go.\\n<code>\\n{code}\\n</code>" for code in codes]
CodeAgent([pay], ScriptedModel(replies), record=sys.argv[1], verbosity_level=-1).run("Task.")
"""


def test_a_program_that_was_killed(tmp_path: Path) -> None:
    path, paid = tmp_path / "run.jsonl", tmp_path / "paid"
    program = [sys.executable, "-c", KILLED, str(path), str(paid)]
    ended = subprocess.run(program, timeout=DEADLINE, check=False, env=dict(os.environ))
    assert ended.returncode == 9
    outside = Outside()
    with agent(path, ["final_answer([x, 'y' in globals()])"], outside) as again:
        result = again.resume(return_full_result=True)
    assert result.output == [1, False]
    assert result.differences == ()
    assert "pay(2): whether it took effect is not known" in str(again.write_memory_to_messages())
    assert (paid.read_text(), outside.paid) == ("1\n2\n", [])


def test_steps_whose_state_was_not_kept(tmp_path: Path) -> None:
    path, outside = tmp_path / "run.jsonl", Outside()
    codes = ["x = 1", "x = 2\nwhile True: pass", "y = pay(3)['amount']\nimport os\nos._exit(1)", "x += 10"]
    settings = SandboxSettings(timeout=2.0)
    more: dict[str, Any] = {"sandbox": settings, "additional_authorized_imports": ["os"], "on_error": "rollback"}
    with agent(path, codes, outside, **more) as first, pytest.raises(ModelUnavailable):
        first.run("Task.")
    outcomes = [s.execution for s in first.memory.steps if isinstance(s, ActionStep)]
    assert [(e.status, e.state) for e in outcomes if e] == [
        (Status.OK, State.KEPT),
        (Status.TIMEOUT, State.RESTORED),
        (Status.DIED, State.RESTORED),
        (Status.OK, State.KEPT),
    ]
    with agent(path, ["final_answer([x, 'y' in globals()])"], outside, **more) as again:
        assert again.resume(strict=True) == [11, False]
    assert outside.paid == [3]


def test_what_is_random_is_told(tmp_path: Path) -> None:
    path, outside = tmp_path / "run.jsonl", Outside()
    with agent(path, ["import random\nprint(random.random())"], outside) as first, pytest.raises(ModelUnavailable):
        first.run("Task.")
    with agent(path, ["final_answer(1)"], outside) as again:
        result = again.resume(return_full_result=True)
    assert result.differences == ("step 1 printed or gave something else than it had",)
