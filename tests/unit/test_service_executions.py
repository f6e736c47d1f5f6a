"""Executions at the service: they end however often they are stopped, and what nobody reads is not kept for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any

import pytest
from orchestrator_api.v1 import orchestrator_pb2 as pb

from orchestrator import Config
from orchestrator.errors import SandboxClosed, SandboxError
from orchestrator.events import ExecutionEvent, Output
from orchestrator.service import executions as module
from orchestrator.service.app_tools import Hosts
from orchestrator.service.executions import Begun, Executions
from orchestrator.service.meters import Meters
from orchestrator.service.metrics import Metrics
from orchestrator.service.opening import Opening
from orchestrator.service.quotas import Accounts
from orchestrator.service.registry import Held, Registry
from orchestrator.service.sandboxes import Sandboxes
from tests.serving import somebody
from tests.unit.fake_sandbox import HANG, FakeSandbox, ran
from tests.unit.service_parts import MemoryUsages, run

ME = somebody("me")


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - bounded by run()
        await asyncio.sleep(0.01)


async def read(begun: Begun) -> list[int]:
    return [event.number async for event in begun.read(0)]


class Slow(FakeSandbox):
    """Its executions take their time to end when they are stopped, and so does its end."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.ending, self.may_end = asyncio.Event(), asyncio.Event()
        self.gone = 0

    async def stream(self, code: str, **more: Any) -> AsyncGenerator[ExecutionEvent, None]:
        try:
            yield Output("stdout", "on")
            await asyncio.Event().wait()
        finally:
            self.ending.set()
            await self.may_end.wait()

    async def close(self) -> None:
        await super().close()
        self.ending.set()
        await self.may_end.wait()
        self.gone += 1


def test_an_execution_that_is_stopped_twice_ends_once_and_its_reader_is_told() -> None:
    async def test() -> None:
        sandbox = Slow()
        executions = Executions(sandbox, "s1")
        begun = executions.begin("k", b"", 0, "endless", None, {})
        reading = asyncio.create_task(read(begun))
        await until(lambda: begun.is_running)
        stopping = [asyncio.create_task(executions.abandon("k"))]
        await sandbox.ending.wait()
        stopping += [asyncio.create_task(executions.abandon("k")), asyncio.create_task(executions.close())]
        assert not (await asyncio.wait(stopping, timeout=0.1))[0], "it has not ended"
        sandbox.may_end.set()
        await asyncio.gather(*stopping)
        with pytest.raises(SandboxError, match="given up"):
            await reading
        assert not executions.under_way

    run(test())


def test_what_nobody_reads_is_forgotten_the_last_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEFT_SECONDS", 0.05)

    async def test() -> None:
        executions = Executions(FakeSandbox([ran(stdout="x")]), "s1")
        begun = executions.begin("k", b"", 0, "1", None, {})
        await until(lambda: not executions._begun)
        assert begun.ended
        with pytest.raises(SandboxError, match="are not kept any more"):
            executions.begin("k", b"", 0, "1", None, {})

    run(test())


def test_of_what_nobody_reads_no_more_is_kept_than_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LEFT_BYTES", 10_000)

    async def test() -> None:
        executions = Executions(FakeSandbox([ran(stdout="x" * size) for size in (10, 3000, 10, 4000, 10)]), "s1")
        for key, kept in ("a", "a"), ("b", "ab"), ("c", "abc"), ("d", "abcd"), ("e", "cde"):
            begun = executions.begin(key, b"", 0, "1", None, {})
            await until(lambda begun=begun: begun.ended is not None)  # type: ignore[misc]
            assert "".join(executions._begun) == kept

    run(test())


def held(registry: Registry, sandbox: FakeSandbox, **more: Any) -> Held:
    return registry.add(Held(sandbox, ME.name, 0, **more))


def test_a_close_that_is_given_up_is_done_all_the_same_and_once() -> None:
    async def test() -> None:
        registry, sandbox, freed = Registry(), Slow(), list[str]()
        one = held(registry, sandbox, on_close=lambda: freed.append("place"))
        closing = [asyncio.create_task(registry.close(one)) for _ in range(2)]
        await sandbox.ending.wait()
        closing[0].cancel()
        await asyncio.wait(closing[:1])
        assert freed == []  # its container is there
        sandbox.may_end.set()
        await closing[1]
        assert (sandbox.closes, sandbox.gone, freed) == (1, 1, ["place"])
        with pytest.raises(SandboxClosed):
            registry.get(one.id, ME)

    run(test())


def test_the_end_of_all_waits_for_what_is_being_closed() -> None:
    async def test() -> None:
        registry, sandbox = Registry(), Slow()
        closing = asyncio.create_task(registry.close(held(registry, sandbox)))
        await sandbox.ending.wait()
        closing.cancel()
        with suppress(asyncio.CancelledError):
            await closing
        ending = asyncio.create_task(registry.close_all())
        assert not (await asyncio.wait({ending}, timeout=0.1))[0], "its container is there"
        sandbox.may_end.set()
        await ending
        assert sandbox.gone == 1

    run(test())


class Forking(FakeSandbox):
    """Forks when it may."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.may_fork = asyncio.Event()

    async def fork(self, at: Any = None) -> FakeSandbox:
        branch = await super().fork(at)
        self.forking.set()
        await self.may_fork.wait()
        return branch

    async def close(self) -> None:
        self.closes += 1  # and not the branch: it is not known yet


def test_a_branch_that_is_forked_while_its_sandbox_is_closed_is_closed_too() -> None:
    async def test() -> None:
        registry, sandbox = Registry(), Forking(forks=[[HANG]])
        meters = Meters(Accounts(MemoryUsages([0.0])), Metrics())
        service = Sandboxes(Opening(Config(), registry, Hosts(), meters), registry, lambda: ME, meters)
        one = held(registry, sandbox)
        forking = asyncio.create_task(service.Fork(pb.ForkAt(sandbox=one.id, key="k"), None))
        await sandbox.forking.wait()
        await registry.close(one)
        sandbox.may_fork.set()
        with pytest.raises(SandboxClosed):
            await forking
        assert [branch.closes for branch in sandbox.forked] == [1]
        assert len(registry) == 0

    run(test())
