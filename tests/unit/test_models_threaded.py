"""Blocking iterators whose items are had on the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import aclosing

import pytest

from orchestrator.models.threaded import MAX_WAITING, from_thread

WAIT = 10.0  # seconds until a test has failed


def all_of(source: Callable[[], Generator[int, None, None]]) -> list[int]:
    async def collected() -> list[int]:
        async with asyncio.timeout(WAIT), aclosing(from_thread(source)) as items:
            return [item async for item in items]

    return asyncio.run(collected())


def test_items_come_in_order_from_another_thread() -> None:
    threads = set()

    def source() -> Generator[int, None, None]:
        for number in range(MAX_WAITING * 3):
            threads.add(threading.current_thread())
            yield number

    assert all_of(source) == list(range(MAX_WAITING * 3))
    assert threading.current_thread() not in threads
    assert len(threads) == 1


def test_what_the_source_raises_is_raised_after_its_items() -> None:
    def source() -> Generator[int, None, None]:
        yield 1
        raise KeyError("broken")

    async def collected(seen: list[int]) -> None:
        async with asyncio.timeout(WAIT), aclosing(from_thread(source)) as items:
            async for item in items:
                seen.append(item)

    seen: list[int] = []
    with pytest.raises(KeyError, match="broken"):
        asyncio.run(collected(seen))
    assert seen == [1]


def test_a_source_does_not_run_ahead_of_a_slow_caller_and_is_closed_when_the_caller_leaves() -> None:
    made: list[int] = []
    full, closed = threading.Event(), threading.Event()

    def source() -> Generator[int, None, None]:
        try:
            for number in range(10 * MAX_WAITING):
                made.append(number)
                if number == MAX_WAITING:
                    full.set()
                yield number
        finally:
            closed.set()

    async def one() -> int:
        async with aclosing(from_thread(source)) as items:
            first = await anext(items)
            assert await asyncio.to_thread(full.wait, WAIT)
            return first

    assert asyncio.run(one()) == 0
    assert closed.wait(WAIT)
    # One item was taken, MAX_WAITING more fit, and for the one after that there may be no room.
    assert len(made) <= MAX_WAITING + 2


def test_a_caller_that_is_cancelled_does_not_wait_for_a_blocked_source() -> None:
    blocked, release, closed = threading.Event(), threading.Event(), threading.Event()

    def source() -> Generator[int, None, None]:
        try:
            blocked.set()
            release.wait(WAIT)
            yield 1
        finally:
            closed.set()

    async def given_up() -> None:
        async with aclosing(from_thread(source)) as items:
            task = asyncio.ensure_future(anext(items))
            assert await asyncio.to_thread(blocked.wait, WAIT)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(given_up())  # ends while the source is blocked: the loop waits for no thread
    assert not closed.is_set()
    release.set()
    assert closed.wait(WAIT)
