"""Best of n branches, with scripted models and fake sandboxes."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from fractions import Fraction
from typing import Any

import pytest

from orchestrator.agents import ActionStep, Best, CodeAgent, RunResult, TaskStep
from orchestrator.agents.branching import MAX_BRANCHES, MAX_FAILURE_LENGTH
from orchestrator.errors import AgentError, AgentInterrupted, CheckpointError, ModelUnavailable, SandboxDied
from orchestrator.models import ScriptedModel
from tests.unit.fake_sandbox import HANG, FakeSandbox, FakeSettings, Scripted, answered, ran
from tests.unit.scripted_agents import DEADLINE, BranchedModel, step


def output(result: RunResult) -> float:
    return float(result.output)


def agent_on(
    forks: Sequence[Sequence[Scripted] | Exception | FakeSandbox | str], model: Any = None, **more: Any
) -> CodeAgent:
    """An agent that borrows a fake sandbox, which is its ``fake``; each branch gives its answer at once."""
    sandbox = FakeSandbox([answered(1)], forks=forks)  # type: ignore[arg-type]
    model = model or BranchedModel(*([step(f"final_answer({n})")] for n in range(len(forks) + 1)))
    agent = CodeAgent([], model, sandbox=sandbox, **more)
    agent.fake = sandbox  # type: ignore[attr-defined]
    return agent


def closes(agent: CodeAgent) -> list[int]:
    """How often each branch of its fake was closed."""
    return [fork.closes for fork in agent.fake.forked]


# The winner.


def test_the_best_is_kept_and_the_others_are_closed() -> None:
    agent = agent_on([[answered(3)], [answered(9), answered(10)], [answered(5)]])
    agent.model = BranchedModel(["w"], *([step(f"x = {n}")] for n in range(4)))
    agent.memory.append(TaskStep("before"))
    best = agent.best_of(3, "count", output)
    assert isinstance(best, Best)
    assert (best.index, best.scores) == (1, (3.0, 9.0, 5.0))
    assert best.result is best.outcomes[1]
    assert [outcome.output for outcome in best.outcomes if isinstance(outcome, RunResult)] == [3, 9, 5]
    assert closes(agent) == [1, 0, 1]
    assert agent.memory.steps == [TaskStep("before")]
    assert agent.fake.codes == []
    with best.agent as winner:
        assert isinstance(winner, CodeAgent)
        assert winner.memory.all_steps() == best.result.steps
        assert winner.memory.steps[:2] == [TaskStep("before"), TaskStep("count")]
        assert winner.run("go on", reset=False) == 10
    assert closes(agent) == [1, 1, 1]
    assert agent.fake.closes == 0


@pytest.fixture
def agent() -> CodeAgent:
    """With branches that answer 3, 9 and 5."""
    agent = agent_on([[answered(3)], [answered(9)], [answered(5)]])
    agent.model = BranchedModel(*([step(f"x = {n}")] for n in range(4)))
    return agent


@pytest.mark.parametrize(
    ("judge", "index"),
    [
        (lambda result: 1, 0),  # the first of equals
        (lambda result: result.output > 4, 1),
        (lambda result: -result.output, 0),
        (lambda result: Fraction(result.output == 5, 3), 2),
        (lambda result: -math.inf, 0),
        (lambda result: 10**400 if result.output == 5 else math.inf if result.output == 9 else 0, 1),
    ],
)
def test_the_highest_number_wins(agent: CodeAgent, judge: Callable[[RunResult], float], index: int) -> None:
    best = agent.best_of(3, "count", judge)
    assert best.index == index
    assert closes(agent) == [int(at != index) for at in range(3)]


def test_one_branch_is_the_best(agent: CodeAgent) -> None:
    best = agent.best_of(1, "count", output)
    assert (best.index, best.scores) == (0, (3.0,))
    assert closes(agent) == [0]


def test_a_judge_is_asked_one_after_the_other_outside_the_loop(agent: CodeAgent) -> None:
    seen: list[Any] = []

    def judge(result: RunResult) -> float:
        seen.append((result.output, threading.current_thread().name != "cellblock-loop"))
        return 0

    agent.best_of(3, "count", judge)
    assert seen == [(3, True), (9, True), (5, True)]


def test_a_judge_may_be_asynchronous(agent: CodeAgent) -> None:
    async def judge(result: RunResult) -> float:
        await asyncio.sleep(0)
        return float(result.output)

    class Judge:
        async def __call__(self, result: RunResult) -> float:
            return await judge(result)

    assert agent.best_of(1, "count", Judge()).index == 0
    best = asyncio.run(agent.abest_of(2, "count", judge))
    assert (best.index, best.scores) == (0, (9.0, 5.0))


def test_branches_forget_the_conversation_only_if_told_to() -> None:
    for reset, tasks in [(False, ["before", "count"]), (True, ["count"])]:
        agent = agent_on([[answered(1)]])
        agent.memory.append(TaskStep("before"))
        best = agent.best_of(1, "count", output, reset=reset)
        assert [s.task for s in best.agent.memory.steps if isinstance(s, TaskStep)] == tasks
        assert len(agent.memory.steps) == 1


def test_steps_that_are_used_up_are_a_result() -> None:
    agent = agent_on([[ran()]], BranchedModel([step("1"), "About three."]))
    best = agent.best_of(1, "count", lambda result: 1, max_steps=1)
    assert (best.result.output, best.result.state) == ("About three.", "max_steps_error")


def test_the_winner_lives_on_without_the_agent_it_came_from() -> None:
    settings = FakeSettings(scripts=[[]], more={"forks": [[answered(1)], [answered(2), answered(7)]]})
    replies = [step(f"final_answer({n})") for n in range(3)]
    winner = CodeAgent([], ScriptedModel(replies), sandbox=settings).best_of(2, "count", output).agent
    gc.collect()
    assert settings.made[0].closes == 0
    assert winner.run("go on") == 7
    winner.close()


# At the same time.


def hanging_agent() -> tuple[CodeAgent, list[FakeSandbox]]:
    """With three branches whose code hangs at first."""
    forks = [FakeSandbox([HANG, answered(n)]) for n in range(3)]
    agent = agent_on(forks)
    agent.model = BranchedModel(*([step(f"{n}"), step(f"final_answer({n})")] for n in range(4)))
    return agent, forks


def working(agent: CodeAgent) -> asyncio.Future[Best[CodeAgent]]:
    return asyncio.ensure_future(agent.abest_of(3, "count", output))


async def all_running(forks: Sequence[FakeSandbox]) -> None:
    for fork in forks:
        await fork.running.wait()


def within(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), DEADLINE))


def test_the_branches_work_at_the_same_time() -> None:
    async def together() -> None:
        agent, forks = hanging_agent()
        run = working(agent)
        await all_running(forks)
        with pytest.raises(AgentError, match="at work"):
            await agent.arun("another")
        for fork in forks:
            await fork.interrupt()
        best = await run
        assert (best.index, best.result.output) == (2, 2)
        assert closes(agent) == [1, 1, 0]

    within(together)


def test_an_interruption_stops_and_closes_all() -> None:
    async def interrupted() -> None:
        agent, forks = hanging_agent()
        run = working(agent)
        await all_running(forks)
        agent.interrupt()
        with pytest.raises(AgentInterrupted):
            await run
        assert [(fork.cancelled, fork.closes) for fork in forks] == [(1, 1)] * 3
        assert await agent.arun("the agent goes on") == 1

    within(interrupted)


def test_a_cancelled_one_stops_and_closes_all() -> None:
    async def cancelled() -> None:
        agent, forks = hanging_agent()
        run = working(agent)
        await all_running(forks)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert [(fork.cancelled, fork.closes) for fork in forks] == [(1, 1)] * 3
        assert await agent.arun("the agent goes on") == 1

    within(cancelled)


@pytest.mark.parametrize("cancel", [False, True])
def test_an_end_while_the_branches_are_made_closes_those_that_are(cancel: bool) -> None:
    async def ended() -> None:
        agent = agent_on([[answered(1)], [answered(2)], HANG])
        run = working(agent)
        await agent.fake.forking.wait()
        if cancel:
            run.cancel()
        else:
            agent.interrupt()
        with pytest.raises(asyncio.CancelledError if cancel else AgentInterrupted):
            await run
        assert closes(agent) == [1, 1]
        assert [fork.codes for fork in agent.fake.forked] == [[], []]

    within(ended)


@pytest.mark.parametrize("cancel", [False, True])
def test_an_end_while_the_judge_thinks_closes_all(agent: CodeAgent, cancel: bool) -> None:
    async def ended() -> None:
        thinking = asyncio.Event()

        async def judge(result: RunResult) -> float:
            thinking.set()
            await asyncio.Event().wait()
            return 1.0

        run = asyncio.ensure_future(agent.abest_of(3, "count", judge))
        await thinking.wait()
        if cancel:
            run.cancel()
        else:
            agent.interrupt()
        with pytest.raises(asyncio.CancelledError if cancel else AgentInterrupted):
            await run
        assert closes(agent) == [1, 1, 1]

    within(ended)


def test_interrupt_from_another_thread() -> None:
    agent, forks = hanging_agent()
    caught: list[BaseException] = []

    def work() -> None:
        try:
            agent.best_of(3, "count", output)
        except AgentInterrupted as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    until = time.monotonic() + DEADLINE
    while not all(fork.running.is_set() for fork in forks):
        assert time.monotonic() < until
        thread.join(0.005)
    agent.interrupt()
    thread.join(DEADLINE)
    assert caught
    assert closes(agent) == [1, 1, 1]


# Branches that fail.


def test_a_branch_that_failed_is_no_candidate() -> None:
    gone, down = SandboxDied("gone"), ModelUnavailable("down")
    model = BranchedModel([step("1")], [step("2"), down], [step("3")])
    agent = agent_on([[gone], [ran()], [answered(-1)]], model)
    best = agent.best_of(3, "count", output)
    assert best.outcomes == (gone, down, best.result)
    assert (best.index, best.scores) == (2, (None, None, -1.0))
    assert closes(agent) == [1, 1, 0]


def test_a_callback_may_give_up_one_branch() -> None:
    def give_up(step: ActionStep, agent: CodeAgent) -> None:
        if step.action_output == 1:
            agent.interrupt()

    replies = [[step(f"{n}"), step(f"final_answer({n})")] for n in range(2)]
    forks = [[ran(value=1), answered(100)], [ran(value=0), answered(5)]]
    agent = agent_on(forks, BranchedModel(*replies), step_callbacks=[give_up])
    best = agent.best_of(2, "count", output)
    assert (best.index, best.result.output) == (1, 5)
    assert isinstance(best.outcomes[0], AgentInterrupted)


def test_no_result_at_all_is_an_error_that_names_the_failures() -> None:
    failures = [SandboxDied("gone\x1b[2J\nfor ever"), SandboxDied("x" * 5000), KeyError("mine")]
    agent = agent_on([[failure] for failure in failures])
    with pytest.raises(AgentError, match="no branch came to a result") as caught:
        agent.best_of(3, "count", output)
    text = str(caught.value)
    assert "0: SandboxDied: gone for ever; 1: SandboxDied: xxx" in text
    assert "2: KeyError: 'mine'" in text
    assert len(text) < 3 * MAX_FAILURE_LENGTH
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert list(caught.value.__cause__.exceptions) == failures
    assert closes(agent) == [1, 1, 1]


def test_a_branch_that_cannot_be_made_ends_it_all() -> None:
    agent = agent_on([[answered(1)], CheckpointError("no memory")])
    with pytest.raises(CheckpointError, match="no memory"):
        agent.best_of(3, "count", output)
    assert closes(agent) == [1]
    assert agent.run("the agent goes on") == 1


def test_what_a_judge_raises_is_raised(agent: CodeAgent) -> None:
    def judge(result: RunResult) -> float:
        if result.output == 9:
            raise ZeroDivisionError("mine")
        return 1.0

    with pytest.raises(ZeroDivisionError, match="mine"):
        agent.best_of(3, "count", judge)
    assert closes(agent) == [1, 1, 1]


@pytest.mark.parametrize("score", [None, "9", math.nan, 1j, [1], "x" * 5000])
def test_a_judge_that_gives_no_number_is_an_error(agent: CodeAgent, score: Any) -> None:
    with pytest.raises(AgentError, match="it must give a number") as caught:
        agent.best_of(3, "count", lambda result: score)
    assert len(str(caught.value)) < 2 * MAX_FAILURE_LENGTH
    assert closes(agent) == [1, 1, 1]


class Stuck(FakeSandbox):
    """Cannot be closed."""

    async def close(self) -> None:
        await super().close()
        raise SandboxDied("gone")


def test_a_loser_that_cannot_be_closed_is_told_and_leaves_nothing_open() -> None:
    agent = agent_on([Stuck([answered(1)]), [answered(2)], [answered(0)]])
    with pytest.raises(SandboxDied):
        agent.best_of(3, "count", output)
    assert all(closes(agent))


# Arguments.


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n": 0}, f"a whole number from 1 to {MAX_BRANCHES}"),
        ({"n": MAX_BRANCHES + 1}, "n is 17"),
        ({"n": True}, "n is True"),
        ({"n": 2.0}, "n is 2.0"),
        ({"task": " "}, "a task is a text"),
        ({"max_steps": 0}, "max_steps is 0"),
        ({"judge": None}, "cannot be called"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_made(changes: dict[str, Any], words: str) -> None:
    agent = agent_on([[answered(1)]])
    with pytest.raises(AgentError, match=words):
        agent.best_of(**({"n": 1, "task": "count", "judge": output} | changes))
    assert (agent.fake.starts, agent.fake.forked) == (0, [])


def test_as_many_branches_as_may_be() -> None:
    agent = agent_on([[answered(n)] for n in range(MAX_BRANCHES)])
    best = agent.best_of(MAX_BRANCHES, "count", output)
    assert best.index == MAX_BRANCHES - 1
    assert sum(closes(agent)) == MAX_BRANCHES - 1
