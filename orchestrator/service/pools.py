"""Sandboxes that are started before anybody asks for them: the ``[pools.NAME]`` of the settings."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from orchestrator.audit import concern
from orchestrator.config import Config, Limits
from orchestrator.configured import PolicyRule, PoolTable, ServiceSettings, approver
from orchestrator.errors import CellblockError, ConfigError, NotFound
from orchestrator.sandbox.sandbox import AsyncSandbox

_log = logging.getLogger(__name__)
LOOK_SECONDS = 5.0  # between two looks at the settings, and at whether what is ready still runs
RETRY_SECONDS = 1.0  # after a start that failed; doubled with each further one
MAX_RETRY_SECONDS = 60.0  # an engine that is back is found within a minute
FULL_SECONDS = 30.0  # that none is started after one had to give way: it would take the room of whoever needed it
OLD = 0.25  # of its container's lifetime that a sandbox may have waited: whoever gets it has the rest
MAX_NAME = 200  # characters of a pool's name that somebody asks for: longer ones are not searched for similar ones


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the sandboxes of a pool are made from. One that was made from another recipe is not handed out any more."""

    imports: tuple[str, ...]
    limits: Limits
    timeout: float | None
    final_answer: bool
    config: Config
    policy: tuple[PolicyRule, ...]

    @classmethod
    def of(cls, settings: ServiceSettings, table: PoolTable) -> Recipe:
        """That of a pool, as the settings are now."""
        config = settings.config
        limits = table.limits or config.limits
        return cls(table.imports, limits, table.timeout, table.final_answer, config, settings.policy)


def sandbox_of(recipe: Recipe) -> AsyncSandbox:
    """A new one, which has not been started. The rules of the settings hold for it, as for every sandbox of an app."""
    return AsyncSandbox(
        authorized_imports=recipe.imports,
        limits=recipe.limits,
        timeout=recipe.timeout,
        config=recipe.config,
        final_answer=recipe.final_answer,
        approve=approver(recipe.policy, ""),
    )


@dataclass(frozen=True, slots=True)
class Taken:
    """A sandbox for whoever has asked; it is his to start, if it is not ``is_warm``, and to close."""

    sandbox: AsyncSandbox
    limits: Limits
    is_warm: bool = False


@dataclass(frozen=True, slots=True)
class _Ready:
    sandbox: AsyncSandbox
    since: float  # on the clock


@dataclass(slots=True, eq=False)
class _Pool:
    recipe: Recipe
    size: int
    ready: deque[_Ready] = field(default_factory=deque)  # the oldest first
    failures: int = 0  # since a start went well
    retry_at: float = 0.0  # on the clock


