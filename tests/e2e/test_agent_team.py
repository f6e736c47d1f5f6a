"""Teams and typed values in real containers: members are called by the manager's code; only the models are scripted."""

from __future__ import annotations

import asyncio
import datetime
import threading
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest

from orchestrator.agents import ActionStep, CodeAgent, Overheard, SandboxSettings, TaskStep, ToolCallingAgent
from orchestrator.errors import AgentInterrupted
from orchestrator.events import Output, Status
from orchestrator.media import AgentAudio, AgentImage
from orchestrator.models import ChatMessage, ModelReply, ScriptedModel
from orchestrator.sandbox import Table
from orchestrator.tools import tool
from tests.e2e.containers import own_containers
from tests.unit.scripted_agents import calls, step

pytestmark = pytest.mark.docker
DEADLINE = 60.0


class TaskModel:
    """Answers by what the task says: for a member that is called several times at once.

    ``together``: waits before each answer until as many are asked as that says.
    """

    def __init__(self, code: str, together: int = 1) -> None:
        self._code = code
        self._barrier = threading.Barrier(together)

    async def generate(
        self, messages: Sequence[ChatMessage], stop_sequences: Sequence[str] = (), **_: Any
    ) -> ModelReply:
        await asyncio.to_thread(self._barrier.wait, DEADLINE)
        return ModelReply(step(self._code))


def member(code: str, tools: Sequence[Any] = (), name: str = "cook", *, together: int = 1, **more: Any) -> CodeAgent:
    return CodeAgent(tools, TaskModel(code, together), name=name, description="Cooks what the task says.", **more)


def test_code_calls_members_in_parallel_each_in_a_sandbox_of_its_own() -> None:
    before = own_containers()
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def ask(n):\n"
        "    return cook(task=f'dish {n}', additional_args={'n': n})\n"
        "with ThreadPoolExecutor(3) as pool:\n"
        "    dishes = list(pool.map(ask, range(3)))\n"
        "final_answer(dishes)"
    )
    cook = member("runs = globals().get('runs', 0) + 1\nfinal_answer({'n': n, 'runs': runs})", together=3)
    boss = CodeAgent(
        [], ScriptedModel([step(code)]), managed_agents=[cook], additional_authorized_imports=["concurrent.*"]
    )
    with boss:
        events = list(boss.run("task", stream=True))
        assert len(own_containers() - before) == 1  # the boss's own; those of the calls are gone
    assert events[-1].output == [{"n": n, "runs": 1} for n in range(3)]
    tasks = [e.event.task for e in events if isinstance(e, Overheard) and isinstance(e.event, TaskStep)]
    assert sorted(task[task.index("dish") :][:6] for task in tasks) == ["dish 0", "dish 1", "dish 2"]
    assert own_containers() == before


def test_the_work_of_a_member_does_not_count_as_the_code_s_time() -> None:
    cook = member("import time\ntime.sleep(3.5)\nfinal_answer('slow soup')", sandbox=SandboxSettings(timeout=20))
    with CodeAgent(
        [],
        ScriptedModel([step("final_answer(cook(task='soup'))")]),
        managed_agents=[cook],
        sandbox=SandboxSettings(timeout=3.0),
    ) as boss:
        assert boss.run("task") == "Here is the report of cook:\nslow soup"


def test_a_member_of_a_member_and_a_tool_on_the_host() -> None:
    asked: list[int] = []

    @tool
    def price(eggs: int) -> float:
        """The price.

        Args:
            eggs: how many
        """
        asked.append(eggs)
        return eggs * 0.3

    shopper = member("final_answer(price(eggs=10))", [price], name="shopper")
    cook = member("cost = shopper(task='buy')\nfinal_answer({'cost': cost})", managed_agents=[shopper])
    with CodeAgent([], ScriptedModel([step("final_answer(cook(task='cake'))")]), managed_agents=[cook]) as boss:
        assert boss.run("task") == {"cost": 3.0}
    assert asked == [10]


