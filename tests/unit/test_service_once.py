"""A request that comes again with its key is an answer to the first one."""

from __future__ import annotations

import asyncio

import pytest
from orchestrator_api.v1 import orchestrator_pb2 as pb

from orchestrator.errors import ConfigError, Overloaded, SandboxDied
from orchestrator.service import once
from orchestrator.service.once import Once

REQUEST = pb.MakeCheckpoint(sandbox="s", name="n")


def test_the_work_is_done_once_for_all_who_ask_and_each_is_answered() -> None:
    async def ask() -> None:
        done: list[int] = []
        may_end = asyncio.Event()

        async def work() -> int:
            done.append(1)
            await may_end.wait()
            return len(done)

        keeper = Once()
        first = asyncio.create_task(keeper.do("me", "M", "k", REQUEST, work))
        await asyncio.sleep(0)
        first.cancel()  # its connection was lost
        second = asyncio.create_task(keeper.do("me", "M", "k", REQUEST, work))
        await asyncio.sleep(0)
        may_end.set()
        assert await second == 1
        assert await keeper.do("me", "M", "k", REQUEST, work) == 1
        assert await keeper.do("you", "M", "k", REQUEST, work) == 2, "keys are each caller's own"
        assert await keeper.do("me", "N", "k", REQUEST, work) == 3, "and each method's"
        with pytest.raises(ConfigError, match="used for another request"):
            await keeper.do("me", "M", "k", pb.MakeCheckpoint(sandbox="s", name="o"), work)

    asyncio.run(ask())


def test_a_failure_is_an_answer_like_another() -> None:
    async def ask() -> None:
        tries: list[int] = []

        async def work() -> None:
            tries.append(1)
            raise SandboxDied("gone")

        keeper = Once()
        for _ in range(3):
            with pytest.raises(SandboxDied):
                await keeper.do("me", "M", "k", REQUEST, work)
        assert len(tries) == 1

    asyncio.run(ask())


@pytest.mark.parametrize("key", ["", "k" * 65, "with space", "ü", "a\nb", "\0"])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    async def work() -> None:
        raise AssertionError("it was done")

    with pytest.raises(ConfigError, match="a request needs a key"):
        asyncio.run(Once().do("me", "M", key, REQUEST, work))


def test_what_is_kept_is_bounded_and_nothing_under_way_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "MAX_KEPT", 3)

    async def ask() -> None:
        may_end = asyncio.Event()
        done: list[int] = []

        async def work() -> None:
            await may_end.wait()
            done.append(1)

        keeper = Once()
        tasks = [asyncio.create_task(keeper.do("me", "M", f"k{i}", REQUEST, work)) for i in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await keeper.do("me", "M", "k3", REQUEST, work)
        may_end.set()
        await asyncio.gather(*tasks)
        for i in range(10):
            await keeper.do("me", "M", f"later{i}", REQUEST, work)
        assert len(done) == 13
        await keeper.do("me", "M", "later9", REQUEST, work)
        assert len(done) == 13

    asyncio.run(ask())
