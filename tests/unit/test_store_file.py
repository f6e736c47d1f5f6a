"""The store's file: whose it is, which version, and what becomes of it where something fails."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import StoreError
from orchestrator.events import RunState
from orchestrator.store import Store, StoredEvent, StoredToken, StoredUsage
from orchestrator.store.schema import APPLICATION, SCRIPTS, migrate, version_of
from tests.unit.apart import apart, in_own_namespace, mount, ordinary_folder
from tests.unit.test_store import a_run, events, in_store

WAIT = 60.0  # seconds for another program
# Of each script that was ever released. Files that it made are out there: a change of it would not reach them.
SCRIPTS_SHA256 = ["ac8c1b79d233c0f2c0d5870862fe9f0c6773b782905a935837121149a4e38dc0"]
HOLDING = """
import asyncio, sys
from collections.abc import Iterator
from pathlib import Path
from orchestrator.store import Store
async def main():
    store = await Store.open(Path(sys.argv[1]))
    print("held", flush=True)
    sys.stdin.read()
try:
    asyncio.run(main())
except Exception as error:
    print(type(error).__name__, error)
"""
REMOUNT, READ_ONLY = 0x20, 0x1  # see mount(2)


def opening(path: Path) -> None:
    async def main() -> None:
        await (await Store.open(path)).close()

    asyncio.run(asyncio.wait_for(main(), WAIT))


@contextlib.contextmanager
def another_service(path: Path) -> Iterator[subprocess.Popen[str]]:
    """That has the store, or says why it cannot have it."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLDING, str(path)], stdin=pipe, stdout=pipe, text=True) as other:
        try:
            yield other
        finally:
            other.kill()
            other.wait(WAIT)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def modes(folder: Path) -> dict[str, int]:
    return {file.name: mode(file) for file in folder.iterdir()}


def test_every_file_is_its_owners_alone(tmp_path: Path) -> None:
    async def use(store: Store) -> None:
        await store.add_usage("ann")
        assert modes(tmp_path) == dict.fromkeys(["store.db", "store.db-shm", "store.db-wal", "store.db.lock"], 0o600)

    in_store(tmp_path, use)
    assert modes(tmp_path).keys() == {"store.db", "store.db.lock"}
    (tmp_path / "store.db").chmod(0o644)
    in_store(tmp_path, use)
    opening(tmp_path / "deep" / "er" / "store.db")
    assert mode(tmp_path / "deep" / "er") == 0o700


def test_two_services_cannot_have_one_store(tmp_path: Path) -> None:
    path = tmp_path / "store.db"

    async def use(store: Store) -> None:
        with pytest.raises(StoreError, match="another service has the store"):
            await Store.open(path)
        with another_service(path) as other:
            said, _ = await asyncio.to_thread(other.communicate, "", WAIT)
        assert said.startswith("StoreError another service has the store")
        await store.add_run(a_run("r"))

    in_store(tmp_path, use)
    with another_service(path) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match="another service has the store"):
            opening(path)
    opening(path)  # killed, it has it no more


# Versions.


def test_a_script_that_was_released_is_as_it_was() -> None:
    assert [hashlib.sha256(script.encode()).hexdigest() for script in SCRIPTS] == SCRIPTS_SHA256