def test_a_failure_of_a_member_is_an_exception_in_the_managers_code() -> None:
    def refuse(answer: Any, memory: Any) -> bool:
        return False

    cook = member("final_answer(1)", max_steps=1, final_answer_checks=[refuse])
    code = "try:\n    cook(task='t')\nexcept Exception as error:\n    final_answer(str(error))"
    with CodeAgent([], ScriptedModel([step(code)]), managed_agents=[cook]) as boss:
        assert "refuse" in boss.run("task")


@pytest.mark.parametrize("kind", ["code", "tools"])
def test_interrupt_reaches_a_member(kind: str) -> None:
    async def scenario() -> None:
        before = own_containers()
        cook = member("print('on')\nwhile True: pass", sandbox=SandboxSettings(timeout=2 * DEADLINE))
        if kind == "code":
            boss: Any = CodeAgent([], ScriptedModel([step("cook(task='t')")]), managed_agents=[cook])
        else:
            boss = ToolCallingAgent([], ScriptedModel([calls(("cook", {"task": "t"}))]), managed_agents=[cook])
        async with boss:
            with pytest.raises(AgentInterrupted):
                await interrupted_at_first_output(boss)
        while own_containers() != before:  # noqa: ASYNC110 - removed behind the scenes; the deadline is around it all
            await asyncio.sleep(0.02)

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE))


async def interrupted_at_first_output(boss: Any) -> None:
    async with aclosing(boss.astream("task")) as events:
        async for event in events:
            if isinstance(event, Overheard) and isinstance(event.event, Output):
                boss.interrupt()


def test_additional_args_are_variables_and_come_back_as_what_they_are() -> None:
    given = {"rows": [{"a": 1}, {"a": 2}], "factor": 2.5}
    code = "final_answer([row['a'] * factor for row in rows])"
    with CodeAgent([], ScriptedModel([step(code)])) as agent:
        assert agent.run("task", additional_args=given) == [2.5, 5.0]


def test_variables_survive_a_killed_execution_that_they_came_with() -> None:
    replies = [step("while True: pass"), step("final_answer(x)")]
    with CodeAgent([], ScriptedModel(replies), sandbox=SandboxSettings(timeout=3.0)) as agent:
        assert agent.run("task", additional_args={"x": 7}) == 7
        first = agent.memory.steps[1]
        assert isinstance(first, ActionStep)
        assert first.execution is not None
        assert first.execution.status is Status.TIMEOUT


def test_reset_false_goes_on_with_memory_and_variables() -> None:
    replies = [step("x = 41\nfinal_answer('kept')"), step("final_answer(x + 1)")]
    with CodeAgent([], ScriptedModel(replies)) as agent:
        agent.run("Remember.")
        assert agent.run("Go on.", reset=False) == 42
        tasks = [s.task for s in agent.memory.steps if isinstance(s, TaskStep)]
        assert tasks == ["Remember.", "Go on."]


def test_answers_keep_their_types() -> None:
    codes = [
        "from PIL import Image\nfinal_answer(Image.new('RGB', (3, 2), 'red'))",
        "import pandas\nfinal_answer(pandas.DataFrame({'a': [1, 2], 'b': ['x', None]}))",
        "import numpy\nfinal_answer({'mean': numpy.float64(1.5), 'day': __import__('datetime').date(2026, 1, 2)})",
    ]
    with CodeAgent(
        [], ScriptedModel(map(step, codes)), additional_authorized_imports=["PIL.*", "pandas.*", "numpy.*"]
    ) as agent:
        picture, table, plain = (agent.run("Answer.") for _ in codes)
    assert isinstance(picture, AgentImage)
    assert picture.mime == "image/png"
    assert isinstance(table, Table)
    assert table.to_dict() == {"a": [1, 2], "b": ["x", None]}
    assert plain == {"mean": 1.5, "day": datetime.date(2026, 1, 2)}


def test_sound_travels_from_a_tool_through_the_code_into_the_answer() -> None:
    wave = AgentAudio(b"RIFF\x04\x00\x00\x00WAVE", "audio/wav")

    @tool
    def speak() -> AgentAudio:
        """Speaks."""
        return wave

    with CodeAgent([speak], ScriptedModel([step("final_answer([speak(), 'said'])")])) as agent:
        assert agent.run("Speak.") == [wave, "said"]
