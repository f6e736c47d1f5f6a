"""How much a token may use: what it is told when there is no more, and what is noted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import ConfigError, Overloaded
from orchestrator.service import quotas
from orchestrator.service.access import LOCAL, Caller
from orchestrator.service.quotas import DAY, UNLIMITED, Account, Accounts, Quotas
from tests.unit.service_parts import MemoryUsages, Noted, run

NOON = 20_000 * DAY + DAY / 2
ENDS = st.floats(allow_nan=True, allow_infinity=True)


def holder(name: str = "app", **limits: Any) -> Caller:
    return Caller(name, frozenset({"sandboxes", "runs"}), Quotas(**limits))


def accounts(now: float = NOON) -> tuple[Accounts, MemoryUsages, list[float]]:
    clock = [now]
    usages = MemoryUsages(clock)
    return Accounts(usages, lambda: clock[0]), usages, clock


# --------------------------------------------------------------------------------------------------------- sandboxes


def test_a_token_has_as_many_sandboxes_as_it_may_and_another_one_has_its_own() -> None:
    async def test() -> None:
        made, _, _ = accounts()
        app = holder(sandboxes=2)
        first, _ = await made.sandbox(app), await made.sandbox(app)
        with pytest.raises(Overloaded, match="has 2 sandboxes, and may have 2: close one") as caught:
            await made.sandbox(app)
        assert caught.value.retry_after == quotas.SANDBOX_RETRY
        await made.sandbox(holder("other", sandboxes=1))
        first.free()
        first.free()  # once more is nothing
        await made.sandbox(app)
        with pytest.raises(Overloaded):
            await made.sandbox(app)

    run(test())


def test_many_at_once_are_no_more_than_one_after_the_other() -> None:
    async def test() -> None:
        made, usages, _ = accounts()
        got = await asyncio.gather(*(made.sandbox(holder(sandboxes=3)) for _ in range(20)), return_exceptions=True)
        assert sum(not isinstance(one, BaseException) for one in got) == 3
        assert usages.read == 1

    run(test())


def test_the_sockets_user_has_no_limits() -> None:
    async def test() -> None:
        made, _, _ = accounts()
        await made.add_cpu("local", DAY)
        assert len([await made.sandbox(LOCAL) for _ in range(200)]) == 200
        async with made.run(LOCAL, lambda: pytest.fail("it is over")):
            await made.check_cpu(LOCAL)

    run(test())


# ------------------------------------------------------------------------------------------------------ times of a day


def test_processor_time_is_used_up_until_midnight() -> None:
    async def test() -> None:
        made, usages, clock = accounts()
        app = holder(cpu_seconds=10)
        await made.add_cpu("app", 9.5)
        await made.check_cpu(app)
        await made.add_cpu("app", 0.5)
        for refused in (made.check_cpu(app), made.sandbox(app)):
            with pytest.raises(Overloaded, match="processor time of today, 10 seconds, is used up") as caught:
                await refused
            assert caught.value.retry_after == DAY / 2
        assert usages.days == {("app", 20_000): Noted(cpu_seconds=10.0)}
        clock[0] += DAY / 2
        await made.check_cpu(app)
        await made.sandbox(app)

    run(test())


def test_after_a_restart_what_was_used_today_is_known() -> None:
    async def test() -> None:
        made, usages, clock = accounts()
        await made.add_cpu("app", 10)
        again = Accounts(usages, lambda: clock[0])
        with pytest.raises(Overloaded):
            await again.check_cpu(holder(cpu_seconds=10))
        clock[0] += DAY
        await Accounts(usages, lambda: clock[0]).check_cpu(holder(cpu_seconds=10))

    run(test())


@settings(max_examples=60)
@given(ENDS)
def test_what_an_execution_says_that_it_used_gives_nothing_back(seconds: float) -> None:
    async def test() -> None:
        made, usages, _ = accounts()
        await made.add_cpu("app", 5)
        await made.add_cpu("app", seconds)
        assert 5 <= usages.days["app", 20_000].cpu_seconds <= 5 + DAY

    run(test())


def test_a_run_is_told_when_the_run_time_is_used_up_and_the_next_one_does_not_begin() -> None:
    async def test() -> None:
        made, usages, _ = accounts()
        app, over = holder(run_minutes=0.2 / 60), asyncio.Event()
        async with made.run(app, over.set):
            await over.wait()
        with pytest.raises(Overloaded, match=r"run time of today, 0\.00333333 minutes, is used up") as caught:
            async with made.run(app, over.set):
                pytest.fail("it began")
        assert caught.value.retry_after == DAY / 2
        with pytest.raises(Overloaded, match="run time"):
            await made.check_run(app)
        await made.check_run(LOCAL)
        assert usages.days["app", 20_000].run_seconds >= 0.2

    run(test())


def test_runs_at_the_same_time_use_up_the_time_together() -> None:
    async def test() -> None:
        made, usages, _ = accounts()
        app, over = holder(run_minutes=0.4 / 60), [asyncio.Event() for _ in range(4)]

        async def one(told: asyncio.Event) -> None:
            async with made.run(app, told.set):
                await told.wait()

        await asyncio.gather(*map(one, over))
        assert usages.days["app", 20_000].run_seconds >= 0.4

    run(test())


def test_what_a_cancelled_run_has_used_is_noted() -> None:
    async def test() -> None:
        made, usages, _ = accounts()
        begun = asyncio.Event()

        async def work() -> None:
            async with made.run(holder(run_minutes=1), lambda: None):
                begun.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert usages.days["app", 20_000].run_seconds > 0
        assert (await made.account("app")).runs == 0

    run(test())


def test_a_long_run_is_noted_while_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(quotas, "WRITE_SECONDS", 0.03)

    async def test() -> None:
        made, usages, _ = accounts()
        usages.is_broken = True  # at first: then the time is not lost
        async with made.run(holder(), lambda: None):
            await usages.refused.wait()
            usages.is_broken = False
            await usages.noted.wait()
            assert usages.days["app", 20_000].run_seconds > usages.refused_seconds >= 0.03

    run(test())


# ---------------------------------------------------------------------------------------------------------- accounts


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["take", "free", "cpu", "day"]), st.floats(0, 50)), max_size=60))
def test_an_account_never_has_more_than_its_quota(steps: list[tuple[str, float]]) -> None:
    limits, now, held = Quotas(sandboxes=3, cpu_seconds=100), NOON, 0
    account, used = Account(int(now // DAY)), 0.0
    for step, amount in steps:
        match step:
            case "take":
                try:
                    account.take_sandbox(limits)
                    held += 1
                except Overloaded:
                    assert held == 3
            case "free" if held:
                account.sandboxes -= 1
                held -= 1
            case "cpu":
                try:
                    account.check_cpu(limits, now)
                    account.cpu_seconds += amount
                    used += amount
                except Overloaded:
                    assert used >= 100
            case "day":
                now += DAY
                account.turn(now)
                used = 0.0
        assert account.sandboxes == held <= 3


@settings(max_examples=60)
@given(
    st.builds(
        Quotas,
        st.none() | st.integers(0, 100),
        st.none() | st.floats(0, 1e6),
        st.none() | st.floats(0, 1e6),
    )
)
def test_quotas_are_stored_by_name_and_read_again(limits: Quotas) -> None:
    assert Quotas.of(limits.stored()) == limits
    assert Quotas.of({**limits.stored(), "of a newer version": 1.0}) == limits


def test_none_is_no_limit_and_nothing_is_stored_of_it() -> None:
    assert UNLIMITED.stored() == {}


@pytest.mark.parametrize(
    "wrong", [{"sandboxes": -1}, {"cpu_seconds": float("nan")}, {"run_minutes": float("inf")}, {"sandboxes": 10**6}]
)
def test_what_is_no_quota_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Quotas(**wrong)
