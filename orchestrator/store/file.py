"""The file: made for its owner alone, held by one service, opened by connections that are all set up alike."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import StoreError
from orchestrator.sanitise import one_line
from orchestrator.store.schema import migrate, version_of

BUSY_SECONDS = 10.0  # that a connection waits for one of another process; each holds the file for milliseconds
WAL_BYTES = 64 << 20  # that the file's log keeps on the disk after a burst


class Lock:
    """Keeps a second service from the store; it would take the first one's runs for those that a crash left.

    It is a file of its own, beside the store: a process that closes a file loses all of SQLite's locks on it.
    """

    def __init__(self, path: Path) -> None:
        """Takes it.

        Raises:
            StoreError: another process has it, or another Store of this one.
            OSError: its file cannot be made.
        """
        handle = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(handle, "rb")  # closed, if by nobody else, when this object is gone
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise StoreError(
                f"another service has the store {path}: end it first (make down), or give this one another path"
            ) from None
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Another service may have it. The file stays: whoever waited for one that is removed would hold nothing."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class Opened:
    """The store's file: where it is, a connection to it, and the lock."""

    path: Path
    connection: sqlite3.Connection
    lock: Lock


def opened(path: Path) -> Opened:
    """Makes the file, and folders that are missing, if it is not there, and brings its tables up to date.

    Raises:
        StoreError: it is no store, of a newer version, held by another service, or cannot be read or written.
    """
    path = path.absolute()
    with failing(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = Lock(path)
        try:
            _make(path)
            connection = connected(path)
        except BaseException:
            lock.release()
            raise
        return Opened(path, connection, lock)


def _make(path: Path) -> None:
    """Makes the store, or an older one's tables the present ones. SQLite gives its other files the mode of this one."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    if not path.is_file():
        raise StoreError(f"{path} is no file: give the store another path")
    with contextlib.closing(connected(path)) as connection:
        if version_of(connection, path) == 0:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before the first table: pruning gives room back
            if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                raise StoreError(
                    f"the file system of {path} has no shared memory: give the store a path on a local disk"
                )
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
        migrate(connection, path)


def connected(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection to the store, for one thread at a time. Transactions are begun and ended in so many words.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    connection = sqlite3.connect(path, BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA synchronous = NORMAL")  # in WAL mode a killed process loses nothing with it
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        if read_only:
            connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def failing(path: Path) -> Iterator[None]:
    """What fails inside becomes a StoreError that says what and where."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"the store {path}: {one_line(str(error), 200)}") from None
    except OSError as error:
        raise StoreError(f"the store {path}: {error.strerror}") from None
    except (OverflowError, UnicodeEncodeError) as error:
        raise StoreError(f"the store {path} has no room for such a value: {error}") from None
