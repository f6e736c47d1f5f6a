"""What a client does when calls are given up, lost or fail; its other end is a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from orchestrator_api.v1 import orchestrator_pb2 as pb
from orchestrator_api.v1 import orchestrator_pb2_grpc as stubs

from orchestrator.client import AsyncClient
from orchestrator.errors import EngineError, ServiceUnavailable
from orchestrator.sandbox.grpc_quiet import grpc
from orchestrator.service.app_tools import Hosts, Tools
from orchestrator.service.failures import Failures
from tests.unit.service_parts import run


class Boxes(stubs.SandboxesServicer):
    """Closes a sandbox when it may."""

    def __init__(self) -> None:
        self.closes, self.closing, self.may_close = list[str](), asyncio.Event(), asyncio.Event()
        self.is_broken = False
        self.tokens = Tokens()

    async def Create(self, request: pb.CreateSandbox, context: Any) -> pb.Sandbox:
        return pb.Sandbox(id="box", forkable=True)

    async def Close(self, request: pb.SandboxId, context: Any) -> pb.Done:
        self.closes.append(request.id)
        self.closing.set()
        if self.is_broken:
            raise EngineError("the container cannot be removed")
        await self.may_close.wait()
        return pb.Done()


class Tokens(stubs.ServiceServicer):
    """Loses the first answer of each kind."""

    def __init__(self) -> None:
        self.asked = list[str]()

    async def CreateToken(self, request: pb.NewToken, context: Any) -> pb.CreatedToken:
        return await self._lost("create", context, pb.CreatedToken())

    async def RevokeToken(self, request: pb.TokenName, context: Any) -> pb.Done:
        return await self._lost("revoke", context, pb.Done())

    async def _lost(self, kind: str, context: Any, answer: Any) -> Any:
        self.asked.append(kind)
        if self.asked.count(kind) == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "as a connection that breaks")
        return answer


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[tuple[Boxes, AsyncClient]]:
    boxes, hosts, server = Boxes(), Hosts(), grpc.aio.server(interceptors=(Failures(),))
    stubs.add_ServiceServicer_to_server(boxes.tokens, server)
    stubs.add_SandboxesServicer_to_server(boxes, server)
    stubs.add_ToolsServicer_to_server(Tools(hosts, lambda: "me"), server)
    server.add_insecure_port(f"unix:{folder}/s")
    await server.start()
    try:
        async with AsyncClient(f"unix:{folder}/s") as client:
            yield boxes, client
    finally:
        hosts.close()
        await server.stop(None)


def test_a_close_that_was_given_up_is_made_again_by_the_next_one(tmp_path: Path) -> None:
    async def test() -> None:
        async with served(tmp_path) as (boxes, client):
            sandbox = client.sandbox()
            await sandbox.start()
            closing = asyncio.create_task(sandbox.close())
            await boxes.closing.wait()
            closing.cancel()
            await asyncio.wait({closing})
            assert not sandbox.is_running
            boxes.may_close.set()
            await sandbox.close()
            assert (boxes.closes, sandbox.id) == (["box", "box"], "")
            await sandbox.close()
            assert not client.connection.open_sandboxes
        assert boxes.closes == ["box", "box"]

    run(test())


def test_a_close_that_failed_is_told_and_the_sandbox_is_no_more(tmp_path: Path) -> None:
    async def test() -> None:
        async with served(tmp_path) as (boxes, client):
            sandbox = client.sandbox()
            await sandbox.start()
            boxes.is_broken = True
            with pytest.raises(EngineError):
                await sandbox.close()
            await sandbox.close()
            assert (boxes.closes, sandbox.id, client.connection.open_sandboxes) == (["box"], "", set())

    run(test())


def test_what_would_be_refused_the_second_time_is_asked_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with served(tmp_path) as (boxes, client):
            await client.connection.ask("Service", "RevokeToken", pb.TokenName(name="app"))
            with pytest.raises(ServiceUnavailable):
                await client.connection.ask("Service", "CreateToken", pb.NewToken(name="app"))
            assert boxes.tokens.asked == ["revoke", "revoke", "create"]

    run(test())
