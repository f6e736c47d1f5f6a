"""Runs and their events: what is said to SQLite, on a connection that is given."""

from __future__ import annotations

import dataclasses
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from orchestrator.errors import ConfigError, NotFound, Overloaded
from orchestrator.events import RunState
from orchestrator.store.stored import StoredEvent, StoredRun

MAX_LISTED = 1000  # runs in one answer
LISTED_BYTES = 3 << 20  # of what a list has of runs: of a long list's runs the texts are cut, and answers left out
# A search compares each place of a text with all of what is searched for, so both have bounds; else one long task keeps
# a thread busy for minutes, and whoever waits for it.
MAX_SEARCH = 200  # characters
MAX_SEARCHED = 2000  # characters of a task, its first ones
SEARCH_SECONDS = 2.0  # for all runs together
PROGRESS = 1000  # of SQLite's steps between two looks at the time: a few dozen runs
PAGE = 256  # events that are read at once
PAGE_BYTES = 1 << 20  # the same: of more of them, the rest is read when those have been taken
MAX_NUMBER = (1 << 63) - 1  # of an event: SQLite has no greater
_FIELDS = tuple(field.name for field in dataclasses.fields(StoredRun))
_COLUMNS = ", ".join(_FIELDS)
LISTED = "state <> 'removed'"  # see retention.py
_OF_RUN = f"run = (SELECT place FROM runs WHERE id = ? AND {LISTED})"  # noqa: S608 - our names
UNFINISHED = "state IN ('queued', 'running', 'waiting')"


def storable(value: Any) -> Any:
    """``value`` as a column takes it: no half of a surrogate pair, which is not text to SQLite."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def add_run(connection: sqlite3.Connection, run: StoredRun, key: str) -> StoredRun:
    """Adds it, or gives the one that ``key`` stands for."""
    if key and (id := claim(connection, run.owner, key, run.id)) != run.id:
        return known_run(connection, id)
    values = [storable(getattr(dataclasses.replace(run, events=0), name)) for name in _FIELDS]
    marks = ", ".join("?" * len(_FIELDS))
    connection.execute(f"INSERT INTO runs ({_COLUMNS}) VALUES ({marks})", values)  # noqa: S608 - names of fields
    return dataclasses.replace(run, events=0)


def keyed(connection: sqlite3.Connection, owner: str, key: str) -> str | None:
    """The id that the key stands for, if any."""
    row = connection.execute(
        "SELECT id FROM keys WHERE owner = ? AND key = ?", (storable(owner), storable(key))
    ).fetchone()
    return row[0] if row else None


def claim(connection: sqlite3.Connection, owner: str, key: str, id: str) -> str:
    """The id that the key stands for, which is ``id`` if the key is new."""
    owner, key = storable(owner), storable(key)
    connection.execute("INSERT OR IGNORE INTO keys VALUES (?, ?, ?, ?)", (owner, key, id, time.time()))
    found: str = connection.execute("SELECT id FROM keys WHERE owner = ? AND key = ?", (owner, key)).fetchone()[0]
    return found


def change_run(connection: sqlite3.Connection, id: str, changes: Mapping[str, Any]) -> None:
    """Sets fields of a run."""
    columns = ", ".join(f"{name} = ?" for name in changes)
    values = [*map(storable, changes.values()), id]
    if not connection.execute(f"UPDATE runs SET {columns} WHERE id = ?", values).rowcount:  # noqa: S608 - checked names
        raise NotFound(f"there is no run {id[:100]!r}")


def check_changes(changes: Mapping[str, Any]) -> None:
    """That each is of a field that may be changed.

    Raises:
        TypeError: one is not.
    """
    wrong = changes.keys() - (set(_FIELDS) - {"id", "events"})
    if wrong:
        raise TypeError(f"{min(wrong)!r} of a run cannot be changed")


def find_run(connection: sqlite3.Connection, id: str) -> StoredRun | None:
    """The run with that id."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM runs WHERE id = ? AND {LISTED}", (id,)).fetchone()  # noqa: S608
    return _run(row) if row else None


def known_run(connection: sqlite3.Connection, id: str) -> StoredRun:
    """The same, where there has to be one."""
    run = find_run(connection, id)
    if run is None:
        raise NotFound(f"there is no run {id[:100]!r}")
    return run


