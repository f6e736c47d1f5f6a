"""A console before a real service of agents with scripted models: everything over sockets, on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator_api.v1 import orchestrator_pb2 as pb
from orchestrator_api.v1 import orchestrator_pb2_grpc as rpc

from orchestrator.agents import CodeAgent, SandboxSettings
from orchestrator.agents.loop import MultiStepAgent
from orchestrator.config import Config
from orchestrator.configured import Asked
from orchestrator.console import ConsoleServer
from orchestrator.errors import NotFound
from orchestrator.events import ExecutionEvent, Files, Finished, ToolCall, ToolOutcome
from orchestrator.models import ScriptedModel
from orchestrator.policy import Request
from orchestrator.sandbox.grpc_quiet import grpc
from orchestrator.sandbox.isolation import Isolation
from orchestrator.sandbox.layers import Layer
from orchestrator.sandbox.state import Checkpoint, Rollback
from orchestrator.service.access import Access, caller, hash_of
from orchestrator.service.admission import Admission
from orchestrator.service.app_tools import Hosts
from orchestrator.service.failures import Failures
from orchestrator.service.live_run import Means
from orchestrator.service.meters import Meters
from orchestrator.service.metrics import Metrics
from orchestrator.service.opening import Opening
from orchestrator.service.quotas import Accounts
from orchestrator.service.registry import Held, Registry
from orchestrator.service.runs import Order, Runs
from orchestrator.service.sandboxes import Sandboxes
from orchestrator.store import Store, StoredToken
from tests.unit.fake_sandbox import FakeSandbox, answered

DEADLINE = 30.0  # seconds for anything that is waited for
GOOD = "cbk_" + "g" * 43  # may have runs and sandboxes
NARROW = "cbk_" + "n" * 43  # may have sandboxes
# A model's replies, and what its code's executions come to; or an agent, made of the file of its record.
Script = tuple[Sequence[Any], Sequence[Any]] | Callable[[Path], MultiStepAgent]


class StatefulSandbox(FakeSandbox):
    """One whose states are kept and gone back to, and that asks before what its script says."""

    asks: Callable[[Asked], Coroutine[Any, Any, Any]] | None = None

    def __init__(self, script: Sequence[Any] = (), **more: Any) -> None:
        super().__init__(script, **more)
        self.states = [Checkpoint(1, "", 0, None, 40.0, 0, True, False, "c" * 16)]
        self.current = 1

    async def stream(self, code: str, **more: Any) -> AsyncGenerator[ExecutionEvent, None]:
        if self.script and isinstance(self.script[0], Request):
            await self._ask(self.script.pop(0))
        async for event in super().stream(code, **more):
            yield event
            if isinstance(event, Finished):
                self._keep("")

    async def _ask(self, request: Any) -> None:
        assert self.asks
        verdict = await self.asks(Asked("default", request, "the settings say so"))
        name = getattr(request, "tool", "run_code")
        outcome = ToolOutcome(1, name, None if verdict.allowed else f"ToolError: {verdict.reason}", 0.4)
        done = self.script.pop(0)
        arguments = dict(getattr(request, "arguments", {}))
        self.script.insert(0, [ToolCall(1, name, (), arguments), outcome, Finished(done)])

    def _keep(self, name: str) -> Checkpoint:
        number = self.states[-1].number + 1
        follows = next(state.execution_count for state in self.states if state.number == self.current)
        self.states.append(Checkpoint(number, name, self.count, follows, 3.0, 1 << 20, True, False, "c" * 16))
        self.current = number
        return self.states[-1]

    async def checkpoint(self, name: str = "") -> Checkpoint:
        return self._keep(name)

    async def checkpoints(self) -> tuple[Checkpoint, ...]:
        return tuple(replace(state, is_current=state.number == self.current) for state in self.states)

    async def rollback(self, to: Any) -> Rollback:
        assert to.container == "c" * 16
        self.current = to.number
        found = next(state for state in self.states if state.number == to.number)
        return Rollback(replace(found, is_current=True), Files.RESTORED)

    async def fork(self, at: Any = None) -> FakeSandbox:
        return StatefulSandbox(self.script)

    async def isolation(self) -> Isolation:
        layers = (Layer("no network", True, "no interface but lo"), Layer("gVisor", False, "<b>runc</b>", 3))
        return Isolation(layers, "6.1.0", 2, "3.12.1", landlock_abi=4)

    @property
    def is_running(self) -> bool:
        return True

    @property
    def forkable(self) -> bool:
        return True


@dataclass(frozen=True)
class StatefulSettings(SandboxSettings):
    """Makes them for an agent to own."""

    script: Sequence[Any] = ()
    asks: Any = None
    made: list[FakeSandbox] = field(default_factory=list)

    def make(self, tools: Sequence[Any], authorized_imports: Sequence[str]) -> StatefulSandbox:
        sandbox = StatefulSandbox(self.script, tools=tools)
        sandbox.asks = self.asks
        self.made.append(sandbox)
        return sandbox


class Status(rpc.ServiceServicer):
    """The part of the service that says how it is."""

    async def Status(self, request: pb.StatusRequest, context: Any) -> pb.ServiceStatus:
        assert caller().name
        return pb.ServiceStatus(version="0.9", agents=["default", "other"], runs=1, sandboxes=2)


@dataclass(frozen=True)
class Reply:
    """An answer of the console."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Line:
    """A server-sent event."""

    kind: str
    data: Any
    id: str = ""


