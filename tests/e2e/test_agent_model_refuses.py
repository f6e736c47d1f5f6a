"""A model's endpoint that refuses in the middle of a run: what was done is kept, and the agent can go on."""

from __future__ import annotations

import pytest

from orchestrator.agents import ActionStep, CodeAgent, TaskStep
from orchestrator.config import Config
from orchestrator.errors import ModelUnavailable
from orchestrator.models import OpenAIServerModel
from tests.e2e.containers import own_containers
from tests.unit.chat_server import completion, failure, serving
from tests.unit.scripted_agents import step

pytestmark = pytest.mark.docker


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_the_memory_and_the_variables_are_kept(config: Config, status: int) -> None:
    before = own_containers()
    script = (completion(step("x = 41")), failure(status, "not today"), completion(step("final_answer(x + 1)")))
    with serving(*script) as server:
        model = OpenAIServerModel("m", api_base=server.url, api_key="k")
        with CodeAgent([], model, verbosity_level=-1) as agent:
            with pytest.raises(ModelUnavailable, match=f"HTTP {status}.*not today"):
                agent.run("the task")
            assert len(server.requests) == 2  # such a refusal does not heal
            assert [type(one) for one in agent.memory.steps] == [TaskStep, ActionStep]
            (container,) = own_containers() - before
            assert agent.run("go on", reset=False) == 42
            assert own_containers() - before == {container}
        told = [message["content"] for message in server.bodies[-1]["messages"]]
        assert any("x = 41" in text for text in told)
        assert any("the task" in text for text in told)
    assert own_containers() == before
