"""An agent interrupted, called back, closed, put together wrongly: with a scripted model and a fake sandbox."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from orchestrator.agents import ActionStep, CodeAction, CodeAgent, FinalAnswerStep, SystemPromptStep, TaskStep
from orchestrator.errors import AgentError, AgentInterrupted, ConfigError, SandboxDied, ToolError
from orchestrator.events import Status
from orchestrator.models import ChatMessage, ModelReply, ScriptedModel
from orchestrator.portal import Portal
from orchestrator.tools import tool
from tests.unit.fake_sandbox import HANG, FakeSandbox, FakeSettings, answered, ran
from tests.unit.scripted_agents import agent_with, step
from tests.waiting import eventually

DEADLINE = 9.0  # seconds

# Interrupting.


def test_interrupt_during_an_execution() -> None:
    agent = agent_with([step("while True: pass")], [HANG])
    caught: list[BaseException] = []

    def work() -> None:
        try:
            agent.run("task")
        except AgentInterrupted as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not agent.fake.running.is_set():
        thread.join(0.005)
    agent.interrupt()
    thread.join(10)
    assert caught
    last = agent.memory.steps[-1]
    assert isinstance(last, ActionStep)
    assert last.execution is not None
    assert last.execution.status is Status.INTERRUPTED


class HangingModel:
    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.cancelled = False

    async def generate(self, messages: Sequence[ChatMessage], stop_sequences: Sequence[str] = ()) -> ModelReply:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        raise AssertionError("unreachable")


def test_interrupt_during_a_model_call() -> None:
    async def interrupted() -> None:
        model = HangingModel()
        agent = CodeAgent([], model, sandbox=FakeSandbox([answered(1)]))
        run = asyncio.ensure_future(agent.arun("task"))
        await model.asked.wait()
        agent.interrupt()
        with pytest.raises(AgentInterrupted):
            await run
        assert model.cancelled
        agent.model = ScriptedModel([step("final_answer(1)")])
        assert await agent.arun("again") == 1  # the interruption was for that run only

    asyncio.run(interrupted())


def test_interrupt_just_before_an_execution_is_not_lost() -> None:
    async def interrupted() -> None:
        agent = agent_with([step("while True: pass")], [HANG])
        async with aclosing(agent.astream("task")) as events:
            async for event in events:
                if isinstance(event, CodeAction):
                    agent.interrupt()
                    await asyncio.sleep(0)  # the run is told before its code has begun

    with pytest.raises(AgentInterrupted):
        asyncio.run(interrupted())


def test_interrupt_without_a_run_does_nothing() -> None:
    agent = agent_with([step("final_answer(1)")], [answered(1)])
    agent.interrupt()
    assert agent.run("task") == 1
    agent.interrupt()


# Callbacks.


def test_a_list_of_callbacks_is_for_action_steps_and_sees_them_in_memory() -> None:
    seen: list[Any] = []

    def plain(step: ActionStep) -> None:
        seen.append(("plain", step.step_number))

    def with_agent(step: ActionStep, agent: CodeAgent) -> None:
        seen.append(("agent", agent.memory.steps[-1] is step))

    async def asynchronous(step: ActionStep, who: CodeAgent) -> None:
        seen.append(("async", who.memory.steps[-1] is step))

    agent = agent_with(
        [step("1"), step("final_answer(1)")], [ran(), answered(1)], step_callbacks=[plain, with_agent, asynchronous]
    )
    agent.run("task")
    assert seen == [("plain", 1), ("agent", True), ("async", True), ("plain", 2), ("agent", True), ("async", True)]


def test_a_dict_of_callbacks_is_by_type_of_step() -> None:
    seen: list[Any] = []
    callbacks = {TaskStep: seen.append, ActionStep: [seen.append, seen.append], FinalAnswerStep: seen.append}
    agent = agent_with([step("final_answer(1)")], [answered(1)], step_callbacks=callbacks)
    agent.run("task")
    assert [type(s) for s in seen] == [TaskStep, ActionStep, ActionStep, FinalAnswerStep]


def test_a_callback_may_interrupt() -> None:
    def enough(step: ActionStep, agent: CodeAgent) -> None:
        agent.interrupt()

    agent = agent_with([step("1"), step("2")], [ran(), ran()], step_callbacks=[enough])
    with pytest.raises(AgentInterrupted):
        agent.run("task")
    assert len(agent.memory.steps) == 2


def test_what_a_callback_raises_ends_the_run() -> None:
    def broken(step: ActionStep) -> None:
        raise ZeroDivisionError

    agent = agent_with([step("1")], [ran()], step_callbacks=[broken])
    with pytest.raises(ZeroDivisionError):
        agent.run("task")


@pytest.mark.parametrize("callbacks", [{str: print}, {SystemPromptStep: print}, [3], {ActionStep: ["x"]}])
def test_wrong_callbacks_are_refused(callbacks: Any) -> None:
    with pytest.raises(AgentError, match="step_callbacks"):
        agent_with([], [], step_callbacks=callbacks)


# The sandbox of an agent.


def test_a_borrowed_sandbox_is_not_closed() -> None:
    sandbox = FakeSandbox([answered(1)])
    with CodeAgent([], ScriptedModel([step("final_answer(1)")]), sandbox=sandbox) as agent:
        agent.run("task")
    assert sandbox.closes == 0


def test_a_borrowed_sandbox_must_have_what_the_agent_needs() -> None:
    @tool
    def weather(city: str) -> str:
        """Weather.

        Args:
            city: where
        """
        return "sun"

    with pytest.raises(AgentError, match="final_answer=True"):
        CodeAgent([], ScriptedModel([]), sandbox=FakeSandbox(final_answer=False))
    with pytest.raises(AgentError, match="without these tools of the agent: weather"):
        CodeAgent([weather], ScriptedModel([]), sandbox=FakeSandbox())
    with pytest.raises(AgentError, match="authorized_imports"):
        CodeAgent([], ScriptedModel([]), sandbox=FakeSandbox(), additional_authorized_imports=["numpy"])
    agent = CodeAgent([weather], ScriptedModel([]), sandbox=FakeSandbox(tools=[weather], authorized_imports=["numpy"]))
    assert "numpy" in agent.memory.system_prompt.system_prompt
    assert "def weather(city: str) -> str:" in agent.memory.system_prompt.system_prompt


def own(settings: FakeSettings, replies: int) -> CodeAgent:
    return CodeAgent([], ScriptedModel([step("final_answer(1)")] * replies), sandbox=settings)


def test_an_agent_keeps_its_own_sandbox_over_runs_and_closes_it() -> None:
    settings = FakeSettings(scripts=[[answered(1)] * 2])
    with own(settings, 2) as agent:
        assert settings.made == []
        agent.run("one")
        agent.run("two")
        [sandbox] = settings.made
        assert sandbox.closes == 0
    assert sandbox.closes == 1
    agent.close()
    assert sandbox.closes == 1
    with pytest.raises(AgentError, match="closed"):
        agent.run("three")


def test_an_agent_that_is_forgotten_closes_its_sandbox() -> None:
    settings = FakeSettings(scripts=[[answered(1)]])
    agent = own(settings, 1)
    agent.run("one")
    del agent
    gc.collect()
    eventually(lambda: settings.made[0].closes == 1, "its sandbox is not closed")


@pytest.mark.parametrize("how", ["closed", "forgotten"])
def test_nothing_is_left_to_do_at_exit_for_an_agent_that_is_gone(how: str) -> None:
    settings = FakeSettings(scripts=[[answered(1)]])
    agent = own(settings, 1)
    agent.run("one")
    if how == "closed":
        agent.close()
    del agent
    gc.collect()
    eventually(lambda: settings.made[0].closes == 1, "its sandbox is not closed")
    seen = weakref.ref(settings.made[0])
    settings.made.clear()

    def is_gone() -> bool:
        gc.collect()
        return seen() is None

    eventually(is_gone, "something still holds the sandbox, such as an exit handler")


@pytest.fixture
def little_to_collect() -> Iterator[None]:
    """A full collection looks at what the test itself has made."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("little_to_collect")
