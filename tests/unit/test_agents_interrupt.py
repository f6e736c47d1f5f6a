"""``interrupt()`` wherever a run can be: it stops, what it asked is hung up on, and the conversation can go on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from orchestrator.agents import ActionStep, CodeAgent, TaskStep, ToolCallingAgent
from orchestrator.errors import AgentInterrupted
from orchestrator.models import ModelDelta, OpenAIServerModel, ScriptedModel
from orchestrator.tools import tool
from tests.unit.chat_server import SILENT, Answer, ChatServer, Request, chunk, completion, serving, stream, tool_call
from tests.unit.fake_sandbox import FakeSettings
from tests.unit.scripted_agents import DEADLINE, ended, final, requests, results


@dataclass
class Scene:
    """What the agent has, and what tells that it has come to where it is to be interrupted."""

    begun: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    stopped: threading.Event = field(default_factory=threading.Event)

    def silent(self, request: Request) -> Answer:
        """A model that is asked and never answers."""
        self.begun.set()
        return SILENT

    def tools(self) -> list[Any]:
        """One that gives something, one that blocks its thread, one that waits in the loop."""

        @tool
        def double(number: int) -> int:
            """Doubles.

            Args:
                number: what to double
            """
            return 2 * number

        @tool
        def block() -> None:
            """Blocks."""
            self.begun.set()
            self.release.wait(DEADLINE)

        @tool
        async def wait() -> None:
            """Waits."""
            self.begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.stopped.set()

        return [double, block, wait]

    def heard(self, event: Any) -> None:
        """A piece of the reply that is never finished."""
        if isinstance(event, ModelDelta) and "never" in event.text:
            self.begun.set()


@pytest.fixture
def scene() -> Any:
    made = Scene()
    yield made
    made.release.set()


def replying(*calls: tuple[str, str]) -> Answer:
    return completion(tool_calls=[tool_call(name, given, f"call_{n}") for n, (name, given) in enumerate(calls)])


def streamed(*calls: tuple[str, str]) -> Answer:
    pieces = [{"index": n, **tool_call(name, given, f"call_{n}")} for n, (name, given) in enumerate(calls)]
    return stream(chunk(tool_calls=pieces), finish="tool_calls")


DOUBLED = ("double", '{"number": 21}')
Script = Callable[[Scene], Sequence[Any]]
PLACES: dict[str, Script] = {
    "a model call": lambda scene: [replying(DOUBLED), scene.silent],
    "a stream": lambda scene: [streamed(DOUBLED), stream("never ", "ends", ending="hold")],
    "a blocking tool": lambda scene: [replying(DOUBLED), replying(("block", "{}"))],
    "tools at the same time": lambda scene: [replying(DOUBLED), replying(DOUBLED, ("block", "{}"), ("wait", "{}"))],
    "the run of a member": lambda scene: [replying(DOUBLED), replying(("cook", '{"task": "soup"}')), scene.silent],
}


def agent_of(scene: Scene, server: ChatServer, place: str) -> ToolCallingAgent:
    model = OpenAIServerModel("m", api_base=server.url, api_key="k")
    cook = CodeAgent([], model, sandbox=FakeSettings(scripts=[[]]), name="cook", description="Cooks.")
    more = {"stream_outputs": place == "a stream", "verbosity_level": -1}
    return ToolCallingAgent(scene.tools(), model, managed_agents=[cook], **more)


@pytest.mark.parametrize("place", PLACES)
def test_a_run_is_interrupted_during(place: str, scene: Scene) -> None:
    with serving(*PLACES[place](scene)) as server:
        agent = agent_of(scene, server, place)
        outcome: list[Any] = []
        run = lambda: [scene.heard(event) for event in agent.run("the task", stream=True)]  # noqa: E731
        running = threading.Thread(target=lambda: outcome.append(ended(run)))
        running.start()
        assert scene.begun.wait(DEADLINE)
        agent.interrupt()
        running.join(2 * DEADLINE)
        assert isinstance(outcome[0], AgentInterrupted)
        if place in ("a model call", "a stream", "the run of a member"):
            assert server.left.wait(DEADLINE)  # nobody waits for that reply any more
        if place == "tools at the same time":
            assert scene.stopped.wait(DEADLINE)
    assert_goes_on(agent)


def assert_goes_on(agent: ToolCallingAgent) -> None:
    """The task and the step before are in the memory, and in what the model is asked next."""
    assert [type(step) for step in agent.memory.steps[:2]] == [TaskStep, ActionStep]
    assert [result.text for result in results(agent)] == ["42"]
    agent.model = ScriptedModel([final("still here")])
    assert ended(lambda: agent.run("go on", reset=False)) == "still here"
    (request,) = requests(agent)
    told = "\n".join(message.content for message in request[1:])
    assert told.index("the task") < told.index("42") < told.index("go on")
