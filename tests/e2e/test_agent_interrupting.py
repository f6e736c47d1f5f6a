"""An agent interrupted while its code in a container waits for the host: for a tool, for a member of the team."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from orchestrator.agents import ActionStep, CodeAgent, TaskStep
from orchestrator.config import Config
from orchestrator.errors import AgentInterrupted
from orchestrator.events import Status
from orchestrator.models import ChatMessage, ModelReply, ScriptedModel
from orchestrator.tools import tool
from tests.e2e.containers import own_containers
from tests.unit.scripted_agents import ended, step
from tests.waiting import eventually

pytestmark = pytest.mark.docker
DEADLINE = 60.0  # seconds


class BlockingModel:
    """Blocks its thread when it is asked, until it is let go."""

    def __init__(self, begun: threading.Event, release: threading.Event) -> None:
        self._begun, self._release = begun, release

    def generate(self, messages: Sequence[ChatMessage], stop_sequences: Sequence[str] = (), **_: Any) -> ModelReply:
        self._begun.set()
        self._release.wait(DEADLINE)
        return ModelReply("too late")


@pytest.mark.parametrize("what", ["tool", "member"])
def test_code_that_waits_for_the_host_is_interrupted_and_the_agent_goes_on(
    config: Config, release: threading.Event, what: str
) -> None:
    begun, before = threading.Event(), own_containers()

    @tool
    def block() -> None:
        """Blocks."""
        begun.set()
        release.wait(DEADLINE)

    cook = CodeAgent([], BlockingModel(begun, release), name="cook", description="Cooks.")
    code = "block()" if what == "tool" else "cook(task='soup')"
    model = ScriptedModel([step("x = 41"), step(code), step("final_answer(x + 1)")])
    with CodeAgent([block], model, managed_agents=[cook]) as agent:
        outcome: list[Any] = []
        running = threading.Thread(target=lambda: outcome.append(ended(lambda: agent.run("the task"))))
        running.start()
        assert begun.wait(DEADLINE)
        agent.interrupt()
        running.join(DEADLINE)
        assert isinstance(outcome[0], AgentInterrupted)
        task, first, last = agent.memory.steps
        assert isinstance(task, TaskStep)
        assert isinstance(first, ActionStep)
        assert isinstance(last, ActionStep)
        assert last.execution is not None
        assert last.execution.status is Status.INTERRUPTED
        assert agent.run("go on", reset=False) == 42
        assert any("x = 41" in message.content for message in model.requests[-1])
    # A member that was given up closes its sandbox by itself.
    eventually(lambda: own_containers() == before, "a container is left", DEADLINE)
