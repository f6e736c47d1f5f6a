"""Runs that are recorded, and gone on with after whatever ended them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.agents import ActionStep, CodeAgent, FinalAnswerStep, PlanningStep, TaskStep, ToolCallingAgent
from orchestrator.agents.compaction import ShortenOldest
from orchestrator.agents.record import copy_to_continue
from orchestrator.agents.run import RunResult, StepStarted
from orchestrator.errors import AgentError, AnswerRefused, ModelUnavailable
from orchestrator.media import AgentImage
from orchestrator.models import ChatToolCall, ModelReply, ScriptedModel
from orchestrator.tools import tool
from tests.unit.local_sandbox import LocalSettings
from tests.unit.pictures import PICTURE, PNG
from tests.unit.recorded_agents import FIRST, LAST, Counter, agent, crashed, lines, notes, sandbox
from tests.unit.scripted_agents import requests, step


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.jsonl"


# Going on.


def test_a_run_goes_on_where_it_stopped_and_no_tool_is_called_twice(path: Path) -> None:
    whole, counter = Counter(), Counter()
    straight = agent(None, FIRST + LAST, whole)
    expected = straight.run("Task.")
    crashed(path, FIRST, counter)
    again = agent(path, LAST, counter)
    assert again.resume(strict=True) == expected == [1, 4, 6, True, "set"]
    assert counter.calls == whole.calls == [1, 2, "a", 3]
    assert sandbox(again).codes == FIRST + LAST
    assert notes(again) == []
    assert [s.step_number for s in again.memory.steps if isinstance(s, ActionStep)] == [1, 2, 3, 4, 5]


def test_the_model_is_shown_what_it_would_have_been_shown(path: Path) -> None:
    first = agent(path, FIRST, Counter())
    with pytest.raises(ModelUnavailable):
        first.run("Task.", images=[PNG])
    again = agent(path, LAST, Counter())
    again.resume()
    assert list(requests(again)[0]) == list(requests(first)[-1])
    assert again.memory.steps[0] == TaskStep("Task.", (PICTURE,))


def test_additional_values_are_there_again(path: Path) -> None:
    crashed(path, ["total = sum(data)"], additional_args={"data": (1, 2), "empty": b"\xff"})
    again = agent(path, ["final_answer([total, data == (1, 2), empty == b'\\xff'])"])
    assert again.resume(strict=True) == [3, True, True]


def test_additional_values_that_no_code_had_yet(path: Path) -> None:
    crashed(path, [], additional_args={"data": 5})
    assert agent(path, ["final_answer(data)"]).resume(strict=True) == 5


def test_errors_of_tools_come_again(path: Path) -> None:
    counter = Counter()
    code = "try:\n    add(13)\nexcept Exception as error:\n    seen = f'{type(error).__name__} {error}'"
    crashed(path, [code, "add(13)"], counter)
    again = agent(path, ["final_answer(seen)"], counter)
    assert again.resume() == "KeyError thirteen"
    assert counter.calls == [13, 13]


def test_what_a_tool_hides_is_neither_recorded_nor_told(path: Path) -> None:
    @tool(expose_errors=False)
    def sign() -> str:
        """Signs."""
        raise ValueError("the key is 4711")

    code = "try:\n    sign()\nexcept Exception as error:\n    seen = f'{type(error).__name__} {error}'"
    first = CodeAgent([sign], ScriptedModel([step(code)]), sandbox=LocalSettings(), record=path, verbosity_level=-1)
    with pytest.raises(ModelUnavailable):
        first.run("Task.")
    assert "4711" not in path.read_text()
    kept = [line for line in lines(path) if line["kind"] != "step" or line["step"]["kind"] == "task"]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in kept))  # it was killed before the step's end
    again = agent(path, ["final_answer(1)"])
    assert again.resume() == 1
    assert "sign()" in notes(again)[0]
    assert "ToolError: sign failed" in notes(again)[0]


def test_threads_may_come_in_another_order(path: Path) -> None:
    counter = Counter()
    code = (
        "import contextvars, threading\nresults = {}\n"
        "def work(n): results[n] = add(n) > 0\n"
        "threads = [threading.Thread(target=contextvars.copy_context().run, args=(work, n)) for n in ORDER]\n"
        "for thread in threads: thread.start()\nfor thread in threads: thread.join()"
    )
    crashed(path, ["ORDER = [1, 2, 3]", code], counter)
    changed = path.read_text().splitlines()
    calls = [line for line in changed if '"kind": "call"' in line or '"kind": "end"' in line]
    assert len(calls) == 6
    again = agent(path, ["final_answer(sorted(results))"], counter)
    assert again.resume(strict=True) == [1, 2, 3]
    assert sorted(counter.calls) == [1, 2, 3]


def test_steps_that_are_left_are_those_that_were(path: Path) -> None:
    crashed(path, ["1", "2"], max_steps=3)
    again = agent(path, ["3", "the answer, at last: <>"], max_steps=20)
    events = list(again.resume(stream=True))
    assert [e for e in events if isinstance(e, StepStarted)] == [StepStarted(3, 3)]
    assert events[-1] == FinalAnswerStep("the answer, at last: <>", "max_steps_error")


def test_all_steps_used_up_before_the_last_answer(path: Path) -> None:
    crashed(path, ["1", "2"], max_steps=2)
    assert agent(path, ["so be it: <>"]).resume() == "so be it: <>"


def test_the_plans_go_on_and_none_is_made_twice(path: Path) -> None:
    crashed(path, ["plan one", "1", "2", "plan two"], planning_interval=2)
    again = agent(path, ["3", "4", "plan three", "final_answer(5)"], planning_interval=2)
    assert again.resume() == 5
    assert [s.plan for s in again.memory.steps if isinstance(s, PlanningStep)] == ["plan one", "plan two", "plan three"]


def test_several_crashes(path: Path) -> None:
    counter = Counter()
    crashed(path, FIRST[:1], counter)
    for code in [FIRST[1], FIRST[2], LAST[0]]:
        with pytest.raises(ModelUnavailable):
            agent(path, [code], counter).resume(strict=True)
    assert agent(path, LAST[1:], counter).resume(strict=True) == [1, 4, 6, True, "set"]
    assert counter.calls == [1, 2, "a", 3]


def test_a_run_that_had_ended_gives_its_answer_again(path: Path) -> None:
    counter = Counter()
    agent(path, [*FIRST, *LAST], counter).run("Task.")
    again = agent(path, ["final_answer(x + 1)"], counter)
    assert again.resume() == [1, 4, 6, True, "set"]
    assert requests(again) == []
    assert again.settings.made == []  # type: ignore[attr-defined]
    assert again.resume() == [1, 4, 6, True, "set"]
    assert again.run("More.", reset=False) == 2  # its variables are made again once they are needed
    assert counter.calls == [1, 2, "a", 3]


def test_an_answer_that_had_been_refused_is_refused_again(path: Path) -> None:
    first = agent(path, ["1", "no answer: <>"], max_steps=1, final_answer_checks=[lambda answer, memory: False])
    with pytest.raises(AnswerRefused):
        first.run("Task.")
    with pytest.raises(AnswerRefused, match="was refused"):
        agent(path, []).resume()


def test_runs_before_the_last_one_count(path: Path) -> None:
    first = agent(path, ["a = 1", "final_answer(1)", "b = 2"])
    first.run("One.")
    with pytest.raises(ModelUnavailable):
        first.run("Two.")
    again = agent(path, ["final_answer([a, b])"])
    assert again.resume(strict=True) == [1, 2]
    assert [s.task for s in again.memory.steps if isinstance(s, TaskStep)] == ["Two."]


def test_another_agents_life_in_the_same_file_does_not(path: Path) -> None:
    agent(path, ["a = 1", "final_answer(1)"]).run("One.")
    crashed(path, ["b = 2"])
    again = agent(path, ["final_answer('a' in globals())"])
    assert again.resume(strict=True) is False
    assert sandbox(again).codes == ["b = 2", "final_answer('a' in globals())"]


def test_what_the_model_is_shown_less_of_stays_so(path: Path) -> None:
    first = agent(path, ["print('x' * 9000)" for _ in range(8)], compaction=ShortenOldest(8000, keep_last=1))
    with pytest.raises(ModelUnavailable):
        first.run("Task.")
    again = agent(path, ["final_answer(1)"], compaction=None)
    again.resume()
    assert "shortened: it had" in str(requests(again)[0])
    assert list(requests(again)[0]) == list(requests(first)[-1])


def test_asynchronously_and_with_the_full_result(path: Path) -> None:
    crashed(path, ["x = 1"])
    again = agent(path, ["final_answer(x)"])
    result = asyncio.run(again.aresume(return_full_result=True))
    assert isinstance(result, RunResult)
    assert (result.output, result.differences) == (1, ())


def test_the_path_may_be_given_to_resume(path: Path) -> None:
    crashed(path, ["x = 1"])
    again = agent(None, ["final_answer(x)"])
    assert again.resume(path) == 1
    assert lines(path)[-1]["step"]["is_final_answer"] is True  # it was gone on with


# Tool calling agents, teams.


def test_a_tool_calling_agent_has_nothing_to_rebuild(path: Path) -> None:
    counter, picture = Counter(), PICTURE

    @tool(timeout=9)
    def draw(number: int) -> AgentImage:
        """Draws.

        Args:
            number: what
        """
        counter.calls.append(number)
        return picture

    seen = []

    @tool(timeout=9)
    def look(image: Any) -> str:
        """Looks.

        Args:
            image: at what
        """
        seen.append(image)
        return "fine"

    def calls(*written: ChatToolCall) -> ModelReply:
        return ModelReply("", tool_calls=written)

    first = ToolCallingAgent(
        [draw, look], ScriptedModel([calls(ChatToolCall("draw", {"number": 1}, "1"))]), record=path, verbosity_level=-1
    )
    with pytest.raises(ModelUnavailable):
        first.run("Task.", additional_args={"hint": "h"})
    model = ScriptedModel(
        [
            calls(ChatToolCall("look", {"image": "image_1.png"}, "2"), ChatToolCall("look", {"image": "hint"}, "3")),
            calls(ChatToolCall("final_answer", {"answer": "ok"}, "4")),
        ]
    )
    again = ToolCallingAgent([draw, look], model, record=path, verbosity_level=-1)
    assert again.resume(strict=True) == "ok"
    assert counter.calls == [1]
    assert sorted(seen, key=str) == sorted([picture, "h"], key=str)


def test_calls_of_a_tool_calling_agent_that_never_ended_are_told(path: Path) -> None:
    @tool(timeout=9)
    def pay(amount: int) -> int:
        """Pays.

        Args:
            amount: how much
        """
        return amount

    calls = tuple(ChatToolCall("pay", {"amount": n}, str(n)) for n in (1, 2))
    first = ToolCallingAgent([pay], ScriptedModel([ModelReply("", tool_calls=calls)]), record=path, verbosity_level=-1)
    with pytest.raises(ModelUnavailable):
        first.run("Task.")
    assert [line["kind"] for line in lines(path)].count("end") == 2
    kept = [line for line in lines(path) if line["kind"] != "step" or line["step"]["kind"] == "task"]
    kept = [line for line in kept if line["kind"] != "end" or line["call"] == 1]  # it was killed during the second
    path.write_text("".join(f"{json.dumps(line)}\n" for line in kept))
    model = ScriptedModel([ModelReply("", tool_calls=(ChatToolCall("final_answer", {"answer": 3}, "3"),))])
    again = ToolCallingAgent([pay], model, record=path, verbosity_level=-1)
    assert again.resume() == 3
    assert "it gave" in notes(again)[0]
    assert "whether it took effect is not known" in notes(again)[0]


def test_results_that_are_too_many_are_left_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.agents.record.MAX_RESULTS", 100)
    counter = Counter()
    crashed(path, ["x = add(1)", "y = add(2)"], counter)
    result = agent(path, ["final_answer(x)"], counter).resume(return_full_result=True)
    assert result.output == 1
    assert "step 2 called add(), and there is no recorded result for that" in result.differences
    assert counter.calls == [1, 2]


def test_a_member_of_a_team_is_not_asked_again(path: Path) -> None:
    def member() -> CodeAgent:
        made = agent(None, ["final_answer(7)"])
        made.name, made.description = "clerk", "Counts."
        return made

    first = member()
    crashed(path, ["n = clerk(task='Count.')"], managed_agents=[first])
    second = member()
    again = agent(path, ["final_answer(n)"], managed_agents=[second])
    assert again.resume(strict=True) == 7
    assert len(requests(first)) == 1
    assert requests(second) == []


def test_copies_are_not_recorded(path: Path) -> None:
    original = agent(path, ["x = 1", "final_answer(1)"])
    original.run("Task.")
    before = path.read_bytes()
    twin = original.copy_for_call()
    twin.model = ScriptedModel([step("final_answer(2)")])
    assert twin.run("Task.") == 2
    assert path.read_bytes() == before


def test_another_run_takes_over_what_the_ones_before_have_left(path: Path, tmp_path: Path) -> None:
    first = agent(path, ["x = 1", "final_answer(x)"])
    first.run("First.")
    copy = tmp_path / "copy.jsonl"
    copy_to_continue(path, copy)
    assert copy.stat().st_mode & 0o777 == 0o600
    second = agent(copy, ["final_answer(x + 1)"])
    asyncio.run(second.atake_over())
    with pytest.raises(AgentError, match="no run to go on with"):
        agent(copy, []).resume()  # it has not begun
    assert second.run("Second.", reset=False) == 2
    assert [s.task for s in second.memory.steps if isinstance(s, TaskStep)] == ["First.", "Second."]
    assert agent(copy, []).resume() == 2
    assert agent(path, []).resume() == 1
