"""Agents whose actions are tool calls: carried out on the host, each with its own result."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from orchestrator.agents import ToolCallingAgent
from orchestrator.agents.written_calls import MAX_CALLS
from orchestrator.errors import AgentError, AgentInterrupted
from orchestrator.events import Ending, ToolCall, ToolOutcome
from orchestrator.media import AgentImage
from orchestrator.models import ChatToolCall, ModelReply, ScriptedModel
from orchestrator.policy import Request, ToolCallRequest, Verdict
from orchestrator.tools import tool
from tests.unit.pictures import PICTURE
from tests.unit.scripted_agents import DEADLINE, caller_with, calls, final, results, told


def model(agent: ToolCallingAgent) -> ScriptedModel:
    assert isinstance(agent.model, ScriptedModel)
    return agent.model


@tool
def double(number: int) -> int:
    """Doubles.

    Args:
        number: what to double
    """
    return 2 * number


@tool
def fail(word: str) -> str:
    """Fails.

    Args:
        word: what it says
    """
    raise ValueError(word)


@tool(expose_errors=False)
def fail_in_secret() -> str:
    """Fails, and does not say why."""
    raise ValueError("secret")


def test_a_tool_is_called_and_its_result_told() -> None:
    agent = caller_with([double], calls(("double", {"number": 21})), final(42))
    assert agent.run("task") == 42
    first, second = model(agent).calls
    assert [schema.name for schema in first.tools] == ["double", "final_answer"]
    assert first.tools[0].parameters["properties"]["number"]["type"] == "integer"
    said, told = second.messages[-2:]
    assert (said.role, said.tool_calls) == ("assistant", (ChatToolCall("double", {"number": 21}, "c0"),))
    assert (told.role, told.tool_call_id) == ("tool", "c0")
    assert "42" in told.content


def test_results_come_in_the_order_of_the_calls_and_one_failure_spoils_no_other() -> None:
    made = [("fail", {"word": "oh"}), ("double", {"number": 5}), ("nosuch", {}), ("double", {"number": "x"})]
    agent = caller_with([double, fail, fail_in_secret], calls(*made, ("fail_in_secret", {})), final("done"))
    assert agent.run("task") == "done"
    texts = [(result.call.name, result.failed, result.text) for result in results(agent)]
    assert [(name, failed) for name, failed, _ in texts] == [
        ("fail", True),
        ("double", False),
        ("nosuch", True),
        ("double", True),
        ("fail_in_secret", True),
    ]
    assert "ValueError: oh" in texts[0][2]
    assert texts[1][2] == "10"
    assert "double" in texts[2][2]
    assert "'number' must be integer" in texts[3][2]
    assert "secret" not in texts[4][2].replace("fail_in_secret", "")
    error = agent.memory.steps[1].error  # type: ignore[union-attr]
    assert error is not None
    assert error.kind == "tool"
    messages = model(agent).calls[1].messages
    assert [message.tool_call_id for message in messages if message.role == "tool"] == [f"c{n}" for n in range(5)]
    assert "retry" in messages[-1].content


def test_equal_calls_are_each_made() -> None:
    seen: list[int] = []

    @tool
    def count() -> int:
        """Counts."""
        seen.append(1)
        return len(seen)

    reply = ModelReply("", tool_calls=tuple(ChatToolCall("count", {}, str(n)) for n in range(3)))
    agent = caller_with([count], reply, final("done"))
    agent.run("task")
    assert sorted(told(agent)) == ["1", "2", "3"]


def test_calls_run_at_the_same_time_but_no_more_than_may() -> None:
    together = threading.Barrier(2)

    @tool
    def meet() -> str:
        """Waits for another call."""
        together.wait(DEADLINE)
        return "met"

    agent = caller_with([meet], calls(("meet", {}), ("meet", {})), final("done"), max_tool_threads=2)
    agent.run("task")
    assert told(agent) == ["met", "met"]

    running, most = [0], [0]

    @tool
    async def alone() -> None:
        """Counts how many run."""
        running[0] += 1
        most[0] = max(most[0], running[0])
        for _ in range(5):
            await asyncio.sleep(0)
        running[0] -= 1

    caller_with([alone], calls(*[("alone", {})] * 4), final("done"), max_tool_threads=1).run("task")
    assert most == [1]


def test_final_answer_beside_other_calls_is_not_taken() -> None:
    agent = caller_with(
        [double], calls(("double", {"number": 1}), ("final_answer", {"answer": "too early"})), final("right")
    )
    assert agent.run("task") == "right"
    assert [(result.call.name, result.failed) for result in results(agent)] == [
        ("double", False),
        ("final_answer", True),
    ]


@pytest.mark.parametrize("given", [{"answer": [1, 2]}, [1, 2]])
def test_the_answer_keeps_its_type(given: Any) -> None:
    assert caller_with([], calls(("final_answer", given))).run("task") == [1, 2]


def test_no_answer_in_final_answer_is_an_error() -> None:
    assert caller_with([], calls(("final_answer", {})), final(1)).run("task") == 1


def test_calls_that_are_written_as_text_are_made_too() -> None:
    agent = caller_with(
        [double],
        'I double it.\n{"name": "double", "arguments": {"number": 4}}',
        'Action:\n```json\n{"name": "final_answer", "arguments": {"answer": 8}}\n```',
    )
    assert agent.run("task") == 8
    said, told = model(agent).calls[1].messages[-2:]
    assert said.tool_calls == ()
    assert said.content.startswith("I double it.")
    assert told.role == "user"
    assert "Result of double:\n8" in told.content


def test_a_reply_without_calls_is_told_the_form() -> None:
    agent = caller_with([double], "I am thinking.", final(1))
    assert agent.run("task") == 1
    assert '"name"' in model(agent).calls[1].messages[-1].content


def test_arguments_without_a_name_are_those_of_the_only_one() -> None:
    agent = caller_with([double], calls(("double", 3), ("double", "{bad json")), final(1))
    agent.run("task")
    assert told(agent)[0] == "6"
    assert results(agent)[1].failed


def test_a_picture_is_kept_and_passed_on_by_name() -> None:
    seen: list[Any] = []

    @tool
    def paint() -> AgentImage:
        """Paints."""
        return PICTURE

    @tool
    def look(picture: Any) -> str:
        """Looks.

        Args:
            picture: at what
        """
        seen.append(picture)
        return "seen"

    agent = caller_with([paint, look], calls(("paint", {})), calls(("look", {"picture": "image_1.png"})), final("done"))
    agent.run("task")
    assert seen == [PICTURE]
    assert "image_1.png" in told(agent)[0]


def test_additional_args_are_values_that_calls_may_name() -> None:
    seen: list[Any] = []

    @tool
    def look(data: Any) -> str:
        """Looks.

        Args:
            data: at what
        """
        seen.append(data)
        return "seen"

    agent = caller_with([look], calls(("look", {"data": "table"})), final("done"))
    agent.run("task", additional_args={"table": {"a": 1}})
    assert seen == [{"a": 1}]
    assert "- table (dict): {'a': 1}" in model(agent).requests[0][-1].content


def test_events_tell_of_calls_and_outcomes() -> None:
    agent = caller_with([double, fail], calls(("double", {"number": 1}), ("fail", {"word": "x"})), final("done"))
    events = list(agent.run("task", stream=True))
    assert [(e.id, e.name, dict(e.kwargs)) for e in events if isinstance(e, ToolCall)] == [
        (1, "double", {"number": 1}),
        (2, "fail", {"word": "x"}),
    ]
    assert {e.id: e.ending for e in events if isinstance(e, ToolOutcome)} == {1: Ending.OK, 2: Ending.FAILED}


def test_a_refused_call_is_not_made() -> None:
    asked: list[Request] = []

    def approve(request: Request) -> Verdict:
        asked.append(request)
        return Verdict(False, "not today")

    seen: list[int] = []

    @tool
    def act(number: int) -> None:
        """Acts.

        Args:
            number: how
        """
        seen.append(number)

    agent = caller_with([act], calls(("act", {"number": 1})), final("done"), approve=approve)
    agent.run("task")
    assert asked == [ToolCallRequest("act", {"number": 1}, 0)]
    assert seen == []
    assert "not today" in told(agent)[0]


def test_a_tool_that_takes_too_long_is_given_up() -> None:
    release = threading.Event()

    @tool(timeout=0.05)
    def slow() -> None:
        """Hangs."""
        release.wait(DEADLINE)

    agent = caller_with([slow], calls(("slow", {})), final("done"))
    agent.run("task")
    release.set()
    assert "did not end in time" in told(agent)[0]


def test_more_calls_than_can_be_meant_are_not_made() -> None:
    agent = caller_with([double], calls(*[("double", {"number": 1})] * (MAX_CALLS + 2)), final("done"))
    agent.run("task")
    assert [result.failed for result in results(agent)] == [False] * MAX_CALLS + [True] * 2


def test_interrupt_during_a_call() -> None:
    async def scenario() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        @tool
        async def hang() -> None:
            """Hangs."""
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        agent = caller_with([hang], calls(("hang", {})))
        run = asyncio.create_task(agent.arun("task"))
        await begun.wait()
        agent.interrupt()
        with pytest.raises(AgentInterrupted):
            await run
        await ended.wait()

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE))


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(AgentError, match="max_tool_threads"):
        caller_with([], max_tool_threads=0)
