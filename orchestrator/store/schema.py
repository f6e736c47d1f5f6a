"""The tables, and how those of an older file become them.

Each script leads from one version of the file to the next. One that was ever released is not changed any more: a test
holds a file of each version.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from orchestrator.errors import StoreError

APPLICATION = 0x63626C6B  # "cblk": in the file's head, so that no other program's file is taken for a store

SCRIPTS: tuple[str, ...] = (
    """
    CREATE TABLE runs (
        place INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        agent TEXT NOT NULL,
        task TEXT NOT NULL,
        owner TEXT NOT NULL,
        state TEXT NOT NULL,
        created REAL NOT NULL,
        started REAL NOT NULL,
        ended REAL NOT NULL,
        steps INTEGER NOT NULL,
        events INTEGER NOT NULL,
        input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        error TEXT NOT NULL,
        record TEXT NOT NULL,
        app_tools TEXT NOT NULL,
        recoveries INTEGER NOT NULL,
        answer BLOB NOT NULL
    );
    CREATE INDEX runs_by_owner ON runs (owner, place);
    CREATE INDEX runs_by_agent ON runs (agent, place);
    CREATE INDEX runs_unfinished ON runs (place) WHERE state IN ('queued', 'running', 'waiting');
    CREATE INDEX runs_removed ON runs (place) WHERE state = 'removed';
    CREATE TABLE events (
        run INTEGER NOT NULL REFERENCES runs (place) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        time REAL NOT NULL,
        json BLOB NOT NULL,
        UNIQUE (run, number)
    );
    CREATE TABLE keys (
        owner TEXT NOT NULL,
        key TEXT NOT NULL,
        id TEXT NOT NULL,
        made REAL NOT NULL,
        PRIMARY KEY (owner, key)
    ) WITHOUT ROWID;
    CREATE INDEX keys_by_age ON keys (made);
    CREATE TABLE tokens (
        name TEXT PRIMARY KEY,
        hash TEXT NOT NULL UNIQUE,
        scopes TEXT NOT NULL,
        quotas TEXT NOT NULL,
        created REAL NOT NULL,
        revoked REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE usage (
        token TEXT NOT NULL,
        day INTEGER NOT NULL,
        cpu_seconds REAL NOT NULL,
        run_seconds REAL NOT NULL,
        PRIMARY KEY (token, day)
    ) WITHOUT ROWID;
    """,
)


def migrate(connection: sqlite3.Connection, path: Path, scripts: Sequence[str] = SCRIPTS) -> None:
    """Makes the tables, or those of an older file the present ones; each step is made whole or not at all.

    Raises:
        StoreError: the file is another program's, or of a newer version.
        sqlite3.Error: it cannot be read or written.
    """
    for version in range(version_of(connection, path, scripts), len(scripts)):
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE; {scripts[version]}; PRAGMA application_id = {APPLICATION};"
                f"PRAGMA user_version = {version + 1}; COMMIT;"
            )
        except BaseException:
            if connection.in_transaction:
                connection.rollback()
            raise


def version_of(connection: sqlite3.Connection, path: Path, scripts: Sequence[str] = SCRIPTS) -> int:
    """Of a store's file; 0 if there is nothing in it.

    Raises:
        StoreError: as ``migrate``.
        sqlite3.Error: it cannot be read.
    """
    application, version = _number(connection, "application_id"), _number(connection, "user_version")
    is_empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION and not (is_empty and application == version == 0):
        raise StoreError(f"{path} is another program's database: give the store another path")
    if version > len(scripts):
        raise StoreError(
            f"{path} is of version {version}, and this cellblock knows versions up to {len(scripts)}: install a newer"
            " cellblock, or give the store another path"
        )
    return version


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    found: int = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
    return found
