"""A step costs what is new in it, however many came before: counted in what is sent, not in time."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from orchestrator.agents import CodeAgent, MultiStepAgent, ToolCallingAgent
from orchestrator.models import OpenAIServerModel
from orchestrator.tools import tool
from tests.unit.chat_server import ChatServer, completion, serving, tool_call
from tests.unit.fake_sandbox import FakeSandbox, answered, ran
from tests.unit.scripted_agents import step

STEPS = 30


@tool
def look(number: int) -> str:
    """Looks.

    Args:
        number: where
    """
    return f"seen {number}"


def run(agent: MultiStepAgent, server: ChatServer) -> list[list[Any]]:
    """The messages of each request."""
    assert agent.run("task", max_steps=STEPS) == "done"
    return [body["messages"] for body in server.bodies]


def of_code() -> list[list[Any]]:
    codes = [f"look({number})" for number in range(100, 100 + STEPS - 1)]
    sandbox = FakeSandbox([*(ran(f"'seen {code[5:8]}'", stdout="x" * 99) for code in codes), answered("done")])
    with serving(*(completion(step(code)) for code in (*codes, "final_answer('done')"))) as server:
        model = OpenAIServerModel("m", api_base=server.url, api_key="k")
        sent = run(CodeAgent([], model, sandbox=sandbox, verbosity_level=-1), server)
    assert sandbox.codes == [*codes, "final_answer('done')"]  # each action alone, nothing of those before
    return sent


def of_calls() -> list[list[Any]]:
    made = [("look", f'{{"number": {number}}}') for number in range(100, 100 + STEPS - 1)]
    replies = [
        completion(tool_calls=[tool_call(*call, id=f"call_{number:03}")])
        for number, call in enumerate((*made, ("final_answer", '{"answer": "done"}')))
    ]
    with serving(*replies) as server:
        model = OpenAIServerModel("m", api_base=server.url, api_key="k")
        return run(ToolCallingAgent([look], model, verbosity_level=-1), server)


@pytest.mark.parametrize("kind", [of_code, of_calls])
def test_a_request_is_the_one_before_and_what_is_new(kind: Any) -> None:
    sent = kind()
    assert len(sent) == STEPS  # the model is asked once for each step
    assert [len(messages) for messages in sent] == [2 + 2 * number for number in range(STEPS)]
    for before, after in pairwise(sent):
        assert after[: len(before)] == before
    sizes = [len(json.dumps(messages)) for messages in sent]
    assert len({after - before for before, after in pairwise(sizes)}) == 1  # the last step adds as much as the first
