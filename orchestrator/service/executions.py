"""Executions at the service: each belongs to whoever reads its events, and outlives a lost connection.

Events are numbered from 1 and kept until the execution has ended, and then until the next one of its sandbox has, or
nobody has read them for a minute. A reader who comes again says after which he goes on. Code whose reader takes nothing
stands still for a while, as its output has nowhere to go; then it is interrupted.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass

from orchestrator.agents.event_json import event_to_json
from orchestrator.errors import AuditError, CellblockError, ConfigError, Overloaded, SandboxError
from orchestrator.events import ExecutionEvent, Finished, ToolOutcome
from orchestrator.sandbox.sandbox import AsyncSandbox
from orchestrator.service.app_tools import Place, place
from orchestrator.service.once import checked_key

UNREAD_SECONDS = 10.0  # that nobody reads until it is interrupted, see docs/service.md
INTERRUPT_SECONDS = 15.0  # for an interrupted execution to end by itself, with what it has to say; then it is given up
CLOSE_SECONDS = 2.0  # for one to hear that its sandbox has been closed
ABANDON_SECONDS = 20.0  # to stop one that its reader has left: as long as the sandbox takes at most
MAX_UNREAD = 4 << 20  # bytes that wait for the reader; then the code does, too
# Seconds in all that the code waits so. The executor counts as dead 20 s after its time; no slow reader may cause that.
MAX_STILL = 10.0
MAX_BEHIND = 64 << 20  # bytes that wait at most, whatever the limits let the code say: then it is stopped
# Bytes of one execution's events that are kept though they have been sent: more than can be on its way to a reader.
MAX_KEPT = 16 << 20
MAX_WAITING = 16  # executions of one sandbox that have not ended
MAX_KEYS = 4096  # of executions that are over: one that is asked for again is not run again
LEFT_SECONDS = 60.0  # that an ended one is kept which nobody reads: longer than clients are patient
# Of ended ones that have not been read to their end, besides the last; who lets more of them lie does not come back.
MAX_LEFT = 4
MAX_LEFT_BYTES = 64 << 20  # the same, of their events


@dataclass(frozen=True, slots=True)
class Numbered:
    """An event as it is sent; ``time`` in seconds since the epoch."""

    number: int
    time: float
    json: bytes


class Begun:
    """One execution, and the events of it that are kept."""

    def __init__(self, digest: bytes) -> None:
        self.digest = digest
        self.task: asyncio.Task[None] | None = None
        self._is_stopped = False
        self.is_running = False  # it is its turn
        self.ended: float | None = None  # when, on the clock of the event loop
        self._kept: list[Numbered] = []
        self._dropped = 0  # events that are not kept any more
        self._bytes = 0
        self._taken = 0  # the number of the last one that a reader has been given
        self._unread = 0  # bytes of those that come after it
        self._outcomes: set[int] = set()
        self._error: BaseException | None = None
        self._reader: object = None
        self._away: float | None = _now()  # since when nobody reads
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._patience = MAX_STILL

    @property
    def is_read(self) -> bool:
        """A reader has been given all that there will be."""
        return self.ended is not None and self._taken == self._last

    @property
    def kept_bytes(self) -> int:
        """Of the events that are kept."""
        return self._bytes

    @property
    def unread_for(self) -> float:
        """Seconds since anybody has asked for an event."""
        return 0.0 if self._away is None else _now() - self._away

    @property
    def _last(self) -> int:
        return self._dropped + len(self._kept)

    # ----------------------------------------------------------------------------------------------------- writing

    async def run(self, events: AsyncGenerator[ExecutionEvent, None]) -> None:
        """Keeps what happens, to the end."""
        try:
            async with aclosing(events):
                async for event in events:
                    await self._add(event)
        except (SandboxError, AuditError) as error:
            for outcome in error.tool_calls:  # the reader makes its ledger of them
                if outcome.id not in self._outcomes:
                    await self._add(outcome)
            raise

    async def _add(self, event: ExecutionEvent) -> None:
        await self._until_there_is_room()
        if isinstance(event, ToolOutcome):
            self._outcomes.add(event.id)
        # The last one has all the output in it, and takes its time.
        is_long = isinstance(event, Finished)
        json = await asyncio.to_thread(event_to_json, event) if is_long else event_to_json(event)
        self._kept.append(Numbered(self._last + 1, time.time(), json))
        self._bytes += len(json)
        self._unread += len(json)
        self._forget()
        self._news.set()

    async def _until_there_is_room(self) -> None:
        while self._unread > MAX_UNREAD and self._patience > 0:
            self._room.clear()
            started = _now()
            try:
                async with asyncio.timeout(self._patience):
                    await self._room.wait()
            except TimeoutError:
                pass
            finally:
                self._patience -= _now() - started
        if self._unread > MAX_BEHIND:
            raise SandboxError(f"{MAX_BEHIND:,} bytes of events waited for their reader; the execution was stopped")

    def _forget(self) -> None:
        """The oldest that have been sent, if there are too many."""
        while self._bytes > MAX_KEPT and self._kept and self._kept[0].number <= self._taken:
            self._bytes -= len(self._kept.pop(0).json)
            self._dropped += 1

    def stop(self) -> None:
        """Has it end. Once: a second time would be felt where it is ending already, and leave that half done."""
        if self.task and not self._is_stopped:
            self._is_stopped = True
            self.task.cancel()

    def end(self, error: BaseException | None) -> None:
        """It is over."""
        if isinstance(error, asyncio.CancelledError):
            error = SandboxError("the execution was given up, as nobody read its events")
        self._error = error
        self.ended = _now()
        self._news.set()

    # ----------------------------------------------------------------------------------------------------- reading

    async def read(self, after: int) -> AsyncGenerator[Numbered, None]:
        """The events with higher numbers, those to come included, to the end. There is one reader: the last to come.

        Raises:
            SandboxError: there is another reader now, or what is asked for is not kept any more.
            Exception: the execution failed so.
        """
        me = self._reader = object()
        self._news.set()  # whoever has read until now is woken
        try:
            while (event := await self._next(me, after)) is not None:
                self._away = _now()  # until he comes back for another
                self._take(event)
                yield event
                after = event.number
        finally:
            if self._reader is me:
                self._away = _now()
        if self._error:
            raise self._error

    async def _next(self, me: object, after: int) -> Numbered | None:
        """The event behind that one, as soon as there is one; None at the end."""
        while True:
            if self._reader is not me:
                raise SandboxError("the events of this execution are read over another connection now")
            if not self._dropped <= after <= self._last:
                raise SandboxError(f"the events after {after} are not kept any more")
            if after < self._last:
                return self._kept[after - self._dropped]
            if self.ended is not None:
                return None
            self._away = None
            self._news.clear()
            await self._news.wait()

    def _take(self, event: Numbered) -> None:
        if event.number > self._taken:
            self._taken = event.number
            self._unread -= len(event.json)
            self._room.set()


Counted = Callable[[AsyncGenerator[ExecutionEvent, None]], AsyncGenerator[ExecutionEvent, None]]


class Executions:
    """Those of one sandbox. One runs at a time; the others wait for their turn.

    ``counted`` gives the events as they are, and counts them.
    """

    def __init__(self, sandbox: AsyncSandbox, here: Place, counted: Counted = lambda events: events) -> None:
        self._sandbox = sandbox
        self._here = here
        self._counted = counted
        self._turn = asyncio.Lock()
        self._begun: dict[str, Begun] = {}
        self._over: OrderedDict[str, None] = OrderedDict()  # keys of those that are not kept any more
        self.count = 0

    @property
    def under_way(self) -> int:
        """How many have not ended."""
        return sum(begun.ended is None for begun in self._begun.values())

    def has_begun(self, key: str) -> bool:
        """There was a request with this key already."""
        return key in self._begun or key in self._over

    def begin(
        self, key: str, digest: bytes, after: int, code: str, timeout: float | None, variables: dict[str, object]
    ) -> Begun:
        """The execution with this key: begun now, if it has not been yet.

        Raises:
            ConfigError: the key is none, or was used for another execution.
            SandboxError: it is over, and its events are not kept any more.
            Overloaded: too many wait.
        """
        known = self._begun.get(checked_key(key))
        if known is not None:
            if known.digest != digest:
                raise ConfigError("this key was used for another execution")
            return known
        if key in self._over or after:
            raise SandboxError("the execution with this key is over, and its events are not kept any more")
        if self.under_way >= MAX_WAITING:
            raise Overloaded(f"{MAX_WAITING} executions of this sandbox wait already", 1.0)
        begun = self._begun[key] = Begun(digest)
        begun.task = work = asyncio.create_task(self._work(begun, code, timeout, variables))
        watching = asyncio.create_task(self._watch(begun, work))
        work.add_done_callback(lambda _: watching.cancel())
        work.add_done_callback(lambda _: self._ended(key, begun, work))
        return begun

    def _ended(self, key: str, begun: Begun, work: asyncio.Task[None]) -> None:
        begun.end(asyncio.CancelledError() if work.cancelled() else work.exception())
        self._let_go(begun)
        self._let_go_later(key, begun)

    def _let_go_later(self, key: str, begun: Begun) -> None:
        """When nobody has read it for so long."""
        if self._begun.get(key) is not begun:
            return
        if (left := LEFT_SECONDS - begun.unread_for) > 0:
            asyncio.get_running_loop().call_later(left, self._let_go_later, key, begun)
        else:
            self._forget(key)

    async def _work(self, begun: Begun, code: str, timeout: float | None, variables: dict[str, object]) -> None:
        place.set(self._here)
        async with self._turn:
            begun.is_running = True
            self.count += 1
            events = self._sandbox.stream(code, timeout=timeout, variables=variables or None)
            await begun.run(self._counted(events))

    async def _watch(self, begun: Begun, work: asyncio.Task[None]) -> None:
        """Until its end; hurries that if nobody reads."""
        while not work.done():
            await asyncio.wait({work}, timeout=UNREAD_SECONDS / 10)
            if begun.unread_for > UNREAD_SECONDS and not work.done():
                if begun.is_running:  # it may still say what it came to
                    with suppress(CellblockError):
                        await self._sandbox.interrupt()
                    await asyncio.wait({work}, timeout=INTERRUPT_SECONDS)
                begun.stop()
                return

    def _let_go(self, last: Begun) -> None:
        """Of the others that have ended, those that have been read, and the oldest of too many."""
        others = {key: one for key, one in self._begun.items() if one.ended is not None and one is not last}
        left = deque(key for key, one in others.items() if not one.is_read)
        while len(left) > MAX_LEFT or sum(others[key].kept_bytes for key in left) > MAX_LEFT_BYTES:
            left.popleft()
        for key in others.keys() - set(left):
            self._forget(key)

    def _forget(self, key: str) -> None:
        del self._begun[key]
        self._remember(key)

    async def abandon(self, key: str) -> None:
        """Its reader has left it: it is stopped as soon as can be, and has stopped after this."""
        begun = self._begun.get(checked_key(key))
        if begun is None:
            self._remember(key)  # it is not to be begun either, if its request comes late
        elif begun.task and not begun.task.done():
            begun.stop()
            await asyncio.wait({begun.task}, timeout=ABANDON_SECONDS)

    async def drained(self) -> None:
        """Waits until those that have begun, and those that wait for their turn, have ended."""
        while tasks := [begun.task for begun in self._begun.values() if begun.task and not begun.task.done()]:
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """Stops all of them. Their sandbox has been closed, so they end by themselves, and say that."""
        begun = list(self._begun.values())
        tasks = [one.task for one in begun if one.task and not one.task.done()]
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
            for one in begun:
                one.stop()
            await asyncio.wait(tasks, timeout=ABANDON_SECONDS)
        for key in [key for key, one in self._begun.items() if one.ended is not None]:
            self._forget(key)

    def _remember(self, key: str) -> None:
        """That it is over."""
        self._over[key] = None
        while len(self._over) > MAX_KEYS:
            self._over.popitem(last=False)


def digest_of(code: bytes, variables: bytes) -> bytes:
    """Tells a request that comes again from another one with the same key."""
    return hashlib.sha256(len(code).to_bytes(8, "big") + code + variables).digest()


def _now() -> float:
    return asyncio.get_running_loop().time()
