"""One run under way: the agent works, each event is in the journal before anybody is shown it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.agents.event_json import event_to_json
from orchestrator.agents.loop import MultiStepAgent
from orchestrator.agents.run import AgentEvent, RunEvent, usages_of
from orchestrator.agents.steps import ActionStep, FinalAnswerStep
from orchestrator.audit import Journal, concern
from orchestrator.audit.service_records import QuestionDecided, RunBegun, RunEnded
from orchestrator.configured import Ask, Asked, Watch
from orchestrator.errors import AgentInterrupted, AuditError, CellblockError
from orchestrator.events import ApprovalAsked, ApprovalDecided, RunState
from orchestrator.policy import Verdict
from orchestrator.sanitise import one_line
from orchestrator.service.access import Caller
from orchestrator.service.admission import Admission, Turn
from orchestrator.service.app_tools import Hosts, Place, place
from orchestrator.service.meters import Meters
from orchestrator.service.metrics import Metrics
from orchestrator.service.questions import Questions
from orchestrator.service.quotas import Accounts
from orchestrator.service.registry import Registry
from orchestrator.service.run_sandboxes import RunSandboxes
from orchestrator.service.run_work import NotBegun
from orchestrator.service.spans import Spans
from orchestrator.store import Store, StoredEvent, StoredRun

_log = logging.getLogger(__name__)
MAX_ERROR = 2000  # characters of what ended a run

Work = Callable[[MultiStepAgent, Callable[[], None]], AsyncGenerator[AgentEvent, None]]


@dataclass(frozen=True, slots=True)
class Means:
    """What all runs have.

    Attributes:
        store: where runs and their events are.
        admission: places to work in; waiting for one is what QUEUED means.
        accounts: what tokens have used, and may use.
        metrics: what is measured.
        hosts: the apps with functions.
        records: the folder of the agents' records.
        answer_seconds: that somebody has to answer a question.
        spans: what is made of its events for OpenTelemetry.
        registry: where the sandboxes are that their agents work in.
        journal: for the audit log.
    """

    store: Store
    admission: Admission
    accounts: Accounts
    metrics: Metrics
    hosts: Hosts
    records: Path
    answer_seconds: float
    spans: Spans = field(default_factory=Spans)
    registry: Registry = field(default_factory=Registry)
    journal: Journal = field(default_factory=Journal)


class LiveRun:
    """A run from its place in the queue to its end. ``work()`` never raises: what went wrong is in the store.

    Args:
        stored: as it is in the store.
        owner: whose it is, and what he may use.
        means: what all runs have.
        agent: makes the agent, which is given whom to ask what its policy wants to be asked, and who is told of its
            sandboxes; it closes it, too.
        work: what the agent does, as a stream of events.
        turn: its place in the queue. Without, it was let in before the service was started, and has one.
    """

    def __init__(
        self,
        stored: StoredRun,
        owner: Caller,
        means: Means,
        agent: Callable[[Ask, Watch], AbstractAsyncContextManager[MultiStepAgent]],
        work: Work,
        turn: Turn | None = None,
    ) -> None:
        self.id = stored.id
        self._begun = RunBegun.of(stored.id, owner.name, stored.agent, stored.task, stored.steps)
        self.has_ended = False
        self._is_over = False  # its end is being kept
        self.questions = Questions(self._told, means.answer_seconds)
        self._owner = owner
        self._means = means
        self._store = means.store
        self._meter = means.metrics.run()
        self._spans = means.spans.run(stored.id, stored.agent)
        counted = partial(Meters(means.accounts, means.metrics, means.spans).counted, owner)
        self._sandboxes = RunSandboxes(means.registry, stored.id, owner.name, counted, self._spans.works_in)
        self._make = agent
        self._work = work
        self._turn = turn
        self._bell = asyncio.Event()  # rings for each event, and is another one after that
        self._agent: MultiStepAgent | None = None
        self._interrupted_by = self._failed_with = ""
        self._answer = b""  # the event that has it
        self._queueing: asyncio.Task[Any] | None = None  # while it waits for its slot
        self._steps = stored.steps
        self._input_tokens, self._output_tokens = stored.input_tokens, stored.output_tokens

    @property
    def state(self) -> RunState:
        """Where it is, as long as it is under way."""
        if self.questions.open:
            return RunState.WAITING
        return RunState.RUNNING if self._agent else RunState.QUEUED

    @property
    def is_ending(self) -> bool:
        """It was interrupted, or its end is being kept."""
        return bool(self._interrupted_by) or self._is_over

    async def work(self) -> None:
        """Does all of it."""
        place.set(Place(run=self.id))
        concern(run=self.id, owner=self._owner.name)
        try:
            await self._end(await self._came_to())
            await self._left()
        finally:
            self.has_ended = True
            self._ring()

    async def _came_to(self) -> dict[str, Any]:
        """What the store is to have of its end. One that was answered has succeeded, whatever fails afterwards."""
        try:
            await self._worked()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - tools, callbacks, models: they raise all
            if not self._answer:
                return self._unanswered(error)
            _log.warning("run %s was answered, and then something failed", self.id, exc_info=error)
        finally:
            if self._turn:
                self._turn.leave()
        return {"state": RunState.SUCCEEDED, "error": "", "answer": self._answer}

    async def _left(self) -> None:
        """Sandboxes that an agent could not close are closed; what the engine fails to remove, is removed later."""
        try:
            await self._means.registry.end_run(self.id)
        except CellblockError:
            _log.warning("a sandbox of run %s could not be closed", self.id, exc_info=True)

    def _unanswered(self, error: BaseException) -> dict[str, Any]:
        if isinstance(error, NotBegun):
            return {"state": RunState.INTERRUPTED, "error": str(error)}
        if isinstance(error, AgentInterrupted | asyncio.CancelledError):  # the latter in the queue, or in a hurry
            return {"state": RunState.INTERRUPTED, "error": f"interrupted by {self._interrupted_by or 'its agent'}"}
        assert isinstance(error, Exception)
        _log.warning("run %s has failed", self.id, exc_info=error)
        self._failed_with = type(error).__name__
        return {"state": RunState.FAILED, "error": _told(error)}

    async def _end(self, end: dict[str, Any]) -> None:
        self._is_over = True
        self._means.metrics.run_ended(end["state"])
        self._spans.end(end["state"], self._failed_with)
        reason = self._failed_with or (self._interrupted_by if end["state"] is RunState.INTERRUPTED else "")
        try:
            await self._means.journal.record(RunEnded(self.id, str(end["state"]), reason))
        except AuditError:
            _log.exception("the end of run %s is not in the audit log", self.id)
        try:
            await self._store.change_run(self.id, ended=time.time(), **end)
        except CellblockError:  # it is found as one that a crash has left, after the next start
            _log.exception("the end of run %s cannot be kept", self.id)

    async def _worked(self) -> None:
        self._check()
        self._queueing = asyncio.current_task()
        self._turn = self._turn or self._means.admission.enter(self._owner.name, again=True)
        await self._turn.come()
        async with self._means.accounts.run(self._owner, self._over):
            self._queueing = None
            await self._means.journal.record(self._begun)
            await self._store.change_run(self.id, state=RunState.RUNNING, started=time.time())
            async with self._make(self.ask, self._sandboxes.watcher) as agent:
                self._agent = agent
                async with aclosing(self._work(agent, self._check)) as events:
                    async for event in events:
                        written = await self._append(event)
                        if isinstance(event, FinalAnswerStep):
                            self._answer = written
                        elif self._interrupted_by:  # perhaps before the agent's run was under way, where it is not felt
                            agent.interrupt()

    def _over(self) -> None:
        self.interrupt("the quota of run minutes of its token")

    def _check(self) -> None:
        if self._interrupted_by:
            raise AgentInterrupted("the run was interrupted before it began")

    def interrupt(self, by: str) -> None:
        """Has it end as soon as it can; in the queue, too."""
        self._interrupted_by = self._interrupted_by or by
        if self._queueing:  # once: the next time it might be what keeps its end
            self._queueing.cancel()
            self._queueing = None
        if self._agent:
            self._agent.interrupt()

    async def ask(self, asked: Asked) -> Verdict:
        """Asks whoever answers the run's questions."""
        await self._store.change_run(self.id, state=RunState.WAITING)
        try:
            return await self.questions.ask(asked)
        finally:
            if not self.questions.open and not self._is_over:  # else it would be found as one that a crash has left
                await self._store.change_run(self.id, state=RunState.RUNNING)

    async def _append(self, event: RunEvent) -> bytes:
        """Into the journal, with what it adds to the run's counts; only then is anybody shown it."""
        self._meter.add(event)
        self._spans.add(event)
        data = event_to_json(event)
        await self._store.append(self.id, time.time(), data, **self._counted(event))
        self._ring()
        return data

    async def _told(self, event: ApprovalAsked | ApprovalDecided) -> None:
        if isinstance(event, ApprovalDecided):  # before whoever waits for it is let go on
            await self._means.journal.record(QuestionDecided(self.id, event.question, event.approved, event.by))
        await self._append(event)

    def _counted(self, event: RunEvent) -> dict[str, int]:
        if isinstance(event, ApprovalAsked | ApprovalDecided):
            return {}
        usages = [usage for usage in usages_of(event) if usage]
        if not usages and not isinstance(event, ActionStep):
            return {}
        self._steps += isinstance(event, ActionStep)
        self._input_tokens += sum(usage.input_tokens for usage in usages)
        self._output_tokens += sum(usage.output_tokens for usage in usages)
        ended = {"recoveries": 0} if isinstance(event, ActionStep) else {}
        return ended | {"steps": self._steps, "input_tokens": self._input_tokens, "output_tokens": self._output_tokens}

    def _ring(self) -> None:
        self._bell.set()
        self._bell = asyncio.Event()

    async def follow(self, after: int) -> AsyncIterator[StoredEvent]:
        """Its events behind number ``after``, from the journal, and then those to come until it ends."""
        while True:
            bell, has_ended = self._bell, self.has_ended
            async for event in self._store.events(self.id, after):
                after = event.number
                yield event
            if has_ended:
                return
            await bell.wait()


def _told(error: Exception) -> str:
    """What ended a run, for its owner. What foreign code says may hold secrets of the host, so its name must do."""
    text = str(error) if isinstance(error, CellblockError) else "see the service's log"
    return one_line(f"{type(error).__name__}: {text}", MAX_ERROR)