def list_runs(
    connection: sqlite3.Connection, limit: int, before: str, agent: str, search: str, owner: str | None
) -> list[StoredRun]:
    """Newest first."""
    conditions: list[tuple[str, object]] = []
    if before:
        row = connection.execute("SELECT place FROM runs WHERE id = ?", (before,)).fetchone()
        if row is None:
            raise NotFound(f"there is no run {before[:100]!r}")
        conditions.append(("place < ?", row[0]))
    if agent:
        conditions.append(("agent = ?", storable(agent)))
    if owner is not None:
        conditions.append(("owner = ?", storable(owner)))
    if search:
        if len(search) > MAX_SEARCH:
            raise ConfigError(f"what is searched for has at most {MAX_SEARCH} characters")
        task = rf"substr(task, 1, {MAX_SEARCHED}) LIKE ? ESCAPE '\'"
        conditions.append((task, f"%{_escaped(storable(search))}%"))
    where = " AND ".join([LISTED, *(text for text, _ in conditions)])
    limit = max(0, min(limit, MAX_LISTED))
    values = [*(value for _, value in conditions), limit]
    columns = ", ".join(_cut(name, LISTED_BYTES // max(limit, 1)) for name in _FIELDS)
    query = f"SELECT {columns} FROM runs WHERE {where} ORDER BY place DESC LIMIT ?"  # noqa: S608 - texts of above
    with _in_time(connection, SEARCH_SECONDS if search else None):
        return [_run(row) for row in connection.execute(query, values)]


@contextmanager
def _in_time(connection: sqlite3.Connection, seconds: float | None) -> Iterator[None]:
    """Raises Overloaded if it takes longer; None: it may."""
    if seconds is None:
        yield
        return
    end = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > end, PROGRESS)
    try:
        yield
    except sqlite3.OperationalError:
        if time.monotonic() > end:
            raise Overloaded(f"the search took longer than {seconds:g} s: search among fewer runs", seconds) from None
        raise
    finally:
        connection.set_progress_handler(None, 0)


def _cut(name: str, room: int) -> str:
    """The column, with what of it has its share of so many bytes; a character has four at most."""
    if name in ("task", "error"):
        return f"substr({name}, 1, {room // 16})"
    return f"CASE WHEN length(answer) <= {room // 4} THEN answer ELSE x'' END" if name == "answer" else name


def _escaped(text: str) -> str:
    """``text`` as LIKE finds it, with no character of it standing for others."""
    return text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")


def unfinished(connection: sqlite3.Connection) -> list[StoredRun]:
    """Those that have not ended, oldest first."""
    query = f"SELECT {_COLUMNS} FROM runs WHERE {UNFINISHED} ORDER BY place"  # noqa: S608 - our names
    return [_run(row) for row in connection.execute(query)]


def _run(row: Sequence[Any]) -> StoredRun:
    run = StoredRun(*row)
    return dataclasses.replace(run, state=RunState(run.state))


def append(connection: sqlite3.Connection, id: str, time: float, json: bytes, changes: Mapping[str, Any]) -> int:
    """Adds the next event of a run. Gives its number."""
    if not connection.execute("UPDATE runs SET events = events + 1 WHERE id = ?", (id,)).rowcount:
        raise NotFound(f"there is no run {id[:100]!r}")
    place, number = connection.execute("SELECT place, events FROM runs WHERE id = ?", (id,)).fetchone()
    connection.execute("INSERT INTO events VALUES (?, ?, ?, ?)", (place, number, time, json))
    if changes:
        change_run(connection, id, changes)
    return int(number)


def page_of_events(connection: sqlite3.Connection, id: str, after: int) -> list[StoredEvent]:
    """The next ones after that number, in order; at least one if there is any."""
    query = f"SELECT number, time, json FROM events WHERE {_OF_RUN} AND number > ? ORDER BY number LIMIT ?"  # noqa: S608
    rows = connection.execute(query, (id, after, PAGE))
    return list(_within(PAGE_BYTES, (StoredEvent(*row) for row in rows)))


def _within(size: int, events: Iterable[StoredEvent]) -> Iterable[StoredEvent]:
    for event in events:
        yield event
        size -= len(event.json)
        if size <= 0:
            return
