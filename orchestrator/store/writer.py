"""One thread that writes. What has come meanwhile is committed together, so many who write wait for the disk once."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.errors import StoreError
from orchestrator.store.file import failing

MAX_WAITING = 1024  # pieces of work that are queued; then callers wait. Those given up stay in it, so it has a bound
MAX_GROUP = 256  # of them in one transaction: others who wait for the file wait for no more

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Result]


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    work: Work[Any]
    done: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _Failed:
    error: Exception


class Writer:
    """Owns ``connection``. Used from the event loop that it was made in."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(MAX_WAITING)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="cellblock-store", daemon=True)
        self._thread.start()

    async def write(self, work: Work[Result]) -> Result:
        """What ``work`` gives, once it is committed; in the order of the calls. A call that is cancelled may be done.

        Raises:
            StoreError: it could not be written, or the store is closed; nothing of it is there.
            CellblockError: whatever ``work`` raised; the same.
        """
        await self._room.acquire()
        if self._is_closed:
            self._room.release()
            raise StoreError(f"the store {self._path} is closed")
        job = _Job(work, self._loop.create_future())
        self._jobs.put(job)
        with failing(self._path):
            result: Result = await job.done
            return result

    async def close(self) -> None:
        """Waits until everything that was asked for is committed. A second call waits, too."""
        if not self._is_closed:
            self._is_closed = True
            self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        try:
            is_open = True
            while is_open:
                group, is_open = self._next_group()
                outcomes = self._commit(group) if group else []
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    self._loop.call_soon_threadsafe(self._settle, group, outcomes)
        finally:
            self._connection.close()

    def _next_group(self) -> tuple[list[_Job], bool]:
        """What is waiting, at least one; and whether more may come."""
        group: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            group.append(job)
            if len(group) == MAX_GROUP:
                return group, True
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return group, True
        return group, False

    def _commit(self, group: Sequence[_Job]) -> list[Any]:
        """What each came to. If the transaction fails as a whole, as on a full disk, each has failed."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            outcomes = [self._attempt(job.work) for job in group]
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - each caller raises it
            with contextlib.suppress(sqlite3.Error):
                self._connection.rollback()
            return [_Failed(error)] * len(group)
        return outcomes

    def _attempt(self, work: Work[Any]) -> Any:
        """Does it, or nothing of it: what others of the group did stays."""
        self._connection.execute("SAVEPOINT attempt")
        try:
            result = work(self._connection)
        except Exception as error:
            if not self._connection.in_transaction:  # SQLite took all of it back
                raise
            self._connection.execute("ROLLBACK TO attempt")
            result = _Failed(error)
        self._connection.execute("RELEASE attempt")
        return result

    def _settle(self, group: Sequence[_Job], outcomes: Sequence[Any]) -> None:
        for job, outcome in zip(group, outcomes, strict=True):
            self._room.release()
            if job.done.done():  # cancelled
                continue
            if isinstance(outcome, _Failed):
                job.done.set_exception(outcome.error)
            else:
                job.done.set_result(outcome)