def version_1(path: Path) -> None:
    """A store as the first version left it."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(
            f"PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; BEGIN; {SCRIPTS[0]};"
            f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = 1;"
            "INSERT INTO runs (id, agent, task, owner, state, created, started, ended, steps, events, input_tokens,"
            " output_tokens, error, answer, record, app_tools, recoveries) VALUES"
            " ('r', 'default', 'Count.', 'local', 'waiting', 1, 2, 0, 3, 1, 4, 5, '', x'', '/r', 'look_up', 1);"
            "INSERT INTO events (run, number, time, json) VALUES (1, 1, 2.5, x'7b7d');"
            "INSERT INTO keys (owner, key, id, made) VALUES ('local', 'k', 'r', 4e9);"
            "INSERT INTO tokens (name, hash, scopes, quotas, created, revoked) VALUES"
            """ ('ann', 'ff', '["runs"]', '{"sandboxes": 2}', 1, 0);"""
            "INSERT INTO usage (token, day, cpu_seconds, run_seconds) VALUES ('ann', 20000, 2, 3);"
            "COMMIT"
        )


def test_a_store_of_version_1_is_gone_on_with(tmp_path: Path) -> None:
    version_1(tmp_path / "store.db")

    async def use(store: Store) -> None:
        (run,) = await store.unfinished()
        assert (run.id, run.state, run.created, run.record) == ("r", RunState.WAITING, 1.0, "/r")
        assert await events(store, "r") == [StoredEvent(1, 2.5, b"{}")]
        assert await store.append("r", 3.0, b"[]") == 2
        assert await store.keyed("local", "k") == "r"
        assert await store.token_of("ff") == StoredToken("ann", "ff", frozenset({"runs"}), {"sandboxes": 2}, 1.0)
        assert await store.usage("ann") == StoredUsage(2.0, 3.0)

    in_store(tmp_path, use)


def test_scripts_are_run_from_the_files_version_on_each_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    version_1(path)
    named = "ALTER TABLE runs ADD COLUMN title TEXT NOT NULL DEFAULT ''; UPDATE runs SET title = task"
    broken = "CREATE TABLE more (a TEXT); INSERT INTO nowhere VALUES (1)"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        with pytest.raises(sqlite3.OperationalError, match="nowhere"):
            migrate(connection, path, (SCRIPTS[0], named, broken))
        assert not connection.in_transaction
        assert version_of(connection, path, (SCRIPTS[0], named, broken)) == 2
        assert connection.execute("SELECT id, title FROM runs").fetchall() == [("r", "Count.")]
        assert not connection.execute("SELECT * FROM sqlite_master WHERE name = 'more'").fetchall()
        migrate(connection, path, (SCRIPTS[0], named, "CREATE TABLE more (a TEXT)"))
        assert connection.execute("SELECT count(*) FROM more").fetchone() == (0,)


def test_a_newer_store_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    opening(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {len(SCRIPTS) + 1}")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="install a newer cellblock"):
        opening(path)
    assert path.read_bytes() == before


def test_what_is_no_store_is_left_alone(tmp_path: Path) -> None:
    text, database = tmp_path / "text", tmp_path / "other.db"
    text.write_text("no database " * 1000)
    text.chmod(0o644)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE runs (id TEXT)")
    database.chmod(0o644)
    for path, message in ((text, "not a database"), (database, "another program's database"), (tmp_path, "no file")):
        before = (path.read_bytes() if path.is_file() else None, mode(path))
        with pytest.raises(StoreError, match=message):
            opening(path)
        assert (path.read_bytes() if path.is_file() else None, mode(path)) == before
    assert not (tmp_path / "other.db-wal").exists()
    with pytest.raises(StoreError, match="File exists"):
        opening(text / "store.db")


# Disks.


@in_own_namespace
def test_a_full_disk_is_told_and_what_was_there_is_kept() -> None:
    folder = Path("/mnt")
    mount("tmpfs", str(folder), "tmpfs", "size=2m")

    async def fill(store: Store) -> None:
        await store.add_run(a_run("r"))
        for number in range(1, 1000):
            try:
                assert await store.append("r", 1.0, bytes(50_000)) == number
            except StoreError as error:
                assert "full" in str(error)  # noqa: PT017 - it takes some to come here
                break
        with pytest.raises(StoreError, match="full"):
            await asyncio.gather(*(store.append("r", 1.0, bytes(50_000)) for _ in range(10)))
        assert 3 < number < 100
        assert [event.number for event in await events(store, "r")] == [*range(1, number)]
        mount("tmpfs", str(folder), "tmpfs", "size=8m", REMOUNT)
        assert await store.append("r", 1.0, bytes(50_000)) == number

    in_store(folder, fill)


@in_own_namespace
def test_a_disk_without_room_for_the_tables_is_told() -> None:
    mount("tmpfs", "/mnt", "tmpfs", "size=8k")
    with pytest.raises(StoreError, match=r"full|disk I/O error"):
        opening(Path("/mnt/store.db"))


@in_own_namespace
def test_a_read_only_disk_is_told() -> None:
    mount("tmpfs", "/mnt", "tmpfs")
    path = Path("/mnt/store.db")
    opening(path)
    mount("tmpfs", "/mnt", "tmpfs", None, REMOUNT | READ_ONLY)
    with pytest.raises(StoreError, match="Read-only file system"):
        opening(path)
    with pytest.raises(StoreError, match="Read-only file system"):
        opening(Path("/mnt/deep/store.db"))


@apart
def test_a_read_only_file_is_told() -> None:
    with ordinary_folder() as folder:
        path = folder / "store.db"
        opening(path)
        path.chmod(0o400)
        with pytest.raises(StoreError, match="readonly"):
            in_store(folder, lambda store: store.add_run(a_run("r")))
        path.chmod(0)
        with pytest.raises(StoreError, match="unable to open"):
            opening(path)


@apart
def test_a_file_that_may_grow_no_more_is_told() -> None:
    async def use(store: Store) -> None:
        await store.add_run(a_run("r"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
        with pytest.raises(StoreError, match="disk"):
            await store.append("r", 1.0, bytes(1_000_000))
        assert await events(store, "r") == []
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert await store.append("r", 1.0, bytes(1_000_000)) == 1

    with ordinary_folder() as folder:
        in_store(folder, use)
