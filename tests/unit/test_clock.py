"""The clock of an execution, on a loop whose time the test sets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from orchestrator.sandbox.clock import LONGEST, Clock


class Loop(asyncio.SelectorEventLoop):
    now = 1000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def run() -> Iterator[Callable[[Callable[[Loop], None]], None]]:
    loop = Loop()

    def run(case: Callable[[Loop], None]) -> None:
        loop.call_soon(lambda: (case(loop), loop.stop()))
        failures: list[object] = []
        loop.set_exception_handler(lambda _, context: (failures.append(context), loop.stop()))
        loop.run_forever()
        assert failures == []

    yield run
    loop.close()


Run = Callable[[Callable[[Loop], None]], None]


def test_time_goes_by(run: Run) -> None:
    def case(loop: Loop) -> None:
        told: list[float] = []
        clock = Clock(30, 300, 20, told.append)
        assert clock.deadline == 1050
        loop.now += 10
        assert clock.deadline == 1050
        clock.start()
        assert clock.deadline == 1060
        assert told == []

    run(case)


def test_it_stands_still_while_somebody_is_asked(run: Run) -> None:
    def case(loop: Loop) -> None:
        told: list[float] = []
        clock = Clock(30, 300, 20, told.append)
        loop.now += 10
        with clock.stopped():
            assert told == [320], "what is left, and the patience"
            assert clock.deadline == 1010 + 320 + 20
            loop.now += 100
        assert told == [320, 20]
        assert clock.deadline == 1110 + 20 + 20
        loop.now += 5
        with clock.stopped():
            loop.now += 1
        assert told == [320, 20, 15 + 200, 15]

    run(case)


def test_questions_at_the_same_time_stop_it_once(run: Run) -> None:
    def case(loop: Loop) -> None:
        told: list[float] = []
        clock = Clock(30, 300, 20, told.append)
        with clock.stopped():
            loop.now += 10
            with clock.stopped():
                loop.now += 10
            assert told == [330]
            loop.now += 10
        assert told == [330, 30]

    run(case)


def test_questions_that_overlap_for_ever_do_not_stop_it_for_ever(run: Run) -> None:
    def case(loop: Loop) -> None:
        told: list[float] = []
        clock = Clock(30, 300, 20, told.append)
        with ExitStack() as questions:
            for _ in range(40):
                questions.enter_context(clock.stopped())
                loop.now += 10
            assert told == [330], "the executor ends it then, whoever is still being asked"
            assert clock.deadline == 1000 + 330 + 20
        assert told == [330, 0]

    run(case)


def test_once_patience_is_used_up_it_goes_on_while_somebody_is_asked(run: Run) -> None:
    def case(loop: Loop) -> None:
        told: list[float] = []
        clock = Clock(30, 50, 20, told.append)
        for _ in range(5):
            with clock.stopped():
                loop.now += 12
        assert told[-1] == 30 - (60 - 50)
        with clock.stopped():
            loop.now += 100
        assert told[-1] == 0
        assert clock.deadline == loop.now + 20

    run(case)


def test_it_stands_still_while_a_tool_takes_its_own_time(run: Run) -> None:
    def case(loop: Loop) -> None:
        told: list[float] = []
        clock = Clock(30, 50, 20, told.append)
        loop.now += 10
        with clock.handed_over():
            assert told == [20 + LONGEST]
            loop.now += 5000
            with clock.handed_over():
                loop.now += 5000
            assert len(told) == 1, "it stands still already"
            assert clock.deadline == 1010 + 20 + LONGEST + 20
        assert told[1:] == [20], "all of that was the tools'"
        assert clock.deadline == 11010 + 20 + 20

    run(case)


def test_a_question_while_a_tool_works_takes_no_patience(run: Run) -> None:
    def case(loop: Loop) -> None:
        told: list[float] = []
        clock = Clock(30, 50, 20, told.append)
        with clock.stopped():
            loop.now += 10
            with clock.handed_over():
                loop.now += 1000
            assert told == [30 + 50, 30 + LONGEST, 30 + 40]
            loop.now += 45
        assert told[3:] == [30 - 5]

    run(case)
