"""Back-off, its budget, and what ``Retry-After`` may say."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import ConfigError, ModelUnavailable
from orchestrator.models.retry import RetryPolicy, Transient, retry_after, with_retries


@given(st.integers(1, 10_000), st.none() | st.floats(0, 100))
def test_delays_grow_within_bounds(failures: int, asked: float | None) -> None:
    policy = RetryPolicy(base_delay=1.0, max_delay=30.0)
    delay = policy.delay(failures, asked)
    assert max(0.5, asked or 0.0) <= delay <= max(30.0, asked or 0.0)


def test_delays_double() -> None:
    policy = RetryPolicy(base_delay=1.0, max_delay=1000.0)
    assert all(2.0 ** (n - 1) / 2 <= policy.delay(n, None) <= 2.0 ** (n - 1) for n in range(1, 8))


@pytest.mark.parametrize(("failures", "most"), [(1, 8.0), (2, 16.0), (3, 30.0), (50, 30.0)])
def test_jitter_is_spread_over_its_range_and_stays_in_it(failures: int, most: float) -> None:
    policy = RetryPolicy(base_delay=8.0, max_delay=30.0)
    delays = [policy.delay(failures, None) for _ in range(500)]
    assert most / 2 <= min(delays) < 0.55 * most  # 0.9 to the power of 500 is the chance that one bound is not seen
    assert 0.95 * most < max(delays) <= most
    assert len(set(delays)) > 400
    assert policy.delay(failures, 100.0) == 100.0  # what the endpoint asks for is waited for as it is


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 -0000"}, 0.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_a_date_of_a_far_year_counts_as_absent() -> None:
    assert retry_after({"retry-after": f"Mon, 01 Jan {'9' * 40} 00:00:00 GMT"}) is None


def test_retry_after_a_coming_date() -> None:
    wait = retry_after({"retry-after": format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)})
    assert wait is not None
    assert 3500 < wait <= 3600


def test_only_transient_failures_are_tried_again() -> None:
    calls = 0

    async def call() -> str:
        nonlocal calls
        calls += 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(with_retries("m", call, RetryPolicy(base_delay=0.0)))
    assert calls == 1


def test_the_budget_ends_the_retries() -> None:
    async def call() -> str:
        raise Transient("busy")

    with pytest.raises(ModelUnavailable, match=r"m: busy \(calls made: 1\)"):
        asyncio.run(with_retries("m", call, RetryPolicy(budget=0.0, base_delay=1.0)))


def test_impossible_policies_are_refused() -> None:
    for wrong in ({"attempts": 0}, {"budget": -1.0}, {"base_delay": -0.1}, {"max_delay": -1.0}):
        with pytest.raises(ConfigError):
            RetryPolicy(**wrong)  # type: ignore[arg-type]
