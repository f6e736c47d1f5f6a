"""Pools: filled in the background, handed out once, renewed, and emptied at the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from orchestrator import AsyncClient
from orchestrator.config import Config, Limits
from orchestrator.configured import PolicyRule, PoolTable, ServiceSettings
from orchestrator.errors import ConfigError, EngineError, EngineUnavailable, NotFound
from orchestrator.sandbox.sandbox import AsyncSandbox
from orchestrator.service.pools import FULL_SECONDS, MAX_RETRY_SECONDS, OLD, Pools, Recipe, sandbox_of
from tests.unit.fake_sandbox import FakeSandbox
from tests.unit.loops import in_loop, until

LOGGER = "orchestrator.service.pools"
LOOK = 0.005  # seconds
NO_COUNTS = {"ready": 0, "starting": 0}


class Made(FakeSandbox):
    """One of a pool's. Its start waits for the maker, and may fail; a container that ends tells nobody."""

    def __init__(self, maker: Maker, recipe: Recipe) -> None:
        super().__init__(config=recipe.config)
        self.maker, self.recipe, self.alive = maker, recipe, False

    async def start(self) -> None:
        self.maker.at_once += 1
        self.maker.most_at_once = max(self.maker.most_at_once, self.maker.at_once)
        try:
            await self.maker.may_start.wait()
            if self.maker.error:
                raise self.maker.error
            await super().start()
            self.alive = True
        finally:
            self.maker.at_once -= 1

    async def close(self) -> None:
        await super().close()
        self.alive = False
        if self.maker.close_error:
            raise self.maker.close_error

    @property
    def is_connected(self) -> bool:
        return self.alive


@dataclass
class Maker:
    """Makes them, for settings and at a time that the test says."""

    settings: ServiceSettings
    now: float = 100.0
    error: Exception | None = None
    close_error: Exception | None = None
    may_start: asyncio.Event = field(default_factory=asyncio.Event)
    made: list[Made] = field(default_factory=list)
    looks: int = 0
    at_once: int = 0
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self.may_start.set()

    def current(self) -> ServiceSettings:
        self.looks += 1
        return self.settings

    def make(self, recipe: Recipe) -> AsyncSandbox:
        self.made.append(Made(self, recipe))
        return self.made[-1]

    def set_pools(self, **pools: PoolTable) -> None:
        self.settings = replace(self.settings, pools=pools)

    @property
    def alive(self) -> list[Made]:
        return [made for made in self.made if made.alive]

    async def some_looks(self) -> None:
        """Long enough for whatever is to be done at once."""
        enough = self.looks + 5
        await until(lambda: self.looks >= enough)


def print_it(text: str) -> None:
    """Prints it."""
    print(text)


@asynccontextmanager
async def filling(maker: Maker) -> AsyncIterator[Pools]:
    """They, which leave nothing behind."""
    pools = Pools(maker.current, maker.make, look_seconds=LOOK, clock=lambda: maker.now)
    pools.start()
    try:
        yield pools
    finally:
        await pools.close()
    assert pools.counts() == NO_COUNTS


def maker_of(**pools: PoolTable) -> Maker:
    return Maker(ServiceSettings(pools=pools))


async def until_ready(pools: Pools, number: int) -> None:
    await until(lambda: pools.counts() == {"ready": number, "starting": 0})


# -------------------------------------------------------------------------------------------------------- filling


def test_they_are_filled_one_at_a_time_to_their_sizes_and_closed_at_the_end() -> None:
    async def case() -> None:
        maker = maker_of(a=PoolTable(size=3), b=PoolTable(size=2))
        async with filling(maker) as pools:
            await until_ready(pools, 5)
            await maker.some_looks()
            assert len(maker.made) == len(maker.alive) == 5
            assert maker.most_at_once == 1
        assert [made.closes for made in maker.made] == [1] * 5

    in_loop(case())


def test_the_pool_that_lacks_most_is_filled_first() -> None:
    async def case() -> None:
        maker = maker_of(a=PoolTable(size=4), b=PoolTable(imports=("zlib",)))
        async with filling(maker) as pools:
            await until_ready(pools, 5)
            assert [made.recipe.imports for made in maker.made[:2]] == [(), ("zlib",)]

    in_loop(case())


