"""The service put together: what listens, what it owns, how it begins and how it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from grpc.aio import ServicerContext
from orchestrator_api.v1 import orchestrator_pb2 as pb
from orchestrator_api.v1 import orchestrator_pb2_grpc

from orchestrator.agents.loop import MultiStepAgent
from orchestrator.audit import Journal
from orchestrator.audit.service_records import ServiceStarted, ServiceStopped, TokenUsedUp
from orchestrator.configured import Ask, Models, PolicyRule, ServiceSettings, Settings, Watch, build_agent
from orchestrator.console import ConsoleServer
from orchestrator.errors import AccessDenied, AuditError, CellblockError, ConfigError, ServiceError
from orchestrator.sandbox.grpc_quiet import grpc
from orchestrator.service.access import LOCAL, Access, Caller, caller
from orchestrator.service.admission import Admission
from orchestrator.service.app_tools import Hosts, Tools
from orchestrator.service.exposition import exposed
from orchestrator.service.failures import Failures
from orchestrator.service.health import Health, enable_reflection
from orchestrator.service.kept import Kept
from orchestrator.service.live_run import Means
from orchestrator.service.logs import logging_to
from orchestrator.service.meters import Meters
from orchestrator.service.metrics import Metrics
from orchestrator.service.opening import Opening
from orchestrator.service.pools import Pools
from orchestrator.service.process import ServicePlaces, held
from orchestrator.service.quotas import UNLIMITED, Accounts, Quotas
from orchestrator.service.registry import Registry
from orchestrator.service.runs import Order, Runs
from orchestrator.service.sandboxes import Sandboxes
from orchestrator.service.scopes import RUNS, SANDBOXES
from orchestrator.service.spans import Spans
from orchestrator.service.tls import listen
from orchestrator.service.tokens import TokenMethods
from orchestrator.service.transport import SERVER_OPTIONS
from orchestrator.store import Store

_log = logging.getLogger(__name__)
_VERSION = version("cellblock")  # asked for once: what is installed may change while the service runs
ANSWER_MARGIN = 5.0  # seconds that an agent waits longer for a decision than the question is open
LAST_SECONDS = 1.0  # for answers that are on their way when everything else has ended
PRUNE_SECONDS = 3600.0  # between two looks at what need not be kept any more


class Status(TokenMethods):
    """The API's ``Service``."""

    def __init__(self, service: Service, store: Store, access: Access, accounts: Accounts, journal: Journal) -> None:
        super().__init__(store, access, accounts, journal=journal)
        self._service = service

    async def Status(self, request: pb.StatusRequest, context: ServicerContext[Any, Any]) -> pb.ServiceStatus:
        """How the service is."""
        return self._service.status()

    async def ConsoleLink(
        self, request: pb.ConsoleLinkRequest, context: ServicerContext[Any, Any]
    ) -> pb.ConsoleAddress:
        """A way into the console for the user of the socket."""
        if caller() is not LOCAL:
            raise AccessDenied("a link to the console is for the socket's user; others log in with their token")
        return pb.ConsoleAddress(url=self._service.console_link())


