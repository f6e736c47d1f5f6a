"""One run under way: an interruption is felt whenever it comes, and an answer is kept whatever fails after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from orchestrator_api.v1 import orchestrator_pb2 as pb

from orchestrator.agents import CodeAgent, LogLevel
from orchestrator.agents.event_json import event_from_json
from orchestrator.agents.loop import MultiStepAgent
from orchestrator.agents.run import AgentEvent
from orchestrator.agents.steps import FinalAnswerStep
from orchestrator.errors import AgentError, EngineError
from orchestrator.events import RunState
from orchestrator.models import ScriptedModel
from orchestrator.service import run_work
from orchestrator.service import runs as module
from orchestrator.service.access import LOCAL, Caller
from orchestrator.service.admission import Admission
from orchestrator.service.app_tools import Hosts
from orchestrator.service.live_run import LiveRun, Means, Work
from orchestrator.service.metrics import Metrics
from orchestrator.service.quotas import Accounts, Usages
from orchestrator.service.registry import Held
from orchestrator.service.runs import Order, Runs
from orchestrator.store import Store, StoredRun
from tests.unit.fake_sandbox import FakeSandbox, answered, ran
from tests.unit.scripted_agents import step
from tests.unit.service_parts import MemoryUsages

DEADLINE = 30.0  # seconds


@pytest.mark.parametrize("moment", ["made", "begun", "never"])
def test_an_interruption_is_felt_also_while_the_agent_is_not_at_work_yet(tmp_path: Path, moment: str) -> None:
    live: LiveRun

    def use(new: LiveRun) -> None:
        nonlocal live
        live = new

    @asynccontextmanager
    async def made(ask: Any, watch: Any) -> AsyncIterator[MultiStepAgent]:
        script = [ran(), answered(1)]
        model = ScriptedModel([step("1"), step("final_answer(1)")])
        yield CodeAgent([], model, sandbox=FakeSandbox(script), verbosity_level=LogLevel.OFF)

    async def work(agent: MultiStepAgent, check: Callable[[], None]) -> AsyncGenerator[AgentEvent, None]:
        if moment == "made":  # nothing of the agent's is under way that could hear it
            live.interrupt("the test")
        async with aclosing(agent.astream("task")) as events:
            async for event in events:
                yield event
                if moment == "begun":
                    live.interrupt("the test")

    run = lived(tmp_path, made, work, use)
    expected = (RunState.SUCCEEDED, "") if moment == "never" else (RunState.INTERRUPTED, "interrupted by the test")
    assert (run.state, run.error) == expected


def test_a_run_that_is_interrupted_while_its_record_is_read_rebuilds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which may take long, and the agent would hear of no interruption from before."""
    live: LiveRun
    model = ScriptedModel([step("final_answer(1)")])

    def use(new: LiveRun) -> None:
        nonlocal live
        live = new

    @asynccontextmanager
    async def made(ask: Any, watch: Any) -> AsyncIterator[MultiStepAgent]:
        yield CodeAgent([], model, sandbox=FakeSandbox([answered(1)]), verbosity_level=LogLevel.OFF)

    monkeypatch.setattr(run_work, "_require_begun", lambda record: live.interrupt("the test"))
    run = lived(tmp_path, made, run_work.Resumed(StoredRun("r", "default", "task", "local")), use)
    assert (run.state, run.error) == (RunState.INTERRUPTED, "interrupted by the test")
    assert not model.requests


@pytest.mark.parametrize("failing", ["usage", "closing"])
def test_what_fails_after_the_answer_takes_nothing_from_it(tmp_path: Path, failing: str) -> None:
    usages = MemoryUsages([0.0], is_broken=failing == "usage")

    @asynccontextmanager
    async def made(ask: Any, watch: Any) -> AsyncIterator[MultiStepAgent]:
        yield CodeAgent([], ScriptedModel([step("1")]), sandbox=FakeSandbox([answered(1)]), verbosity_level=0)
        if failing == "closing":
            raise EngineError("the container cannot be removed")

    run = lived(tmp_path, made, lambda agent, check: agent.astream("task"), usages=usages)
    assert (run.state, run.error) == (RunState.SUCCEEDED, "")
    assert event_from_json(run.answer) == FinalAnswerStep(1)


