"""What the service keeps: runs, events, keys, tokens, usage, in real SQLite files."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ConfigError, NotFound, Overloaded, StoreError
from orchestrator.events import RunState
from orchestrator.store import Store, StoredEvent, StoredRun, StoredToken, StoredUsage, runs
from orchestrator.store.retention import EVENTS, removed, withdraw, withdrawn
from orchestrator.store.runs import PAGE, PAGE_BYTES, claim, list_runs, unfinished

DEADLINE = 60.0  # seconds for one test
DAY = 86400.0


def in_store(path: Path, use: Callable[[Store], Awaitable[None]]) -> None:
    """Does ``use`` with the store of a test."""

    async def main() -> None:
        async with await Store.open(path / "store.db") as store:
            await use(store)

    asyncio.run(asyncio.wait_for(main(), DEADLINE))


def a_run(id: str, **fields: Any) -> StoredRun:
    return StoredRun(**{"id": id, "agent": "default", "task": "Count.", "owner": "local"} | fields)


async def events(store: Store, run: str, after: int = 0) -> list[StoredEvent]:
    return [event async for event in store.events(run, after)]


async def ids(store: Store, **filters: Any) -> list[str]:
    return [run.id for run in await store.runs(**filters)]


def test_a_run_is_kept_with_everything_that_is_known_of_it(tmp_path: Path) -> None:
    whole = StoredRun(
        *("r", "writer", "Grüße, 'quoted' \0 text", "ann", RunState.SUCCEEDED, 1.5, 2.5, 3.5, 4, 0, 10**12, 6),
        *("none", b'{"a":1}', "/var/record.jsonl", "box"),
    )

    async def use(store: Store) -> None:
        assert await store.run("r") is None
        assert await store.add_run(whole) == whole
        assert await store.run("r") == whole
        await store.change_run("r", state=RunState.FAILED, error="half \ud800 of a pair", steps=9)
        assert await store.run("r") == replace(whole, state=RunState.FAILED, error="half ? of a pair", steps=9)
        await store.change_run("r")
        with pytest.raises(StoreError, match="UNIQUE"):
            await store.add_run(whole)
        assert await ids(store) == ["r"]

    in_store(tmp_path, use)


def test_what_cannot_be_changed(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        await store.add_run(a_run("r", events=7))
        for changes in ({"id": "x"}, {"events": 5}, {"id = 'x' --": 1}):
            with pytest.raises(TypeError, match="cannot be changed"):
                await store.change_run("r", **changes)
            with pytest.raises(TypeError, match="cannot be changed"):
                await store.append("r", 1.0, b"{}", **changes)
        with pytest.raises(NotFound):
            await store.change_run("other", steps=1)
        with pytest.raises(StoreError, match="no room"):
            await store.change_run("r", steps=1 << 70)
        assert await store.run("r") == a_run("r")

    in_store(tmp_path, use)


def test_runs_are_listed_newest_first_in_pages_and_by_what_they_are(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        for number in range(6):
            agent, owner = ("default", "writer")[number % 2], ("ann", "bob")[number // 3]
            await store.add_run(a_run(f"r{number}", agent=agent, owner=owner))
        assert await ids(store) == ["r5", "r4", "r3", "r2", "r1", "r0"]
        assert await ids(store, limit=2) == ["r5", "r4"]
        assert await ids(store, limit=2, before="r4") == ["r3", "r2"]
        assert await ids(store, before="r0") == []
        assert await ids(store, agent="writer") == ["r5", "r3", "r1"]
        assert await ids(store, agent="writer", owner="ann", before="r3") == ["r1"]
        assert await ids(store, owner="") == []
        assert await ids(store, limit=0) == await ids(store, limit=-1) == []
        with pytest.raises(NotFound, match="no run 'nothing'"):
            await ids(store, before="nothing")

    in_store(tmp_path, use)


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("100%", ["percent"]),
        ("%", ["percent"]),
        ("_", ["under"]),
        ("\\", ["back"]),
        ("A_B", ["under"]),
        ("'; DROP TABLE runs; --", []),
        ("count", ["percent"]),
        ("größe", ["unicode"]),
        ("\ud800", []),
        ("", ["unicode", "back", "under", "percent"]),
    ],
)
def test_a_search_finds_the_text_as_it_is(tmp_path: Path, search: str, found: list[str]) -> None:
    tasks = {"percent": "Count 100% of it", "under": "a_b", "back": "C:\\x", "unicode": "Die Größe"}

    async def use(store: Store) -> None:
        for id, task in tasks.items():
            await store.add_run(a_run(id, task=task))
        assert await ids(store, search=search) == found

    in_store(tmp_path, use)


def test_a_search_that_is_too_long_is_told(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        await store.add_run(a_run("r"))
        with pytest.raises(ConfigError, match="at most 200 characters"):
            await store.runs(search="x" * 201)

    in_store(tmp_path, use)


def test_no_search_keeps_a_thread_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(store: Store) -> None:
        await store.add_run(a_run("long", task="a" * (1 << 20)))
        async with asyncio.timeout(5):  # a minute and more, if all of the task were searched
            assert await ids(store, search="a" * (runs.MAX_SEARCH - 1) + "b") == []
        for number in range(500):
            await store.add_run(a_run(f"r{number}", task="a" * 2000))
        monkeypatch.setattr(runs, "SEARCH_SECONDS", 0.01)
        with pytest.raises(Overloaded, match="took longer"):
            await store.runs(search="a" * (runs.MAX_SEARCH - 1) + "b")
        assert len(await ids(store, search="")) == 100

    in_store(tmp_path, use)


def test_what_a_crash_left(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        for state in RunState:
            await store.add_run(a_run(state.value, state=state))
        left = await store.unfinished()
        assert [run.state for run in left] == [RunState.QUEUED, RunState.RUNNING, RunState.WAITING]
        assert {run.state for run in left} == {state for state in RunState if not state.has_ended}

    in_store(tmp_path, use)


def test_events_are_numbered_and_come_from_any_of_them_on(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        await store.add_run(a_run("r"))
        await store.add_run(a_run("other"))
        count = 2 * PAGE + 3
        assert await asyncio.gather(*(store.append("r", n, b"%d" % n) for n in range(1, count))) == [*range(1, count)]
        assert await store.append("other", 1.5, b"x") == 1
        assert await events(store, "r") == [StoredEvent(n, float(n), b"%d" % n) for n in range(1, count)]
        assert [event.number for event in await events(store, "r", count - 3)] == [count - 2, count - 1]
        assert await events(store, "r", count) == await events(store, "r", 1 << 64) == await events(store, "no") == []
        found = await store.run("r")
        assert found is not None
        assert found.events == count - 1
        with pytest.raises(NotFound):
            await store.append("no", 1.0, b"")

    in_store(tmp_path, use)


def test_long_events_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        await store.add_run(a_run("r"))
        for letter in b"abc":
            await store.append("r", 1.0, bytes([letter]) * (PAGE_BYTES - 1))
        assert [(e.json[:1], len(e.json)) for e in await events(store, "r")] == [
            (letter, PAGE_BYTES - 1) for letter in (b"a", b"b", b"c")
        ]

    in_store(tmp_path, use)


def test_an_event_and_what_it_changes_are_one(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        await store.add_run(a_run("r"))
        await store.append("r", 1.0, b"{}", state=RunState.SUCCEEDED, answer=b"5")
        with pytest.raises(StoreError):
            await store.append("r", 2.0, b"{}", error=None)
        assert await store.run("r") == a_run("r", state=RunState.SUCCEEDED, answer=b"5", events=1)
        assert len(await events(store, "r")) == 1

    in_store(tmp_path, use)


def test_a_run_is_added_once_for_its_key(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        wanted = [a_run(f"r{n}", owner=("ann", "bob")[n % 2]) for n in range(10)]
        added = await asyncio.gather(*(store.add_run(run, "key") for run in wanted))
        assert [run.id for run in added] == ["r0", "r1"] * 5
        assert await ids(store) == ["r1", "r0"]
        assert [await store.keyed(owner, "key") for owner in ("ann", "bob", "eve")] == ["r0", "r1", None]
        await store._writer.write(lambda connection: claim(connection, "ann", "old", "r99"))
        with pytest.raises(NotFound):
            await store.add_run(a_run("r10", owner="ann"), "old")
        with pytest.raises(StoreError, match="UNIQUE"):
            await store.add_run(a_run("r0", owner="ann"), "new")  # and its key is as new as before
        assert (await store.add_run(a_run("r11", owner="ann"), "new")).id == "r11"

    in_store(tmp_path, use)


def test_tokens(tmp_path: Path) -> None:
    ann = StoredToken("ann", "ff00", frozenset({"runs", "admin"}), {"sandboxes": 3, "cpu_seconds": 1.5}, 5.0)
    bob = StoredToken("bob", "00ff", frozenset())

    async def use(store: Store) -> None:
        await store.add_token(bob)
        await store.add_token(ann)
        assert await store.tokens() == [ann, bob]
        assert await store.token_of("ff00") == ann
        assert await store.token_of("") is None
        await store.revoke("ann")
        assert await store.token_of("ff00") is None
        (revoked, _) = await store.tokens()
        assert abs(revoked.revoked - time.time()) < DEADLINE
        await store.revoke("ann")
        assert (await store.tokens())[0] == revoked
        with pytest.raises(StoreError, match="there is or was a token named 'ann'"):
            await store.add_token(replace(ann, hash="aa"))
        with pytest.raises(StoreError, match="UNIQUE"):
            await store.add_token(replace(bob, name="eve"))
        with pytest.raises(NotFound, match="no token 'eve'"):
            await store.revoke("eve")

    in_store(tmp_path, use)


def test_usage_is_summed_by_days(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        assert await store.usage("ann", 0.0) == StoredUsage()
        now = time.time()
        await asyncio.gather(*(store.add_usage("ann", cpu_seconds=0.5) for _ in range(10)))
        await store.add_usage("ann", run_seconds=2.5)
        await store.add_usage("bob", cpu_seconds=7)
        assert await store.usage("ann", now) == StoredUsage(5.0, 2.5)
        assert await store.usage("bob") == StoredUsage(7.0)
        assert await store.usage("ann", now + 2 * DAY) == StoredUsage()

    in_store(tmp_path, use)


def test_pruning_keeps_the_newest_and_what_has_not_ended(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        now = time.time()
        for number in range(10):
            ended = now - (10 - number) * DAY
            await store.add_run(a_run(f"r{number}", state=RunState.FAILED, ended=ended, record=f"/r{number}"))
            await store.append(f"r{number}", 1.0, b"{}")
        await store.change_run("r0", state=RunState.RUNNING)
        await store.change_run("r1", record="")
        records: list[str] = []
        assert await store.prune(100, 100, records.append) == 0
        assert await store.prune(6.5, 100, records.append) == 3
        assert records == ["/r2", "/r3"]
        assert await store.prune(100, 2, records.append) == 4
        assert records[2:] == ["/r4", "/r5", "/r6", "/r7"]
        assert await ids(store) == ["r9", "r8", "r0"]
        assert await events(store, "r4") == []
        assert len(await events(store, "r9")) == 1
        assert await store.prune(100, 0, records.append) == 2
        assert await ids(store) == ["r0"]

    in_store(tmp_path, use)


def test_a_long_run_is_pruned_bit_by_bit(tmp_path: Path) -> None:
    """A kill in the midst of it leaves nothing that anybody finds, and the next time goes on."""

    async def use(store: Store) -> None:
        for id in ("long", "exact", "kept"):
            await store.add_run(a_run(id, state=RunState.RUNNING))
            await asyncio.gather(*(store.append(id, 1.0, b"{}") for _ in range(2 * EVENTS + (id == "long"))))
            await store.change_run(id, state=RunState.FAILED, record=id)
        assert await store._writer.write(lambda connection: withdraw(connection, "long"))
        found = await store._reader.read(withdrawn)
        assert found
        assert not await store._writer.write(lambda connection: removed(connection, found[0]))
        assert await ids(store) == ["kept", "exact"]
        place = await store._reader.read(lambda c: c.execute("SELECT id FROM runs WHERE state = 'removed'").fetchone())
        for id in ("long", *place):
            assert await store.run(id) is None
            assert await events(store, id) == []
        for gone in (store.append("long", 1.0, b""), store.change_run("long", steps=1), store.runs(before="long")):
            with pytest.raises(NotFound):
                await gone
        records: list[str] = []
        assert await store.prune(1e6, 1, records.append) == 1
        assert records == ["long", "exact"]
        assert await ids(store) == ["kept"]
        left = "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM events)"
        assert await store._reader.read(lambda c: c.execute(left).fetchone()) == (1, 2 * EVENTS)

    in_store(tmp_path, use)


def test_a_run_that_goes_on_is_not_withdrawn(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        await store.add_run(a_run("r", state=RunState.RUNNING))
        assert not await store._writer.write(lambda connection: withdraw(connection, "r"))
        assert await store.run("r") == a_run("r", state=RunState.RUNNING)

    in_store(tmp_path, use)


def test_a_record_that_was_not_removed_is_removed_the_next_time(tmp_path: Path) -> None:
    """As after a crash: the run is there until its record is not, and nobody finds it."""

    def fail(record: str) -> None:
        raise InterruptedError

    async def use(store: Store) -> None:
        await store.add_run(a_run("r", state=RunState.FAILED, record="/r"))
        with pytest.raises(InterruptedError):
            await store.prune(1e6, 0, fail)
        assert await ids(store) == []
        records: list[str] = []
        assert await store.prune(1e6, 0, records.append) == 0
        assert records == ["/r"]
        assert await store.prune(1e6, 0, records.append) == 0
        assert records == ["/r"]

    in_store(tmp_path, use)


def test_pruning_gives_the_room_back(tmp_path: Path) -> None:
    async def fill(store: Store) -> None:
        for number in range(3):
            await store.add_run(a_run(f"r{number}", state=RunState.FAILED))
            await asyncio.gather(*(store.append(f"r{number}", 1.0, bytes(1 << 20)) for _ in range(10)))

    async def prune(store: Store) -> None:
        assert await store.prune(1e6, 1, str) == 2

    in_store(tmp_path, fill)
    full = (tmp_path / "store.db").stat().st_size
    in_store(tmp_path, prune)
    assert full > 30 << 20
    assert (tmp_path / "store.db").stat().st_size < full * 0.4


def test_old_keys_and_usage_go_too(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        await store.add_run(a_run("old", owner="ann", state=RunState.RUNNING), "k")
        await store.add_usage("ann", run_seconds=1)
        await store.prune(1, 1, str)
        assert await store.keyed("ann", "k") == "old"
        await store._writer.write(lambda connection: connection.execute("UPDATE keys SET made = made - 8 * 86400"))
        await store._writer.write(lambda connection: connection.execute("UPDATE usage SET day = day - 500"))
        await store.prune(1, 1, str)
        assert await store.keyed("ann", "k") is None
        assert await store.usage("ann", 0.0) == StoredUsage()

    in_store(tmp_path, use)


@pytest.mark.parametrize(
    ("filters", "index"),
    [({}, ""), ({"owner": "ann"}, "runs_by_owner"), ({"agent": "default"}, "runs_by_agent")],
)
def test_a_page_of_runs_is_found_without_looking_at_all(tmp_path: Path, filters: Any, index: str) -> None:
    queries: list[str] = []

    async def use(store: Store) -> None:
        def look(connection: sqlite3.Connection) -> list[str]:
            connection.set_trace_callback(queries.append)
            list_runs(connection, **{"limit": 5, "before": "", "agent": "", "search": "", "owner": None} | filters)
            unfinished(connection)
            connection.set_trace_callback(None)
            return [" ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}")) for query in queries]

        listed, left = await store._reader.read(look)
        assert index in listed
        assert "TEMP B-TREE" not in listed + left  # nothing is sorted
        assert "runs_unfinished" in left

    in_store(tmp_path, use)