def test_forgetting_an_agent_waits_for_nothing() -> None:
    """Garbage is noticed in any thread, also in one that the loop waits for."""
    settings = FakeSettings(scripts=[[answered(1)]])
    agent = own(settings, 1)
    agent.run("one")
    forgotten = [agent]
    del agent
    noticed = threading.Event()

    def notice() -> None:
        forgotten.clear()
        gc.collect()
        noticed.set()

    async def busy() -> bool:
        threading.Thread(target=notice).start()
        return noticed.wait(
            DEADLINE
        )  # the loop does nothing else meanwhile, and 10 s would be the end of a wait for it

    assert Portal.run(busy())
    eventually(lambda: settings.made[0].closes == 1, "its sandbox is not closed")


def test_async_with() -> None:
    async def use() -> None:
        settings = FakeSettings(scripts=[[answered(1)]])
        async with own(settings, 1) as agent:
            await agent.arun("one")
            with pytest.raises(AgentError, match="aclose"):
                agent.close()
        assert settings.made[0].closes == 1

    asyncio.run(use())


def test_a_sandbox_of_another_loop_is_not_used_but_can_be_closed() -> None:
    settings = FakeSettings(scripts=[[answered(1)]])
    agent = own(settings, 2)
    agent.run("one")
    with pytest.raises(AgentError, match="another event loop"):
        asyncio.run(agent.arun("two"))
    asyncio.run(agent.aclose())
    assert settings.made[0].closes == 1


def test_a_sandbox_that_died_ends_the_run_and_the_next_has_a_new_one() -> None:
    settings = FakeSettings(scripts=[[SandboxDied("gone")], [answered(1)]])
    agent = own(settings, 2)
    with pytest.raises(SandboxDied):
        agent.run("one")
    assert not any("gone" in message.content for message in agent.write_memory_to_messages())
    assert agent.run("two") == 1
    assert [sandbox.closes for sandbox in settings.made] == [1, 0]
    agent.close()


# Putting an agent together.


def undescribed(a: int) -> int:
    return a


def test_wrong_arguments_are_refused() -> None:
    @tool
    def one() -> int:
        """One."""
        return 1

    for more, error in [
        ({"name": "two words"}, AgentError),
        ({"name": "class"}, AgentError),
        ({"code_block_tags": "xml"}, AgentError),
        ({"max_print_outputs_length": 0}, AgentError),
        ({"additional_authorized_imports": ["a b"]}, ConfigError),
        ({"additional_authorized_imports": "numpy"}, ConfigError),
    ]:
        with pytest.raises(error):
            CodeAgent([], ScriptedModel([]), **more)  # type: ignore[arg-type]
    with pytest.raises(AgentError, match="two tools or agents are named 'one'"):
        CodeAgent([one, one], ScriptedModel([]))
    with pytest.raises(ToolError, match="undescribed"):
        CodeAgent([undescribed], ScriptedModel([]))
    with pytest.raises(AgentError, match="a task is a text"):
        agent_with([], []).run(" ")
