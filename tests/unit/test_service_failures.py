"""Errors of the service, over a real connection: each is raised in the app as what it is, and nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest
from orchestrator_api.v1 import orchestrator_pb2 as pb
from orchestrator_api.v1 import orchestrator_pb2_grpc as stubs

from orchestrator import errors
from orchestrator.client.connection import AsyncConnection
from orchestrator.client.failures import NAMES
from orchestrator.errors import (
    CellblockError,
    ConfigError,
    OutcomeUnknown,
    Overloaded,
    ProtocolViolation,
    SandboxDied,
    ServiceError,
    ServiceUnavailable,
)
from orchestrator.sandbox.grpc_quiet import grpc
from orchestrator.service.failures import MAX_DETAILS, Failures
from orchestrator.service.transport import SERVER_OPTIONS

DEADLINE = 20.0  # seconds for anything that is waited for


class OfAnApp(ConfigError):
    """A kind of its own."""


class Failing(stubs.SandboxesServicer):
    """Fails with what it is given."""

    def __init__(self, error: Exception, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self.error, self.metadata, self.calls = error, metadata, 0

    async def Get(self, request: pb.SandboxId, context: Any) -> pb.Sandbox:
        self.calls += 1
        if self.metadata:
            context.set_trailing_metadata(self.metadata)
            await context.abort(grpc.StatusCode.ABORTED, "as it says")
        raise self.error

    async def Execute(self, request: pb.Execution, context: Any) -> AsyncIterator[pb.Event]:
        context.set_trailing_metadata((("cellblock-forkable", "0"),))
        yield pb.Event(number=1, json=b'{"kind":"output","stream":"stdout","text":"a"}')
        raise self.error

    async def WriteFile(self, requests: AsyncIterator[pb.FilePiece], context: Any) -> pb.Done:
        raise self.error


def asked(tmp_path: Path, servicer: Failing, ask: Any) -> Any:
    async def serve_and_ask() -> Any:
        address = f"unix:{tmp_path}/s"
        server = grpc.aio.server(options=SERVER_OPTIONS, interceptors=(Failures(),))
        stubs.add_SandboxesServicer_to_server(servicer, server)
        server.add_insecure_port(address)
        await server.start()
        connection = AsyncConnection(address, patience=1)
        try:
            return await ask(connection)
        finally:
            await connection.close()
            await server.stop(None)

    return asyncio.run(asyncio.wait_for(serve_and_ask(), DEADLINE))


def get(connection: AsyncConnection) -> Coroutine[Any, Any, Any]:
    return connection.sandboxes("Get", pb.SandboxId())


def told(tmp_path: Path, error: Exception, ask: Any = get) -> CellblockError:
    with pytest.raises(CellblockError) as caught:
        asked(tmp_path, Failing(error), ask)
    return caught.value


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_error_arrives_as_what_it_is(tmp_path: Path, name: str) -> None:
    made = told(tmp_path, NAMES[name](f"ünïque words of {name}"))
    assert type(made) is NAMES[name]
    assert str(made) == f"ünïque words of {name}"


def test_an_error_of_another_kind_arrives_as_the_nearest_that_is_known(tmp_path: Path) -> None:
    assert type(told(tmp_path, OfAnApp("words"))) is ConfigError


def test_when_to_try_again_and_what_the_cause_was_arrive_too(tmp_path: Path) -> None:
    overloaded = told(tmp_path, Overloaded("full", 2.5))
    assert isinstance(overloaded, Overloaded)
    assert 2.5 <= overloaded.retry_after < 2.6
    unknown = OutcomeUnknown("tools ran")
    unknown.__cause__ = ProtocolViolation("secret words")
    made = told(tmp_path, unknown)
    assert type(made.__cause__) is ProtocolViolation
    assert "secret" not in str(made.__cause__)


def test_long_and_odd_messages_are_cut_and_made_text(tmp_path: Path) -> None:
    made = told(tmp_path, SandboxDied("ü" * 100_000))
    assert 0 < len(str(made).encode()) <= MAX_DETAILS
    assert str(told(tmp_path, SandboxDied("\ud800 and\nlines"))) == "? and\nlines"


def test_what_should_never_be_raised_is_told_as_a_failure_without_its_words(tmp_path: Path) -> None:
    made = told(tmp_path, RuntimeError("canary of the service"))
    assert type(made) is ServiceError
    assert str(made) == "the service failed; its log says why"


@pytest.mark.parametrize("name", ["SystemExit", "os.system", "__class__", "errors", "", "Exception"])
def test_only_names_of_the_table_choose_a_class(tmp_path: Path, name: str) -> None:
    servicer = Failing(SandboxDied("x"), (("cellblock-error", name), ("retry-after-ms", "-1")))
    with pytest.raises(ServiceError, match="as it says") as caught:
        asked(tmp_path, servicer, get)
    assert type(caught.value) is ServiceError


def test_a_failure_that_the_service_names_is_not_asked_about_again(tmp_path: Path) -> None:
    servicer = Failing(ServiceUnavailable("the engine of the service is away"))
    with pytest.raises(ServiceUnavailable):
        asked(tmp_path, servicer, get)
    assert servicer.calls == 1


def test_a_stream_and_an_upload_fail_with_the_error_and_what_came_before_is_kept(tmp_path: Path) -> None:
    seen: list[Any] = []
    ends: list[Any] = []

    async def follow(connection: AsyncConnection) -> None:
        events = connection.follow("Sandboxes", "Execute", lambda after: pb.Execution(), on_end=ends.append)
        async for event in events:
            seen.append(event)

    assert type(told(tmp_path, SandboxDied("gone"), follow)) is SandboxDied
    assert [event.text for event in seen] == ["a"]
    assert ends[0]["cellblock-forkable"] == "0"

    async def write(connection: AsyncConnection) -> None:
        async def pieces() -> AsyncIterator[pb.FilePiece]:
            for _ in range(100):
                yield pb.FilePiece(data=bytes(1 << 16))

        await connection.again(lambda _: connection.stub("Sandboxes", "WriteFile")(pieces(), **connection.how(10)))

    assert type(told(tmp_path, errors.SandboxFileError("no room"), write)) is errors.SandboxFileError


def test_no_service_is_told_after_the_patience_and_names_no_class(tmp_path: Path) -> None:
    async def nobody() -> None:
        connection = AsyncConnection(f"unix:{tmp_path}/none", patience=0.3)
        try:
            await get(connection)
        finally:
            await connection.close()

    with pytest.raises(ServiceUnavailable, match=r"no orchestrator service has answered for 0\.3 s"):
        asyncio.run(asyncio.wait_for(nobody(), DEADLINE))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"address": "nonsense"}, "is no address of a service"),
        ({"address": "host:80"}, "needs a token"),
        ({"address": "host:80", "token": "a\nb"}, "without control characters"),
        ({"address": "unix:/" + "x" * 200}, "more than 107 bytes"),
        ({"address": "unix:/s", "tls": b"pem"}, "a socket needs none"),
        ({"address": "unix:/s", "patience": -1}, "patience"),
        ({"address": "unix:/s", "patience": float("nan")}, "patience"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        AsyncConnection(**arguments)


def test_a_client_belongs_to_one_event_loop_and_is_closed_once(tmp_path: Path) -> None:
    connection = AsyncConnection(f"unix:{tmp_path}/none", patience=0)

    async def use() -> None:
        await get(connection)

    with pytest.raises(ServiceUnavailable):
        asyncio.run(use())
    with pytest.raises(RuntimeError, match="event loop that used it first"):
        asyncio.run(use())
