"""A task that is cancelled at any moment of a sandbox's life: it waits until nothing is left, without a collector."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Any

import pytest

from orchestrator import AsyncSandbox, Config
from orchestrator.errors import SandboxClosed
from orchestrator.sandbox.link import Link
from tests.conftest import none_of_mine
from tests.faults import moments
from tests.faults.traces import DEADLINE, Made, nothing_left, reaped

pytestmark = pytest.mark.docker

LOOK_AGAIN = 0.02  # seconds


def cancel(task: asyncio.Task[Any], loop: asyncio.AbstractEventLoop) -> None:
    """From the task's own loop, or from another thread; that one waits until the task has noticed.

    That thread may be the product's, in the middle of a removal that nobody waits for any more: the loop may end first,
    and then nothing is raised, or what was to be removed would be left.
    """
    if asyncio._get_running_loop() is loop:
        task.cancel()
        return
    noticed = threading.Event()
    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(task.cancel)
        loop.call_soon_threadsafe(loop.call_soon, loop.call_soon, noticed.set)
    while not loop.is_closed() and not noticed.wait(LOOK_AGAIN):
        pass


async def cancelled_at(moment: str, config: Config, again: bool = False) -> None:
    """Lives until the moment and is cancelled there; also in every turn of the loop after that, if ``again``."""
    loop, begin, cancelled = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    async def wait_and_live() -> None:
        await begin.wait()
        await moments.live(config, reached)

    def then() -> None:
        cancelled.set()
        cancel(task, loop)

    task = asyncio.create_task(wait_and_live())
    with moments.at(moment, then) as reached:
        begin.set()
        async with asyncio.timeout(DEADLINE):
            while again and not task.done():
                await asyncio.sleep(0)
                if cancelled.is_set():
                    task.cancel()
            await asyncio.wait({task})
    assert task.cancelled()


@pytest.mark.parametrize("moment", moments.ALL)
def test_cancelled_at_this_moment_it_leaves_nothing(moment: str, quick: Config, sessions: list[Made]) -> None:
    asyncio.run(cancelled_at(moment, quick))
    none_of_mine(quick)
    nothing_left(quick, *sessions)


@pytest.mark.parametrize("moment", [*moments.STARTING, *moments.CLOSING, "code runs", "a branch is asked for"])
def test_cancelled_again_and_again_it_leaves_nothing(moment: str, quick: Config, sessions: list[Made]) -> None:
    asyncio.run(cancelled_at(moment, quick, again=True))
    reaped(quick, *sessions)


def test_many_starts_that_are_cancelled_at_once_leave_nothing(quick: Config, sessions: list[Made]) -> None:

    async def storm() -> None:
        starting = [asyncio.create_task(AsyncSandbox(config=quick).start()) for _ in range(12)]
        await asyncio.sleep(0)
        for task in starting:
            task.cancel()
        await asyncio.wait(starting)
        assert all(task.cancelled() for task in starting)

    asyncio.run(storm())
    none_of_mine(quick)
    nothing_left(quick, *sessions)


def test_a_close_that_is_cancelled_closes_all_the_same(quick: Config, sessions: list[Made]) -> None:
    async def main() -> None:
        sandbox = AsyncSandbox(config=quick)
        await sandbox.start()
        await sandbox.fork()
        closing = asyncio.create_task(sandbox.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait({closing})
        assert not sandbox.is_running

    asyncio.run(main())
    none_of_mine(quick)
    nothing_left(quick, *sessions)


def test_a_start_that_is_cancelled_when_its_container_is_up_gives_it_up(
    quick: Config, sessions: list[Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What dead owners left is still being swept then. Nobody would close what ``async with`` has not entered."""

    original = Link.start

    async def main() -> None:
        is_up, forever = asyncio.Event(), asyncio.Event()

        async def start(*args: Any, **kwargs: Any) -> Link:
            link = await original(*args, **kwargs)
            is_up.set()
            return link

        async def sweep(_: Config) -> None:
            await forever.wait()

        monkeypatch.setattr(Link, "start", start)
        monkeypatch.setattr("orchestrator.sandbox.life.sweep", sweep)
        sandbox = AsyncSandbox(config=quick)
        starting = asyncio.create_task(sandbox.start())
        async with asyncio.timeout(DEADLINE):
            await is_up.wait()
        assert sandbox.is_running
        starting.cancel()
        await asyncio.wait({starting})
        assert starting.cancelled()
        assert not sandbox.is_running

    asyncio.run(main())
    none_of_mine(quick)
    nothing_left(quick, *sessions)


def test_after_a_caller_that_was_cancelled_twice_the_next_one_is_served(quick: Config, sessions: list[Made]) -> None:
    """The second time while what the first left behind is being seen to."""

    async def main() -> None:
        async with AsyncSandbox(config=quick) as sandbox:
            for turns in range(8):
                runs = asyncio.Event()
                hangs = sandbox.run_code("print('go')\nwhile True: pass", on_stdout=lambda _, runs=runs: runs.set())
                code = asyncio.create_task(hangs)
                async with asyncio.timeout(DEADLINE):
                    await runs.wait()
                code.cancel()
                for _ in range(turns):
                    await asyncio.sleep(0)
                code.cancel()
                await asyncio.wait({code})
                assert (await sandbox.run_code("1 + 1")).value == 2

    asyncio.run(main())
    nothing_left(quick, *sessions)


def test_a_close_waits_for_the_start_that_it_ends(quick: Config, sessions: list[Made]) -> None:
    async def main() -> None:
        sandbox, asked = AsyncSandbox(config=quick), asyncio.Event()
        loop = asyncio.get_running_loop()
        with moments.at("the container is created", lambda: loop.call_soon_threadsafe(asked.set)):
            starting = asyncio.create_task(sandbox.start())
            async with asyncio.timeout(DEADLINE):
                await asked.wait()
            await sandbox.close()
        none_of_mine(quick)
        await asyncio.wait({starting}, timeout=DEADLINE)
        with pytest.raises(SandboxClosed):
            starting.result()

    asyncio.run(main())
    nothing_left(quick, *sessions)
