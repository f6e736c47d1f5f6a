"""``/metrics`` of a real service, asked over real HTTP."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from orchestrator_api.v1 import orchestrator_pb2 as pb
from orchestrator_api.v1 import orchestrator_pb2_grpc as rpc

from orchestrator.configured import Settings
from orchestrator.errors import ConfigError
from orchestrator.service import exposition
from orchestrator.service.exposition import CONNECTION_SECONDS, MAX_CONNECTIONS, STOP_SECONDS, exposed
from orchestrator.service.metrics import CONTENT_TYPE
from orchestrator.service.process import ServicePlaces
from orchestrator.service.registry import Held
from orchestrator.service.serve import Service
from tests.ports import own_port
from tests.unit.chat_server import Answer, ChatServer, serving
from tests.unit.configured_files import written
from tests.unit.fake_sandbox import FakeSandbox
from tests.unit.service_parts import DEADLINE, run

Answered = tuple[str, dict[str, str], str]  # the status line, the headers, the body


async def asked(port: int, line: str = "GET /metrics") -> Answered:
    """What a request over a connection of its own is answered."""
    return await answered(*await asyncio.open_connection("127.0.0.1", port), line)


async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: str = "GET /metrics") -> Answered:
    writer.write(f"{line} HTTP/1.1\r\nHost: any.name.at.all\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    status, *lines = head.split("\r\n")
    return status, {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}, body


def places(folder: Path) -> ServicePlaces:
    names = ("service.sock", "service.lock", "service.log", "service.out", "service.db", "records", "audit.jsonl")
    return ServicePlaces(*(folder / name for name in names))


@asynccontextmanager
async def service(folder: Path, text: str) -> AsyncIterator[Service]:
    made = Service(Settings(written(folder, text)), places(folder))
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


SETTINGS = """
[service]
metrics = "127.0.0.1:{port}"

[models.own]
model = "openai:m"
api_base = "{model}"

[agents.default]
kind = "tool_calling"
model = "own"
"""


def test_a_scrape_sees_the_sandboxes_and_the_runs_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    port = own_port()

    async def test(model: ChatServer) -> None:
        async with service(tmp_path, SETTINGS.format(port=port, model=model.url)) as made:
            made._registry.add(Held(FakeSandbox(), "app", 0))
            async with grpc.aio.insecure_channel(f"unix:{places(tmp_path).socket}") as channel:
                await rpc.RunsStub(channel).Start(pb.StartRun(key="k", task="t", agent="default"))
                assert await asyncio.to_thread(model.asked.wait, DEADLINE)  # so the run is at work
                status, headers, body = await asked(port)
        assert status == "HTTP/1.1 200 OK"
        assert headers["content-type"] == CONTENT_TYPE
        assert 'cellblock_sandboxes{state="idle"} 1.0' in body
        assert 'cellblock_runs{state="running"} 1.0' in body
        with pytest.raises(OSError, match="Connect call failed"):
            await asked(port)  # it has ended with the service

    with serving(Answer((), head=False, ending="hold")) as server:
        run(test(server))


def test_without_an_address_nothing_listens(tmp_path: Path) -> None:
    async def test() -> None:
        before = len(asyncio.all_tasks())
        async with service(tmp_path, "[service]\nmetrics = ''\n"):
            assert "metrics" not in {task.get_name() for task in asyncio.all_tasks()}
        assert len(asyncio.all_tasks()) == before

    run(test())


def test_it_is_read_on_the_event_loop_and_only_so() -> None:
    read: list[asyncio.AbstractEventLoop] = []

    def exposition() -> bytes:
        read.append(asyncio.get_running_loop())  # raises in a thread
        return b"x 1\n"

    async def test() -> None:
        async with exposed("127.0.0.1:0", exposition) as port:
            assert (await asked(port))[2] == "x 1\n"
            assert read == [asyncio.get_running_loop()]
            for line, status in (("POST /metrics", "405"), ("GET /", "404"), ("GET /metrics/../x", "404")):
                assert (await asked(port, line))[0].split()[1] == status
            assert len(read) == 1

    run(test())


def test_what_fails_is_told_without_why() -> None:
    def fails() -> bytes:
        raise ValueError("canary")

    async def test() -> None:
        async with exposed("127.0.0.1:0", fails) as port:
            status, _, body = await asked(port)
        assert "500" in status
        assert "canary" not in body

    run(test())


async def hung_up_on(reader: asyncio.StreamReader) -> bool:
    """Waits until the other end has, without a word."""
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True


def test_connections_that_say_nothing_are_few() -> None:
    async def test() -> None:
        async with exposed("127.0.0.1:0", lambda: b"x 1\n") as port:
            opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CONNECTIONS + 1)]
            reader, writer = opened.pop()
            async with asyncio.timeout(CONNECTION_SECONDS / 6):
                assert await hung_up_on(reader)
            writer.close()
            assert (await answered(*opened.pop()))[2] == "x 1\n"  # one that was let in
            for _, writer in opened:
                writer.close()

    run(test())


def test_connections_that_say_nothing_do_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "CONNECTION_SECONDS", 0.1)

    async def test() -> None:
        async with exposed("127.0.0.1:0", lambda: b"x 1\n") as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await hung_up_on(reader)
            writer.close()

    run(test())


def test_an_open_connection_does_not_hold_up_the_end() -> None:
    async def test() -> None:
        async with exposed("127.0.0.1:0", lambda: b"x 1\n") as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 2 * STOP_SECONDS
        writer.close()

    run(test())


def test_signals_are_left_to_the_service() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    async def test() -> None:
        before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        async with exposed("127.0.0.1:0", lambda: b"x 1\n") as port:
            await asked(port)
            assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before

    run(test())
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_an_address_that_is_taken_is_told() -> None:
    async def test(address: str) -> None:
        with pytest.raises(ConfigError, match=f"service.metrics: {address} cannot be listened at"):
            async with exposed(address, bytes):
                pass

    with socket.create_server(("127.0.0.1", 0)) as taken:
        run(test(f"127.0.0.1:{taken.getsockname()[1]}"))