class Service:
    """One service, which serves from ``start()`` to ``stop()``.

    Args:
        settings: of sandboxes, agents and the service itself; what changes in the file counts for new runs.
        where: its files.
    """

    def __init__(self, settings: Settings, where: ServicePlaces) -> None:
        self._settings = settings
        self._where = where
        self._table = settings.current().service
        self._journal = Journal.at(str(where.audit))
        self._started = time.time()
        self._models = Models()
        self._stack = AsyncExitStack()
        self._console: ConsoleServer | None = None

    async def start(self) -> None:
        """Serves.

        Raises:
            StoreError: the store cannot be opened.
            AuditError: the audit log cannot be written.
            ConfigError: something of the settings cannot be had.
        """
        self._where.make_folders()
        async with AsyncExitStack() as stack:
            self._store = await stack.enter_async_context(await Store.open(self._where.store))
            await self._journal.record(ServiceStarted(_VERSION))
            stack.push_async_callback(self._has_stopped)
            spans = Spans.to(self._table.otel)
            stack.push_async_callback(spans.close)
            self._make(self._store, spans)
            if self._table.metrics:
                await stack.enter_async_context(exposed(self._table.metrics, self._metrics.exposition))
            self._listen()
            await self._server.start()
            stack.push_async_callback(self._server.stop, LAST_SECONDS)
            await self._recover()  # it can take long, and who asks how the service is need not wait
            self._ready.set()
            self._health.serve()
            removing = asyncio.create_task(self._kept.remove_rest())
            stack.callback(removing.cancel)
            await self._start_console(stack)
            pruning = asyncio.create_task(self._prune())
            stack.callback(pruning.cancel)
            self._pools.start()
            self._stack = stack.pop_all()

    async def _recover(self) -> None:
        """Goes on with what a crash has left: sandboxes of apps, then runs."""
        quotas = {token.name: Quotas.of(token.quotas) for token in await self._store.tokens()}

        def owner(name: str) -> Caller:
            return Caller(name, frozenset({RUNS, SANDBOXES}), quotas.get(name, UNLIMITED))

        await self._kept.find()
        await self._opening.recover(self._kept, owner)
        await self._runs.recover(owner)

    async def _has_stopped(self) -> None:
        try:
            await self._journal.record(ServiceStopped())
        except AuditError as error:  # it has, all the same
            _log.warning("the end of the service is not in the audit log: %s", error)

    def _current(self) -> ServiceSettings:
        """The settings as they are now, with the audit log as it was when the service was started: it is one chain."""
        settings = self._settings.current()
        return replace(settings, config=replace(settings.config, audit=str(self._where.audit)))

    def _make(self, store: Store, spans: Spans) -> None:
        config = self._current().config
        self._metrics = Metrics()
        self._ready = asyncio.Event()  # what a crash has left has been found: no list lacks a part of it
        access = Access(store, on_denied=self._metrics.denied, ready=self._ready)
        self._admission = Admission(self._table.max_runs, self._table.max_queue, self._metrics.waited("runs"))
        self._accounts = Accounts(store, used_up=lambda token, quota: self._journal.record(TokenUsedUp(token, quota)))
        self._registry, self._hosts, self._kept = Registry(), Hosts(), Kept(config)
        meters = Meters(self._accounts, self._metrics, spans)
        self._pools = Pools(self._current)
        self._places = Admission(config.max_sandboxes, self._table.max_queue, self._metrics.waited("sandboxes"))
        self._opening = Opening(
            config,
            self._registry,
            self._hosts,
            meters,
            self._policy,
            places=self._places,
            pools=self._pools,
            current=lambda: self._current().config,
        )
        self._sandboxes = Sandboxes(self._opening, self._registry, caller, meters)
        self._runs = Runs(
            Means(
                store=store,
                admission=self._admission,
                accounts=self._accounts,
                metrics=self._metrics,
                hosts=self._hosts,
                records=self._where.records,
                answer_seconds=config.approval_timeout,
                spans=spans,
                registry=self._registry,
                journal=self._journal,
            ),
            self._agent,
            lambda name: self._settings.current().agent(name),
        )
        self._measure()
        self._server = grpc.aio.server(interceptors=(access, Failures(self._metrics.failed)), options=SERVER_OPTIONS)
        methods: Any = orchestrator_pb2_grpc  # generated, without types
        methods.add_SandboxesServicer_to_server(self._sandboxes, self._server)
        methods.add_RunsServicer_to_server(self._runs, self._server)
        methods.add_ToolsServicer_to_server(Tools(self._hosts, lambda: caller().name), self._server)
        methods.add_ServiceServicer_to_server(Status(self, store, access, self._accounts, self._journal), self._server)
        self._health = Health(self._server, serves=False)
        if self._table.reflection:
            enable_reflection(self._server)

    def _measure(self) -> None:
        self._metrics.sandboxes_from(self._registry.counts)
        self._metrics.runs_from(self._runs.counts)
        self._metrics.pool_from(self._pools.counts)
        self._metrics.queues_from(lambda: {"runs": self._admission.waiting, "sandboxes": self._places.waiting})

    def _policy(self) -> Sequence[PolicyRule]:
        return self._settings.current().policy

    def _listen(self) -> None:
        before = os.umask(0o177)  # the socket is this user's alone
        try:
            self._server.add_insecure_port(f"unix:{self._where.socket}")
        finally:
            os.umask(before)
        if self._table.listen != "unix":
            settings = self._settings.current()
            certificate, key = settings.beside(self._table.tls_cert), settings.beside(self._table.tls_key)
            listen(self._server, self._table.listen, certificate, key)

    @asynccontextmanager
    async def _agent(self, order: Order, ask: Ask, watch: Watch) -> AsyncIterator[MultiStepAgent]:
        settings = self._current()
        config = replace(settings.config, approval_timeout=settings.config.approval_timeout + ANSWER_MARGIN)
        async with AsyncExitStack() as stack:
            making = build_agent(
                settings,
                order.agent,
                config=config,
                ask=ask,
                record=order.record,
                tools=order.tools.tools if order.tools else (),
                models=self._models,
                ready=self._kept.for_run(order.run),
                watch=watch,
            )
            yield await stack.enter_async_context(making)

    async def _start_console(self, stack: AsyncExitStack) -> None:
        """Without a console the service serves all the same: its port may be another program's."""
        if not self._table.console:
            return
        try:
            console = ConsoleServer(self._table.console, self._where.socket)
            await console.start()
        except ConfigError as error:
            _log.warning("there is no console: %s", error)
            return
        self._console = console
        stack.push_async_callback(console.stop)

    def console_link(self) -> str:
        """See ``ConsoleServer.link``.

        Raises:
            ServiceError: there is no console.
        """
        if self._console is None:
            raise ServiceError("this service has no console; see the setting service.console, and the service's log")
        return self._console.link()

    async def _prune(self) -> None:
        while True:
            try:
                await self._store.prune(self._table.retention_days, self._table.keep_runs, _unlink)
            except CellblockError as error:  # as on a full disk; the next look finds it again
                _log.warning("what need not be kept any more could not be removed: %s", error)
            await asyncio.sleep(PRUNE_SECONDS)

    def status(self) -> pb.ServiceStatus:
        """As it is now."""
        return pb.ServiceStatus(
            version=_VERSION,
            started=self._started,
            sandboxes=len(self._registry),
            runs=self._admission.held,
            queued=self._admission.waiting,
            agents=sorted(self._settings.current().agents),
            console=self._console.url if self._console else "",
        )

    async def stop(self, hurry: asyncio.Event | None = None) -> None:
        """Takes no new work, lets what is under way end, and leaves nothing behind but its store.

        Executions have the setting ``drain`` to end by themselves. Runs are interrupted at once.

        Args:
            hurry: when it is set, nothing is waited for any longer.
        """
        hurry = hurry or asyncio.Event()
        self._health.drain()
        self._admission.close()
        self._sandboxes.stop()
        self._runs.stop("the service, which was stopped")
        async with AsyncExitStack() as stack:  # each step though another fails
            stack.push_async_callback(self._stack.aclose)
            stack.callback(self._hosts.close)
            stack.push_async_callback(self._sandboxes.close)
            stack.push_async_callback(self._pools.close)
            stack.push_async_callback(self._runs.close, hurry)
            await self._drained(hurry)

    async def _drained(self, hurry: asyncio.Event) -> None:
        """Waits until nothing is under way, or it has to be."""
        draining = asyncio.create_task(self._all_drained())
        hurrying = asyncio.create_task(hurry.wait())
        await asyncio.wait({draining, hurrying}, timeout=self._table.drain, return_when=asyncio.FIRST_COMPLETED)
        for waiting in (draining, hurrying):
            waiting.cancel()
        await asyncio.gather(draining, hurrying, return_exceptions=True)

    async def _all_drained(self) -> bool:
        await asyncio.gather(self._runs.drained(), self._sandboxes.drained())
        return True


def _unlink(record: str) -> None:
    """One that cannot be removed keeps no other run from it."""
    try:
        Path(record).unlink(missing_ok=True)
    except OSError as error:
        _log.warning("the record %s cannot be removed (%s): remove it by hand", record, error.strerror)


async def serve(settings: Settings, where: ServicePlaces) -> None:
    """Serves until the process is told to end, by SIGTERM or Ctrl-C; told a second time, it ends at once.

    Raises:
        ServiceError: a service runs already.
        CellblockError: it cannot begin.
    """
    where.make_folders()
    with held(where.lock), logging_to(where.log):
        service, ending, hurry = Service(settings, where), asyncio.Event(), asyncio.Event()

        def told() -> None:
            (hurry if ending.is_set() else ending).set()

        await service.start()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told)
        try:
            await ending.wait()
        finally:
            await service.stop(hurry)
            where.socket.unlink(missing_ok=True)
