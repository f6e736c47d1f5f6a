"""The sandboxes of the service: whose they are, which are branches of which, and which have been closed."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from orchestrator_api.v1 import orchestrator_pb2 as pb

from orchestrator.agents.watching import Watched
from orchestrator.audit import concern
from orchestrator.errors import NotFound, SandboxClosed, SandboxError
from orchestrator.sandbox.sandbox import AsyncSandbox
from orchestrator.sandbox.state import Rollback
from orchestrator.service.access import Caller
from orchestrator.service.app_tools import Host, Place
from orchestrator.service.executions import Counted, Executions
from orchestrator.service.scopes import RUNS, SANDBOXES

T = TypeVar("T")
MAX_CLOSING = 8  # sandboxes closed at the same time: an engine with more to do is no faster
MAX_CLOSED = 10_000  # ids that are remembered: closing one a second time is no error


@dataclass(eq=False, slots=True)
class Held:
    """A sandbox or a branch.

    Attributes:
        id: chosen at random; whoever does not see it cannot guess it.
        root: the id of the sandbox whose container it is in: its own, unless it is a branch.
        parent: the id of the sandbox that a branch was forked from; else empty.
        disk: bytes that its workspace holds.
        run: the id of the run that it, or what it was forked from, belongs to; empty: an app's.
        host: of the app that has it; it is closed when that is gone for good. None: nobody's.
        on_close: called once, when it has been closed.
        counted: as of ``Executions``.
        watched: what an agent works in; None: nobody but those who ask the service does.
    """

    sandbox: AsyncSandbox
    owner: str
    disk: int
    parent: str = ""
    root: str = ""
    run: str = ""
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    created: float = field(default_factory=time.time)
    host: Host | None = None
    on_close: Callable[[], None] = lambda: None
    counted: Counted = lambda events: events
    watched: Watched | None = None
    executions: Executions = field(init=False)

    def __post_init__(self) -> None:
        self.root = self.root or self.id
        self.executions = Executions(self.sandbox, Place(self.id, self.run), self.counted)

    @property
    def scope(self) -> str:
        """What a token needs to see it."""
        return RUNS if self.run else SANDBOXES

    def concerns(self, by: str = "") -> dict[str, str]:
        """What the audit log says of what is done with it; ``by``: the caller's name."""
        return {"owner": self.owner, "run": self.run, "by": by if by != self.owner else ""}

    def require_own(self, what: str) -> None:
        """Goes on if no agent works in it. ``what`` is what somebody wants to do, and an agent would not know of.

        Raises:
            SandboxError: one does.
        """
        if self.watched:
            raise SandboxError(
                f"the agent of run {self.run} works in this sandbox, and would not know of it: fork it and {what} the "
                "branch, or interrupt the run"
            )

    async def at_rest(self, what: str, work: Callable[[], Awaitable[T]]) -> T:
        """Does what no code of an agent's may run at the same time with; of an app's, it waits for its turn.

        Raises:
            SandboxError: an agent's code runs.
        """
        if self.watched and self.sandbox.is_executing:
            raise SandboxError(
                f"an execution of run {self.run} is under way in this sandbox: {what} when it has ended, or interrupt"
                " it"
            )
        return await work()

    async def take_back(self, back: Callable[[], Awaitable[Rollback]]) -> Rollback:
        """Does a rollback; an agent that works in it is told. Raises as ``at_rest``."""
        watched = self.watched
        return await self.at_rest("take it back", (lambda: watched.take_back(back)) if watched else back)

    def message(self) -> pb.Sandbox:
        """As it is shown."""
        return pb.Sandbox(
            id=self.id,
            name=self.sandbox.name,
            state=self.state,
            parent=self.parent,
            run=self.run,
            owner=self.owner,
            created=self.created,
            executions=self.watched.count if self.watched else self.executions.count,
            authorized_imports=self.sandbox.authorized_imports,
            forkable=self.sandbox.forkable,
            has_final_answer=self.sandbox.has_final_answer,
            tool_names=sorted(self.sandbox.tool_names),
        )

    @property
    def state(self) -> pb.Sandbox.State:
        """What it is doing."""
        if self.executions.under_way or self.sandbox.is_executing:
            return pb.Sandbox.STATE_BUSY
        is_gone = self.sandbox.is_lost or (self.parent and not self.sandbox.is_running)
        return pb.Sandbox.STATE_LOST if is_gone else pb.Sandbox.STATE_IDLE