def test_each_is_handed_out_once_and_another_is_made_in_its_place() -> None:
    async def case() -> None:
        maker = maker_of(a=PoolTable(size=2))
        async with filling(maker) as pools:
            await until_ready(pools, 2)
            first = [pools.take("a") for _ in range(3)]
            assert [taken.is_warm for taken in first] == [True, True, False]
            assert len({taken.sandbox for taken in first}) == 3
            assert maker.made[2] is first[2].sandbox
            assert maker.made[2].starts == 0, "whoever has it starts it"
            await until_ready(pools, 2)
            second = [pools.take("a").sandbox for _ in range(2)]
            assert not {taken.sandbox for taken in first} & set(second)
        assert [made.closes for made in maker.made[:3]] == [0, 0, 0], "they belong to whoever has taken them"

    in_loop(case())


def test_one_that_starts_is_counted_and_not_handed_out() -> None:
    async def case() -> None:
        maker = maker_of(a=PoolTable())
        maker.may_start.clear()
        async with filling(maker) as pools:
            await until(lambda: pools.counts() == {"ready": 0, "starting": 1})
            assert not pools.take("a").is_warm
            maker.may_start.set()
            await until_ready(pools, 1)
            assert pools.take("a").sandbox is maker.made[0]

    in_loop(case())


def test_a_start_under_way_at_the_end_is_closed() -> None:
    async def case() -> None:
        maker = maker_of(a=PoolTable())
        maker.may_start.clear()
        async with filling(maker):
            await until(lambda: maker.at_once)
        assert (maker.at_once, maker.made[0].closes) == (0, 1)

    in_loop(case())


def test_after_the_end_there_are_cold_ones() -> None:
    async def case() -> None:
        maker = maker_of(a=PoolTable(size=2))
        async with filling(maker) as pools:
            await until_ready(pools, 2)
        taken = pools.take("a")
        assert not taken.is_warm
        assert taken.sandbox not in maker.made[:2]

    in_loop(case())


def test_all_are_closed_though_the_engine_fails() -> None:
    async def case() -> None:
        maker = maker_of(a=PoolTable(size=3))
        async with filling(maker) as pools:
            await until_ready(pools, 3)
            maker.close_error = EngineError("busy")
        assert [made.closes for made in maker.made] == [1, 1, 1]

    in_loop(case())


# ------------------------------------------------------------------------------------------------- throwing away


def test_dead_ones_are_thrown_away_and_never_handed_out() -> None:
    async def case() -> None:
        maker = maker_of(a=PoolTable(size=2))
        async with filling(maker) as pools:
            await until_ready(pools, 2)
            dead, well = maker.made
            dead.alive = False
            assert pools.take("a").sandbox is well
            await until_ready(pools, 2)
            assert dead.closes == 1
            maker.made[2].alive = False
            await until(lambda: maker.made[2].closes)  # also if nobody asks for one
            await until_ready(pools, 2)

    in_loop(case())


def test_old_ones_are_replaced() -> None:
    async def case() -> None:
        maker = maker_of(a=PoolTable())
        async with filling(maker) as pools:
            await until_ready(pools, 1)
            maker.now += OLD * Config().max_lifetime - 1
            await maker.some_looks()
            assert len(maker.made) == 1
            maker.now += 2
            taken = pools.take("a")
            assert (taken.is_warm, maker.made[0].closes) == (False, 0)
            await until(lambda: maker.made[0].closes)
            await until_ready(pools, 1)

    in_loop(case())


CHANGES = {
    "imports": {"pools": {"a": PoolTable(imports=("zlib",))}},
    "limits": {"pools": {"a": PoolTable(limits=Limits(pids=50))}},
    "timeout": {"pools": {"a": PoolTable(timeout=3)}},
    "final_answer": {"pools": {"a": PoolTable(final_answer=True)}},
    "general": {"config": Config(timeout=7)},
    "policy": {"policy": (PolicyRule("refuse", execution=True),)},
}


