"""Agents that manage others: calls as runs of their own, heard in the manager's stream, stopped with it."""

from __future__ import annotations

import asyncio
import io
from contextlib import aclosing
from typing import Any

import pytest
from rich.console import Console

from orchestrator.agents import (
    AgentLogger,
    CodeAgent,
    FinalAnswerStep,
    LogLevel,
    MultiStepAgent,
    Overheard,
    TaskStep,
    ToolCallingAgent,
)
from orchestrator.errors import AgentError, AgentInterrupted
from orchestrator.events import Output, ToolCall, ToolOutcome
from orchestrator.models import ModelReply, ScriptedModel, TokenUsage
from tests.unit.fake_sandbox import HANG, FakeSettings, answered, ran
from tests.unit.scripted_agents import DEADLINE, caller_with, calls, final, step, told


def member(replies: Any, settings: FakeSettings, name: str = "cook", **more: Any) -> CodeAgent:
    counted = [ModelReply(reply, TokenUsage(10, 10)) for reply in replies]
    return CodeAgent([], ScriptedModel(counted), sandbox=settings, name=name, description="Cooks.", **more)


def manager(team: list[MultiStepAgent], *replies: Any, **more: Any) -> ToolCallingAgent:
    return caller_with([], *replies, managed_agents=team, **more)


def test_a_member_is_called_with_a_task_and_its_answer_told() -> None:
    settings = FakeSettings(scripts=[[ran("1"), answered("soup")]])
    cook = member([step("1"), step("final_answer('soup')")], settings)
    boss = manager([cook], calls(("cook", {"task": "make dinner"})), final("done"))
    assert boss.run("task") == "done"
    assert told(boss) == ["Here is the report of cook:\nsoup"]
    task = cook.memory.steps[0]
    assert isinstance(task, TaskStep)
    assert "make dinner" in task.task
    assert settings.made[0].closes == 1  # the call's own sandbox is gone


def test_an_answer_that_is_no_text_keeps_its_type() -> None:
    boss = manager(
        [member([step("final_answer([1])")], FakeSettings(scripts=[[answered([1])]]))],
        calls(("cook", {"task": "t"})),
        final("done"),
    )
    boss.run("task")
    assert told(boss) == ["[1]"]


def test_the_summary_of_its_work_comes_along_if_wanted() -> None:
    settings = FakeSettings(scripts=[[ran("77", stdout="hot\n"), answered([1])]])
    cook = member([step("77"), step("final_answer([1])")], settings, provide_run_summary=True)
    boss = manager([cook], calls(("cook", {"task": "t"})), final("done"))
    boss.run("task")
    (text,) = told(boss)
    assert text.startswith("Here is the report of cook:\n[1]")
    assert "<summary_of_work>" in text
    assert "hot" in text


@pytest.mark.parametrize("answer", ["x" * 2_000_000, [1] * 1_000_000, {"a": ["y" * 2_000_000]}])
def test_an_answer_that_is_too_long_for_a_report_is_cut(answer: Any) -> None:
    cook = member([step("final_answer(1)")], FakeSettings(scripts=[[answered(answer)]]), provide_run_summary=True)
    text = cook("make dinner")
    assert text.startswith(f"Here is the report of cook:\n{str(answer)[:1000]}")
    assert "characters left out" in text


def test_additional_args_reach_it_as_variables() -> None:
    settings = FakeSettings(scripts=[[answered(1)]])
    cook = member([step("final_answer(1)")], settings)
    boss = manager([cook], calls(("cook", {"task": "t", "additional_args": {"eggs": 3}})), final("done"))
    boss.run("task")
    assert settings.made[0].given == [{"eggs": 3}]


def test_calls_at_the_same_time_have_a_sandbox_and_a_memory_each() -> None:
    settings = FakeSettings(scripts=[[answered("a")], [answered("b")], [answered("c")]])
    cook = member([step("final_answer(1)")] * 3, settings)
    boss = manager([cook], calls(*[("cook", {"task": f"dish {n}"}) for n in range(3)]), final("done"))
    boss.run("task")
    assert sorted(text[-1] for text in told(boss)) == ["a", "b", "c"]
    assert [sandbox.closes for sandbox in settings.made] == [1, 1, 1]
    assert len([step for step in cook.memory.steps if isinstance(step, TaskStep)]) == 1


def test_what_it_does_is_heard_in_the_stream_of_its_manager_as_it_happens() -> None:
    settings = FakeSettings(scripts=[[ran("1", stdout="sizzle\n"), answered("soup")]])
    cook = member([step("1"), step("final_answer('soup')")], settings)
    chef = manager([cook], calls(("cook", {"task": "t"})), final("fine"))
    chef.name, chef.description = "chef", "Has a cook."
    boss = manager([chef], calls(("chef", {"task": "t"})), final("done"))
    events = list(boss.run("task", stream=True))
    of_chef = [e.event for e in events if isinstance(e, Overheard) and e.agent == "chef"]
    of_cook = [e.event for e in of_chef if isinstance(e, Overheard)]
    assert isinstance(of_chef[0], TaskStep)
    assert isinstance(of_chef[-1], FinalAnswerStep)
    assert Output("stdout", "sizzle\n") in of_cook
    begun = next(n for n, e in enumerate(events) if isinstance(e, ToolCall))
    ended = next(n for n, e in enumerate(events) if isinstance(e, ToolOutcome))
    assert all(begun < n < ended for n, e in enumerate(events) if isinstance(e, Overheard))