class Registry:
    """All that are open. Whoever adds one gives it away: it is closed here."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}
        self._closing: dict[str, asyncio.Task[None]] = {}
        self._closed: OrderedDict[str, str] = OrderedDict()  # id -> owner

    def __len__(self) -> int:
        return len(self._held)

    def is_open(self, held: Held) -> bool:
        """It is here, and neither it nor the sandbox whose branch it is is being closed."""
        return held.id in self._held and not {held.id, held.root} & self._closing.keys()

    def add(self, held: Held) -> Held:
        """It can be found from now on."""
        self._held[held.id] = held
        return held

    def get(self, id: str, caller: Caller) -> Held:
        """The open sandbox with that id.

        Raises:
            NotFound: there is none, or it is somebody else's.
            AccessDenied: it is a run's, and the caller's token is not for runs; or the other way round.
            SandboxClosed: it has been closed.
        """
        held = self._held.get(id)
        if held and caller.sees(held.owner):
            caller.require(held.scope)
            return held
        if self.was_closed(id, caller):
            raise SandboxClosed("this sandbox has been closed")
        raise NotFound("there is no such sandbox")

    def was_closed(self, id: str, caller: Caller) -> bool:
        """There was such a sandbox of that caller's."""
        owner = self._closed.get(id)
        return owner is not None and caller.sees(owner)

    def all(self, caller: Caller) -> list[Held]:
        """Those that the caller sees, oldest first."""
        return [held for held in self._held.values() if caller.sees(held.owner) and held.scope in caller.scopes]

    def of_run(self, run: str) -> str:
        """The id of the one that a run works in: that of its own agent, before those of its team. Empty: none now."""
        return next((held.id for held in self._held.values() if held.run == run and held.watched), "")

    def left_for(self, seconds: float) -> list[Held]:
        """Those whose app has been gone for longer."""
        return [held for held in self._held.values() if held.host and held.host.gone_for > seconds]

    async def close(self, held: Held) -> None:
        """Closes it, and with a sandbox its branches. Once begun it is done, though nobody waits for it any more."""
        closing = self._closing.get(held.id)
        if closing is None:
            closing = self._closing[held.id] = asyncio.create_task(self._close(held))
            closing.add_done_callback(lambda _: self._closing.pop(held.id))
        await asyncio.shield(closing)

    async def _close(self, held: Held) -> None:
        try:
            await held.sandbox.close()
        finally:
            await self.forget(held)

    async def forget(self, held: Held) -> None:
        """It has been closed, and with a sandbox its branches."""
        for one in [held, *self._branches(held)]:
            await self._forget(one)

    async def end_run(self, run: str) -> None:
        """Closes what its agents have left behind: its run has ended."""
        for held in [held for held in self._held.values() if held.run == run and held.watched]:
            await self.close(held)

    async def forget_branches(self, held: Held) -> None:
        """The container of this sandbox is gone, and its branches with it."""
        for branch in self._branches(held):
            await self._forget(branch)

    def _branches(self, held: Held) -> list[Held]:
        return [one for one in self._held.values() if one.root == held.id and one is not held]

    async def _forget(self, held: Held) -> None:
        if self._held.pop(held.id, None) is None:
            return
        self._closed[held.id] = held.owner
        while len(self._closed) > MAX_CLOSED:
            self._closed.popitem(last=False)
        await held.executions.close()
        held.on_close()

    def counts(self) -> Mapping[str, float]:
        """How many there are, by their state."""
        states = (pb.Sandbox.State.Name(held.state) for held in self._held.values())
        return {state.removeprefix("STATE_").lower(): number for state, number in Counter(states).items()}

    async def close_all(self) -> None:
        """Closes every sandbox, and waits for those that are being closed; each though another fails."""
        at_once = asyncio.Semaphore(MAX_CLOSING)

        async def close(held: Held) -> None:
            concern(**held.concerns())
            async with at_once:
                await self.close(held)

        closing = [close(one) for one in self._held.values() if not one.parent]
        for failure in await asyncio.gather(*self._closing.values(), *closing, return_exceptions=True):
            if failure:  # told when all have been tried
                raise failure

    async def drained(self) -> None:
        """Waits until nothing runs in any of them."""
        await asyncio.gather(*(held.executions.drained() for held in self._held.values()))
