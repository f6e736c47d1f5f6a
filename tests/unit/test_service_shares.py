"""What one token leaves open, or asks for by the thousand, is in the way of no other one."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from orchestrator_api.v1 import orchestrator_pb2 as pb
from orchestrator_api.v1 import orchestrator_pb2_grpc as rpc

from orchestrator import Config
from orchestrator.errors import Overloaded
from orchestrator.events import Execution, ExecutionEvent, Finished, Output, State, Status, Usage
from orchestrator.service import once
from orchestrator.service.access import Caller
from orchestrator.service.app_tools import MAX_HELD, Outgoing
from orchestrator.service.meters import Meters
from orchestrator.service.metrics import Metrics
from orchestrator.service.once import Once
from orchestrator.service.quotas import Accounts, Quotas
from orchestrator.service.scopes import SANDBOXES
from orchestrator.service.shares import Shares
from tests.serving import Serving, somebody
from tests.unit.service_parts import MemoryUsages, run


@pytest.fixture
def server() -> Iterator[Serving]:
    serving = Serving(Config())
    yield serving
    serving.close()


def test_files_that_are_begun_and_not_sent_keep_nobody_else_waiting(server: Serving) -> None:
    async def ask() -> None:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = rpc.SandboxesStub(channel)
            server.caller = somebody("idle")
            idle = [stub.WriteFile() for _ in range(8)]
            await asyncio.gather(*(call.wait_for_connection() for call in idle))
            await asyncio.sleep(0.2)  # for the service to have begun with them: nothing tells when it has
            server.caller = somebody("busy")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.WriteFile(_pieces(), timeout=5, metadata=[("cellblock-key", "k")])
            assert refused.value.code() == grpc.StatusCode.NOT_FOUND
            for call in idle:
                call.cancel()

    run(ask())


async def _pieces() -> AsyncIterator[pb.FilePiece]:
    yield pb.FilePiece(sandbox="none", path=b"f", data=b"x")


def test_each_owner_has_shares_of_his_own() -> None:
    async def ask() -> None:
        shares = Shares(2)
        async with shares.one("a"), shares.one("a"), shares.one("b"):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05), shares.one("a"):
                    pass
        async with shares.one("a"):
            pass

    run(ask())


def test_requests_of_one_owner_neither_forget_nor_refuse_anothers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "MAX_KEPT", 3)

    async def ask() -> None:
        done: list[str] = []

        async def work() -> None:
            done.append("")

        keeper, endless = Once(), asyncio.Event()
        await keeper.do("quiet", "M", "k", StringValue(), work)
        waiting = [asyncio.create_task(keeper.do("loud", "M", f"{i}", StringValue(), endless.wait)) for i in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await keeper.do("loud", "M", "3", StringValue(), work)
        await keeper.do("quiet", "M", "k", StringValue(), work)  # it comes again, as its answer was lost
        assert len(done) == 1
        await keeper.do("quiet", "M", "k2", StringValue(), work)
        assert len(done) == 2
        endless.set()
        await asyncio.gather(*waiting)

    run(ask())


def test_closing_a_sandbox_in_time_does_not_make_its_execution_free() -> None:
    async def endless() -> AsyncGenerator[ExecutionEvent, None]:
        yield Output("stdout", "on")
        await asyncio.Event().wait()

    async def ask() -> None:
        accounts = Accounts(MemoryUsages([0.0]))
        meters = Meters(accounts, Metrics())
        async with aclosing(meters.counted(somebody("me"), endless())) as events:
            async for _ in events:
                await asyncio.sleep(0.05)
                break
        assert 0.05 <= (await accounts.account("me")).cpu_seconds < 5

    run(ask())


def test_an_execution_whose_time_cannot_be_written_has_its_result_and_is_written_later() -> None:
    async def execution() -> AsyncGenerator[ExecutionEvent, None]:
        yield Finished(Execution(Status.OK, State.KEPT, 1, usage=Usage(cpu_seconds=2.0)))

    async def ask() -> None:
        usages = MemoryUsages([0.0], is_broken=True)
        accounts = Accounts(usages)
        meters = Meters(accounts, Metrics())
        assert [event async for event in meters.counted(somebody("me"), execution())]
        assert (await accounts.account("me")).cpu_seconds == 2.0
        usages.is_broken = False
        assert [event async for event in meters.counted(somebody("me"), execution())]
        assert usages.days["me", 0].cpu_seconds == 4.0

    run(ask())


def test_an_app_that_takes_nothing_of_what_it_is_told_keeps_the_service_from_nothing(server: Serving) -> None:
    opening = pb.FromApp(opening=pb.Opening(host="ab" * 16, holds=range(1, MAX_HELD + 1)))
    too_many = pb.FromApp(opening=pb.Opening(host="cd" * 16, holds=range(1, MAX_HELD + 2)))

    async def ask() -> None:
        async with grpc.aio.insecure_channel(server.address) as channel:
            calls = [rpc.ToolsStub(channel).Serve() for _ in range(20)]
            for call in calls:
                await call.write(opening)
                assert (await call.read()).WhichOneof("kind") == "opened"
            waiting = [one for one in gc.get_objects() if isinstance(one, Outgoing)]
            assert sum(one.queue.qsize() for one in waiting) <= MAX_HELD + 20
            told = {(await calls[-1].read()).cancel.call for _ in range(MAX_HELD)}
            assert told == set(range(1, MAX_HELD + 1))
            last = rpc.ToolsStub(channel).Serve()
            await last.write(too_many)
            with pytest.raises(grpc.aio.AioRpcError, match="begins with an Opening"):
                await last.read()
            for call in calls:
                call.cancel()

    run(ask(), 120.0)  # of which a loaded machine needs some for so many messages


def test_an_execution_that_waited_for_its_turn_is_refused_when_those_before_it_have_used_all_up() -> None:
    begun: list[int] = []

    async def execution() -> AsyncGenerator[ExecutionEvent, None]:
        begun.append(1)
        yield Output("stdout", "on")

    async def ask() -> None:
        accounts = Accounts(MemoryUsages([0.0]))
        meters, who = Meters(accounts, Metrics()), Caller("me", frozenset({SANDBOXES}), Quotas(cpu_seconds=1))
        await meters.check(who)  # both are let in
        await accounts.add_cpu("me", 2)  # the first one's
        with pytest.raises(Overloaded, match="processor time"):
            async for _ in meters.counted(who, execution()):
                pass
        assert not begun

    run(ask())