class Console:
    """Begins to serve when it is made.

    Args:
        folder: for its files.
        scripts: of the agents, by name.
        sandbox: of nobody's run; its id is ``sandbox_id``.
    """

    def __init__(self, folder: Path, scripts: Mapping[str, Script], sandbox: FakeSandbox | None = None) -> None:
        self._folder = folder
        self._scripts = scripts
        self.made: list[FakeSandbox] = []
        self.models: dict[str, ScriptedModel] = {}  # of runs
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="console", daemon=True)
        self._thread.start()
        self.run(self._serve(sandbox))
        self.port = int(self.server.url.rpartition(":")[2])
        self.cookie = self.csrf = ""

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Waits for it on the loop of the service."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DEADLINE)

    async def _serve(self, sandbox: FakeSandbox | None) -> None:
        self.store = await Store.open(self._folder / "service.db")
        for token, name, scopes in ((GOOD, "app", {"runs", "sandboxes"}), (NARROW, "narrow", {"sandboxes"})):
            await self.store.add_token(StoredToken(name, hash_of(token), frozenset(scopes)))
        (self._folder / "records").mkdir()
        hosts, registry = Hosts(), Registry()
        accounts, metrics = Accounts(self.store), Metrics()
        records = self._folder / "records"
        means = Means(self.store, Admission(8, 8), accounts, metrics, hosts, records, 20.0, registry=registry)
        metrics.sandboxes_from(registry.counts)
        self.metrics = metrics
        self.runs = Runs(means, self._agent, self._check_agent)
        held = registry.add(Held(sandbox or StatefulSandbox(), "local", 1 << 20))
        self.sandbox_id = held.id
        self.registry = registry
        self.access = Access(self.store)
        self._grpc = grpc.aio.server(interceptors=(self.access, Failures()))
        rpc.add_RunsServicer_to_server(self.runs, self._grpc)
        meters = Meters(accounts, metrics)
        opening = Opening(Config(), registry, hosts, meters)
        rpc.add_SandboxesServicer_to_server(Sandboxes(opening, registry, caller, meters), self._grpc)
        rpc.add_ServiceServicer_to_server(Status(), self._grpc)
        self._grpc.add_insecure_port(f"unix:{self._folder}/service.sock")
        await self._grpc.start()
        self.server = ConsoleServer("127.0.0.1:0", self._folder / "service.sock")
        await self.server.start()

    def _check_agent(self, name: str) -> None:
        if (name or "default") not in self._scripts:
            raise NotFound(f"there is no agent {name!r}")

    @asynccontextmanager
    async def _agent(self, order: Order, ask: Any, watch: Any) -> AsyncIterator[MultiStepAgent]:
        scripted = self._scripts[order.agent]
        if callable(scripted):
            yield scripted(order.record)
            return
        replies, script = scripted
        settings = StatefulSettings(watcher=watch(""), script=script, asks=ask, made=self.made)
        model = ScriptedModel(replies)
        self.models[order.run] = model
        agent = CodeAgent([], model, sandbox=settings, stream_outputs=True, record=order.record)
        agent.logger.level = -1
        try:
            yield agent
        finally:
            await agent.aclose()

    def close(self) -> None:
        """Ends it."""
        self.run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE)
        self._loop.close()

    def break_service(self) -> None:
        """The service is gone; the console is not."""
        self.run(self._grpc.stop(0))

    async def _end(self) -> None:
        await self.server.stop()
        self.runs.stop("the test")
        await self.runs.drained()
        await self.runs.close()
        await self._grpc.stop(0)
        await self.store.close()

    # ------------------------------------------------------------------------------------------------- as a browser

    def login(self, **body: str) -> Reply:
        """Logs in, and stays so; without a token or code by a link."""
        reply = self.post("/login", body or {"code": self.server.link().partition("#")[2]})
        if reply.status == 200:
            self.cookie = reply.headers["set-cookie"].partition(";")[0]
            self.csrf = reply.json["csrf"]
        return reply

    def get(self, path: str, **headers: str) -> Reply:
        return self.request("GET", path, None, headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Reply:
        data = body if isinstance(body, bytes) else json.dumps(body if body is not None else {}).encode()
        usual = {"content-type": "application/json", "origin": self.server.url}
        return self.request("POST", path, data, usual | headers)

    def request(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Reply:
        with self._asked(method, path, body, headers) as response:
            return Reply(response.status, {n.lower(): v for n, v in response.getheaders()}, response.read())

    @contextlib.contextmanager
    def _asked(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        own = {"cookie": self.cookie, "x-cellblock-csrf": self.csrf} if self.cookie else {}
        given = own | {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, {name: value for name, value in given.items() if value})
            yield connection.getresponse()
        finally:
            connection.close()

    @contextlib.contextmanager
    def stream(self, path: str, body: Any = None, after: int = 0) -> Iterator[Iterator[Line]]:
        """The events of a stream, as they come."""
        headers = {"last-event-id": str(after)} if after else {}
        data = None if body is None else json.dumps(body).encode()
        more = {"content-type": "application/json", "origin": self.server.url} if data else {}
        with self._asked("POST" if data else "GET", path, data, headers | more) as response:
            assert response.status == 200, response.read()
            assert response.headers["content-type"].startswith("text/event-stream")
            yield _lines(response)

    def start(self, agent: str = "default", task: str = "Do it.") -> str:
        """Begins a run. Gives its id."""
        reply = self.post("/api/runs", {"task": task, "agent": agent})
        assert reply.status == 201, reply.body
        return str(reply.json["id"])

    def watched(self, run: str, after: int = 0) -> list[Line]:
        """All that happens in a run until it ends."""
        with self.stream(f"/api/runs/{run}/events", after=after) as lines:
            return list(lines)


def _lines(response: http.client.HTTPResponse) -> Iterator[Line]:
    fields: dict[str, str] = {}
    for raw in response:
        line = raw.decode().rstrip("\n")
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield Line(fields["event"], json.loads(fields["data"]), fields.get("id", ""))
            fields = {}


def plain(answer: Any = 42) -> Script:
    """An agent that answers at once."""
    return ["Thought: I know it.\n<code>\nfinal_answer(42)\n</code>"], [answered(answer)]
