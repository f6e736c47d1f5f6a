"""The state of a sandbox made again from a record, and what cannot be as it was."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.agents import ActionStep, CodeAgent, TaskStep
from orchestrator.agents.run import Rebuilt
from orchestrator.errors import AgentError, AgentInterrupted, ModelUnavailable, SandboxDied
from orchestrator.events import Ending, Execution, ExecutionError, Files, Output, State, Status, ToolOutcome
from orchestrator.models import ScriptedModel
from orchestrator.sandbox import Portal
from tests.unit.fake_sandbox import HANG, FakeSandbox, FakeSettings, answered, failed, ran
from tests.unit.recorded_agents import FIRST, LAST, Counter, agent, crashed, notes, sandbox
from tests.unit.scripted_agents import DEADLINE, requests, step


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.jsonl"


# In the same program.


def test_going_on_in_the_same_program_rebuilds_nothing(path: Path) -> None:
    again = agent(path, FIRST, counter := Counter())
    with pytest.raises(ModelUnavailable):
        again.run("Task.")
    again.model = ScriptedModel([step(code) for code in LAST])
    assert again.resume(strict=True) == [1, 4, 6, True, "set"]
    assert sandbox(again).codes == FIRST + LAST
    assert counter.calls == [1, 2, "a", 3]


def test_a_step_that_was_interrupted_midway_is_told_of(path: Path) -> None:
    settings = FakeSettings(scripts=[[ran("1"), HANG, answered(2)]])
    begun = asyncio.Event()

    async def begin(_: TaskStep) -> None:
        begun.set()

    model = ScriptedModel([step("1"), step("2"), step("3")])
    again = CodeAgent([], model, sandbox=settings, record=path, step_callbacks={TaskStep: begin})

    async def interrupted() -> None:
        async with asyncio.timeout(DEADLINE):
            run = asyncio.create_task(again.arun("Task."))
            await begun.wait()
            await settings.made[0].running.wait()
            again.interrupt()
            with pytest.raises(AgentInterrupted):
                await run
            assert await again.aresume() == 2

    asyncio.run(interrupted())
    steps = [s for s in again.memory.steps if isinstance(s, ActionStep)]
    assert steps[1].execution is not None
    assert steps[1].execution.status is Status.INTERRUPTED


def given_up(path: Path) -> tuple[CodeAgent, FakeSettings]:
    """One whose second step was cancelled midway."""
    settings = FakeSettings(scripts=[[ran("1"), HANG, answered(3)], [ran("1"), answered(3)]])
    model = ScriptedModel([step("1"), step("2"), step("3"), step("3")])
    again = CodeAgent([], model, sandbox=settings, record=path, verbosity_level=-1)

    async def cancelled() -> None:
        async with asyncio.timeout(DEADLINE), aclosing(again.astream("Task.")) as events:
            async for event in events:
                if isinstance(event, Output):
                    break  # the second step runs

    Portal.run(cancelled())
    return again, settings


def test_a_step_that_was_given_up_midway_is_told_of(path: Path) -> None:
    again, settings = given_up(path)
    with pytest.raises(AgentError, match="given up midway"):
        again.resume(strict=True)
    result = again.resume(return_full_result=True)
    assert (result.output, result.differences) == (3, ("the step under way was given up midway",))
    assert settings.made[0].codes == ["1", "2", "3"]


def test_a_later_rebuild_lacks_what_was_given_up_midway(path: Path) -> None:
    again, _ = given_up(path)
    again.model = ScriptedModel([])
    with pytest.raises(ModelUnavailable):
        again.resume()
    settings = FakeSettings(scripts=[[ran("1"), answered(3)]])
    later = CodeAgent([], ScriptedModel([step("3")]), sandbox=settings, record=path, verbosity_level=-1)
    result = later.resume(return_full_result=True)
    assert result.differences == ("a step was given up midway, and what it did until then is not there",)
    assert settings.made[0].codes == ["1", "3"]


def test_a_memory_from_elsewhere_is_kept(path: Path) -> None:
    before = agent(None, ["a = 1", "final_answer(1)"])
    before.run("Before.")
    first = agent(path, ["b = 2"])
    first.memory = before.memory
    with pytest.raises(ModelUnavailable):
        first.run("Now.", reset=False)
    again = agent(path, ["final_answer([b, 'a' in globals()])"])
    assert again.resume(strict=True) == [2, False]
    assert [s.task for s in again.memory.steps if isinstance(s, TaskStep)] == ["Before.", "Now."]
    assert list(requests(again)[0]) == list(requests(first)[-1])


def test_a_tool_that_was_given_up_is_told_of(path: Path) -> None:
    late = ToolOutcome(1, "add", "TimeoutError: late", 1.0, Ending.TIMED_OUT)
    settings = FakeSettings(scripts=[[replace(failed(), tool_calls=(late,))]])
    with pytest.raises(ModelUnavailable):
        CodeAgent([], ScriptedModel([step("1")]), sandbox=settings, record=path, verbosity_level=-1).run("Task.")
    second = FakeSettings(scripts=[[failed(), answered(1)]])
    again = CodeAgent([], ScriptedModel([step("2")]), sandbox=second, record=path, verbosity_level=-1)
    assert again.resume(return_full_result=True).differences == ("step 1 had given up waiting for add()",)


def test_a_sandbox_that_died_is_rebuilt(path: Path) -> None:
    settings = FakeSettings(scripts=[[ran("1"), SandboxDied("gone")], [ran("1"), answered(2)]])
    again = CodeAgent([], ScriptedModel([step("x = 1"), step("y"), step("z")]), sandbox=settings, record=path)
    with pytest.raises(SandboxDied):
        again.run("Task.")
    assert again.resume(strict=True) == 2
    assert settings.made[1].codes == ["x = 1", "z"]


# What cannot be as it was.


def test_a_call_that_was_not_recorded_is_not_made(path: Path) -> None:
    counter = Counter()
    crashed(path, ["import time", "n = add(time.perf_counter_ns() % 10**9)"], counter)
    again = agent(path, ["final_answer(1)"], counter)
    events = list(again.resume(stream=True))
    assert len(counter.calls) == 1
    (rebuilt,) = [e for e in events if isinstance(e, Rebuilt)]
    assert rebuilt.actions == 2
    assert "step 2 called add(), and there is no recorded result for that" in rebuilt.differences
    assert "step 2 did not call add() as it had" in rebuilt.differences
    assert "step 2 ended with error and not with ok" in rebuilt.differences
    assert "Variables and files may differ" in requests(again)[0][-1].content
    assert "- step 2 called add()" in requests(again)[0][-1].content


def test_strict_raises_and_leaves_the_record_as_it_was(path: Path) -> None:
    crashed(path, ["import random", "print(random.random())"])
    before = path.read_bytes()
    with pytest.raises(AgentError, match="step 2 printed or gave something else"):
        agent(path, ["final_answer(1)"]).resume(strict=True)
    assert path.read_bytes() == before
    again = agent(path, ["final_answer(1)"])
    result = again.resume(return_full_result=True)
    assert result.differences == ("step 2 printed or gave something else than it had",)


def test_an_agent_whose_rebuild_failed_can_try_again(path: Path) -> None:
    crashed(path, ["x = 1", "y = 2"])
    before = path.read_bytes()

    def interrupted(_: Any) -> Any:
        again.interrupt()
        return HANG

    settings = FakeSettings(scripts=[[ran(), SandboxDied("gone")], [ran(), interrupted], [ran(), ran(), answered(3)]])
    again = CodeAgent([], ScriptedModel([step("3")]), sandbox=settings, record=path, verbosity_level=-1)
    with pytest.raises(SandboxDied):
        again.resume()
    with pytest.raises(AgentInterrupted):
        again.resume()
    assert path.read_bytes() == before
    result = again.resume(return_full_result=True)
    assert (result.output, len(result.differences)) == (3, 0)
    assert [made.codes for made in settings.made] == [["x = 1", "y = 2"], ["x = 1", "y = 2"], ["x = 1", "y = 2", "3"]]
    assert settings.made[1].closes


def test_strict_and_then_not(path: Path) -> None:
    crashed(path, ["import random", "print(random.random())"])
    again = agent(path, ["final_answer(1)"])
    with pytest.raises(AgentError, match="printed or gave"):
        again.resume(strict=True)
    assert again.resume() == 1


def test_addresses_in_output_are_no_difference(path: Path) -> None:
    crashed(path, ["print(object())"])
    assert agent(path, ["final_answer(1)"]).resume(strict=True) == 1


def test_calls_of_a_step_that_never_ended_are_told(path: Path) -> None:
    counter = Counter()
    crashed(path, ["x = 1", "add(5)\nadd(13)"], counter)
    text = path.read_text().splitlines()
    cut = next(i for i, line in enumerate(text) if "thirteen" in line)
    path.write_text("\n".join(text[:cut]) + '\n{"kind": "en')  # between the last call and its end
    with pytest.raises(AgentError, match="not be as it was"):
        agent(path, ["final_answer(x)"], counter).resume(strict=True)
    again = agent(path, ["final_answer(x)"], counter)
    assert again.resume() == 1
    assert counter.calls == [5, 13]
    told = requests(again)[0][-1].content
    assert "add(5): it gave 5" in told
    assert "add(13): whether it took effect is not known" in told
    assert sandbox(again).codes == ["x = 1", "final_answer(x)"]
    third = agent(path, ["final_answer(2)"], counter)
    assert third.resume() == 1
    assert len(notes(third)) == 1  # told once


def test_a_borrowed_sandbox_is_not_rebuilt(path: Path) -> None:
    first = CodeAgent([], ScriptedModel([step("x = 1")]), sandbox=FakeSandbox([ran("1")]), record=path)
    with pytest.raises(ModelUnavailable):
        first.run("Task.")
    lent = FakeSandbox([answered(2)])
    again = CodeAgent([], ScriptedModel([step("y")]), sandbox=lent, record=path)
    result = again.resume(return_full_result=True)
    assert lent.codes == ["y"]
    assert result.differences == ("the sandbox is not the agent's own, so that nothing was run again in it",)
    assert "not the agent's own" in notes(again)[0]


def execution(status: Status, state: State, **more: Any) -> Execution:
    return Execution(status, state, 1, error=ExecutionError("E", "e"), **more)


RESTORED = execution(Status.DIED, State.RESTORED, files=Files.RESTORED)


@pytest.mark.parametrize(
    ("outcome", "run_again", "told"),
    [
        (failed(), True, ""),
        (RESTORED, False, ""),
        (replace(RESTORED, files=Files.KEPT), False, "step 2 failed, and the files that it left are not there"),
        (execution(Status.INTERRUPTED, State.KEPT), False, "step 2 was interrupted"),
        (execution(Status.TIMEOUT, State.KEPT), True, "step 2 was stopped, as it ran longer"),
        (execution(Status.OUTPUT_LIMIT, State.KEPT), True, "step 2 was stopped, as it wrote more"),
        (Execution(Status.REFUSED, State.KEPT, 0), False, ""),
    ],
)
def test_actions_that_ended_in_other_ways(path: Path, outcome: Execution, run_again: bool, told: str) -> None:
    first = FakeSettings(scripts=[[ran("1"), outcome, ran("3")]])
    second = FakeSettings(scripts=[[ran("1"), *([outcome] if run_again else []), ran("3"), answered(4)]])
    with pytest.raises(ModelUnavailable):
        CodeAgent([], ScriptedModel(map(step, "123")), sandbox=first, record=path).run("Task.")
    result = CodeAgent([], ScriptedModel([step("4")]), sandbox=second, record=path).resume(return_full_result=True)
    assert second.made[0].codes == ["1", *(["2"] if run_again else []), "3", "4"]
    assert bool(result.differences) == bool(told)
    assert told in "".join(result.differences)


def test_actions_whose_state_was_lost_are_not_run_again(path: Path) -> None:
    lost = execution(Status.OUT_OF_MEMORY, State.LOST, restored_to=1, files=Files.RESTORED)
    first = FakeSettings(scripts=[[ran("1"), ran("2"), lost, ran("4")]])
    second = FakeSettings(scripts=[[ran("1"), ran("4"), answered(5)]])
    with pytest.raises(ModelUnavailable):
        CodeAgent([], ScriptedModel(map(step, "1234")), sandbox=first, record=path).run("Task.")
    CodeAgent([], ScriptedModel([step("5")]), sandbox=second, record=path).resume(strict=True)
    assert second.made[0].codes == ["1", "4", "5"]


def test_counts_of_executions_are_those_of_the_newest_sandbox(path: Path) -> None:
    """After a rebuild without the first failure, what was execution 3 is execution 2."""
    lost = execution(Status.OUT_OF_MEMORY, State.LOST, restored_to=2, files=Files.RESTORED)
    settings = [
        FakeSettings(scripts=[[RESTORED, ran("2"), ran("3")]]),
        FakeSettings(scripts=[[ran("2"), ran("3"), ran("4"), lost]]),
        FakeSettings(scripts=[[ran("2"), ran("3"), answered(6)]]),
    ]
    with pytest.raises(ModelUnavailable):
        CodeAgent([], ScriptedModel(map(step, "123")), sandbox=settings[0], record=path).run("Task.")
    with pytest.raises(ModelUnavailable):
        CodeAgent([], ScriptedModel(map(step, "45")), sandbox=settings[1], record=path).resume(strict=True)
    CodeAgent([], ScriptedModel([step("6")]), sandbox=settings[2], record=path).resume(strict=True)
    assert settings[2].made[0].codes == ["2", "3", "6"]
