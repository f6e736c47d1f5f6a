"""More clients than fit: who is refused is told when to come again, the others get their turns, nothing is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from orchestrator import AsyncClient, Config, FinalAnswerStep, Overloaded
from orchestrator.client.sandbox import RemoteSandbox
from orchestrator.events import RunState
from orchestrator.service.local import status
from tests.docker.service_process import SECONDS, SETTINGS, ServiceProcess, service_in, steps
from tests.ports import own_port
from tests.unit.service_parts import certificate
from tests.waiting import eventually

pytestmark = pytest.mark.docker
T = TypeVar("T")
GREEDY, MODEST = "greedy", ("anna", "berta", "clara")
EACH = 10  # clients of each token
PLACES, QUEUE = 4, 8
LONG = 240.0  # seconds for all of them


@dataclass
class Crowd:
    """The service and its clients; each has a connection of its own."""

    service: ServiceProcess
    address: str
    root: Path
    tokens: dict[str, str]
    answered: Counter[str] = field(default_factory=Counter)  # by the client's number; its code asks for it
    hints: list[float] = field(default_factory=list)  # what who was refused was told

    def client(self, name: str) -> AsyncClient:
        return AsyncClient(self.address, token=self.tokens[name], tls=self.root)

    async def until_let_in(self, begin: Callable[[], Awaitable[T]]) -> T:
        """As a client should: it comes again when it is told to."""
        while True:
            try:
                return await begin()
            except Overloaded as error:
                self.hints.append(error.retry_after)
                await asyncio.sleep(min(error.retry_after, 2))

    async def well(self, over: asyncio.Event) -> int:
        """How often the service has said that it is, until it is over; it has to say that each time."""
        times = 0
        async with grpc.aio.insecure_channel(self.service.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            while not over.is_set():
                answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
                times += 1
        return times


@pytest.fixture(scope="module")
def crowd(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    folder = tmp_path_factory.mktemp("overload")
    address = f"127.0.0.1:{own_port()}"
    made = certificate(folder)
    tcp = f'listen = "{address}"\ntls_cert = "{made.chain}"\ntls_key = "{made.key}"'
    table = f"max_runs = 2\nmax_queue = {QUEUE}\n{tcp}"
    settings = f"max_sandboxes = {PLACES}\n" + SETTINGS.replace("max_runs = 2", table)
    with service_in(folder, settings=settings) as service:
        tokens = {name: service.cellblock("token", "create", name).stdout.strip() for name in (GREEDY, *MODEST)}
        yield Crowd(service, address, made.chain, tokens)


def run(crowd: Crowd, work: Callable[[], Awaitable[None]]) -> None:
    async def watched() -> None:
        over = asyncio.Event()
        async with asyncio.timeout(LONG), asyncio.TaskGroup() as group:
            watching = group.create_task(crowd.well(over))
            try:
                await work()
            finally:
                over.set()
        assert watching.result() > 10

    asyncio.run(watched())


def test_sandboxes_of_a_crowd(crowd: Crowd) -> None:
    run(crowd, lambda: sandboxes(crowd))
    config = Config.load(crowd.service.folder / "cellblock.toml", env={})
    eventually(lambda: (found := status(config)) and found.sandboxes == 0, "sandboxes are left")


async def sandboxes(crowd: Crowd) -> None:
    order: list[str] = []  # the tokens as their sandboxes came to be
    refused: Counter[str] = Counter()
    all_told, second_wave = asyncio.Event(), asyncio.Event()

    def present(number: str) -> None:
        """Says that it is there."""
        crowd.answered[number] += 1

    def told() -> None:
        if sum(refused.values()) >= len(MODEST) * EACH + EACH - PLACES - QUEUE:
            all_told.set()

    async def use(sandbox: RemoteSandbox, number: str) -> None:
        code = f"present({number!r})\nruns = globals().get('runs', 0) + 1\nruns"
        assert (await sandbox.run_code(code)).value == 1
        await sandbox.close()

    async def one(name: str, number: str, stack: AsyncExitStack) -> None:
        client = await stack.enter_async_context(crowd.client(name))

        async def begin() -> RemoteSandbox:
            sandbox = client.sandbox(tools=[present])
            try:
                await sandbox.start()
            except Overloaded:
                refused[number] += 1
                told()
                if refused[number] == 1:
                    await all_told.wait()
                raise
            return sandbox

        sandbox = await crowd.until_let_in(begin)
        order.append(name)
        if len(order) == PLACES:
            second_wave.set()
        await second_wave.wait()
        await use(sandbox, number)

    async with AsyncExitStack() as stack:
        async with asyncio.TaskGroup() as group:
            holder = await stack.enter_async_context(crowd.client(GREEDY))
            held = [holder.sandbox(tools=[present]) for _ in range(PLACES)]
            for sandbox in held:
                await sandbox.start()
            greedy = [(GREEDY, f"{GREEDY} {i}") for i in range(EACH - PLACES)]
            for name, number in (*greedy, *((name, f"{name} {i}") for i in range(EACH) for name in MODEST)):
                group.create_task(one(name, number, stack))
            await all_told.wait()  # who is in the queue is in it, and everybody else has been sent away
            for number, sandbox in enumerate(held):
                group.create_task(use(sandbox, f"held {number}"))
        assert len(crowd.hints) >= len(MODEST) * EACH + EACH - PLACES - QUEUE
        assert all(0.5 <= hint <= 60 for hint in crowd.hints)
        assert set(order[:PLACES]) == {GREEDY, *MODEST}  # whoever had all places before gets one of the next
        assert Counter(order) == {GREEDY: EACH - PLACES, **dict.fromkeys(MODEST, EACH)}
        assert len(crowd.answered) == EACH * (1 + len(MODEST))
        assert set(crowd.answered.values()) == {1}


def test_runs_of_a_crowd(crowd: Crowd) -> None:
    run(crowd, lambda: runs(crowd))


async def runs(crowd: Crowd) -> None:
    before, each = len(crowd.hints), 4

    async def one(client: AsyncClient, number: int) -> tuple[str, object]:
        task = steps(f"x = {number}", "final_answer(x * 2)")
        begun = await crowd.until_let_in(lambda: client.runs.start(task))
        *_, last = [event async for event in client.runs.follow(begun.id)]
        assert last == FinalAnswerStep(number * 2)
        return begun.id, number

    async with AsyncExitStack() as stack:
        for_each = [await stack.enter_async_context(crowd.client(name)) for name in (GREEDY, *MODEST)]
        done = await asyncio.gather(*(one(client, i) for client in for_each for i in range(each)))
        for client in for_each:
            kept = await client.runs.list()
            assert {run.id for run in kept} <= {id for id, _ in done}
            assert [run.state for run in kept] == [RunState.SUCCEEDED] * each
    assert len({id for id, _ in done}) == len(done)
    assert len(crowd.hints) > before