class Pools:
    """All of them, filled from ``start()`` to ``close()``, one sandbox at a time.

    They count in ``max_sandboxes`` as all others do, and give way to those that somebody has asked for. While a start
    fails, and when there is no room, it is tried again at growing intervals, and the log says so once.

    Args:
        settings: as they are now; a pool whose table has changed, or the settings that it goes by, is made anew.
        make: makes a sandbox, which has not been started.
        look_seconds: between two looks at the settings, and at what is ready.
        clock: seconds.
    """

    def __init__(
        self,
        settings: Callable[[], ServiceSettings],
        make: Callable[[Recipe], AsyncSandbox] = sandbox_of,
        *,
        look_seconds: float = LOOK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._make = make
        self._look_seconds = look_seconds
        self._clock = clock
        self._pools: dict[str, _Pool] = {}
        self._starting = 0
        self._closing: set[asyncio.Task[None]] = set()
        self._filling: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    def start(self) -> None:
        """Begins to fill them, in the background."""
        self._filling = asyncio.create_task(self._fill_all())

    async def close(self) -> None:
        """Fills them no more, and closes what is ready. What is asked for later is a cold start."""
        if self._filling:
            self._filling.cancel()
            await asyncio.wait({self._filling})
        for pool in self._pools.values():
            self._empty(pool)
        if self._closing:
            await asyncio.wait(self._closing)

    def take(self, name: str, *, final_answer: bool = False) -> Taken:
        """One of that pool's, ready if there is one; else a new one, which has not been started.

        Args:
            name: the pool's.
            final_answer: whether it must have ``final_answer(value)``.

        Raises:
            NotFound: there is no such pool.
            ConfigError: its sandboxes have no ``final_answer``.
        """
        settings = self._settings()
        if len(name) > MAX_NAME:
            raise NotFound("there is no pool with so long a name")
        recipe = Recipe.of(settings, settings.pool(name))
        if final_answer and not recipe.final_answer:
            raise ConfigError(f"leave out final_answer, or set final_answer = true in [pools.{name}]: it is the pool's")
        ready = self._popped(name, recipe)
        return Taken(ready or self._make(recipe), recipe.limits, is_warm=ready is not None)

    async def give_way(self) -> bool:
        """Closes one that is ready, for whoever finds no room; False if there is none. It is replaced a while later."""
        fullest = max(self._pools.values(), key=lambda pool: len(pool.ready), default=None)
        if fullest is None or not fullest.ready:
            return False
        for pool in self._pools.values():
            pool.retry_at = max(pool.retry_at, self._clock() + FULL_SECONDS)
        await asyncio.wait({self._discard(fullest.ready.popleft().sandbox)})
        return True

    def counts(self) -> Mapping[str, float]:
        """How many there are, by their state, for metrics."""
        return {"ready": sum(len(pool.ready) for pool in self._pools.values()), "starting": self._starting}

    def _popped(self, name: str, recipe: Recipe) -> AsyncSandbox | None:
        self._wake.set()  # there is one less, or others are needed than there are
        pool = self._pools.get(name)
        if pool is None or pool.recipe != recipe:
            return None
        self._throw_away(pool)
        return pool.ready.popleft().sandbox if pool.ready else None

    # ----------------------------------------------------------------------------------------------------- filling

    async def _fill_all(self) -> None:
        while True:
            self._look()
            if self._closing:  # what has been thrown away takes room until it is gone
                await asyncio.wait(self._closing)
            elif name := self._neediest():
                await self._fill(name, self._pools[name])
            else:
                await self._pause()

    def _look(self) -> None:
        """At the settings, and at what is ready."""
        settings = self._settings()
        for name in self._pools.keys() - settings.pools.keys():
            self._empty(self._pools.pop(name))
        for name, table in settings.pools.items():
            recipe, known = Recipe.of(settings, table), self._pools.get(name)
            if known is None or known.recipe != recipe:
                if known:
                    self._empty(known)
                known = self._pools[name] = _Pool(recipe, table.size)
            known.size = table.size
            self._throw_away(known)

    def _neediest(self) -> str | None:
        """The name of the pool that has the least of what it should have, of those whose start may be tried."""
        now = self._clock()
        missing = {
            name: len(pool.ready) / pool.size
            for name, pool in self._pools.items()
            if len(pool.ready) < pool.size and pool.retry_at <= now
        }
        return min(missing, key=missing.__getitem__, default=None)

    async def _fill(self, name: str, pool: _Pool) -> None:
        self._starting += 1
        try:
            sandbox = await self._started(pool.recipe)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other pools are filled, and this one later
            self._failed(name, pool, error)
        else:
            self._succeeded(name, pool, sandbox)
        finally:
            self._starting -= 1

    async def _started(self, recipe: Recipe) -> AsyncSandbox:
        sandbox = self._make(recipe)
        try:
            await sandbox.start()
        except BaseException:
            self._discard(sandbox)
            raise
        return sandbox

    def _succeeded(self, name: str, pool: _Pool, sandbox: AsyncSandbox) -> None:
        if pool.failures:
            _log.info("pool %s: sandboxes can be started again", name)
        pool.failures = 0
        pool.ready.append(_Ready(sandbox, self._clock()))

    def _failed(self, name: str, pool: _Pool, error: Exception) -> None:
        if not pool.failures:
            _log.warning("pool %s: a sandbox could not be started, which is tried again: %s", name, error)
        pool.retry_at = self._clock() + min(RETRY_SECONDS * 2.0 ** min(pool.failures, 30), MAX_RETRY_SECONDS)
        pool.failures += 1

    async def _pause(self) -> None:
        """Until somebody has taken one, a start is to be tried again, or it is time to look."""
        due = [pool.retry_at - self._clock() for pool in self._pools.values() if len(pool.ready) < pool.size]
        self._wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(min([self._look_seconds, *due])):
                await self._wake.wait()

    # ------------------------------------------------------------------------------------------------ throwing away

    def _throw_away(self, pool: _Pool) -> None:
        """What has ended, is too old, or is one too many."""
        oldest = self._clock() - pool.recipe.config.max_lifetime * OLD
        for one in list(pool.ready):
            if not one.sandbox.is_connected or one.since < oldest or len(pool.ready) > pool.size:
                pool.ready.remove(one)
                self._discard(one.sandbox)

    def _empty(self, pool: _Pool) -> None:
        while pool.ready:
            self._discard(pool.ready.popleft().sandbox)

    def _discard(self, sandbox: AsyncSandbox) -> asyncio.Task[None]:
        """Closes it, in a task of its own: nothing that is cancelled may leave one half closed."""
        task = asyncio.create_task(_close(sandbox))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task


async def _close(sandbox: AsyncSandbox) -> None:
    concern()  # it was nobody's, whoever asks for room now
    with suppress(CellblockError):  # what the engine fails to remove is removed later
        await sandbox.close()