def test_a_run_that_is_cut_off_while_what_it_has_left_is_closed_has_its_answer(tmp_path: Path) -> None:
    class Endless(FakeSandbox):
        closing = asyncio.Event()

        async def close(self) -> None:
            self.closing.set()
            await asyncio.Event().wait()

    @asynccontextmanager
    async def made(ask: Any, watch: Any) -> AsyncIterator[MultiStepAgent]:
        yield CodeAgent([], ScriptedModel([step("1")]), sandbox=FakeSandbox([answered(1)]), verbosity_level=0)

    def use(new: LiveRun) -> None:
        watched: Any = object()
        new._means.registry.add(Held(Endless(), "local", 0, run="r", watched=watched))
        tasks.append(asyncio.create_task(cut_off(asyncio.current_task())))

    async def cut_off(working: asyncio.Task[Any] | None) -> None:
        await Endless.closing.wait()
        assert working
        working.cancel()

    tasks: list[asyncio.Task[None]] = []
    run = lived(tmp_path, made, lambda agent, check: agent.astream("task"), use)
    assert (run.state, event_from_json(run.answer)) == (RunState.SUCCEEDED, FinalAnswerStep(1))


class Stuck:
    """A run whose agent does not end until it may, such as one whose tool does not return."""

    def __init__(self, folder: Path) -> None:
        self.record = folder / "record"
        self.record.touch()
        self.at_work, self.is_told, self.may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def made(self, order: Order, ask: Any, watch: Any) -> AsyncIterator[MultiStepAgent]:
        try:
            self.at_work.set()
            await asyncio.Event().wait()
        finally:
            self.is_told.set()
            await self.may_end.wait()
        yield CodeAgent([], ScriptedModel([]), sandbox=FakeSandbox())

    async def begun(self, store: Store) -> Runs:
        means = Means(store, Admission(1, 1), Accounts(store), Metrics(), Hosts(), self.record.parent, 5.0)
        await store.add_run(StoredRun("r", "default", "task", "local", record=str(self.record)))
        runs = Runs(means, self.made, str)
        await runs.recover(lambda name: LOCAL)
        await self.at_work.wait()
        return runs


def test_told_a_second_time_the_service_waits_no_longer_for_a_run_that_does_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_SECONDS", 10 * DEADLINE)
    monkeypatch.setattr(module, "HURRY_SECONDS", 0.1)

    async def test() -> None:
        stuck, hurry = Stuck(tmp_path), asyncio.Event()
        async with await Store.open(tmp_path / "store.db") as store, asyncio.timeout(DEADLINE):
            runs = await stuck.begun(store)
            closing = asyncio.create_task(runs.close(hurry))
            await stuck.is_told.wait()
            hurry.set()
            await closing
            assert runs.counts() == {"queued": 1}
            stuck.may_end.set()
            await runs.drained()

    asyncio.run(test())


def test_a_run_that_does_not_end_is_not_waited_for_for_ever_to_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ENDING_SECONDS", 0.1)

    async def test() -> None:
        stuck = Stuck(tmp_path)
        async with await Store.open(tmp_path / "store.db") as store, asyncio.timeout(DEADLINE):
            runs = await stuck.begun(store)
            runs.stop("the test")
            with pytest.raises(AgentError, match="is about to end: resume it when it has"):
                await runs._gone_on_with(pb.ResumeRun(run="r"), LOCAL)
            stuck.may_end.set()
            await runs.close()

    asyncio.run(test())


def lived(
    folder: Path,
    made: Callable[[Any, Any], AbstractAsyncContextManager[MultiStepAgent]],
    work: Work,
    look: Callable[[LiveRun], object] = lambda new: None,
    usages: Usages | None = None,
) -> StoredRun:
    """A run, as it is kept when it has ended."""

    async def live() -> StoredRun | None:
        async with await Store.open(folder / "store.db") as store, asyncio.timeout(DEADLINE):
            means = Means(store, Admission(1, 1), Accounts(usages or store), Metrics(), Hosts(), folder, 5.0)
            stored = await store.add_run(StoredRun("r", "default", "task", "local"))
            new = LiveRun(stored, Caller("local", frozenset()), means, made, work)
            look(new)
            with suppress(asyncio.CancelledError):
                await new.work()
            return await store.run("r")

    run = asyncio.run(live())
    assert run
    return run