def test_the_tokens_of_the_team_are_counted() -> None:
    cook = member([step("final_answer(1)")], FakeSettings(scripts=[[answered(1)]]))
    each = TokenUsage(1, 1)
    boss = manager([cook], calls(("cook", {"task": "t"}), usage=each), final("done", usage=each))
    assert boss.run("task", return_full_result=True).token_usage == TokenUsage(12, 12)


def test_a_failure_of_its_model_is_the_failure_of_the_call() -> None:
    boss = manager([member([], FakeSettings(scripts=[[]]))], calls(("cook", {"task": "t"})), final("done"))
    assert boss.run("task") == "done"
    assert "ModelUnavailable" in told(boss)[0]


def test_two_managers_hear_their_own_calls_only() -> None:
    async def scenario() -> None:
        settings = FakeSettings(scripts=[[answered(1)], [answered(2)]])
        cook = member([step("final_answer(1)")] * 2, settings)
        bosses = [manager([cook], calls(("cook", {"task": f"t{n}"})), final("done")) for n in range(2)]

        async def heard(boss: ToolCallingAgent) -> list[str]:
            async with aclosing(boss.astream("task")) as events:
                return [
                    event.event.task
                    async for event in events
                    if isinstance(event, Overheard) and isinstance(event.event, TaskStep)
                ]

        first, second = await asyncio.gather(*map(heard, bosses))
        assert ["t0" in task for task in first] == [True]
        assert ["t1" in task for task in second] == [True]

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE))


@pytest.mark.parametrize("how", ["interrupt", "close the stream", "cancel"])
def test_what_stops_the_manager_stops_the_member(how: str) -> None:
    async def scenario() -> None:
        settings = FakeSettings(scripts=[[HANG]])
        boss = manager([member([step("hang()")], settings)], calls(("cook", {"task": "t"})))
        running = asyncio.Event()

        async def run() -> None:
            async with aclosing(boss.astream("task")) as events:
                async for event in events:
                    if isinstance(event, Overheard) and isinstance(event.event, Output):
                        running.set()
                        if how == "close the stream":
                            return

        task = asyncio.create_task(run())
        await running.wait()
        if how == "interrupt":
            boss.interrupt()
            with pytest.raises(AgentInterrupted):
                await task
        elif how == "cancel":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            await task
        while not settings.made[0].closes:  # noqa: ASYNC110 - the deadline is around all of it
            await asyncio.sleep(0)
        assert settings.made[0].cancelled == 1

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE))


def test_an_agent_can_be_called_as_its_manager_would() -> None:
    cook = member([step("final_answer('soup')")], FakeSettings(scripts=[[answered("soup")]]))
    assert cook("make dinner") == "Here is the report of cook:\nsoup"


@pytest.mark.parametrize(
    ("team", "said"),
    [
        ([CodeAgent([], ScriptedModel([]), sandbox=FakeSettings(), description="d")], "needs a name"),
        ([CodeAgent([], ScriptedModel([]), sandbox=FakeSettings(), name="n")], "a description"),
        ([member([], FakeSettings()), member([], FakeSettings())], "two tools or agents are named 'cook'"),
    ],
)
def test_wrong_teams_are_refused(team: list[MultiStepAgent], said: str) -> None:
    with pytest.raises(AgentError, match=said):
        manager(team)
    with pytest.raises(AgentError, match="named 'cook'"):
        manager([member([], FakeSettings())], name="cook")


def shown(level: int) -> str:
    text = io.StringIO()
    cook = member([step("1"), step("final_answer('soup')")], FakeSettings(scripts=[[ran("1"), answered("soup")]]))
    replies = [calls(("cook", {"task": "t"})), calls(("nosuch", {})), final("done")]
    logger = AgentLogger(level, Console(file=text, width=100))
    manager([cook], *replies, logger=logger).run("the task")
    return text.getvalue()


def test_a_run_is_shown_as_its_verbosity_says() -> None:
    assert shown(LogLevel.OFF) == ""
    assert "no tool 'nosuch'" in shown(LogLevel.ERROR)
    assert "the task" not in shown(LogLevel.ERROR)
    everything = shown(LogLevel.INFO)
    for said in ("the task", "cook", "final_answer('soup')", "done"):
        assert said in everything
    assert everything.count("final_answer('soup')") == 1  # the member does not show itself a second time


def test_runs_are_shown_on_standard_error_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    agent = CodeAgent([], ScriptedModel([step("final_answer(1)")]), sandbox=FakeSettings(scripts=[[answered(1)]]))
    agent.run("the task")
    out, err = capsys.readouterr()
    assert out == ""
    assert "the task" in err
