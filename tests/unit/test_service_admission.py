"""Slots and the queue before them: fair, bounded, and no slot is ever lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import ConfigError, Overloaded, ServiceUnavailable
from orchestrator.service.admission import MAX_RETRY, MIN_RETRY, Admission
from tests.unit.service_parts import run


class Work:
    """A piece of work that holds its slot until it is told to end."""

    def __init__(self, admission: Admission, name: str, log: list[str]) -> None:
        self.name = name
        self.has_slot = False
        self.end = asyncio.Event()
        self._log = log
        self.task = asyncio.create_task(self._work(admission))

    async def _work(self, admission: Admission) -> None:
        async with slot(admission, self.name):
            self.has_slot = True
            self._log.append(self.name)
            try:
                await self.end.wait()
            finally:
                self.has_slot = False


@asynccontextmanager
async def slot(admission: Admission, name: str) -> AsyncIterator[None]:
    """Until the end of the block; waits for it."""
    turn = admission.enter(name)
    try:
        await turn.come()
        yield
    finally:
        turn.leave()


async def settled() -> None:
    """Everything that can go on has gone on."""
    for _ in range(6):
        await asyncio.sleep(0)


async def ended(works: Sequence[Work]) -> None:
    """All of them, in whatever order they get their slots."""
    for work in works:
        work.end.set()
    await asyncio.gather(*(work.task for work in works), return_exceptions=True)


# -------------------------------------------------------------------------------------------------------- properties

NAMES = "abcd"
ACTIONS = st.lists(
    st.tuples(st.sampled_from(["ask", "ask", "end", "cancel", "settle"]), st.sampled_from(NAMES), st.integers(0, 30)),
    max_size=80,
)


@settings(max_examples=60)
@given(st.integers(1, 4), st.integers(0, 9), ACTIONS)
def test_whatever_is_asked_ended_and_cancelled_no_slot_is_lost_or_given_twice(
    slots: int, queue: int, actions: list[tuple[str, str, int]]
) -> None:
    async def test() -> None:
        admission, works = Admission(slots, queue), list[Work]()
        for action, name, number in actions:
            match action:
                case "ask":
                    works.append(Work(admission, name, []))
                case "end" if works:
                    works[number % len(works)].end.set()
                case "cancel" if works:
                    works[number % len(works)].task.cancel()
                case "settle":
                    await settled()
                    _check(admission, works, slots, queue)
        await settled()
        _check(admission, works, slots, queue)
        await ended(works)
        assert (admission.held, admission.waiting) == (0, 0)
        for work in works:
            assert work.task.cancelled() or isinstance(work.task.exception(), Overloaded | None)
        await ended(again := [Work(admission, name, []) for name in NAMES[:slots]])
        assert all(work.task.exception() is None for work in again)  # each at once: they could not have waited

    run(test())


def _check(admission: Admission, works: list[Work], slots: int, queue: int) -> None:
    assert admission.held == sum(work.has_slot for work in works) <= slots
    assert admission.waiting == sum(not work.task.done() and not work.has_slot for work in works) <= queue
    assert not admission.waiting or admission.held == slots  # nobody waits while a slot is free


@settings(max_examples=60)
@given(st.integers(1, 3), st.lists(st.sampled_from(NAMES), min_size=1, max_size=40), st.data())
def test_a_slot_goes_to_who_waits_and_holds_the_fewest(slots: int, asking: list[str], data: st.DataObject) -> None:
    async def test() -> None:
        admission, log = Admission(slots, 1000), list[str]()
        works = [Work(admission, name, log) for name in asking]
        await settled()
        while any(not work.task.done() for work in works):
            holding = [work for work in works if work.has_slot]
            ending = data.draw(st.sampled_from(holding))
            waiting = {work.name for work in works if not work.task.done() and not work.has_slot}
            held = Counter(work.name for work in holding if work is not ending)
            before = len(log)
            ending.end.set()
            await settled()
            assert len(log) - before == bool(waiting)
            if waiting:
                assert held[log[-1]] == min(held[name] for name in waiting)

    run(test())


@settings(max_examples=60)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=4))
def test_one_slot_is_taken_in_turns(amounts: list[int]) -> None:
    """Of those who still have something to do nobody is served twice before all others are."""

    async def test() -> None:
        admission, log = Admission(1, 1000), list[str]()
        first = Work(admission, "first", log)
        await settled()
        works = [
            Work(admission, name, log) for name, amount in zip(NAMES, amounts, strict=False) for _ in range(amount)
        ]
        await settled()
        await ended([first, *works])
        left = Counter(dict(zip(NAMES, amounts, strict=False)))
        turn = set[str]()
        for name in log[1:]:
            assert name not in turn or not {other for other in left if left[other]} - turn
            turn = {name} if name in turn else turn | {name}
            left[name] -= 1
        assert not any(left.values())

    run(test())


# ------------------------------------------------------------------------------------------------------------- cases


def test_who_comes_back_again_and_again_does_not_push_aside_who_waits() -> None:
    async def test() -> None:
        admission, log = Admission(1, 100), list[str]()
        stop = asyncio.Event()

        async def again(name: str) -> None:
            while not stop.is_set():
                async with slot(admission, name):
                    log.append(name)
                    await asyncio.sleep(0)

        tasks = [asyncio.create_task(again(name)) for name in "bc"]
        await settled()
        patient = [Work(admission, "a", log) for _ in range(10)]
        await ended(patient)
        stop.set()
        await asyncio.gather(*tasks)
        served = "".join(log)
        between = served[served.index("a") + 1 : served.rindex("a")].split("a")
        assert len(between) == 9
        assert max(map(len, between)) <= 2

    run(test())


def test_one_that_asks_for_everything_leaves_room_for_others() -> None:
    async def test() -> None:
        admission = Admission(1, 12)
        works = [Work(admission, "greedy", []) for _ in range(50)]
        await settled()
        assert (admission.held, admission.waiting) == (1, 6)
        works += [Work(admission, "too", []) for _ in range(50)]
        await settled()
        assert admission.waiting == 9
        works += [newcomer := Work(admission, "modest", [])]
        await settled()
        assert not newcomer.task.done()
        await ended(works)
        refused = [error for work in works if (error := work.task.exception())]
        assert len(refused) == 101 - 11
        assert all(isinstance(error, Overloaded) and error.retry_after >= MIN_RETRY for error in refused)

    run(test())


def test_without_a_queue_nobody_waits() -> None:
    async def test() -> None:
        admission = Admission(1, 0)
        async with slot(admission, "a"):
            with pytest.raises(Overloaded, match=r"too many are waiting \(0\)") as caught:
                async with slot(admission, "b"):
                    pytest.fail("there were two")
        assert MIN_RETRY <= caught.value.retry_after <= MAX_RETRY
        async with slot(admission, "b"):
            assert admission.held == 1

    run(test())


def test_who_is_answered_before_it_waits_is_told_that_there_is_no_room() -> None:
    async def test() -> None:
        admission = Admission(1, 2)
        first, second = admission.enter("a"), admission.enter("a")
        await first.come()
        with pytest.raises(Overloaded, match=r"too many are waiting \(1\)"):
            admission.enter("a")
        left = [admission.enter("b"), *(admission.enter("a", again=True) for _ in range(3))]  # whatever the queue holds
        for turn in left:
            turn.leave()  # out of the queue
        first.leave()
        first.leave()
        assert (admission.held, admission.waiting) == (1, 0)
        await second.come()
        third = admission.enter("b")
        admission.close()
        with pytest.raises(ServiceUnavailable):
            admission.enter("b")
        with pytest.raises(ServiceUnavailable):
            await third.come()
        third.leave()
        second.leave()
        assert admission.held == 0

    run(test())


def test_what_fails_in_a_slot_gives_it_back() -> None:
    async def test() -> None:
        admission = Admission(1, 0)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                async with slot(admission, "a"):
                    raise ZeroDivisionError
        assert admission.held == 0

    run(test())


def test_a_slot_that_comes_as_its_waiter_is_cancelled_goes_to_the_next() -> None:
    async def test() -> None:
        admission, log = Admission(1, 10), list[str]()
        first, second, third = (Work(admission, name, log) for name in "abc")
        await settled()
        first.end.set()
        await asyncio.wait({first.task})
        second.task.cancel()  # the slot is its already, and it has not gone on yet
        await settled()
        assert second.task.cancelled()
        assert third.has_slot
        assert (admission.held, admission.waiting) == (1, 0)
        await ended([third])

    run(test())


def test_who_waits_is_sent_away_when_the_service_stops_and_who_works_goes_on() -> None:
    async def test() -> None:
        admission = Admission(1, 10)
        works = [Work(admission, name, []) for name in "aabc"]
        await settled()
        admission.close()
        admission.close()
        await settled()
        assert works[0].has_slot
        assert [type(work.task.exception()) for work in works[1:]] == [ServiceUnavailable] * 3
        await ended(works)
        with pytest.raises(ServiceUnavailable, match="is stopping"):
            async with slot(admission, "a"):
                pytest.fail("it was let in")

    run(test())


def test_how_long_each_has_waited_is_told() -> None:
    async def test() -> None:
        told: list[float] = []
        admission = Admission(1, 10, told.append)
        works = [Work(admission, "a", []) for _ in range(3)]
        await settled()
        await ended(works)
        assert len(told) == 3
        assert 0 <= told[0] <= told[1] <= told[2] < 10

    run(test())


def test_there_is_at_least_one_slot() -> None:
    with pytest.raises(ConfigError):
        Admission(0, 1)
