"""Branches of an agent, with scripted models and fake sandboxes."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from typing import Any

import pytest

from orchestrator.agents import ActionStep, CodeAgent, TaskStep
from orchestrator.errors import AgentError, AgentInterrupted, CheckpointError, SandboxClosed, SandboxDied
from orchestrator.events import State
from orchestrator.models import ScriptedModel
from orchestrator.sandbox.state import Checkpoint
from orchestrator.tools import tool
from tests.unit.fake_sandbox import HANG, FakeSandbox, FakeSettings, Scripted, answered, failed, ran
from tests.unit.scripted_agents import DEADLINE, agent_with, requests, step
from tests.waiting import eventually


def answers(*numbers: int) -> list[str]:
    return [step(f"final_answer({number})") for number in numbers]


def agent_on(replies: Sequence[str], script: Sequence[Scripted], forks: Any, **more: Any) -> CodeAgent:
    """An agent that borrows a fake sandbox, which is its ``fake``."""
    sandbox = FakeSandbox(script, forks=forks)
    agent = CodeAgent([], ScriptedModel(replies), sandbox=sandbox, **more)
    agent.fake = sandbox  # type: ignore[attr-defined]
    return agent


def tasks(agent: CodeAgent) -> list[str]:
    return [s.task for s in agent.memory.steps if isinstance(s, TaskStep)]


# What a branch has.


def test_a_branch_goes_on_from_here_and_neither_sees_the_other() -> None:
    agent = agent_on(answers(1, 2, 3), [answered(1), answered(3)], [[answered(2)]])
    agent.run("one")
    with agent.branch() as branch:
        [fork] = agent.fake.forked
        assert type(branch) is CodeAgent
        assert branch.memory is not agent.memory
        assert branch.memory.steps == agent.memory.steps
        assert branch.run("two", reset=False) == 2
        assert agent.run("three", reset=False) == 3
        assert (tasks(branch), tasks(agent)) == (["one", "two"], ["one", "three"])
        assert (fork.codes, agent.fake.codes) == (["final_answer(2)"], ["final_answer(1)", "final_answer(3)"])
        assert fork.line[:2] == [0, 1]
        assert fork.closes == 0
    assert (fork.closes, agent.fake.closes) == (1, 0)
    first, second, third = requests(agent)
    assert second[: len(first)] == first  # a provider's cache of prompts serves the branch, too
    assert second[:-1] == third[:-1]


def test_a_branch_has_the_same_settings() -> None:
    seen: list[Any] = []

    def note(step: ActionStep, agent: CodeAgent) -> None:
        seen.append(agent)

    def small(answer: Any, memory: Any, agent: CodeAgent) -> bool:
        seen.append(memory is agent.memory)
        return isinstance(answer, str) or answer < 10

    @tool
    def one() -> int:
        """One."""
        return 1

    sandbox = FakeSandbox([], forks=[[failed(stdout="ab" * 10), answered(12), ran(), answered(1)]], tools=[one])
    agent = CodeAgent(
        [one],
        ScriptedModel([*["<c>\n1\n</c>"] * 3, "a word"]),
        sandbox=sandbox,
        on_error="rollback",
        max_steps=5,
        max_print_outputs_length=4,
        step_callbacks=[note],
        final_answer_checks=[small],
        code_block_tags=("<c>", "</c>"),
        return_full_result=True,
        instructions="Be brief.",
        name="worker",
        description="works",
    )
    agent.max_steps = 3  # also what was set later
    with agent.branch() as branch:
        assert branch.tools == agent.tools
        assert branch.tools is not agent.tools
        assert (branch.name, branch.description, branch.model) == ("worker", "works", agent.model)
        assert branch.memory.system_prompt == agent.memory.system_prompt
        result = branch.run("task")
        assert (result.output, result.state) == ("a word", "max_steps_error")
        [fork] = sandbox.forked
        assert (fork.undone, sandbox.undone) == (1, 0)
        assert fork.tool_names == {"one"}
        first = branch.memory.steps[1]
        assert isinstance(first, ActionStep)
        assert "[… 16 characters left out …]" in str(first.observations)
        assert first.execution is not None
        assert first.execution.state is State.RESTORED
        assert [s for s in seen if not isinstance(s, bool)] == [branch] * 4
        assert [s for s in seen if isinstance(s, bool)] == [True, True]
    assert agent.memory.steps == []


def test_a_branch_of_a_subclass_is_one() -> None:
    class Mine(CodeAgent):
        mark = 0

    agent = Mine([], ScriptedModel([]), sandbox=FakeSandbox())
    agent.mark = 7
    with agent.branch() as branch:
        assert isinstance(branch, Mine)
        assert branch.mark == 7


def test_a_branch_can_be_branched() -> None:
    inner = FakeSandbox([answered(2)], forks=[[answered(3)]])
    agent = agent_on(answers(1, 2, 3), [answered(1)], [inner])
    agent.run("one")
    with agent.branch() as branch:
        branch.run("two", reset=False)
        with branch.branch() as twig:
            assert twig.run("three", reset=False) == 3
            assert tasks(twig) == ["one", "two", "three"]
        assert inner.forked[0].closes == 1
        assert inner.closes == 0


# Whose a branch is.


def test_an_agent_that_never_ran_starts_its_sandbox_for_a_branch() -> None:
    settings = FakeSettings(scripts=[[]], more={"forks": [[answered(1)]]})
    with CodeAgent([], ScriptedModel(answers(1)), sandbox=settings) as agent, agent.branch() as branch:
        assert branch.run("task") == 1
        assert (settings.made[0].starts, len(settings.made[0].forked)) == (1, 1)


def test_closing_an_agents_own_sandbox_ends_its_branches() -> None:
    settings = FakeSettings(scripts=[[]], more={"forks": [[answered(1)]]})
    agent = CodeAgent([], ScriptedModel(answers(1)), sandbox=settings)
    branch = agent.branch()
    agent.close()
    with pytest.raises(SandboxClosed):
        branch.run("task")
    branch.close()
    with pytest.raises(AgentError, match="closed"):
        agent.branch()


def test_closing_an_agent_leaves_the_branches_of_a_borrowed_sandbox() -> None:
    agent = agent_on(answers(1), [], [[answered(1)]])
    branch = agent.branch()
    agent.close()
    assert branch.run("task") == 1
    branch.close()
    branch.close()
    [fork] = agent.fake.forked
    assert (fork.closes, agent.fake.closes) == (1, 0)
    with pytest.raises(AgentError, match="closed"):
        branch.run("task")


def test_a_forgotten_branch_is_closed() -> None:
    agent = agent_on([], [], [])
    branch = agent.branch()
    del branch
    gc.collect()
    eventually(lambda: agent.fake.forked[0].closes == 1, "it is not closed")


def test_a_forgotten_agent_lives_as_long_as_its_branch() -> None:
    async def forget() -> None:
        settings = FakeSettings(scripts=[[]], more={"forks": [[answered(1)]]})
        branch = await CodeAgent([], ScriptedModel(answers(1)), sandbox=settings).abranch()
        gc.collect()
        await turns()
        assert settings.made[0].closes == 0
        assert await branch.arun("task") == 1
        await branch.aclose()
        gc.collect()
        await turns()
        assert settings.made[0].closes == 1

    asyncio.run(forget())


async def turns() -> None:
    """Lets everything run that is ready, and what that makes ready."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_branch_that_failed_is_not_made_again() -> None:
    settings = FakeSettings(scripts=[[answered(2)]], more={"forks": [[SandboxDied("gone")]]})
    with CodeAgent([], ScriptedModel(answers(1, 2)), sandbox=settings) as agent:
        branch = agent.branch()
        with pytest.raises(SandboxDied):
            branch.run("one")
        assert settings.made[0].forked[0].closes == 1
        with pytest.raises(AgentError, match="the branch that this agent worked in has failed"):
            branch.run("two")
        assert agent.run("two") == 2