@pytest.mark.parametrize("change", CHANGES)
def test_they_are_renewed_when_the_settings_change(change: str) -> None:
    async def case() -> None:
        maker = maker_of(a=PoolTable())
        async with filling(maker) as pools:
            await until_ready(pools, 1)
            maker.settings = replace(maker.settings, **CHANGES[change])
            assert not pools.take("a").is_warm, "one of before"
            await until(lambda: maker.made[0].closes)
            await until_ready(pools, 1)
            taken = pools.take("a")
            assert taken.is_warm
            assert maker.made[-1].recipe == Recipe.of(maker.settings, maker.settings.pools["a"])

    in_loop(case())


def test_one_that_starts_while_the_settings_change_is_not_handed_out() -> None:
    async def case() -> None:
        maker = maker_of(a=PoolTable())
        maker.may_start.clear()
        async with filling(maker) as pools:
            await until(lambda: maker.at_once)
            maker.set_pools(a=PoolTable(timeout=3))
            maker.may_start.set()
            await until(lambda: maker.made[0].closes)
            await until_ready(pools, 1)
            sandbox = pools.take("a").sandbox
            assert (sandbox, maker.made[1].recipe.timeout) == (maker.made[1], 3)

    in_loop(case())


def test_another_size_renews_nothing() -> None:
    async def case() -> None:
        maker = maker_of(a=PoolTable(size=2))
        async with filling(maker) as pools:
            await until_ready(pools, 2)
            maker.set_pools(a=PoolTable(size=3))
            await until_ready(pools, 3)
            maker.set_pools(a=PoolTable(size=1))
            await until_ready(pools, 1)
            assert len(maker.made) == 3
            await until(lambda: len(maker.alive) == 1)

    in_loop(case())


def test_a_pool_comes_and_goes_with_its_table() -> None:
    async def case() -> None:
        maker = maker_of()
        async with filling(maker) as pools:
            await maker.some_looks()
            assert pools.counts() == NO_COUNTS
            maker.set_pools(a=PoolTable())
            await until_ready(pools, 1)
            maker.set_pools()
            with pytest.raises(NotFound):
                pools.take("a")
            await until_ready(pools, 0)
            await until(lambda: maker.made[0].closes)

    in_loop(case())


# ------------------------------------------------------------------------------------------------------ failures


def test_a_start_that_fails_is_tried_again_at_growing_intervals_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async def case() -> None:
        maker = maker_of(a=PoolTable())
        maker.error = EngineUnavailable("no engine answers")
        async with filling(maker) as pools:
            for number, interval in enumerate([1, 2, 4, 8, 16, 32, 60, 60], start=1):
                await until(lambda number=number: len(maker.made) == number and not pools.counts()["starting"])
                maker.now += interval * 0.99
                pools.take("a")  # that somebody asks for one is no reason to try
                maker.made.pop()
                await maker.some_looks()
                assert len(maker.made) == number, f"after {interval} s"
                maker.now += interval * 0.01 + 1e-6
            assert len(told(caplog)) == 1
            assert "pool a" in told(caplog)[0]
            assert "no engine answers" in told(caplog)[0]
            maker.error = None
            maker.now += MAX_RETRY_SECONDS
            await until_ready(pools, 1)
            maker.error = EngineUnavailable("again")
            pools.take("a")
            await until(lambda: len(told(caplog)) == 2)
        assert all(made.closes == 1 for made in maker.made if not made.starts)

    caplog.set_level(logging.WARNING, LOGGER)
    in_loop(case())


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


def test_a_pool_that_cannot_be_filled_holds_up_no_other() -> None:
    async def case() -> None:
        maker = maker_of(bad=PoolTable(timeout=1), good=PoolTable(size=2))

        def make(recipe: Recipe) -> AsyncSandbox:
            if recipe.timeout == 1:
                raise RuntimeError("whatever it may be")
            return maker.make(recipe)

        pools = Pools(maker.current, make, look_seconds=LOOK, clock=lambda: maker.now)
        pools.start()
        await until_ready(pools, 2)
        assert pools.take("good").is_warm
        await pools.close()

    in_loop(case())


