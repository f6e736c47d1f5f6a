"""The step loop, with a scripted model and a fake sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from itertools import pairwise
from typing import Any

import pytest

from orchestrator.agents import (
    ActionStep,
    AgentMemory,
    CodeAction,
    CodeAgent,
    FinalAnswerStep,
    RunResult,
    StepStarted,
    SystemPromptStep,
    TaskStep,
)
from orchestrator.agents.observation import Observation
from orchestrator.errors import AgentError, ModelUnavailable
from orchestrator.events import Execution, FinalAnswer, Finished, Logs, Output, State, Status
from orchestrator.models import ChatMessage, ModelReply, ScriptedModel, TokenUsage
from tests.unit.fake_sandbox import HANG, FakeSandbox, answered, failed, ran
from tests.unit.scripted_agents import agent_with, last_user_text, requests, step

# The way of a run.


def test_a_run_from_task_to_answer() -> None:
    agent = agent_with([step("x = 41\nx + 1"), step("final_answer(42)")], [ran("42", value=42), answered(42)])
    assert agent.run("What is it?") == 42
    assert agent.fake.codes == ["x = 41\nx + 1", "final_answer(42)"]
    system, task, first, last = agent.memory.all_steps()
    assert isinstance(system, SystemPromptStep)
    assert task == TaskStep("What is it?")
    assert isinstance(first, ActionStep)
    assert (first.step_number, first.action_output, first.is_final_answer) == (1, 42, False)
    assert isinstance(last, ActionStep)
    assert (last.step_number, last.action_output, last.is_final_answer) == (2, 42, True)


def test_events_come_in_order() -> None:
    agent = agent_with([step("print(1)"), step("final_answer(2)")], [ran(stdout="1\n"), answered(2)])
    events = list(agent.run("task", stream=True))
    assert [type(event) for event in events] == [
        TaskStep,
        *(StepStarted, CodeAction, Output, Finished, Observation, ActionStep),
        *(StepStarted, CodeAction, Finished, Observation, ActionStep),
        FinalAnswerStep,
    ]
    assert events[1] == StepStarted(1, 20)
    assert events[2] == CodeAction("print(1)", "Thought: go on.")
    assert events[-1] == FinalAnswerStep(2, "success")


def test_the_full_result() -> None:
    usage = TokenUsage(10, 5)
    replies = [ModelReply(step("1"), usage), ModelReply(step("final_answer(None)"), usage)]
    agent = agent_with(replies, [ran("1"), answered(None)], return_full_result=True)
    result = agent.run("task")
    assert isinstance(result, RunResult)
    assert (result.output, result.state, result.token_usage) == (None, "success", TokenUsage(20, 10))
    assert result.steps == agent.memory.all_steps()
    assert result.timing.duration >= 0


def test_usage_is_unknown_if_one_call_did_not_count() -> None:
    agent = agent_with([ModelReply(step("1"), TokenUsage(1, 1)), step("final_answer(1)")], [ran("1"), answered(1)])
    assert agent.run("task", return_full_result=True).token_usage is None


def test_arun_and_run_are_the_same() -> None:
    agent = agent_with([step("final_answer('a')")], [answered("a")])
    assert asyncio.run(agent.arun("task")) == "a"


# What the model is told.


def test_history_is_append_only_and_code_is_sent_once() -> None:
    replies = [step("unique_name = 1"), "no code", step("1/0"), step("final_answer(1)")]
    agent = agent_with(replies, [ran("None"), failed(), answered(1)])
    agent.run("task")
    sent = requests(agent)
    assert [len(messages) for messages in sent] == [2, 4, 6, 8]
    for before, after in pairwise(sent):
        assert after[: len(before)] == before
    assert sum(message.content.count("unique_name") for message in sent[-1]) == 1
    assert [message.role for message in sent[-1]] == ["system", *["user", "assistant"] * 3, "user"]


def test_an_observation_has_logs_and_the_last_value() -> None:
    agent = agent_with([step("f()")], [ran("42", stdout="hello\n")])
    with pytest.raises(ModelUnavailable):
        agent.run("task")
    assert last_user_text(agent) == (
        "Observation:\n<FENCE>\nExecution logs:\nhello\nLast output from code snippet:\n42\n</FENCE>"
    )


def test_an_error_of_the_code_goes_back_with_its_prints() -> None:
    agent = agent_with([step("1/0"), step("final_answer(1)")], [failed(stdout="before\n"), answered(1)])
    assert agent.run("task") == 1
    first = agent.memory.steps[1]
    assert isinstance(first, ActionStep)
    assert first.error is not None
    assert first.error.kind == "execution"
    told = requests(agent)[1][-1].content
    assert "Execution logs:\nbefore\nError:\nZeroDivisionError: division by zero\n" in told
    assert "Now let's retry" in told


def test_a_reply_without_code_goes_back_with_the_form() -> None:
    agent = agent_with(["It is 4.", step("final_answer(4)")], [answered(4)])
    assert agent.run("task") == 4
    first = agent.memory.steps[1]
    assert isinstance(first, ActionStep)
    assert (first.code_action, first.model_output) == (None, "It is 4.")
    assert "<code>\n# Python code\n</code>" in requests(agent)[1][-1].content


def test_the_closing_tag_that_was_cut_off_is_put_back() -> None:
    agent = agent_with(["T\n<code>\nfinal_answer(1)"], [answered(1)])
    agent.run("task")
    assert agent.memory.steps[1].model_output == "T\n<code>\nfinal_answer(1)\n</code>"  # type: ignore[union-attr]


def test_what_became_of_the_variables_is_said_outside_the_fence() -> None:
    execution = Execution(Status.TIMEOUT, State.RESTORED, 1, logs=Logs("on my way\n"))
    agent = agent_with([step("while True: pass")], [execution])
    with pytest.raises(ModelUnavailable):
        agent.run("task")
    told = last_user_text(agent)
    assert "longer than its time limit" in told
    assert "</FENCE>\nThe code was stopped" in told
    assert "All variables are as they were before" in told


def test_tags_are_the_same_for_prompt_parser_and_stop() -> None:
    seen: list[Sequence[str]] = []

    class Noting(ScriptedModel):
        async def generate(self, messages: Sequence[ChatMessage], stop_sequences: Sequence[str] = ()) -> ModelReply:
            seen.append(stop_sequences)
            return await super().generate(messages, stop_sequences)

    model = Noting(["[PY]\nfinal_answer(1)\n[/PY]"])
    agent = CodeAgent([], model, sandbox=FakeSandbox([answered(1)]), code_block_tags=("[PY]", "[/PY]"))
    assert agent.run("task") == 1
    assert "[PY]\n# Python code\n[/PY]" in model.requests[0][0].content
    assert seen == [("\nObservation:", "\n[/PY]")]


# The end of a run.


def test_when_the_steps_are_used_up_the_model_is_asked_once() -> None:
    agent = agent_with([step("1"), step("2"), "  Probably 3. "], [ran("1"), ran("2")])
    result = agent.run("task", max_steps=2, return_full_result=True)
    assert (result.output, result.state) == ("Probably 3.", "max_steps_error")
    assert "used up all your steps" in requests(agent)[2][-1].content
    assert len(agent.memory.steps) == 4


@pytest.mark.parametrize("max_steps", [0, -1])
def test_no_steps_is_an_error(max_steps: int) -> None:
    with pytest.raises(AgentError, match="max_steps"):
        agent_with([], [], max_steps=max_steps)
    with pytest.raises(AgentError, match="max_steps"):
        agent_with([], []).run("task", max_steps=max_steps)


def test_an_answer_that_a_check_refuses_goes_back() -> None:
    seen: list[Any] = []

    def is_even(answer: int, memory: AgentMemory) -> bool:
        seen.append((answer, len(memory.steps)))
        return answer % 2 == 0

    async def is_small(answer: int, memory: AgentMemory, agent: CodeAgent) -> bool:
        assert agent.memory is memory
        if answer > 10:
            raise ValueError("too large")
        return True

    replies = [step("final_answer(3)"), step("final_answer(12)"), step("final_answer(4)")]
    agent = agent_with(replies, [answered(3), answered(12), answered(4)], final_answer_checks=[is_even, is_small])
    assert agent.run("task") == 4
    assert seen == [(3, 1), (12, 2), (4, 3)]
    errors = [s.error.message for s in agent.memory.steps if isinstance(s, ActionStep) and s.error]
    assert errors == ["Check is_even did not accept the final answer.", "Check is_small failed with error: too large"]
    for reason, request in zip(errors, requests(agent)[1:], strict=True):
        assert reason in request[-1].content


def test_an_answer_of_code_that_failed_afterwards_does_not_count() -> None:
    half = Execution(Status.TIMEOUT, State.RESTORED, 1, final_answer=FinalAnswer("early"))
    agent = agent_with([step("a"), step("b")], [half, answered("late")])
    assert agent.run("task") == "late"


def test_text_that_looks_like_an_answer_is_none() -> None:
    agent = agent_with([step("a"), step("b")], [ran("final_answer(1)", stdout="Final answer: 1\n"), answered(2)])
    assert agent.run("task") == 2


# Several runs.


def test_reset_forgets_the_conversation_and_no_reset_continues_it() -> None:
    agent = agent_with([step("final_answer(1)")] * 3, [answered(1)] * 3)
    agent.run("one")
    agent.run("two", reset=False)
    assert [s.task for s in agent.memory.steps if isinstance(s, TaskStep)] == ["one", "two"]
    agent.run("three")
    assert [s.task for s in agent.memory.steps if isinstance(s, TaskStep)] == ["three"]
    assert agent.fake.closes == 0


def test_one_run_at_a_time() -> None:
    async def both() -> None:
        agent = agent_with([step("x")], [HANG])
        first = asyncio.ensure_future(agent.arun("task"))
        await agent.fake.running.wait()
        with pytest.raises(AgentError, match="at work"):
            await agent.arun("another")
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert agent.fake.cancelled == 1

    asyncio.run(both())


def test_leaving_a_stream_stops_the_execution() -> None:
    async def leave() -> None:
        agent = agent_with([step("x"), step("final_answer(1)")], [[Output("stdout", "a")], answered(1)])
        async with aclosing(agent.astream("task")) as events:
            async for event in events:
                if isinstance(event, Output):
                    break
        agent.model = ScriptedModel([step("final_answer(1)")])
        assert await agent.arun("again") == 1

    asyncio.run(leave())


def test_a_failed_model_ends_the_run_and_the_memory_goes_on() -> None:
    agent = agent_with([step("1")], [ran("1"), answered(2)])
    with pytest.raises(ModelUnavailable):
        agent.run("task")
    assert len(agent.memory.steps) == 2
    agent.model = ScriptedModel([step("final_answer(2)")])
    assert agent.run("go on", reset=False) == 2
    assert len(agent.memory.steps) == 4