def test_a_branch_lives_on_the_loop_it_was_made_on() -> None:
    agent = agent_on(answers(1), [], [])
    branch = agent.branch()
    with pytest.raises(AgentError, match="another event loop"):
        asyncio.run(branch.arun("task"))
    asyncio.run(branch.aclose())
    assert agent.fake.forked[0].closes == 1

    async def block() -> None:
        async with await agent.abranch() as other:
            with pytest.raises(AgentError, match="aclose"):
                other.close()

    asyncio.run(block())


# Branching that cannot be.


def test_an_agent_at_work_cannot_be_branched_nor_a_branching_one_run() -> None:
    async def both() -> None:
        agent = agent_on([step("x")], [HANG], [HANG])
        run = asyncio.ensure_future(agent.arun("task"))
        await agent.fake.running.wait()
        with pytest.raises(AgentError, match="at work"):
            await agent.abranch()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        branching = asyncio.ensure_future(agent.abranch())
        await agent.fake.forking.wait()
        for other in (agent.arun("task"), agent.abranch()):
            with pytest.raises(AgentError, match="at work"):
                await other
        branching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await branching

    asyncio.run(asyncio.wait_for(both(), DEADLINE))


def test_branching_can_be_interrupted() -> None:
    async def interrupted() -> None:
        agent = agent_on(answers(1), [answered(1)], [HANG])
        branching = asyncio.ensure_future(agent.abranch())
        await agent.fake.forking.wait()
        agent.interrupt()
        with pytest.raises(AgentInterrupted):
            await branching
        assert agent.fake.forked == []
        assert await agent.arun("task") == 1

    asyncio.run(asyncio.wait_for(interrupted(), DEADLINE))


