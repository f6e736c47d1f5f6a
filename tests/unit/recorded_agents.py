"""Agents whose runs are recorded, for the tests of going on with them."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.agents import CodeAgent
from orchestrator.agents.steps import NoteStep
from orchestrator.errors import ModelUnavailable
from orchestrator.models import ScriptedModel
from orchestrator.tools import tool
from tests.unit.local_sandbox import LocalSandbox, LocalSettings
from tests.unit.scripted_agents import step


class Counter:
    """Tools that count their calls."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self._lock = threading.Lock()

    def tools(self) -> list[Any]:
        @tool
        def add(number: int) -> int:
            """Adds to a sum that is kept outside.

            Args:
                number: what to add
            """
            with self._lock:
                self.calls.append(number)
            if number == 13:
                raise KeyError("thirteen")
            return sum(call for call in self.calls if isinstance(call, int))

        @tool
        async def fetch(name: str) -> dict[str, Any]:
            """Fetches.

            Args:
                name: what
            """
            self.calls.append(name)
            return {"name": name, "raw": b"\x00", "$type": "set"}

        return [add, fetch]


def agent(path: Path | None, codes: Sequence[str], counter: Counter | None = None, **more: Any) -> CodeAgent:
    settings = LocalSettings()
    made = CodeAgent(
        counter.tools() if counter else [],
        ScriptedModel([code if "<" in code or "plan" in code else step(code) for code in codes]),
        sandbox=settings,
        verbosity_level=-1,
        record=path,
        **more,
    )
    made.settings = settings  # type: ignore[attr-defined]
    return made


def crashed(path: Path, codes: Sequence[str], counter: Counter | None = None, task: str = "Task.", **more: Any) -> None:
    """A run whose program ends when the model has said all of ``codes``."""
    run = {key: more.pop(key) for key in ("images", "additional_args", "max_steps") if key in more}
    with pytest.raises(ModelUnavailable):
        agent(path, codes, counter, **more).run(task, **run)


def sandbox(agent: CodeAgent) -> LocalSandbox:
    (made,) = agent.settings.made  # type: ignore[attr-defined]
    return made


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def notes(agent: Any) -> list[str]:
    return [s.note for s in agent.memory.steps if isinstance(s, NoteStep)]


FIRST = ["x = add(1)\nprint(x)", "y = add(2) + x\nd = fetch(name='a')", "print(y)"]
LAST = ["z = add(3)", "final_answer([x, y, z, d['raw'] == b'\\x00', d['$type']])"]
