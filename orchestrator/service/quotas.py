"""How much a token may use, and what it has used: sandboxes at the same time, processor time and run time of a day.

What is under way when a day's processor time is used up ends as it would have; a run is told that it is over. A day
begins at midnight UTC. This process alone writes what was used, so what it has read of a day once, it knows. What
cannot be written, as on a full disk, is written with what comes next: the work that it was used for is not lost for it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Protocol, Self

from orchestrator.errors import CellblockError, ConfigError, Overloaded

_log = logging.getLogger(__name__)
DAY = 86400.0  # seconds
WRITE_SECONDS = 60.0  # between two notes of a run's time: what kill -9 of the service makes it forget
CHECK_SECONDS = 5.0  # between two looks of a run at what is left: by how much each run of a token may exceed it
SANDBOX_RETRY = 5.0  # seconds to a new try for a sandbox: nobody knows when one of the token's own is closed
CPU, RUN = "cpu_seconds", "run_minutes"  # quotas of the day
MAX_QUOTA = 1e9  # of anything: seconds of thirty years
MAX_SANDBOXES = 10_000  # as of max_sandboxes in the settings


@dataclass(frozen=True, slots=True)
class Quotas:
    """What a token may use; None is no limit.

    Attributes:
        sandboxes: at the same time.
        cpu_seconds: of executions, a day.
        run_minutes: of runs under way, a day.

    Raises:
        ConfigError: one is no number from 0 on, or too large.
    """

    sandboxes: int | None = None
    cpu_seconds: float | None = None
    run_minutes: float | None = None

    def __post_init__(self) -> None:
        for name, most in (("sandboxes", MAX_SANDBOXES), ("cpu_seconds", MAX_QUOTA), ("run_minutes", MAX_QUOTA)):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= most:  # NaN is not
                raise ConfigError(f"{name} is {value:g}; it must be between 0 and {most:g}")

    @classmethod
    def of(cls, stored: Mapping[str, float]) -> Self:
        """From what ``stored()`` gave. A name that is not known is one of a newer version: it is left out."""
        known = {field.name: stored[field.name] for field in fields(cls) if field.name in stored}
        if "sandboxes" in known:
            known["sandboxes"] = int(known["sandboxes"])
        return cls(**known)  # type: ignore[arg-type]  # an int, as was just made

    def stored(self) -> dict[str, float]:
        """Those that are set, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


UNLIMITED = Quotas()


class Used(Protocol):
    """What a token has used."""

    @property
    def cpu_seconds(self) -> float: ...
    @property
    def run_seconds(self) -> float: ...


class Usages(Protocol):
    """Where it is kept."""

    async def add_usage(self, token: str, *, cpu_seconds: float = 0.0, run_seconds: float = 0.0) -> None:
        """Adds to what that token has used today."""

    async def usage(self, token: str, since: float) -> Used:
        """What it has used since then, in seconds since the epoch."""


class Holder(Protocol):
    """Who uses it: a ``Caller``."""

    @property
    def name(self) -> str: ...
    @property
    def quotas(self) -> Quotas: ...


