"""Teams in use where they should not be: nothing hangs, nothing is lost."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.agents import CodeAgent
from orchestrator.agents.managed import MAX_REPORT, TeamMember
from orchestrator.agents.overheard import MAX_WAITING, Listener
from orchestrator.agents.run import StepStarted
from orchestrator.models import ScriptedModel
from orchestrator.tools import tool
from tests.unit.fake_sandbox import FakeSandbox, FakeSettings, answered
from tests.unit.scripted_agents import DEADLINE, caller_with, calls, final, step


def test_the_memory_of_a_member_at_work_is_not_exchanged() -> None:
    settings = FakeSettings(scripts=[["HANG"], [answered("soup")]])
    cook = CodeAgent(
        [],
        ScriptedModel([step("hang()"), step("final_answer(1)")]),
        sandbox=settings,
        name="cook",
        description="d",
        verbosity_level=-1,
    )

    async def scenario() -> None:
        own = asyncio.create_task(cook.arun("own task"))
        while not settings.made or not settings.made[0].running.is_set():  # noqa: ASYNC110 - see the deadline below
            await asyncio.sleep(0)
        memory = cook.memory
        await TeamMember(cook).forward("another")
        assert cook.memory is memory
        own.cancel()
        await asyncio.wait({own})

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE))


def test_nobody_waits_for_a_listener_that_has_gone() -> None:
    async def scenario() -> None:
        queue: asyncio.Queue[object] = asyncio.Queue(MAX_WAITING)
        ear = Listener(queue)
        for _ in range(MAX_WAITING):
            await ear.hear("x", StepStarted(1, 1))
        late = asyncio.create_task(ear.hear("x", StepStarted(1, 1)))
        await asyncio.sleep(0)
        assert not late.done()
        ear.close()
        await late
        for _ in range(MAX_WAITING * 2):
            await ear.hear("x", StepStarted(1, 1))

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE))


def test_a_long_report_is_cut_and_not_lost() -> None:
    answer = "x" * (3 * MAX_REPORT)
    cook = CodeAgent(
        [],
        ScriptedModel([step("final_answer(1)")]),
        sandbox=FakeSettings(scripts=[[answered(answer)]]),
        name="cook",
        description="d",
        verbosity_level=-1,
    )
    assert len(cook("task")) < 2 * MAX_REPORT


def test_an_agent_within_a_tool_of_another_shows_itself(capsys: pytest.CaptureFixture[str]) -> None:
    inner = CodeAgent([], ScriptedModel([step("final_answer(1)")]), sandbox=FakeSandbox([answered(1)]))

    @tool
    def ask() -> int:
        """Asks another agent."""
        return inner.run("the inner task")

    caller_with([ask], calls(("ask", {})), final("done")).run("task")
    assert "the inner task" in capsys.readouterr().err
