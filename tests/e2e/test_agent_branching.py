"""``on_error``, branches and best of n in a real container; only the model's words are scripted."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterable
from typing import Any

import pytest

from orchestrator.agents import ActionStep, CodeAgent, RunResult, SandboxSettings
from orchestrator.config import Config, Limits
from orchestrator.errors import AgentError, AgentInterrupted, CheckpointError, ModelUnavailable, SandboxError
from orchestrator.events import Files, Output, State, Status
from orchestrator.models import ScriptedModel
from orchestrator.sandbox import AsyncSandbox, Sandbox
from orchestrator.tools import tool
from tests.conftest import mine
from tests.unit.scripted_agents import BranchedModel, step

pytestmark = pytest.mark.docker

DEADLINE = 60.0  # seconds for anything that is waited for, a container's start included
UNDONE = "All variables and files are as they were before this code ran."
SET_UP = "x = 1\nwritten = open('notes.txt', 'w').write('one')"
LOOK = "final_answer([x, open('notes.txt').read()])"
BREAK = "x = 2\nwritten = open('notes.txt', 'w').write('two')\n"  # and then the code fails
THREADS = (
    "import threading\nstop = threading.Event()\nthread = threading.Thread(target=stop.wait)\nthread.start()\nx = 1"
)


def agent_with(codes: Iterable[str], **more: Any) -> CodeAgent:
    return CodeAgent([], ScriptedModel([step(code) for code in codes]), **more)


def action_steps(agent: CodeAgent) -> list[ActionStep]:
    return [s for s in agent.memory.steps if isinstance(s, ActionStep)]


def ended(agent: CodeAgent, at: int) -> tuple[Status, State, Files]:
    execution = action_steps(agent)[at].execution
    assert execution is not None
    return execution.status, execution.state, execution.files


# on_error.


def test_what_failed_is_kept_by_default() -> None:
    with agent_with([SET_UP, f"{BREAK}1/0", LOOK]) as agent:
        assert agent.run("Break.") == [2, "two"]
    assert ended(agent, 1) == (Status.ERROR, State.KEPT, Files.KEPT)
    assert action_steps(agent)[1].remarks == ""


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (f"{BREAK}1/0", Status.ERROR),
        (f"{BREAK}import socket", Status.IMPORT_DENIED),
        (f"{BREAK}while True: pass", Status.TIMEOUT),  # hears the interrupt, so what it did is kept until it is undone
        (f"{BREAK}sum(range(10**12))", Status.TIMEOUT),  # hears none, and is killed
    ],
    ids=["error", "import", "timeout", "killed"],
)
def test_what_failed_is_rolled_back(code: str, status: Status) -> None:
    settings = SandboxSettings(timeout=3.0)
    with agent_with([SET_UP, code, LOOK], sandbox=settings, on_error="rollback") as agent:
        assert agent.run("Break.") == [1, "one"]
    assert ended(agent, 1) == (status, State.RESTORED, Files.RESTORED)
    assert action_steps(agent)[1].remarks.endswith(UNDONE)
    assert isinstance(agent.model, ScriptedModel)
    assert UNDONE in agent.model.requests[2][-1].content


def test_failures_in_a_row_go_back_to_the_same_state() -> None:
    with agent_with([SET_UP, f"{BREAK}1/0", f"{BREAK}1/0", LOOK], on_error="rollback") as agent:
        assert agent.run("Break.") == [1, "one"]
    counts = [s.execution.restored_to for s in action_steps(agent) if s.execution]
    assert counts == [None, 1, 1, None]


def test_files_that_are_not_restored_are_told() -> None:
    settings = SandboxSettings(limits=Limits(checkpoint_files="1k"))
    codes = [f"{SET_UP}\nwritten = open('large.bin', 'wb').write(bytes(5000))", f"{BREAK}1/0", LOOK]
    with agent_with(codes, sandbox=settings, on_error="rollback") as agent:
        assert agent.run("Break.") == [1, "two"]
    assert ended(agent, 1) == (Status.ERROR, State.RESTORED, Files.KEPT)
    told = "All variables are as they were before this code ran; files are as the code left them (the workspace holds"
    assert action_steps(agent)[1].remarks.startswith(told)


def test_a_state_that_is_not_kept_is_never_called_restored() -> None:
    settings = SandboxSettings(limits=Limits(checkpoints=1))
    with agent_with([SET_UP, f"{BREAK}1/0", LOOK], sandbox=settings, on_error="rollback") as agent:
        assert agent.run("Break.") == [2, "two"]
    assert ended(agent, 1) == (Status.ERROR, State.KEPT, Files.KEPT)
    assert action_steps(agent)[1].remarks.startswith("It could not be undone (")


def test_a_state_with_threads_cannot_be_gone_back_to() -> None:
    codes = [THREADS, "x = 2\n1/0", "stop.set()\nthread.join()\nfinal_answer(x)"]
    with agent_with(codes, additional_authorized_imports=["threading"], on_error="rollback") as agent:
        assert agent.run("Break.") == 2
    assert action_steps(agent)[1].remarks.startswith("It could not be undone (")


def test_a_refused_answer_is_not_rolled_back() -> None:
    def even(answer: int, memory: Any) -> bool:
        return answer % 2 == 0

    codes = ["x = 1\nfinal_answer(x)", "final_answer(x + 1)"]
    with agent_with(codes, final_answer_checks=[even], on_error="rollback") as agent:
        assert agent.run("Count.") == 2


def test_an_interrupted_action_is_rolled_back() -> None:
    codes = [SET_UP, f"{BREAK}print('on', flush=True)\nwhile True: pass", LOOK]
    with agent_with(codes, on_error="rollback") as agent:

        def work() -> None:
            for event in agent.run("Loop.", stream=True):
                if isinstance(event, Output):
                    agent.interrupt()

        with pytest.raises(AgentInterrupted):
            work()
        assert ended(agent, 1) == (Status.INTERRUPTED, State.RESTORED, Files.RESTORED)
        assert agent.run("Go on.", reset=False) == [1, "one"]


# Branches.


def test_a_branch_goes_on_from_here_and_neither_sees_the_other() -> None:
    codes = [f"{SET_UP}\nfinal_answer(x)", f"{BREAK}{LOOK}", LOOK]
    with agent_with(codes) as agent:
        agent.run("Begin.")
        with agent.branch() as branch:
            assert len(mine(Config.load())) == 1  # both in one container
            assert branch.run("Change.", reset=False) == [2, "two"]
            assert agent.run("Look.", reset=False) == [1, "one"]
            assert len(branch.memory.steps) == len(agent.memory.steps) == 4
            assert isinstance(agent.model, ScriptedModel)
            first, second, _ = agent.model.requests
            assert second[: len(first)] == first


def test_a_branch_rolls_back_on_its_own() -> None:
    codes = [f"{SET_UP}\nfinal_answer(x)", f"{BREAK}1/0", LOOK, f"{BREAK}{LOOK}"]
    with agent_with(codes, on_error="rollback") as agent:
        agent.run("Begin.")
        with agent.branch() as branch:
            assert branch.run("Break.") == [1, "one"]
            assert agent.run("Change.") == [2, "two"]


def test_branches_of_a_borrowed_sandbox() -> None:
    with Sandbox(final_answer=True) as sandbox:
        sandbox.run_code("x = 1")
        agent = agent_with(["x = 2\nfinal_answer(x)", "final_answer(x + 10)"], sandbox=sandbox)
        branch = agent.branch()
        agent.close()
        assert branch.run("Change.") == 2
        with branch.branch() as twig:
            assert twig.run("Look.") == 12
            assert len(sandbox.branches) == 2
        branch.close()
        assert sandbox.branches == ()
        assert sandbox.run_code("x").value == 1


def test_branches_on_a_loop_of_ones_own() -> None:
    async def use() -> None:
        async with AsyncSandbox(final_answer=True) as sandbox:
            await sandbox.run_code("x = 1")
            agent = agent_with(["final_answer(x)"], sandbox=sandbox)
            async with await agent.abranch() as branch:
                assert await branch.arun("Look.") == 1
            assert sandbox.branches == ()

    asyncio.run(asyncio.wait_for(use(), DEADLINE))


def test_closing_an_agents_own_sandbox_ends_its_branches() -> None:
    agent = agent_with(["final_answer(1)"])
    with agent.branch() as branch:
        agent.close()
        assert mine(Config.load()) == []
        with pytest.raises(SandboxError):
            branch.run("Answer.")
        with pytest.raises(AgentError, match="closed"):
            agent.branch()


def test_a_forgotten_agent_lives_as_long_as_its_branch() -> None:
    branch = agent_with(["final_answer(1)"]).branch()
    gc.collect()
    assert branch.run("Answer.") == 1
    branch.close()
    gc.collect()
    until = time.monotonic() + DEADLINE  # it is closed in the background
    while mine(Config.load()):
        assert time.monotonic() < until


def test_a_state_with_threads_cannot_be_branched_and_the_agent_goes_on() -> None:
    codes = [f"{THREADS}\nfinal_answer(x)", "stop.set()\nthread.join()\nfinal_answer(x)", "final_answer(x + 1)"]
    with agent_with(codes, additional_authorized_imports=["threading"]) as agent:
        agent.run("Begin.")
        with pytest.raises(CheckpointError, match="threads"):
            agent.branch()
        assert agent.run("End it.") == 1
        with agent.branch() as branch:
            assert branch.run("Look.") == 2


# Best of n.


def output(result: RunResult) -> float:
    return float(result.output)


def tries(*numbers: int) -> BranchedModel:
    """A model that tells each branch another number, and the last branch of them to look."""
    scripts = [[step(f"data.append(meet({n}))"), step(f"final_answer(data[-1]) # {n}")] for n in numbers]
    return BranchedModel(*scripts, [step("final_answer(data)")])


@pytest.mark.parametrize("async_face", [False, True])
def test_the_best_of_three_is_kept_with_its_state(async_face: bool) -> None:
    met = asyncio.Barrier(3)

    @tool
    async def meet(number: int) -> int:
        """Waits until all three branches are here: they do work at the same time.

        Args:
            number: given back
        """
        async with asyncio.timeout(20):
            await met.wait()
        return number

    async def use() -> None:
        async with AsyncSandbox(final_answer=True, tools=[meet]) as sandbox:
            await sandbox.run_code("data = [0]")
            agent = CodeAgent([meet], tries(7, 9, 8), sandbox=sandbox)
            best = await agent.abest_of(3, "Find the largest.", output)
            assert best.result.output == 9
            assert best.outcomes[best.index] is best.result
            assert {outcome.output for outcome in best.outcomes if isinstance(outcome, RunResult)} == {7, 8, 9}
            assert len(sandbox.branches) == 1
            async with best.agent as winner:
                assert await winner.arun("Look.", reset=False) == [0, 9]
            assert sandbox.branches == ()
            assert (await sandbox.run_code("data")).value == [0]

    if async_face:
        asyncio.run(asyncio.wait_for(use(), DEADLINE))
        return
    with Sandbox(final_answer=True, tools=[meet]) as sandbox:
        sandbox.run_code("data = [0]")
        with CodeAgent([meet], tries(7, 9, 8), sandbox=sandbox).best_of(3, "Find.", output).agent as winner:
            assert winner.run("Look.", reset=False) == [0, 9]
        assert sandbox.run_code("data").value == [0]


def test_the_best_of_an_agents_own_sandbox_with_one_that_fails() -> None:
    down = ModelUnavailable("for one branch")
    model = BranchedModel(["no code", down], [step("x = 2\nfinal_answer(x)")], [step("final_answer(x + 1)")])
    with CodeAgent([], model) as agent:
        best = agent.best_of(2, "Try.", output)
        assert sorted(type(outcome).__name__ for outcome in best.outcomes) == ["ModelUnavailable", "RunResult"]
        assert len(mine(Config.load())) == 1
        with best.agent as winner:
            assert winner.run("Go on.", reset=False) == 3


def test_an_interruption_stops_all_branches_and_the_agent_goes_on() -> None:
    begun: list[int] = []

    @tool
    def begin(number: int) -> None:
        """Says that a branch runs; the third one interrupts all.

        Args:
            number: which
        """
        begun.append(number)
        if len(begun) == 3:
            agent.interrupt()

    model = BranchedModel(*([step(f"begin({n})\nwhile True: pass")] for n in range(3)), [step("final_answer(x)")])
    with Sandbox(final_answer=True, tools=[begin]) as sandbox:
        sandbox.run_code("x = 1")
        agent = CodeAgent([begin], model, sandbox=sandbox)
        with pytest.raises(AgentInterrupted):
            agent.best_of(3, "Loop.", output)
        assert sorted(begun) == [0, 1, 2]
        assert sandbox.branches == ()
        assert agent.run("Go on.") == 1


def test_a_judge_that_fails_leaves_no_branch() -> None:
    def judge(result: RunResult) -> float:
        raise ZeroDivisionError

    with Sandbox(final_answer=True) as sandbox:
        agent = CodeAgent([], BranchedModel([step("final_answer(1)")], [step("final_answer(2)")]), sandbox=sandbox)
        with pytest.raises(ZeroDivisionError):
            agent.best_of(2, "Try.", judge)
        assert sandbox.branches == ()
