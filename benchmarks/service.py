"""How the orchestrator service does with many clients: steps a second, and how soon it says that it is well.

``python -m benchmarks.service`` runs a service of its own, in a process and a folder of its own. Whoever asks for its
health is a third process: what that measures is the service, and not the loop that puts the load on it.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from orchestrator_api.v1 import orchestrator_pb2 as pb

from benchmarks.figures import MILLISECOND, Figure
from orchestrator.client import AsyncClient
from orchestrator.client.connection import new_key
from orchestrator.client.sandbox import RemoteSandbox
from orchestrator.config import Config
from orchestrator.service import process
from orchestrator.service.process import ServicePlaces

CLIENTS, SANDBOXES, STEPS = 200, 50, 20  # STEPS of each client
HEALTH_PAUSE = 0.02  # seconds between two questions
IDLE_SECONDS = 5.0  # that the floor is taken for
SETTINGS = 'runtime_dir = "{folder}/run"\n[service]\nstore = "{folder}/state/store.db"\nconsole = ""\n'


@contextmanager
def service() -> Iterator[str]:
    """Its address."""
    with tempfile.TemporaryDirectory(prefix="cellblock-bench-") as folder:
        settings = Path(folder) / "cellblock.toml"
        settings.write_text(SETTINGS.format(folder=folder))
        before = dict(os.environ)
        os.environ["CELLBLOCK_CONFIG"] = str(settings)
        where = ServicePlaces.of(Config.load(), Path(folder) / "state" / "store.db")
        process.start(where, lambda socket: socket.is_socket())
        try:
            yield f"unix:{where.socket}"
        finally:
            process.stop(where.lock)
            os.environ.clear()
            os.environ.update(before)


# ----------------------------------------------------------------------------------------------------------- health


class Watch:
    """Asks for the service's health from a process of its own, from its making until ``seconds()``."""

    def __init__(self, address: str) -> None:
        command = [sys.executable, "-m", "benchmarks.service", address]
        self._asking = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def seconds(self) -> list[float]:
        """How long each answer took, the shortest first."""
        said, _ = self._asking.communicate()
        return sorted(json.loads(said))


async def _ask(address: str) -> None:
    """Until standard input ends; then prints what it took."""
    taken: list[float] = []
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    async with grpc.aio.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]  # generated
        await health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)
        while not ended.done():
            started = time.perf_counter()
            answer = await health.Check(health_pb2.HealthCheckRequest())
            taken.append(time.perf_counter() - started)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            await asyncio.sleep(HEALTH_PAUSE)
    print(json.dumps(taken))


# ------------------------------------------------------------------------------------------------------------- load


class Load:
    """Clients of one service, each with a connection of its own."""

    def __init__(self, address: str, stack: AsyncExitStack) -> None:
        self._address = address
        self._stack = stack
        self.clients: list[AsyncClient] = []
        self.sandboxes: list[RemoteSandbox] = []

    async def open(self) -> float:
        """Opens them, and the sandboxes; gives seconds for one sandbox."""
        for _ in range(CLIENTS):
            self.clients.append(await self._stack.enter_async_context(AsyncClient(self._address)))
        self.sandboxes = [client.sandbox() for client in self.clients[:SANDBOXES]]
        started = time.perf_counter()
        await asyncio.gather(*(sandbox.start() for sandbox in self.sandboxes))
        return (time.perf_counter() - started) / SANDBOXES

    async def run(self) -> float:
        """All clients at the same time, several of them in each sandbox; gives seconds for one step."""
        started = time.perf_counter()
        await asyncio.gather(*(self._steps(i) for i in range(CLIENTS)))
        return (time.perf_counter() - started) / (CLIENTS * STEPS)

    async def _steps(self, number: int) -> None:
        sandbox = self.sandboxes[number % SANDBOXES].id
        for _ in range(STEPS):
            await _step(self.clients[number], sandbox)


async def _step(client: AsyncClient, sandbox: str) -> None:
    key = new_key()

    def request(after: int) -> pb.Execution:
        return pb.Execution(key=key, sandbox=sandbox, code=b"x = 1", after=after)

    events: list[Any] = [event async for event in client.connection.follow("Sandboxes", "Execute", request)]
    assert events[-1].execution.ok


# ---------------------------------------------------------------------------------------------------------- figures


def figures() -> list[Figure]:
    """Starts and steps of many clients; health meanwhile, beside that of a service with nothing to do."""
    with service() as address:
        watch = Watch(address)
        time.sleep(IDLE_SECONDS)
        idle = watch.seconds()
        return asyncio.run(_loaded(address, idle))


async def _loaded(address: str, idle: list[float]) -> list[Figure]:
    async with AsyncExitStack() as stack:
        load = Load(address, stack)
        watch = Watch(address)
        start = await load.open()
        starting = await asyncio.to_thread(watch.seconds)
        watch = Watch(address)
        step = await load.run()
        stepping = await asyncio.to_thread(watch.seconds)
    who = f"{CLIENTS} clients in {SANDBOXES} sandboxes"
    rows = [
        Figure(f"service: a sandbox, {SANDBOXES} asked for at once", start * MILLISECOND),
        Figure(f"service: a step, {who}", step * MILLISECOND),
    ]
    for share in (50, 99):
        floor = _part(idle, share)
        for name, taken in ((f"{SANDBOXES} starts", starting), (who, stepping)):
            rows.append(Figure(f"service: health p{share}, {name}", _part(taken, share), floor, "idle"))
    return rows


def _part(seconds: list[float], share: int) -> float:
    """Milliseconds that so many percent took at most."""
    return seconds[min(len(seconds) * share // 100, len(seconds) - 1)] * MILLISECOND


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(_ask(sys.argv[1]))
    else:
        for figure in figures():
            print(figure)
