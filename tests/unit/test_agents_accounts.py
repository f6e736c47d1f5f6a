"""What a run cost: tokens and time, of each step and of all of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest

from orchestrator.agents import ActionStep, CodeAgent, PlanningStep, RunResult
from orchestrator.events import Execution
from orchestrator.models import ChatMessage, ModelReply, OpenAIServerModel, TokenUsage
from tests.unit.chat_server import USAGE, completion, serving, stream
from tests.unit.fake_sandbox import FakeSandbox, answered, ran
from tests.unit.scripted_agents import agent_with, step

TAKES = 0.01  # seconds that a reply and an execution take, each
CLOCKS = 1.0  # seconds by which the clock of the wall may be set meanwhile


def spend() -> None:
    """Takes its time, by the clock."""
    until = time.monotonic() + TAKES
    while time.monotonic() < until:
        pass


class SlowModel:
    """Gives its replies in order, each with a usage of its own: 10 tokens read and 1 written, 20 and 2, and so on."""

    def __init__(self, *replies: str) -> None:
        self._replies = list(enumerate(replies, 1))

    async def generate(self, messages: Sequence[ChatMessage], stop_sequences: Sequence[str] = ()) -> ModelReply:
        spend()
        number, reply = self._replies.pop(0)
        return ModelReply(reply, TokenUsage(10 * number, number))


def slowly(execution: Execution) -> Any:
    def play(variables: Mapping[str, Any]) -> Execution:
        spend()
        return execution

    return play


def full_result(agent: CodeAgent) -> RunResult:
    result = agent.run("task", return_full_result=True)
    assert isinstance(result, RunResult)
    return result


def test_each_step_and_the_result_have_their_usage_and_timing() -> None:
    model = SlowModel("A plan.", step("1"), step("final_answer(2)"))
    sandbox = FakeSandbox([slowly(ran("1")), slowly(answered(2))])
    result = full_result(CodeAgent([], model, sandbox=sandbox, planning_interval=5, verbosity_level=-1))
    steps = [found for found in result.steps if isinstance(found, (PlanningStep, ActionStep))]
    assert [found.token_usage for found in steps] == [TokenUsage(10, 1), TokenUsage(20, 2), TokenUsage(30, 3)]
    assert result.token_usage == TokenUsage(60, 6)
    assert all(found.timing.duration >= TAKES * parts for found, parts in zip(steps, (1, 2, 2), strict=True))
    assert sum(found.timing.duration for found in steps) <= result.timing.duration
    for before, after in pairwise(steps):
        assert before.timing.end_time <= after.timing.start_time + CLOCKS
    assert abs(result.timing.start_time - time.time()) < result.timing.duration + CLOCKS
    written = [found for found in result.dict()["steps"] if "timing" in found]
    assert [found["token_usage"]["input_tokens"] for found in written] == [10, 20, 30]


@pytest.mark.parametrize("streams", [False, True])
def test_an_endpoints_own_count_is_that_of_the_step(streams: bool) -> None:
    replies = [step("1"), step("final_answer(2)")]
    with serving(*map(stream if streams else completion, replies)) as server:
        model = OpenAIServerModel("m", api_base=server.url, api_key="k")
        sandbox = FakeSandbox([ran("1"), answered(2)])
        result = full_result(CodeAgent([], model, sandbox=sandbox, stream_outputs=streams, verbosity_level=-1))
    of_one = TokenUsage(USAGE["prompt_tokens"], USAGE["completion_tokens"])
    assert [found.token_usage for found in result.steps if isinstance(found, ActionStep)] == [of_one, of_one]
    assert result.token_usage == TokenUsage(14, 6)


def test_a_run_that_goes_on_counts_for_itself() -> None:
    replies = [ModelReply(step(f"final_answer({number})"), TokenUsage(number, 1)) for number in (3, 5)]
    agent = agent_with(replies, [answered(3), answered(5)])
    first, second = full_result(agent), agent.run("more", reset=False, return_full_result=True)
    assert (first.token_usage, second.token_usage) == (TokenUsage(3, 1), TokenUsage(5, 1))
