"""Tokens and what was used under their names: what is said to SQLite, on a connection that is given."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from typing import Any

from orchestrator.errors import NotFound, StoreError
from orchestrator.store.stored import StoredToken, StoredUsage

DAY = 86400  # seconds; usage is kept by days of UTC


def add_token(connection: sqlite3.Connection, token: StoredToken) -> None:
    """Adds one."""
    if connection.execute("SELECT 1 FROM tokens WHERE name = ?", (token.name,)).fetchone():
        raise StoreError(f"there is or was a token named {token.name!r}: choose another name")
    scopes, quotas = json.dumps(sorted(token.scopes)), json.dumps(dict(token.quotas), allow_nan=False)
    row = (token.name, token.hash, scopes, quotas, token.created, token.revoked)
    connection.execute("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?)", row)


def list_tokens(connection: sqlite3.Connection) -> list[StoredToken]:
    """All of them, by name."""
    return [_token(row) for row in connection.execute("SELECT * FROM tokens ORDER BY name")]


def find_token(connection: sqlite3.Connection, hash: str) -> StoredToken | None:
    """The good one with that hash."""
    row = connection.execute("SELECT * FROM tokens WHERE hash = ? AND revoked = 0", (hash,)).fetchone()
    return _token(row) if row else None


def _token(row: Sequence[Any]) -> StoredToken:
    name, hash, scopes, quotas, created, revoked = row
    return StoredToken(name, hash, frozenset(json.loads(scopes)), json.loads(quotas), created, revoked)


def revoke(connection: sqlite3.Connection, name: str) -> None:
    """It is good no more."""
    if not connection.execute("SELECT 1 FROM tokens WHERE name = ?", (name,)).fetchone():
        raise NotFound(f"there is no token {name[:100]!r}")
    connection.execute("UPDATE tokens SET revoked = ? WHERE name = ? AND revoked = 0", (time.time(), name))


def add_usage(connection: sqlite3.Connection, token: str, used: StoredUsage) -> None:
    """Adds to what was used today."""
    day = int(time.time() // DAY)
    connection.execute("INSERT OR IGNORE INTO usage VALUES (?, ?, 0, 0)", (token, day))
    connection.execute(
        "UPDATE usage SET cpu_seconds = cpu_seconds + ?, run_seconds = run_seconds + ? WHERE token = ? AND day = ?",
        (used.cpu_seconds, used.run_seconds, token, day),
    )


def usage(connection: sqlite3.Connection, token: str, since: float) -> StoredUsage:
    """The sum from the day of ``since`` on."""
    row = connection.execute(
        "SELECT total(cpu_seconds), total(run_seconds) FROM usage WHERE token = ? AND day >= ?",
        (token, int(since // DAY)),
    ).fetchone()
    return StoredUsage(*row)
