"""Health by the standard protocol, open to all; reflection only if it is set on."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc as rpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from orchestrator.errors import ConfigError
from orchestrator.service import health
from orchestrator.service.access import Access
from orchestrator.service.health import SERVICES, Health, enable_reflection
from tests.unit.service_parts import MemoryTokens, bearer, run, serving

SERVING, NOT_SERVING = pb.HealthCheckResponse.SERVING, pb.HealthCheckResponse.NOT_SERVING
UNKNOWN = pb.HealthCheckResponse.SERVICE_UNKNOWN
TOKEN = f"cbk_{'t' * 43}"


class Parts:
    """What the server has besides."""

    def __init__(self, reflection: bool = False, serves: bool = True) -> None:
        self._reflection = reflection
        self._serves = serves

    def add(self, server: grpc.aio.Server) -> None:
        self.health = Health(server, serves=self._serves)
        if self._reflection:
            enable_reflection(server)


def access() -> Access:
    kept = MemoryTokens()
    kept.put(TOKEN, "app", "runs")
    return Access(kept)


def test_it_serves_until_it_drains_and_no_token_is_needed_to_ask(tmp_path: Path) -> None:
    async def test() -> None:
        parts = Parts()
        async with serving(tmp_path, access(), more=[parts.add]) as served, served.remote() as channel:
            stub = rpc.HealthStub(channel)
            for name in ("", *SERVICES):
                assert (await stub.Check(pb.HealthCheckRequest(service=name))).status == SERVING
            parts.health.drain()
            for name in ("", *SERVICES):
                assert (await stub.Check(pb.HealthCheckRequest(service=name))).status == NOT_SERVING
            listed = await stub.List(pb.HealthListRequest())
            assert {name: found.status for name, found in listed.statuses.items()} == dict.fromkeys(
                ("", *SERVICES), NOT_SERVING
            )

    run(test())


def test_a_service_that_is_not_there_is_unknown(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path, access(), more=[Parts().add]) as served, served.local() as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await rpc.HealthStub(channel).Check(pb.HealthCheckRequest(service="none"))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            watch = aiter(rpc.HealthStub(channel).Watch(pb.HealthCheckRequest(service="none")))
            assert (await anext(watch)).status == UNKNOWN

    run(test())


def test_who_watches_is_told_of_the_change_though_another_watcher_does_not_read(tmp_path: Path) -> None:
    async def test() -> None:
        parts = Parts(serves=False)
        async with serving(tmp_path, access(), more=[parts.add]) as served, served.local() as channel:
            stub = rpc.HealthStub(channel)
            lazy = stub.Watch(pb.HealthCheckRequest())
            watch = aiter(stub.Watch(pb.HealthCheckRequest()))
            assert (await anext(watch)).status == NOT_SERVING
            parts.health.serve()
            assert (await anext(watch)).status == SERVING
            parts.health.drain()
            assert (await anext(watch)).status == NOT_SERVING
            lazy.cancel()

    run(test())


def test_watchers_are_bounded_and_those_who_go_make_room(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path, access(), more=[Parts().add]) as served, served.local() as channel:
            stub = rpc.HealthStub(channel)
            watches = [stub.Watch(pb.HealthCheckRequest()) for _ in range(health.MAX_WATCHERS)]
            for watch in watches:
                assert (await watch.read()).status == SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Watch(pb.HealthCheckRequest()).read()
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            watches[0].cancel()
            while True:  # the server hears of it a moment later
                again = stub.Watch(pb.HealthCheckRequest())
                try:
                    assert (await again.read()).status == SERVING
                    break
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.01)

    run(test())


async def _services(channel: grpc.aio.Channel, metadata: Any = ()) -> set[str]:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]), metadata=metadata)
    return {service.name for service in (await anext(aiter(call))).list_services_response.service}


async def _refusal(channel: grpc.aio.Channel) -> grpc.StatusCode:
    """Nothing is sent: a write that meets a stream that is over already has a status of its own."""
    code: grpc.StatusCode = await reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo().code()
    return code


def test_reflection_is_off_unless_it_is_set_on(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path, access(), more=[Parts().add]) as served, served.local() as channel:
            assert await _refusal(channel) is grpc.StatusCode.UNIMPLEMENTED

    run(test())


def test_reflection_tells_whoever_has_a_token(tmp_path: Path) -> None:
    async def test() -> None:
        parts = Parts(reflection=True)
        async with serving(tmp_path, access(), more=[parts.add]) as served, served.remote() as channel:
            assert await _services(channel, bearer(TOKEN)) >= {*SERVICES, "grpc.health.v1.Health"}
            assert await _refusal(channel) is grpc.StatusCode.UNAUTHENTICATED

    run(test())


def test_without_the_packages_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        for module, make in (
            ("grpc_health.v1.health_pb2", Health),
            ("grpc_reflection.v1alpha.reflection", enable_reflection),
        ):
            monkeypatch.setitem(sys.modules, module, None)
            with pytest.raises(ConfigError, match=r"pip install 'cellblock\[service\]'"):
                make(grpc.aio.server())

    run(test())
