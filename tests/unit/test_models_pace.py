"""Requests per minute: even intervals, first come, first served, and nobody's turn is lost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable

import pytest

from orchestrator.errors import ConfigError
from orchestrator.models.retry import RetryPolicy, Transient, retry_policy, with_retries
from orchestrator.pace import Pace

INTERVAL = 0.05
DEADLINE = 10.0


def evenly(begun: float, times: Iterable[float]) -> bool:
    """No turn is earlier than the intervals since ``begun`` allow; how late it is noted depends on the machine."""
    return all(time - begun >= at * INTERVAL for at, time in enumerate(times))


async def note(pace: Pace, name: int, order: list[tuple[int, float]]) -> None:
    await pace.turn()
    order.append((name, time.monotonic()))


def test_turns_come_in_order_and_at_intervals() -> None:
    async def run() -> list[tuple[int, float]]:
        pace, order = Pace(60 / INTERVAL), []
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(*(note(pace, n, order) for n in range(5)))
        return order

    begun = time.monotonic()
    order = asyncio.run(run())
    assert [name for name, _ in order] == list(range(5))
    assert evenly(begun, (at for _, at in order))


def test_a_cancelled_caller_uses_up_no_turn() -> None:
    async def run() -> tuple[list[int], float]:
        pace, order = Pace(60 / INTERVAL), []
        await pace.turn()
        begun = time.monotonic()
        tasks = [asyncio.ensure_future(note(pace, n, order)) for n in range(50)]
        await asyncio.sleep(0)
        for task in tasks[:-1]:
            task.cancel()
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(*tasks, return_exceptions=True)
        return [name for name, _ in order], time.monotonic() - begun

    names, took = asyncio.run(run())
    assert names == [49]
    assert took < 49 * INTERVAL


def test_several_event_loops_share_the_pace() -> None:
    pace, order, begun = Pace(60 / INTERVAL), [], time.monotonic()
    for n in range(3):
        asyncio.run(note(pace, n, order))
    assert evenly(begun, (at for _, at in order))


def test_threads_share_the_pace_and_a_turn_is_one_threads_alone() -> None:
    pace, order, begun = Pace(60 / INTERVAL), [], time.monotonic()
    threads = [threading.Thread(target=lambda n=n: asyncio.run(note(pace, n, order))) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert sorted(name for name, _ in order) == list(range(6))
    assert evenly(begun, sorted(at for _, at in order))


def test_no_limit_is_no_wait() -> None:
    async def run() -> None:
        async with asyncio.timeout(DEADLINE):
            for _ in range(10_000):
                await Pace(None).turn()

    asyncio.run(run())


@pytest.mark.parametrize("per_minute", [0, -1, float("nan")])
def test_impossible_limits(per_minute: float) -> None:
    with pytest.raises(ConfigError, match="requests_per_minute"):
        Pace(per_minute)


def test_each_try_takes_a_turn_and_waiting_for_the_first_is_no_part_of_the_budget() -> None:
    async def run() -> list[float]:
        pace, times = Pace(60 / INTERVAL), []

        async def call() -> None:
            times.append(time.monotonic())
            if len(times) < 2:
                raise Transient("busy")

        await pace.turn()
        policy = RetryPolicy(attempts=2, budget=INTERVAL / 2, base_delay=0.0)
        async with asyncio.timeout(DEADLINE):
            await with_retries("m", call, policy, pace)
        return times

    begun = time.monotonic()
    times = asyncio.run(run())
    assert len(times) == 2
    assert evenly(begun, [begun, *times])


def test_what_retry_means() -> None:
    mine = RetryPolicy(attempts=2)
    assert retry_policy(mine) is mine
    assert retry_policy(True) == retry_policy(None) == RetryPolicy()
    assert retry_policy(False).attempts == 1
