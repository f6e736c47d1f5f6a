"""Runs over the API: begun, followed from any event on, interrupted, gone on with, listed; questions answered."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from grpc.aio import ServicerContext
from orchestrator_api.v1 import orchestrator_pb2 as pb
from orchestrator_api.v1 import orchestrator_pb2_grpc

from orchestrator.agents.loop import MultiStepAgent
from orchestrator.agents.record import part_of
from orchestrator.audit.service_records import RunInterrupted, RunResumed
from orchestrator.configured import DEFAULT_AGENT, Ask, Watch
from orchestrator.errors import AgentError, ConfigError, NotFound, Overloaded
from orchestrator.events import RunState
from orchestrator.sanitise import one_line
from orchestrator.service import messages
from orchestrator.service.access import Caller, caller
from orchestrator.service.admission import Turn
from orchestrator.service.live_run import LiveRun, Means, Work
from orchestrator.service.once import Once, checked_key
from orchestrator.service.quotas import UNLIMITED, Quotas
from orchestrator.service.run_tools import RunTools
from orchestrator.service.run_work import Resumed, Started
from orchestrator.service.scopes import RUNS
from orchestrator.store import StoredRun
from orchestrator.store.runs import MAX_LISTED

T = TypeVar("T")
MAX_DECIDED = 1000  # decisions that are remembered: a client asks again for half a minute
MAX_FOLLOWED = 256  # runs of one caller at the same time: each stream that is not read holds some megabytes
FOLLOW_RETRY = 5.0  # seconds; nobody knows when a stream ends
MAX_RECOVERIES = 3  # after crashes without a step in between: what brings the service down is not begun for ever
CLOSE_SECONDS = 20.0  # for a run that is cut off to give up its sandbox: as long as that takes at most
ENDING_SECONDS = 20.0  # that a run which is resumed while it ends is waited for
HURRY_SECONDS = 1.0  # for the same, when the service is told a second time to end
MAX_TASK = 1 << 20  # bytes: with an answer it has to fit into one message
MAX_NAME = 200  # characters of an agent's name: longer ones are not searched for similar ones

MakeAgent = Callable[["Order", Ask, Watch], AbstractAsyncContextManager[MultiStepAgent]]


@dataclass(frozen=True, slots=True)
class Order:
    """What an agent is made for.

    Attributes:
        run: the run's id.
        agent: of the settings.
        record: where it records its runs.
        tools: of the app, besides the agent's own.
    """

    run: str
    agent: str
    record: Path
    tools: RunTools | None = None

    def close(self) -> None:
        """The run has ended, or does not begin."""
        if self.tools:
            self.tools.close()


class Runs(orchestrator_pb2_grpc.RunsServicer):
    """The API's ``Runs``.

    Args:
        means: what they have.
        make_agent: an agent for an order; what its policy says to ask about, it is given somebody to ask, and it tells
            of the sandboxes that it makes.
        check_agent: raises NotFound if there is no agent of that name.
    """

    def __init__(self, means: Means, make_agent: MakeAgent, check_agent: Callable[[str], object]) -> None:
        self._means = means
        self._store = means.store
        self._make_agent = make_agent
        self._check_agent = check_agent
        self._live: dict[str, LiveRun] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}  # those that are under way, too
        self._once = Once()
        self._resuming = asyncio.Lock()  # a run is gone on with once
        self._beginning: set[asyncio.Task[Any]] = set()
        self._following: Counter[str] = Counter()  # by the caller's name
        self._decided: OrderedDict[tuple[str, str], tuple[pb.Decision, str]] = OrderedDict()  # by run and question
        self._ended_by = ""  # what has all of them end

    # --------------------------------------------------------------------------------------------------- beginning

    async def Start(self, request: pb.StartRun, context: ServicerContext[Any, Any]) -> pb.Run:
        """Begins a run, or gives the one that was begun with this key."""
        me = caller()
        _check_start(request)
        self._check_agent(request.agent)
        continued = await self._continued(request.continues, me)
        id = secrets.token_hex(8)
        record = self._means.records / f"{id}.jsonl"
        key = f"run:{checked_key(request.key)}"
        order = Order(id, request.agent or DEFAULT_AGENT, record, self._tools(me.name, request))
        new = StoredRun(
            id,
            order.agent,
            request.task,
            me.name,
            created=time.time(),
            record=str(record),
            app_tools=",".join(tool.name for tool in request.tools),
        )
        stored = await self._whole(self._begun(new, key, me, order, Started(request, record, continued)))
        return await self._shown(stored.id)

    async def _begun(self, new: StoredRun, key: str, me: Caller, order: Order, work: Work) -> StoredRun:
        with ExitStack() as stack:
            stack.callback(order.close)
            turn: Turn | None = None
            if await self._store.keyed(me.name, key) is None:  # else it has been let in already
                await self._means.accounts.check_run(me)
                turn = self._means.admission.enter(me.name)  # whoever is told that it begins has its place
                stack.callback(turn.leave)
            stored = await self._store.add_run(new, key)
            if stored.id == new.id:
                self._work(stored, me, order, work, turn)
                stack.pop_all()
        return stored

    async def _whole(self, doing: Coroutine[Any, Any, T]) -> T:
        """Does all of it, though the call be given up midway: what is in the store has to be at work."""
        task = asyncio.create_task(doing)
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)
        return await asyncio.shield(task)

    async def _continued(self, id: str, me: Caller) -> Path | None:
        """The record of the run that is to be continued."""
        if not id:
            return None
        earlier = await self._own(id, me)
        if earlier.state is not RunState.SUCCEEDED:
            raise AgentError(f"run {id} has no answer yet; only what has ended with one can be continued by another")
        if not _has_record(earlier):
            raise AgentError(f"run {id} cannot be continued: its record is gone")
        return Path(earlier.record)

    def _tools(self, owner: str, request: pb.StartRun | pb.ResumeRun) -> RunTools:
        return RunTools(self._means.hosts, owner, request.tool_host, request.tools)

    def _work(self, stored: StoredRun, owner: Caller, order: Order, work: Work, turn: Turn | None = None) -> None:
        live = LiveRun(stored, owner, self._means, partial(self._make_agent, order), work, turn)
        self._live[stored.id] = live
        if self._ended_by:  # it was let in at the last moment
            live.interrupt(self._ended_by)
        task = asyncio.create_task(live.work(), name=f"run {stored.id}")
        self._tasks[stored.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(stored.id, None))
        task.add_done_callback(lambda _: self._live.pop(stored.id, None))
        task.add_done_callback(lambda _: order.close())

    async def Resume(self, request: pb.ResumeRun, context: ServicerContext[Any, Any]) -> pb.Run:
        """Goes on with a run from its last finished step."""
        me = caller()
        if key := messages.key_of(context):
            await self._once.do(me.name, "Resume", key, request, lambda: self._gone_on_with(request, me))
        else:
            await self._whole(self._gone_on_with(request, me))
        return await self._shown(request.run)

    async def _gone_on_with(self, request: pb.ResumeRun, me: Caller) -> None:
        await self._until_ended(await self._own(request.run, me))
        async with self._resuming:
            stored = await self._own(request.run, me)
            if stored.id not in self._live:
                self._require_resumable(stored)
                _require_tools(stored, request)
                owner = me if me.name == stored.owner else self._owner(stored, await self._quotas())
                await self._means.accounts.check_run(owner)
                order = Order(stored.id, stored.agent, Path(stored.record), self._tools(me.name, request))
                with ExitStack() as stack:
                    stack.callback(order.close)
                    turn = self._means.admission.enter(owner.name)
                    stack.callback(turn.leave)
                    await self._means.journal.record(RunResumed(stored.id, me.name))
                    await self._store.change_run(stored.id, state=RunState.QUEUED, error="", ended=0.0)
                    self._work(stored, owner, order, Resumed(stored), turn)
                    stack.pop_all()

    async def _until_ended(self, stored: StoredRun) -> None:
        """Waits for the end of a run that is about to: it is gone on with from there."""
        if (live := self._live.get(stored.id)) and live.is_ending:
            await asyncio.wait({self._tasks[stored.id]}, timeout=ENDING_SECONDS)
            if self._live.get(stored.id) is live:
                raise AgentError(f"run {stored.id} is about to end: resume it when it has")

    async def _quotas(self) -> Mapping[str, Quotas]:
        """By the names of tokens."""
        return {token.name: Quotas.of(token.quotas) for token in await self._store.tokens()}

    def _owner(self, stored: StoredRun, quotas: Mapping[str, Quotas]) -> Caller:
        """Whose run it is, whoever goes on with it: what it uses is his."""
        return Caller(stored.owner, frozenset({RUNS}), quotas.get(stored.owner, UNLIMITED))

    def _require_resumable(self, stored: StoredRun) -> None:
        if not _can_resume(stored):
            raise AgentError(f"run {stored.id} cannot be gone on with: it has ended with {stored.state}")

    async def recover(self, owner: Callable[[str], Caller]) -> None:
        """After a start: what a crash of the service left is gone on with, or told as interrupted.

        ``owner`` says who that is, by the name.
        """
        for stored in await self._store.unfinished():
            if not (why_not := _why_not_recovered(stored)):
                await self._store.change_run(stored.id, state=RunState.QUEUED, recoveries=stored.recoveries + 1)
                order = Order(stored.id, stored.agent, Path(stored.record))
                self._work(stored, owner(stored.owner), order, Resumed(stored))
            else:
                if stored.record:
                    part_of(Path(stored.record)).unlink(missing_ok=True)
                error = f"interrupted, as the service had ended{why_not}"
                await self._store.change_run(stored.id, state=RunState.INTERRUPTED, error=error, ended=time.time())

    def counts(self) -> Mapping[str, float]:
        """How many there are that have not ended, by their state."""
        counted = Counter(live.state for live in self._live.values())
        return {str(state): number for state, number in counted.items()}

    def stop(self, by: str) -> None:
        """Interrupts what is under way, their memory kept."""
        self._ended_by = by
        for live in list(self._live.values()):
            live.interrupt(by)

    async def drained(self) -> None:
        """Waits until none is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks.values())

    async def close(self, hurry: asyncio.Event | None = None) -> None:
        """Ends those that have not heard ``stop()``, such as one whose tool does not return, after what is recorded.

        Args:
            hurry: when it is set, they have a moment left to note their end.
        """
        for task in self._tasks.values():
            task.cancel()
        ending = asyncio.create_task(self.drained())
        hurrying = asyncio.create_task((hurry or asyncio.Event()).wait())
        await asyncio.wait({ending, hurrying}, timeout=CLOSE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({ending}, timeout=HURRY_SECONDS if hurrying.done() else 0)
        for waiting in (ending, hurrying):
            waiting.cancel()

    # ----------------------------------------------------------------------------------------- watching and steering

    async def Follow(self, request: pb.FollowRun, context: ServicerContext[Any, Any]) -> AsyncIterator[pb.Event]:
        """The events of a run behind ``after``; of one that has ended, those in the journal."""
        me = caller()
        stored = await self._own(request.run, me)
        with self._follows(me.name):
            live = self._live.get(stored.id)
            events = live.follow(request.after) if live else self._store.events(stored.id, request.after)
            async for event in events:
                for piece in messages.pieces(event.number, event.time, event.json):
                    yield piece

    @contextmanager
    def _follows(self, name: str) -> Iterator[None]:
        if self._following[name] >= MAX_FOLLOWED:
            raise Overloaded(f"{MAX_FOLLOWED} runs are followed with this token already", FOLLOW_RETRY)
        self._following[name] += 1
        try:
            yield
        finally:
            self._following[name] -= 1

    async def Interrupt(self, request: pb.RunId, context: ServicerContext[Any, Any]) -> pb.Run:
        """Has a run end as soon as it can. Of one that has ended, does nothing. That it cannot be recorded is told,
        and keeps nothing going."""
        me = caller()
        stored = await self._own(request.id, me)
        if live := self._live.get(stored.id):
            try:
                await self._means.journal.record(RunInterrupted(stored.id, me.name))
            finally:
                live.interrupt(me.name)
        return await self._shown(stored.id)

    async def Decide(self, request: pb.Decision, context: ServicerContext[Any, Any]) -> pb.Done:
        """Answers a question; the same answer of the same caller's once more is done already, also of an ended run."""
        me = caller()
        stored = await self._own(request.run, me)
        question = (stored.id, request.question)
        if self._decided.get(question) == (request, me.name):
            return pb.Done()
        live = self._live.get(stored.id)
        if live is None:
            raise NotFound(f"run {stored.id} has ended, and its questions with it")
        live.questions.decide(request.question, request.approved, request.reason, me.name)
        self._decided[question] = (request, me.name)
        if len(self._decided) > MAX_DECIDED:
            self._decided.popitem(last=False)
        return pb.Done()

    async def Get(self, request: pb.RunId, context: ServicerContext[Any, Any]) -> pb.Run:
        """One run."""
        return await self._shown((await self._own(request.id, caller())).id)

    async def List(self, request: pb.ListRuns, context: ServicerContext[Any, Any]) -> pb.RunList:
        """The caller's runs, newest first; of an administrator all."""
        me = caller()
        limit = min(request.limit or 100, MAX_LISTED)
        owner = None if me.sees_all else me.name
        found = await self._store.runs(limit, request.before, request.agent, request.search, owner)
        return pb.RunList(runs=[self._listed(run, messages.MAX_LIST // max(limit, 1)) for run in found])

    def _listed(self, stored: StoredRun, room: int) -> pb.Run:
        """Questions that have no room in a list are told by ``Get`` alone."""
        message = self._message(stored)
        if message.ByteSize() > room:
            del message.questions[:]
        return message

    async def _own(self, id: str, me: Caller) -> StoredRun:
        stored = await self._store.run(id)
        if stored is None or not me.sees(stored.owner):
            raise NotFound(f"there is no run {one_line(id, 40)!r}")
        return stored

    async def _shown(self, id: str) -> pb.Run:
        stored = await self._store.run(id)
        if stored is None:
            raise NotFound(f"there is no run {one_line(id, 40)!r}")
        return self._message(stored)

    def _message(self, stored: StoredRun) -> pb.Run:
        live = self._live.get(stored.id)
        questions = live.questions.open if live else ()
        sandbox = self._means.registry.of_run(stored.id) if live else ""
        return messages.run_message(stored, questions, can_resume=live is None and _can_resume(stored), sandbox=sandbox)


def _can_resume(stored: StoredRun) -> bool:
    return stored.state in (RunState.INTERRUPTED, RunState.FAILED) and _has_record(stored)


def _why_not_recovered(stored: StoredRun) -> str:
    """Empty if it can be gone on with."""
    if not _has_record(stored):
        return " before it began"
    if stored.app_tools:
        return f"; its app can resume it, whose functions it calls: {stored.app_tools}"
    if stored.recoveries >= MAX_RECOVERIES:
        return f", as it had {stored.recoveries} times before without a step of this run's; perhaps that is why"
    return ""


def _require_tools(stored: StoredRun, request: pb.ResumeRun) -> None:
    missing = set(filter(None, stored.app_tools.split(","))) - {tool.name for tool in request.tools}
    if missing:
        names = ", ".join(sorted(missing))
        raise AgentError(f"run {stored.id} was begun with functions of an app: give {names} as tools")


def _has_record(stored: StoredRun) -> bool:
    return bool(stored.record) and os.path.exists(stored.record)


def _check_start(request: pb.StartRun) -> None:
    if not request.task.strip() or len(request.task.encode()) > MAX_TASK:
        raise ConfigError(f"a task is a text of at most {MAX_TASK:,} bytes, and not empty")
    if len(request.agent) > MAX_NAME:
        raise NotFound("there is no agent with so long a name")
