"""What is not kept any more: what is said to SQLite, on a connection that is given.

A run is withdrawn first, so that nobody finds it or goes on with it. Then its record is removed, and then the run, bit
by bit: a long one's events in one transaction would keep everybody who writes waiting for seconds. What has been
withdrawn is found again after a crash, until nothing of it is left.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence

from orchestrator.store.callers import DAY
from orchestrator.store.runs import LISTED, UNFINISHED

KEY_DAYS = 7  # nobody sends a request again after a week
USAGE_DAYS = 400  # a year, and the month in which somebody looks at it
AT_ONCE = 100  # runs that are looked up together
EVENTS = 1000  # that are removed in one transaction
PAGES = 500  # of the file, 2 MiB, that are given back in one transaction


def too_old(connection: sqlite3.Connection, keep_days: float, keep_runs: int) -> Sequence[str]:
    """Some of the ids of runs that have ended and need not be kept, oldest first."""
    rows = connection.execute(
        f"SELECT id FROM runs WHERE NOT {UNFINISHED} AND {LISTED} AND (ended < ? OR place <= coalesce("  # noqa: S608 - our names
        "(SELECT place FROM runs ORDER BY place DESC LIMIT 1 OFFSET ?), 0)) ORDER BY place LIMIT ?",
        (time.time() - keep_days * DAY, keep_runs, AT_ONCE),
    )
    return [id for (id,) in rows]


def withdraw(connection: sqlite3.Connection, id: str) -> bool:
    """There is no such run any more, unless it goes on meanwhile; whether that is so."""
    change = f"UPDATE runs SET state = 'removed', id = '\n' || place WHERE id = ? AND NOT {UNFINISHED}"  # noqa: S608
    return bool(connection.execute(change, (id,)).rowcount)


def withdrawn(connection: sqlite3.Connection) -> tuple[int, str] | None:
    """The first of those that were, also before a crash: its place, and the path of its record."""
    query = "SELECT place, record FROM runs WHERE state = 'removed' ORDER BY place LIMIT 1"
    found: tuple[int, str] | None = connection.execute(query).fetchone()
    return found


def removed(connection: sqlite3.Connection, place: int) -> bool:
    """Removes a part of what was withdrawn; whether nothing of it is left."""
    of_run = "SELECT rowid FROM events WHERE run = ? LIMIT ?"
    events = connection.execute(f"DELETE FROM events WHERE rowid IN ({of_run})", (place, EVENTS))  # noqa: S608 - ours
    is_all = events.rowcount < EVENTS
    if is_all:
        connection.execute("DELETE FROM runs WHERE place = ?", (place,))
    return is_all


def remove_rest(connection: sqlite3.Connection) -> None:
    """Removes keys and usage that are too old."""
    now = time.time()
    connection.execute("DELETE FROM keys WHERE made < ?", (now - KEY_DAYS * DAY,))
    connection.execute("DELETE FROM usage WHERE day < ?", (int(now // DAY) - USAGE_DAYS,))


def gives_back(connection: sqlite3.Connection) -> bool:
    """Shortens the file by some of the pages that nothing is in, if there are any."""
    before = _free_pages(connection)
    connection.execute(f"PRAGMA incremental_vacuum({PAGES})").fetchall()
    return _free_pages(connection) < before


def _free_pages(connection: sqlite3.Connection) -> int:
    found: int = connection.execute("PRAGMA freelist_count").fetchone()[0]
    return found
