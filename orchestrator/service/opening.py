"""How sandboxes of apps come about: a request's settings, a place, a start; or what a crash of the service has left."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, nullcontext, suppress
from dataclasses import replace
from functools import partial

from orchestrator_api.v1 import orchestrator_pb2 as pb

from orchestrator.audit import concern
from orchestrator.client.sandbox_messages import limits_of, require_no_settings
from orchestrator.config import Config, Limits, parse_size
from orchestrator.configured import Ask, PolicyRule, ServiceSettings, approver
from orchestrator.errors import CellblockError, Overloaded, ServiceUnavailable, TooManySandboxes
from orchestrator.policy import Approve
from orchestrator.sandbox.sandbox import AsyncSandbox
from orchestrator.sandbox.ticket import Ticket
from orchestrator.service.access import Caller
from orchestrator.service.admission import Admission
from orchestrator.service.app_tools import Hosts
from orchestrator.service.kept import AppNote, Kept
from orchestrator.service.meters import Meters
from orchestrator.service.pools import Pools, Taken
from orchestrator.service.quotas import UNLIMITED
from orchestrator.service.registry import Held, Registry

_log = logging.getLogger(__name__)
ABANDONED_SECONDS = 300.0  # that an app may be gone until its sandboxes are closed: longer than clients are patient
# Containers that come up at the same time: each start keeps a processor busy, here and in the engine, and more of them
# at once only make all of them slow, and the service with them.
MAX_STARTING = 4
PLACE_SECONDS = 10.0  # that a request waits for somebody's sandbox to be closed; nobody knows when that will be
MAX_QUEUE = 100  # requests that wait so


class Opening:
    """Opens sandboxes of apps, and closes those whose app is gone.

    Args:
        config: of the sandboxes, as the service began with it.
        registry: where they are kept.
        hosts: the apps with functions.
        meters: what is used is counted there, and refused there.
        policy: the rules as they are now; they hold for apps' sandboxes, too.
        places: for as many sandboxes as there may be, and a queue before them. Default: of ``config.max_sandboxes``.
        abandoned_seconds: that an app may be gone until its sandboxes are closed.
        pools: of sandboxes that are ready; default: none.
        current: the settings of new sandboxes, as they are now; default: always ``config``.
    """

    def __init__(
        self,
        config: Config,
        registry: Registry,
        hosts: Hosts,
        meters: Meters,
        policy: Callable[[], Sequence[PolicyRule]] = tuple,
        places: Admission | None = None,
        abandoned_seconds: float = ABANDONED_SECONDS,
        pools: Pools | None = None,
        current: Callable[[], Config] | None = None,
    ) -> None:
        self._config = config
        self._current = current or (lambda: config)
        self._registry = registry
        self._hosts = hosts
        self._meters = meters
        self._policy = policy
        self._pools = pools or Pools(ServiceSettings)
        self._places = places or Admission(config.max_sandboxes, MAX_QUEUE)
        self._starting = asyncio.Semaphore(MAX_STARTING)
        self._is_stopping = False
        self._recovered: dict[tuple[str, str], str] = {}  # ids, by owner and key of the request they were made for
        self._abandoned_seconds = abandoned_seconds
        self._reaping: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Opens none from now on."""
        self._is_stopping = True
        self._places.close()

    def close(self) -> None:
        """Looks for no sandboxes of apps that are gone any more."""
        if self._reaping:
            self._reaping.cancel()

    def require_serving(self) -> None:
        """Raises if no new work is taken.

        Raises:
            ServiceUnavailable: so it is.
        """
        if self._is_stopping:
            raise ServiceUnavailable("the service is stopping, and takes no new work")

    def recovered(self, owner: str, key: str) -> str:
        """The id of the sandbox that a service before this one has made for that request; empty if there is none."""
        return self._recovered.get((owner, key), "")

    @property
    def has_recovered(self) -> bool:
        """There are sandboxes of a service before this one: what that has begun is not known here."""
        return bool(self._recovered)

    async def recover(self, kept: Kept, owner: Callable[[str], Caller]) -> None:
        """Goes on with the sandboxes of apps that a crash of the service has left; those that cannot be had are gone.

        Args:
            kept: what has been left.
            owner: who that is, by the name.
        """
        found = kept.of_apps()
        for failure in await asyncio.gather(*(self._recover(owner, *one) for one in found), return_exceptions=True):
            if isinstance(failure, Exception):
                _log.warning("a sandbox that a crash had left is gone: %s", failure)

    async def _recover(self, owner: Callable[[str], Caller], note: AppNote, ticket: Ticket) -> None:
        request = pb.CreateSandbox.FromString(note.request)
        concern(owner=note.owner)
        await self.open(request, owner(note.owner), note, ticket)
        self._recovered[note.owner, request.key] = note.id

    async def open(
        self, request: pb.CreateSandbox, who: Caller, note: AppNote | None = None, ticket: Ticket | None = None
    ) -> Held:
        """Makes and starts one; with a ticket, and its note, goes on with the one that it is of.

        Raises:
            Overloaded: there is no room, or a quota is used up.
            ServiceUnavailable: the service is stopping.
            CellblockError: it cannot be made or started, or gone on with.
        """
        self.require_serving()
        if self._reaping is None:
            self._reaping = asyncio.create_task(self._reap())
        begun = time.monotonic()
        with ExitStack() as stack:
            # Whoever has one that is gone on with, has it: no quota takes it away.
            stack.callback(await self._meters.open(who if ticket is None else replace(who, quotas=UNLIMITED)))
            stack.callback(await self._place(who.name))
            host = self._hosts.host(who.name, request.tool_host) if request.tool_host else None
            if host:
                stack.callback(self._hosts.use(who.name, request.tool_host))
            taken = self._taken(request, who.name)
            sandbox = taken.sandbox
            note = note or AppNote(secrets.token_hex(16), who.name, time.time(), request.SerializeToString())
            if not taken.is_warm:
                sandbox.outlive(note.text(), ticket, or_new=ticket is None)
                await self._started(sandbox, self._starting if ticket is None else nullcontext())
            let_go = stack.pop_all().close
        self._meters.started(time.monotonic() - begun, from_pool=taken.is_warm)
        counted = partial(self._meters.counted, who)
        disk = parse_size(taken.limits.disk)
        held = Held(
            sandbox, who.name, disk, id=note.id, created=note.created, host=host, on_close=let_go, counted=counted
        )
        return self._registry.add(held)

    async def _place(self, owner: str) -> Callable[[], None]:
        """A place for one more; what is given frees it."""
        turn = self._places.enter(owner)
        try:
            async with asyncio.timeout(PLACE_SECONDS):
                await turn.come()
            return turn.leave
        except BaseException as error:
            turn.leave()
            if not isinstance(error, TimeoutError):
                raise
            most = self._config.max_sandboxes
            message = f"all {most} sandboxes that there may be are in use, and none was closed in {PLACE_SECONDS:g} s"
            raise Overloaded(message, PLACE_SECONDS) from None

    async def _started(self, sandbox: AsyncSandbox, turn: AbstractAsyncContextManager[None]) -> None:
        try:
            async with turn:
                self.require_serving()
                await self._start(sandbox)
        except BaseException as error:
            await sandbox.close()
            if isinstance(error, TooManySandboxes):  # those of runs are among them, and hold no places here
                raise Overloaded(str(error), PLACE_SECONDS) from None
            raise

    async def _start(self, sandbox: AsyncSandbox) -> None:
        while True:
            try:
                return await sandbox.start()
            except TooManySandboxes:
                if not await self._pools.give_way():  # what only lies ready keeps nobody out
                    raise

    async def _reap(self) -> None:
        """Closes what apps have left behind that are gone for good."""
        while True:
            await asyncio.sleep(self._abandoned_seconds / 10)
            for held in self._registry.left_for(self._abandoned_seconds):
                concern(**held.concerns())
                with suppress(CellblockError):  # what the engine fails to remove is removed later
                    await self._registry.close(held)

    def _taken(self, request: pb.CreateSandbox, owner: str) -> Taken:
        if request.pool:
            require_no_settings(request)
            return self._pools.take(request.pool, final_answer=request.final_answer)
        config = self._current()
        limits = limits_of(request.limits, config.limits)
        return Taken(self._made(request, config, limits, owner), limits)

    def _made(self, request: pb.CreateSandbox, config: Config, limits: Limits, owner: str) -> AsyncSandbox:
        hosts, name = self._hosts, request.tool_host
        return AsyncSandbox(
            authorized_imports=request.authorized_imports,
            tools=hosts.tools(owner, name, request.tools),
            limits=limits,
            timeout=request.timeout_seconds if request.HasField("timeout_seconds") else None,
            env=request.env,
            config=config,
            final_answer=request.final_answer,
            tool_timeout=request.tool_timeout_seconds if request.HasField("tool_timeout_seconds") else None,
            approve=self._approver(hosts.approver(owner, name) if request.approve else None),
        )

    def _approver(self, app: Approve | None) -> Approve | None:
        """The rules first. The app is asked where they say so, and if it wants to be, about what they allow."""
        ask: Ask | None = None if app is None else lambda asked: app(asked.request)
        return approver(self._policy(), "", ask, otherwise=app)