@dataclass(slots=True)
class Account:
    """Of one token: what it has used in the day of that number, and has now. Pure: it is told the time."""

    day: int
    cpu_seconds: float = 0.0
    run_seconds: float = 0.0
    sandboxes: int = 0
    runs: int = 0
    unwritten_cpu: float = 0.0  # seconds of the above that are not in the store yet
    unwritten_run: float = 0.0
    told: set[str] = field(default_factory=set)  # quotas of the day that somebody has been told are used up

    def turn(self, now: float) -> None:
        """On a new day, nothing has been used of it."""
        if (day := int(now // DAY)) != self.day:
            self.day, self.cpu_seconds, self.run_seconds, self.told = day, 0.0, 0.0, set()

    def use(self, *, cpu_seconds: float = 0.0, run_seconds: float = 0.0) -> None:
        """Counts it; it is to be written."""
        self.cpu_seconds += cpu_seconds
        self.run_seconds += run_seconds
        self.unwritten_cpu += cpu_seconds
        self.unwritten_run += run_seconds

    def take_sandbox(self, quotas: Quotas) -> None:
        """One more.

        Raises:
            Overloaded: it has as many as it may have.
        """
        if quotas.sandboxes is not None and self.sandboxes >= quotas.sandboxes:
            message = f"this token has {self.sandboxes} sandboxes, and may have {quotas.sandboxes}: close one"
            raise Overloaded(message, SANDBOX_RETRY)
        self.sandboxes += 1

    def check_cpu(self, quotas: Quotas, now: float) -> None:
        """Goes on if there is some left.

        Raises:
            Overloaded: today's processor time is used up.
        """
        if quotas.cpu_seconds is not None and self.cpu_seconds >= quotas.cpu_seconds:
            raise _used_up("processor time", f"{quotas.cpu_seconds:g} seconds", now)

    def check_run(self, quotas: Quotas, now: float) -> None:
        """Goes on if there is some left.

        Raises:
            Overloaded: today's run time is used up.
        """
        if self.run_seconds_left(quotas) <= 0:
            raise _used_up("run time", f"{quotas.run_minutes:g} minutes", now)

    def run_seconds_left(self, quotas: Quotas) -> float:
        """Of today, for all runs together."""
        return math.inf if quotas.run_minutes is None else quotas.run_minutes * 60 - self.run_seconds


def _used_up(what: str, amount: str, now: float) -> Overloaded:
    midnight = DAY - now % DAY
    return Overloaded(
        f"this token's {what} of today, {amount}, is used up; the next day begins at midnight UTC", midnight
    )


UsedUp = Callable[[str, str], Awaitable[object]]  # is told of a token's name, and the quota's


async def _nobody(token: str, quota: str) -> None:
    """Is told."""


class Room:
    """One sandbox's, until it is freed. That may be done again."""

    def __init__(self, account: Account) -> None:
        self._account: Account | None = account

    def free(self) -> None:
        """The sandbox is gone."""
        if self._account is not None:
            self._account.sandboxes -= 1
            self._account = None


class Accounts:
    """Of all tokens.

    Args:
        usages: where is kept what they have used.
        clock: seconds since the epoch.
        used_up: is told when something is first refused of a token for a quota of the day.
    """

    def __init__(self, usages: Usages, clock: Callable[[], float] = time.time, used_up: UsedUp = _nobody) -> None:
        self._usages = usages
        self._clock = clock
        self._used_up = used_up
        self._accounts: dict[str, Account] = {}
        self._opening = asyncio.Lock()

    async def sandbox(self, who: Holder) -> Room:
        """A place for one more sandbox; whoever has it frees it.

        Raises:
            Overloaded: the token has as many as it may have, or its processor time is used up.
        """
        account = await self.account(who.name)
        await self._checked(who, account, CPU, account.check_cpu)
        account.take_sandbox(who.quotas)
        return Room(account)

    async def check_cpu(self, who: Holder) -> None:
        """Before an execution.

        Raises:
            Overloaded: the token's processor time is used up.
        """
        account = await self.account(who.name)
        await self._checked(who, account, CPU, account.check_cpu)

    async def add_cpu(self, name: str, seconds: float) -> None:
        """After an execution of that token: what it used, by ``Usage.cpu_seconds``."""
        used = min(max(seconds, 0.0), DAY) if math.isfinite(seconds) else 0.0
        account = await self.account(name)
        account.use(cpu_seconds=used)
        await asyncio.shield(asyncio.ensure_future(self.write(name, account)))

    async def write(self, name: str, account: Account) -> None:
        """Has what was used written; what cannot be is written with what comes next."""
        cpu, run = account.unwritten_cpu, account.unwritten_run
        account.unwritten_cpu = account.unwritten_run = 0.0
        try:
            await self._usages.add_usage(name, cpu_seconds=cpu, run_seconds=run)
        except CellblockError as error:
            account.unwritten_cpu += cpu
            account.unwritten_run += run
            _log.warning("what was used cannot be written, which is tried again: %s", error)

    async def check_run(self, who: Holder) -> None:
        """Before a run is begun, or put into a queue.

        Raises:
            Overloaded: the token's run time is used up.
        """
        account = await self.account(who.name)
        await self._checked(who, account, RUN, account.check_run)

    async def _checked(
        self, who: Holder, account: Account, quota: str, check: Callable[[Quotas, float], object]
    ) -> None:
        try:
            check(who.quotas, self._clock())
        except Overloaded:
            await self._tell(who.name, account, quota)
            raise

    async def _tell(self, name: str, account: Account, quota: str) -> None:
        if quota not in account.told:
            account.told.add(quota)
            await self._used_up(name, quota)

    @asynccontextmanager
    async def run(self, who: Holder, over: Callable[[], object]) -> AsyncIterator[None]:
        """While a run works.

        Args:
            who: its owner.
            over: is called, perhaps more than once, when the run time is used up; it has the run end.

        Raises:
            Overloaded: it is used up already.
        """
        account = await self.account(who.name)
        await self._checked(who, account, RUN, account.check_run)
        account.runs += 1
        meter = _Meter(account, who, lambda: self.write(who.name, account), self._clock)
        ticking = asyncio.create_task(meter.tick(over, lambda: self._tell(who.name, account, RUN)))
        try:
            yield
        finally:
            account.runs -= 1
            ticking.cancel()
            meter.count()
            await asyncio.shield(asyncio.ensure_future(self.write(who.name, account)))

    async def account(self, name: str) -> Account:
        """As it is now."""
        now = self._clock()
        async with self._opening:
            if name not in self._accounts:
                midnight = now - now % DAY
                used = await self._usages.usage(name, midnight)
                self._accounts[name] = Account(int(now // DAY), used.cpu_seconds, used.run_seconds)
        account = self._accounts[name]
        account.turn(now)
        return account


class _Meter:
    """Counts the time of one run, from its making on."""

    def __init__(
        self,
        account: Account,
        who: Holder,
        write: Callable[[], Coroutine[Any, Any, None]],
        clock: Callable[[], float],
    ) -> None:
        self._account = account
        self._who = who
        self._write = write
        self._clock = clock
        self._counted = time.monotonic()

    async def tick(self, over: Callable[[], object], tell: Callable[[], Awaitable[object]]) -> None:
        """Until it is cancelled: counts the time, has it written every minute, and tells when none is left."""
        while True:
            left = self._account.run_seconds_left(self._who.quotas) / max(self._account.runs, 1)
            if left <= 0:
                over()
                with suppress(CellblockError):  # it is over, whoever could not be told
                    await tell()
            await asyncio.sleep(min(left, CHECK_SECONDS) if left > 0 else CHECK_SECONDS)
            self.count()
            if self._account.unwritten_run >= WRITE_SECONDS:
                await asyncio.shield(asyncio.ensure_future(self._write()))

    def count(self) -> None:
        """The time since it was last counted."""
        now = time.monotonic()
        self._account.turn(self._clock())
        self._account.use(run_seconds=now - self._counted)
        self._counted = now
