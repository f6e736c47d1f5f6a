"""Tries again what may heal by itself: exponential back-off with jitter, within a budget of time.

Which failures may heal is decided by the caller, one per provider, by raising ``Transient``.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from orchestrator.errors import ConfigError, ModelUnavailable
from orchestrator.pace import Pace

Result = TypeVar("Result")


class Transient(Exception):
    """A failure worth another try. ``retry_after`` is the wait in seconds that the endpoint asked for, if it did."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long to try. Times in seconds."""

    attempts: int = 6  # calls in all; with the delays below about half a minute of waiting
    budget: float = 180.0  # from the first call on, waits included; no new wait is begun that would pass it
    base_delay: float = 1.0  # before the second call; doubles with each further one
    max_delay: float = 30.0  # a longer wait only when the endpoint asks for it

    def __post_init__(self) -> None:
        if self.attempts < 1 or min(self.budget, self.base_delay, self.max_delay) < 0:
            raise ConfigError(f"{self}: attempts must be at least 1, and no time negative")

    def delay(self, failures: int, retry_after: float | None) -> float:
        """The wait after that many failures. Jitter keeps many agents from coming back in step."""
        doubled = min(self.max_delay, self.base_delay * 2.0 ** min(failures - 1, 60))
        jittered = doubled * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        return max(jittered, retry_after or 0.0)


def retry_policy(retry: RetryPolicy | bool | None) -> RetryPolicy:
    """What the parameter ``retry`` of a model means: a policy, the default one (True, None), or one call (False).

    Raises:
        ConfigError: it is something else.
    """
    if isinstance(retry, RetryPolicy):
        return retry
    if retry is not None and not isinstance(retry, bool):
        raise ConfigError(f"retry is {retry!r}; it must be a RetryPolicy, True for the default one, or False for never")
    return RetryPolicy(attempts=1) if retry is False else RetryPolicy()


def checked_timeout(timeout: float) -> float:
    """The parameter ``timeout`` of a model.

    Raises:
        ConfigError: it is no time.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise ConfigError(f"timeout is {timeout!r}; it must be seconds, above 0")
    return timeout


async def with_retries(
    name: str, call: Callable[[], Awaitable[Result]], policy: RetryPolicy, pace: Pace | None = None
) -> Result:
    """What ``call()`` gives, tried again after each ``Transient`` as ``policy`` says.

    Args:
        name: for the error.
        call: one call.
        policy: how often and how long.
        pace: awaited before each call. Waiting for the first turn is no part of the budget.

    Raises:
        ModelUnavailable: the attempts or the budget are used up, or the endpoint asks for a wait beyond the budget.
    """
    loop = asyncio.get_running_loop()
    pace = pace or Pace(None)
    await pace.turn()
    deadline = loop.time() + policy.budget
    failures = 0
    while True:
        try:
            return await call()
        except Transient as failure:
            failures += 1
            delay = policy.delay(failures, failure.retry_after)
            if failures >= policy.attempts or loop.time() + delay > deadline:
                raise _give_up(name, failure, failures) from None
        await asyncio.sleep(delay)
        await pace.turn()


def _give_up(name: str, failure: Transient, calls: int) -> ModelUnavailable:
    wait = f"; it asks to wait {failure.retry_after:g} s" if failure.retry_after else ""
    return ModelUnavailable(f"{name}: {failure.reason}{wait} (calls made: {calls})")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by the reply's headers: ``Retry-After`` as a number or a date (RFC 9110, 10.2.3).

    ``retry-after-ms`` is OpenAI's finer form of it. What cannot be read counts as absent.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    seconds = _number(text)
    return seconds if seconds is not None or text is None else _until(text)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _until(date: str) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, OverflowError):  # a year of many digits
        return None
    if moment.tzinfo is None:  # "-0000": the sender does not say; HTTP dates are UTC
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
