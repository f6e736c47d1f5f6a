"""Many who write at once, those who read meanwhile, and what a kill leaves."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
import threading
from collections import defaultdict
from functools import partial
from pathlib import Path

import pytest

from orchestrator.errors import NotFound, StoreError
from orchestrator.events import RunState
from orchestrator.store import Store
from orchestrator.store.writer import MAX_GROUP, MAX_WAITING, Writer
from tests.unit.test_store import DEADLINE, a_run, events, in_store

WAIT = 60.0  # seconds for another program
APPENDING = """
import asyncio, os, sys
from functools import partial
from pathlib import Path
from orchestrator.events import RunState
from orchestrator.store import Store, StoredRun
async def go_on(store, run, payload):
    while True:
        number = await store.append(run, 1.0, payload)
        os.write(1, f"{run} {number}\\n".encode())
async def main():
    store = await Store.open(Path(sys.argv[1]))
    for name in ("a", "b", "c", "d"):
        await store.add_run(StoredRun(name, "default", "Count.", "local", RunState.RUNNING))
    await asyncio.gather(*(go_on(store, name, name.encode() * 3000) for name in ("a", "b", "c", "d")))
asyncio.run(main())
"""


@pytest.mark.parametrize("lines", [1, 500, 3000])
def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path, lines: int) -> None:
    command = [sys.executable, "-c", APPENDING, str(tmp_path / "store.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            said = [child.stdout.readline() for _ in range(lines)]
        finally:
            child.kill()
        said += child.communicate(timeout=WAIT)[0].splitlines()
    told: dict[str, list[int]] = defaultdict(list)
    for line in said:
        run, number = line.split()
        told[run].append(int(number))

    async def use(store: Store) -> None:
        assert len(said) >= lines
        assert {run.state for run in await store.unfinished()} == {RunState.RUNNING}
        for run, numbers in told.items():
            assert numbers == [*range(1, len(numbers) + 1)]
            found = await events(store, run)
            assert len(found) >= len(numbers)
            assert [event.number for event in found] == [*range(1, len(found) + 1)]
            assert {event.json for event in found} == {run.encode() * 3000}
            assert await store.append(run, 2.0, b"{}") == len(found) + 1

    in_store(tmp_path, use)


def test_thousands_of_appends_at_once_keep_their_order_in_each_run(tmp_path: Path) -> None:
    runs, count = 20, 250

    async def write(store: Store, run: str) -> list[int]:
        return list(await asyncio.gather(*(store.append(run, 1.0, b"%d" % n) for n in range(1, count + 1))))

    async def use(store: Store) -> None:
        names = [f"r{n}" for n in range(runs)]
        for name in names:
            await store.add_run(a_run(name))
        assert await asyncio.gather(*(write(store, name) for name in names)) == [[*range(1, count + 1)]] * runs
        for name in names:
            assert [(event.number, event.json) for event in await events(store, name)] == [
                (n, b"%d" % n) for n in range(1, count + 1)
            ]

    in_store(tmp_path, use)


def test_who_reads_while_others_write_sees_what_was_acknowledged_and_no_gap(tmp_path: Path) -> None:
    count, acknowledged = 2000, 0

    async def use(store: Store) -> None:
        await store.add_run(a_run("r"))

        async def write() -> None:
            nonlocal acknowledged
            for _ in range(count):
                acknowledged = await store.append("r", 1.0, b"x" * 100)

        async def follow() -> int:
            last = looks = 0
            while last < count:
                known = acknowledged
                for event in await events(store, "r", last):
                    assert event.number == last + 1
                    last = event.number
                assert last >= known
                looks += 1
                run = await store.run("r")
                assert run is not None
                assert run.events >= last
            return looks

        looks, *_ = await asyncio.gather(follow(), follow(), follow(), write())
        assert looks > 10

    in_store(tmp_path, use)


def test_more_than_may_wait_are_all_served(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        await store.add_run(a_run("r"))
        count = 3 * MAX_WAITING + MAX_GROUP
        numbers = await asyncio.gather(*(store.append("r", 1.0, b"") for _ in range(count)))
        assert numbers == [*range(1, count + 1)]

    in_store(tmp_path, use)


def test_one_that_fails_takes_nobody_along(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        await store.add_run(a_run("r"))
        wanted = [store.append(("r", "nothing")[n % 3 == 2], 1.0, b"") for n in range(300)]
        found = await asyncio.gather(*wanted, return_exceptions=True)
        assert [one for one in found if isinstance(one, int)] == [*range(1, 201)]
        assert {type(one) for one in found[2::3]} == {NotFound}

    in_store(tmp_path, use)


def test_calls_that_are_given_up_leave_no_gap(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        await store.add_run(a_run("r"))
        tasks = [asyncio.create_task(store.append("r", 1.0, b"%d" % n)) for n in range(3 * MAX_WAITING)]
        await asyncio.wait({tasks[0]})
        for task in tasks[1::2]:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert any(isinstance(one, asyncio.CancelledError) for one in found)
        kept = await events(store, "r")
        assert [event.number for event in kept] == [*range(1, len(kept) + 1)]
        for place, number in enumerate(found):
            if isinstance(number, int):
                assert kept[number - 1].json == b"%d" % place
        await asyncio.gather(*(store.append("r", 1.0, b"") for _ in range(2 * MAX_WAITING)))  # all of them have room

    in_store(tmp_path, use)


def test_closing_waits_for_what_was_asked_for(tmp_path: Path) -> None:
    async def main() -> None:
        store = await Store.open(tmp_path / "store.db")
        await store.add_run(a_run("r"))
        tasks = [asyncio.create_task(store.append("r", 1.0, b"")) for _ in range(MAX_WAITING + 100)]
        await asyncio.sleep(0)  # each has begun
        await store.close()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        done = [one for one in found if isinstance(one, int)]
        assert len(done) >= MAX_WAITING
        assert {str(one).partition("db ")[2] for one in found[len(done) :]} <= {"is closed"}
        await store.close()
        for use in (store.append("r", 1.0, b""), store.run("r"), store.add_usage("a")):
            with pytest.raises(StoreError, match="is closed"):
                await use
        async with await Store.open(tmp_path / "store.db") as again:
            assert len(await events(again, "r")) == len(done)

    asyncio.run(asyncio.wait_for(main(), DEADLINE))


def test_a_store_that_nobody_closed_keeps_no_program_from_ending(tmp_path: Path) -> None:
    code = APPENDING.replace("await asyncio.gather", "return asyncio.gather")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "store.db")], timeout=WAIT, capture_output=True)

    async def use(store: Store) -> None:
        assert len(await store.unfinished()) == 4

    assert (done.returncode, done.stdout) == (0, b"")
    in_store(tmp_path, use)


def test_a_transaction_that_sqlite_took_back_has_failed_for_all(tmp_path: Path) -> None:
    """A constraint that says so stands for a full disk, of which SQLite does not always take everything back."""

    def add(connection: sqlite3.Connection, number: int) -> int:
        connection.execute("INSERT OR ROLLBACK INTO things VALUES (?)", (number,))
        return number

    async def main() -> None:
        connection = sqlite3.connect(tmp_path / "a.db", isolation_level=None, check_same_thread=False)
        connection.execute("CREATE TABLE things (number INTEGER UNIQUE)")
        writer, has_begun, go_on = Writer(connection, tmp_path / "a.db"), threading.Event(), threading.Event()
        first = asyncio.create_task(writer.write(lambda _: has_begun.set() or go_on.wait(WAIT)))
        assert await asyncio.to_thread(has_begun.wait, WAIT)
        group = [asyncio.create_task(writer.write(partial(add, number=number))) for number in (1, 2, 1, 3)]
        await asyncio.sleep(0)  # each is queued
        go_on.set()
        assert await first
        found = await asyncio.gather(*group, return_exceptions=True)
        assert {type(one) for one in found} == {StoreError}
        assert await writer.write(partial(add, number=4)) == 4
        await writer.close()
        with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as reading:
            assert reading.execute("SELECT number FROM things").fetchall() == [(4,)]

    asyncio.run(asyncio.wait_for(main(), DEADLINE))
