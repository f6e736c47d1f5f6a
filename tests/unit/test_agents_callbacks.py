"""Callbacks and checks of users: whatever they raise, wait for or change, the run ends, and the message helps."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from typing import Any

import pytest
from PIL import Image

from orchestrator.agents import ActionStep, CodeAgent, PlanningStep
from orchestrator.agents.observation import MAX_ERROR_LENGTH
from orchestrator.errors import AgentError, AgentInterrupted
from tests.unit.fake_sandbox import answered, ran
from tests.unit.scripted_agents import DEADLINE, agent_with, ended, requests, step


def interrupted(agent: CodeAgent, waiting: threading.Event, release: threading.Event) -> Any:
    """What a run gives that is interrupted once ``waiting`` is set; ``release`` only once it has ended."""
    outcomes: list[Any] = []
    thread = threading.Thread(target=lambda: outcomes.append(ended(lambda: agent.run("task"))), daemon=True)
    thread.start()
    assert waiting.wait(DEADLINE)
    agent.interrupt()
    thread.join(DEADLINE)
    assert outcomes, "the interruption was not felt"
    release.set()
    return outcomes[0]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), StopIteration(1), GeneratorExit()])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_callback_cannot_end_the_event_loop(error: BaseException, is_async: bool) -> None:
    def note(step: Any) -> None:
        raise error

    async def anote(step: Any) -> None:
        raise error

    agent = agent_with([step("1")], [ran("1")], step_callbacks=[anote if is_async else note])
    outcome = ended(lambda: agent.run("task"))
    assert isinstance(outcome, (AgentError, RuntimeError))
    other = agent_with([step("final_answer(1)")], [answered(1)])
    assert ended(lambda: other.run("task")) == 1


def test_many_blocking_checks_that_run_agents_of_their_own_all_end() -> None:
    class Plain:
        def generate(self, messages: Any, stop_sequences: Any = ()) -> str:
            return step("final_answer(1)")

    def judged(answer: Any, memory: Any) -> bool:
        judge = agent_with([], [answered(1)])
        judge.model = Plain()
        return judge.run("good?") == 1

    agents = [agent_with([step("final_answer(1)")], [answered(1)], final_answer_checks=[judged]) for _ in range(12)]

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(agent.arun("task") for agent in agents))

    assert ended(lambda: asyncio.run(all_at_once())) == [1] * 12


def test_the_words_of_a_check_are_bounded_and_its_answer_may_be_odd() -> None:
    class Odd:
        def __bool__(self) -> bool:
            raise ValueError("x" * 1_000_000)

    answers = [lambda answer, memory: Odd(), lambda answer, memory: answer == 2]
    replies = [step("final_answer(1)"), step("final_answer(2)")]
    agent = agent_with(replies, [answered(1), answered(2)], final_answer_checks=answers[:1], max_steps=1)
    with pytest.raises(AgentError):
        agent.run("task")
    assert len(requests(agent)[1][-1].content) < 3 * MAX_ERROR_LENGTH


def test_interrupt_is_felt_while_a_callback_waits() -> None:
    waiting = threading.Event()
    release = threading.Event()

    def wait(step: Any) -> None:
        waiting.set()
        release.wait(DEADLINE)

    agent = agent_with([step("1")], [ran("1")], step_callbacks=[wait])
    assert isinstance(interrupted(agent, waiting, release), AgentInterrupted)


@pytest.mark.parametrize("max_steps", [1, 2])
def test_interrupt_is_felt_while_an_answer_is_checked_and_the_step_is_remembered(max_steps: int) -> None:
    waiting, release = threading.Event(), threading.Event()

    def check(answer: Any, memory: Any) -> bool:
        waiting.set()
        return release.wait(DEADLINE)

    replies, script = [step("x = 1"), step("final_answer(1)")], [ran("x = 1"), answered(1)]
    agent = agent_with(replies, script, final_answer_checks=[check], max_steps=max_steps)
    assert isinstance(interrupted(agent, waiting, release), AgentInterrupted)
    steps = [s for s in agent.memory.steps if isinstance(s, ActionStep)]
    assert len(steps) == max_steps  # what was said in the place of an answer did nothing
    assert not steps[-1].is_final_answer
    assert max_steps == 1 or "interrupted" in str(steps[-1].error)


def test_interrupt_is_felt_while_the_conversation_is_compacted() -> None:
    waiting, release = threading.Event(), threading.Event()

    def compact(conversation: Any) -> None:
        waiting.set()
        release.wait(DEADLINE)

    agent = agent_with([step("final_answer(1)")], [answered(1)], compaction=compact)
    assert isinstance(interrupted(agent, waiting, release), AgentInterrupted)


def test_a_callback_assigns_pictures_and_drops_older_ones_as_in_smolagents() -> None:
    def picture(memory_step: ActionStep, agent: CodeAgent) -> None:
        for old in agent.memory.steps:
            if isinstance(old, ActionStep) and old.step_number < memory_step.step_number:
                old.observations_images = None  # type: ignore[misc,assignment]
        memory_step.observations_images = [Image.new("RGB", (2, 2))]  # type: ignore[misc,assignment]
        memory_step.observations = "I see a picture."  # type: ignore[misc]

    replies = [step("1"), step("2"), step("final_answer(3)")]
    agent = agent_with(replies, [ran("1"), ran("2"), answered(3)], step_callbacks=[picture])
    agent.run("task")
    assert [len([m for m in request if m.images]) for request in requests(agent)] == [0, 1, 1]
    assert requests(agent)[2][-1].images
    assert "I see a picture." in requests(agent)[2][-1].content


def test_a_callback_writes_another_plan() -> None:
    def better(step: PlanningStep) -> None:
        step.plan = "A better plan."  # type: ignore[misc]

    agent = agent_with(
        ["A plan.", step("final_answer(1)")], [answered(1)], planning_interval=1, step_callbacks={PlanningStep: better}
    )
    agent.run("task")
    assert requests(agent)[1][-2].content == "A better plan."


def test_other_fields_of_a_step_stay_as_they_are() -> None:
    def change(step: ActionStep) -> None:
        step.model_output = "other"  # type: ignore[misc]

    agent = agent_with([step("1")], [ran("1")], step_callbacks=[change])
    with pytest.raises(dataclasses.FrozenInstanceError, match="only to observations and observations_images"):
        agent.run("task")