class LateFork(FakeSandbox):
    """Forks once it is told to stop, as if it had been just about to."""

    async def fork(self, at: Checkpoint | str | int | None = None) -> FakeSandbox:
        self.forking.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return await super().fork(at)
        raise AssertionError("unreachable")


@pytest.mark.parametrize("cancel", [False, True])
def test_a_branch_that_nobody_waits_for_any_more_is_closed(cancel: bool) -> None:
    async def too_late() -> None:
        sandbox = LateFork()
        agent = CodeAgent([], ScriptedModel([]), sandbox=sandbox)
        branching = asyncio.ensure_future(agent.abranch())
        await sandbox.forking.wait()
        if cancel:
            branching.cancel()
        else:
            agent.interrupt()
        with pytest.raises(asyncio.CancelledError if cancel else AgentInterrupted):
            await branching
        assert [fork.closes for fork in sandbox.forked] == [1]

    asyncio.run(asyncio.wait_for(too_late(), DEADLINE))


def test_a_state_that_cannot_be_copied_leaves_the_agent_as_it_is() -> None:
    settings = FakeSettings(scripts=[[answered(1)]], more={"forks": [CheckpointError("threads are alive")]})
    with CodeAgent([], ScriptedModel(answers(1)), sandbox=settings) as agent:
        with pytest.raises(CheckpointError, match="threads"):
            agent.branch()
        assert settings.made[0].closes == 0
        assert agent.run("task") == 1


def test_a_sandbox_that_dies_as_it_forks_is_thrown_away() -> None:
    settings = FakeSettings(scripts=[[], [answered(1)]], more={"forks": [SandboxDied("gone")]})
    with CodeAgent([], ScriptedModel(answers(1)), sandbox=settings) as agent:
        with pytest.raises(SandboxDied):
            agent.branch()
        assert agent.run("task") == 1
        assert [sandbox.closes for sandbox in settings.made] == [1, 0]


def test_a_callback_cannot_branch_its_agent() -> None:
    def split(step: ActionStep, agent: CodeAgent) -> None:
        agent.branch()

    agent = agent_with(answers(1), [answered(1)], step_callbacks=[split])
    with pytest.raises(AgentError, match="at work"):
        agent.run("task")