def test_a_changed_table_is_tried_at_once() -> None:
    async def case() -> None:
        maker = maker_of(a=PoolTable())
        maker.error = EngineUnavailable("no engine answers")
        async with filling(maker) as pools:
            await until(lambda: maker.made and not pools.counts()["starting"])
            maker.error = None
            maker.set_pools(a=PoolTable(timeout=3))
            await until_ready(pools, 1)

    in_loop(case())


def test_what_is_ready_gives_way_and_is_replaced_later() -> None:
    async def case() -> None:
        maker = maker_of(a=PoolTable(size=2), b=PoolTable(imports=("zlib",)))
        async with filling(maker) as pools:
            await until_ready(pools, 3)
            first = next(made for made in maker.made if not made.recipe.imports)
            assert await pools.give_way()
            assert first.closes == 1, "it is gone when this is said"
            maker.now += FULL_SECONDS * 0.99
            await maker.some_looks()
            assert pools.counts() == {"ready": 2, "starting": 0}
            maker.now += FULL_SECONDS * 0.01 + 1e-6
            await until_ready(pools, 3)
            assert [await pools.give_way() for _ in range(4)] == [True, True, True, False]
        assert not await Pools(ServiceSettings).give_way()

    in_loop(case())


# --------------------------------------------------------------------------------------------------------- taking


def test_what_cannot_be_had_is_said() -> None:
    async def case() -> None:
        pools = Pools(maker_of(analysis=PoolTable()).current)
        with pytest.raises(NotFound, match="there is no pool 'analysi'; did you mean analysis"):
            pools.take("analysi")
        with pytest.raises(NotFound, match="so long a name") as caught:
            pools.take("n" * 1_000_000)
        assert len(str(caught.value)) < 100
        with pytest.raises(ConfigError, match=r"final_answer = true in \[pools.analysis\]"):
            pools.take("analysis", final_answer=True)
        with pytest.raises(NotFound):
            Pools(ServiceSettings).take("analysis")

    in_loop(case())


@pytest.mark.parametrize(
    ("name", "value"),
    {
        "authorized_imports": ["json"],
        "tools": [print_it],
        "limits": Limits(),
        "timeout": 3,
        "env": {"A": "b"},
        "tool_timeout": 3,
        "approve": lambda request: True,
    }.items(),
)
def test_a_client_says_what_is_to_be_left_out(name: str, value: object) -> None:
    async def case() -> None:
        async with AsyncClient("unix:/nowhere") as client:
            with pytest.raises(ConfigError, match=f"the pool's settings: leave out {name}$"):
                client.sandbox(pool="a", **{name: value})
            client.sandbox(**{name: value})
            assert client.sandbox(pool="a", final_answer=True).has_final_answer

    in_loop(case())


def test_a_sandbox_is_made_as_the_table_and_the_policy_say() -> None:
    config = Config(limits=Limits(memory="300m"), timeout=9)
    table = PoolTable(imports=("zlib",), limits=Limits(memory="200m"), timeout=4, final_answer=True)
    rule = PolicyRule("allow", execution=True)
    settings = ServiceSettings(config, pools={"a": table}, policy=(rule,))

    async def case() -> None:
        made = sandbox_of(Recipe.of(settings, table))
        assert made.has_final_answer
        assert "zlib" in made.authorized_imports
        assert (made._config.limits, made._config.timeout) == (table.limits, 4)
        assert not made._approver.asks
        plain = sandbox_of(Recipe.of(settings, PoolTable()))
        assert (plain.has_final_answer, plain._config.limits, plain._config.timeout) == (False, config.limits, 9)
        strict = replace(settings, policy=(replace(rule, action="ask"),))
        assert sandbox_of(Recipe.of(strict, table))._approver.asks
        of_an_agent = replace(settings, policy=(replace(rule, action="refuse", agent="default"),))
        assert not sandbox_of(Recipe.of(of_an_agent, table))._approver.asks

    in_loop(case())
