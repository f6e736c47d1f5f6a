"""The life of a sandbox: its container is started, used by one at a time, lost, replaced, removed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

from executor_api.v1 import executor_pb2 as pb

from orchestrator.audit import Journal
from orchestrator.audit.records import SandboxEnded, SandboxRefused
from orchestrator.config import Config, Limits
from orchestrator.errors import (
    CheckpointError,
    EngineError,
    ProtocolViolation,
    SandboxClosed,
    SandboxDied,
    SandboxError,
)
from orchestrator.policy import top_level
from orchestrator.sandbox.any_sandbox import AnySandbox
from orchestrator.sandbox.execution import MAX_NESTED, serving
from orchestrator.sandbox.files import AsyncFiles
from orchestrator.sandbox.isolation import Isolation
from orchestrator.sandbox.leftovers import sweep
from orchestrator.sandbox.link import Link
from orchestrator.sandbox.session import Phase
from orchestrator.sandbox.states import States
from orchestrator.sandbox.ticket import Ticket
from orchestrator.stack.image import image_tag

# Seconds beyond the grace to stop an execution that nobody waits for any more: above the executor's for a kill and the
# way back (17), as the container would be lost that is about to be well.
ABANDON_DEADLINE = 18.0
_FAILURES = (SandboxDied, ProtocolViolation, TimeoutError)


class Life(States, AnySandbox):
    """Part of ``AsyncSandbox``.

    Args:
        config: the sandbox's.
        rules: what its code may import.
        settings: the fields of ``Open`` that do not depend on the container.
    """

    def __init__(self, config: Config, rules: tuple[str, ...], settings: Mapping[str, Any]) -> None:
        self._config = config
        self._rules = rules
        self._settings = settings
        self._journal = Journal.at(config.audit)
        self._link: Link | None = None
        self._closed = False
        self._lost = False
        self._is_branch = False
        self._note: str | None = None  # for the process after this one; without, the container ends with this process
        self._ticket: Ticket | None = None  # of the container to go on with
        self._or_new = True  # where that cannot be had
        self._was_kept = False
        self._family: list[Self] = []  # all open branches of the container; one list for all of them
        self._renew()

    def _renew(self) -> None:
        """What a branch has of its own, and its parent had before it."""
        self._forkable = True
        self._lock = asyncio.Lock()  # one execution or file request at a time
        self._not_starting = _set_event()
        self.files = AsyncFiles(self._use)

    async def start(self) -> None:
        """Starts the container; does nothing if it runs.

        Raises:
            EngineUnavailable, EnginePermission, ImageMissing: the engine cannot.
            SandboxStartError: the container did not come up, or came up without a restriction (IsolationError).
        """
        async with self._lock:
            await self._started()

    def outlive(self, note: str, ticket: Ticket | None = None, *, or_new: bool = True) -> None:
        """Before the start: should this process end without closing it, its container waits for another one to come.

        It does so for one lease. What runs is interrupted, branches end, variables, files and checkpoints stay.

        Args:
            note: what is kept for that process; it finds it with ``ticket.tickets()``.
            ticket: of a sandbox of these settings that a process before has left: this one goes on with its container.
                ``was_kept`` tells that it has.
            or_new: if that cannot be had, it gets a new one; else the start fails.
        """
        self._note, self._ticket, self._or_new = note, ticket, or_new

    @property
    def was_kept(self) -> bool:
        """True if it goes on with the container of a process before, with the variables and files that are there."""
        return self._was_kept and self.is_running

    async def close(self) -> None:
        """Removes the container, and closes every branch in it. Of a branch, ends that branch alone.

        A start under way is waited for, and fails with SandboxClosed. A second time does nothing.
        """
        self._closed = True
        if self in self._family:
            self._family.remove(self)
        await self._not_starting.wait()
        await self._discard("closed")

    async def reset(self) -> None:
        """A fresh container: variables, files, checkpoints and branches are gone.

        Raises:
            CheckpointError: this is a branch; its container is that of the sandbox that it was forked from.
        """
        if self._is_branch:
            raise CheckpointError("a branch has no container of its own to replace; fork another")
        async with self._lock:
            self._require_open()
            await self._discard("reset")
            self._lost = False
            await self._started()

    @property
    def is_running(self) -> bool:
        """True if the container has been started and nothing has ended it."""
        return self._link is not None

    @property
    def is_connected(self) -> bool:
        """True if it runs and its container has not ended since, as far as is known without asking it."""
        return self._link is not None and self._link.channel.is_open

    @property
    def limits(self) -> Limits:
        """Of its container."""
        return self._config.limits

    @property
    def is_lost(self) -> bool:
        """True if the container is gone for good; ``reset()`` gives this sandbox another."""
        return self._lost

    @property
    def name(self) -> str:
        """Of the container's session, as ``cellblock ps`` has it; empty while there is none."""
        return self._link.name if self._link else ""

    @property
    def last_execution(self) -> int:
        """The number of the last execution that was begun in its container, by a process before this one, too."""
        return self._link.channel.session.execution if self._link else 0

    async def isolation(self) -> Isolation:
        """What was found in force, from inside, when the container came up. Code that runs now is not waited for."""
        if self._link and self.is_connected:
            return self._link.isolation
        async with self._use() as link:
            return link.isolation

    async def _started(self) -> Link:
        self._require_open()
        if self._lost and not self._is_branch:
            raise SandboxDied("this sandbox's container is gone; reset() gives it a new one, with no variables")
        if self._link is None:
            if self._is_branch:
                raise SandboxDied("the container of this branch is gone; fork another from a sandbox that runs")
            self._not_starting.clear()
            try:
                await self._start()
            finally:
                self._not_starting.set()
        assert self._link
        return self._link

    async def _start(self) -> None:
        sweeping = asyncio.create_task(sweep(self._config))
        try:
            await self._keep(await self._new_link())
            await sweeping
            self._require_open()  # it may have been closed while it started
        except BaseException as error:  # also cancelled: nobody may know of it who would close it
            await self._discard_quietly(_reason(error))
            raise

    async def _new_link(self) -> Link:
        ticket, self._ticket = self._ticket, None
        if ticket and (link := await self._kept_link(ticket)):
            return link
        self._was_kept = False
        try:
            image, packages = self._config.image or image_tag(), top_level(self._rules)
            return await Link.start(self._config, image, packages, self._settings, note=self._note)
        except (EngineError, SandboxError) as error:
            await self._journal.record(SandboxRefused(type(error).__name__))
            raise

    async def _kept_link(self, ticket: Ticket) -> Link | None:
        """To the container that was left, unless it is gone, or goes now."""
        try:
            link = await Link.resume(self._config, ticket, self._settings, self._note or "")
        except (EngineError, SandboxError):
            self._lost = not self._or_new
            if self._lost:
                raise
            return None
        self._forkable, self._was_kept = link.forkable, True
        return link

    async def _keep(self, link: Link) -> None:
        """From now on this is its container; or it is removed again, if that cannot be recorded or nobody wants it."""
        self._link = link
        parent = self._journal.sandbox if link.is_branch else ""
        self._journal = self._journal.named(link.name)
        try:
            await self._journal.record(link.started(parent))
            self._require_open()
        except BaseException as error:
            await self._discard_quietly(_reason(error))
            raise

    def _require_open(self) -> None:
        if self._closed:
            raise SandboxClosed("this sandbox has been closed")

    async def _discard(self, reason: str, *, patiently: bool = True) -> None:
        link, self._link = self._link, None
        self._forkable = True
        try:
            if not self._is_branch:
                for branch in list(self._family):
                    await branch.close()
        finally:
            if link:
                await self._end(link, reason, patiently)

    async def _end(self, link: Link, reason: str, patiently: bool) -> None:
        try:
            await (link.close() if patiently else link.abandon())
        finally:
            await self._journal.record(SandboxEnded(reason))

    async def _discard_quietly(self, reason: str) -> None:
        """What the engine fails to remove is removed later, and is no answer to what the caller asked for."""
        with suppress(EngineError):
            await self._discard(reason, patiently=False)

    @asynccontextmanager
    async def _use(self) -> AsyncIterator[Link]:
        """The running link, alone. A failure of the executor removes the container and is told as what it is."""
        if self._link and self._link.channel in serving.get():
            raise RuntimeError("a tool cannot use the sandbox whose code waits for it; give it another sandbox")
        if len(serving.get()) >= MAX_NESTED:
            raise RuntimeError(f"{MAX_NESTED} tools wait for each other's sandboxes; they may use no further one")
        async with self._lock:
            link = await self._started()
            if link.channel.session.phase is not Phase.IDLE:  # whoever should have seen to that was cancelled there
                await self._abandon(link)
                link = await self._started()
            try:
                yield link
            except _FAILURES as error:
                await self._lose()
                self._require_open()  # closed meanwhile: that is why
                if isinstance(error, TimeoutError):
                    error = SandboxDied("the executor did not answer in time; its container has been removed")
                raise error from None
            finally:
                if self._link is link and link.channel.session.phase is not Phase.IDLE:
                    await self._abandon(link)

    async def _abandon(self, link: Link) -> None:
        """Nobody waits for this operation any more: it is stopped, and what it still says is read and dropped."""
        channel = link.channel
        try:
            async with asyncio.timeout(ABANDON_DEADLINE + self._config.grace):
                channel.write(pb.HostMessage(interrupt=pb.Interrupt(id=channel.session.execution)))
                while channel.session.phase is not Phase.IDLE:
                    message = await channel.read()
                if message.HasField("finished"):
                    self._forkable = message.finished.forkable
                if message.finished.spent:
                    await self._discard_quietly("spent")
        except _FAILURES:
            await self._lose()

    async def _lose(self) -> None:
        self._lost = True
        await self._discard_quietly("lost")


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


def _reason(error: BaseException) -> str:
    """Why a sandbox ended, for records."""
    return "closed" if isinstance(error, SandboxClosed) else type(error).__name__
