"""The store as the service uses it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

from orchestrator.store import callers, retention, runs
from orchestrator.store.file import Opened, opened
from orchestrator.store.reader import Reader
from orchestrator.store.stored import StoredEvent, StoredRun, StoredToken, StoredUsage
from orchestrator.store.writer import Writer


class Store:
    """Made by ``open``; whoever opens it closes it, with ``async with`` or ``close()``. For one event loop.

    What a call has written when it returns is there after the process was killed, and after a power cut but for the
    last moments. Calls are written in the order in which they were made; one that is cancelled may have been written.

    Raises:
        StoreError: in each call: it cannot be read or written (a full disk, say), or is closed. Then nothing of what
            was to be written is there, and a later call may go well.
    """

    def __init__(self, file: Opened) -> None:
        self.path = file.path
        self._lock = file.lock
        self._writer = Writer(file.connection, file.path)
        self._reader = Reader(file.path)
        self._doorkeeper = Reader(file.path, 1)  # who may call at all is not kept waiting by what others read

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Opens the store, makes it if there is none (readable for its owner alone), and brings it up to date.

        Args:
            path: of the file. SQLite has others beside it, with the same name and an ending.

        Raises:
            StoreError: another service has it, it is no store or one of a newer version, or it cannot be read or
                written.
        """
        return cls(await asyncio.to_thread(opened, path))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends it when all that was asked for is written; a second time, nothing happens."""
        await self._reader.close()
        await self._doorkeeper.close()
        await self._writer.close()
        self._lock.release()

    # Runs.

    async def add_run(self, run: StoredRun, key: str = "") -> StoredRun:
        """Adds a run, with no events.

        Args:
            run: its id is new.
            key: that the request for it carries. If the owner has used it before, nothing is added.

        Returns:
            ``run``, or the one that the key stands for.

        Raises:
            StoreError: there is a run of that id.
            NotFound: the run that the key stands for is not kept any more.
        """
        return await self._writer.write(lambda connection: runs.add_run(connection, run, key))

    async def change_run(self, id: str, /, **changes: Any) -> None:
        """Sets fields of a ``StoredRun``, except for ``id`` and ``events``.

        Raises:
            NotFound: there is no such run.
            TypeError: there is no such field, or it cannot be set.
        """
        runs.check_changes(changes)
        if changes:
            await self._writer.write(lambda connection: runs.change_run(connection, id, changes))

    async def run(self, id: str) -> StoredRun | None:
        """The run; None if there is none of that id."""
        return await self._reader.read(lambda connection: runs.find_run(connection, id))

    async def runs(
        self, limit: int = 100, before: str = "", agent: str = "", search: str = "", owner: str | None = None
    ) -> list[StoredRun]:
        """Runs, newest first: of each the beginning of its task and error, and its answer unless that is long.

        Args:
            limit: how many; at most 1,000.
            before: the id of the last one that was listed: those that were added before it.
            agent: only runs of that agent.
            search: only those with this text in the first 2,000 characters of their task; it has 200 at most. Capitals
                are as small letters there, in ASCII.
            owner: only those of that owner; None: of all.

        Raises:
            NotFound: there is no run ``before``.
            ConfigError: ``search`` is too long.
            Overloaded: the search took too long.
        """
        return await self._reader.read(
            lambda connection: runs.list_runs(connection, limit, before, agent, search, owner)
        )

    async def unfinished(self) -> list[StoredRun]:
        """Those that are queued, running or waiting, oldest first: after a start, what a crash has left."""
        return await self._reader.read(runs.unfinished)

    # Events.

    async def append(self, run: str, time: float, json: bytes, **changes: Any) -> int:
        """Adds an event to the journal of a run.

        Args:
            run: its id.
            time: of the event, in seconds since the epoch.
            json: the event, as ``event_to_json`` writes it.
            changes: of the run, as in ``change_run``; made with it or not at all.

        Returns:
            The event's number: 1 for the first, then without gaps.

        Raises:
            NotFound: there is no such run.
            TypeError: a change cannot be made.
        """
        runs.check_changes(changes)
        return await self._writer.write(lambda connection: runs.append(connection, run, time, json, changes))

    async def events(self, run: str, after: int = 0) -> AsyncIterator[StoredEvent]:
        """The events of a run behind that number, as far as there are any; none of a run that there is not."""
        after = min(after, runs.MAX_NUMBER)
        while page := await self._reader.read(functools.partial(runs.page_of_events, id=run, after=after)):
            for event in page:
                yield event
            after = page[-1].number

    # Keys.

    async def keyed(self, owner: str, key: str) -> str | None:
        """The id that this key of the owner's stands for; None if it stands for none. It is kept for a week."""
        return await self._reader.read(lambda connection: runs.keyed(connection, owner, key))

    # Tokens and usage.

    async def add_token(self, token: StoredToken) -> None:
        """Adds a token.

        Raises:
            StoreError: there is one of that name, or was; or of that hash.
        """
        await self._writer.write(lambda connection: callers.add_token(connection, token))

    async def tokens(self) -> list[StoredToken]:
        """All of them by name, those that were revoked too."""
        return await self._reader.read(callers.list_tokens)

    async def token_of(self, hash: str) -> StoredToken | None:
        """The token with that hash; None if there is none, or it was revoked."""
        return await self._doorkeeper.read(lambda connection: callers.find_token(connection, hash))

    async def revoke(self, name: str) -> None:
        """From now on the token is good for nothing; one that was revoked stays as it is.

        Raises:
            NotFound: there is no such token.
        """
        await self._writer.write(lambda connection: callers.revoke(connection, name))

    async def add_usage(self, token: str, *, cpu_seconds: float = 0.0, run_seconds: float = 0.0) -> None:
        """Adds to what was used today (in UTC) under that name."""
        used = StoredUsage(cpu_seconds, run_seconds)
        await self._writer.write(lambda connection: callers.add_usage(connection, token, used))

    async def usage(self, token: str, since: float = 0.0) -> StoredUsage:
        """What was used under that name on the day of ``since`` (seconds since the epoch, days of UTC) and later."""
        return await self._reader.read(lambda connection: callers.usage(connection, token, since))

    # Retention.

    async def prune(self, keep_days: float, keep_runs: int, remove_record: Callable[[str], object]) -> int:
        """Removes runs that have ended, with their events: those that ended longer ago than ``keep_days``, and those
        that are not among the newest ``keep_runs``. Keys of a week ago and usage of a year ago go, too.

        Args:
            keep_days: see above.
            keep_runs: the same.
            remove_record: is given the path of each run's record before the run is removed, in a thread; perhaps again
                after a crash.

        Returns:
            How many runs were removed.
        """
        count = 0
        while ids := await self._reader.read(lambda connection: retention.too_old(connection, keep_days, keep_runs)):
            for id in ids:
                count += await self._writer.write(functools.partial(retention.withdraw, id=id))
        while found := await self._reader.read(retention.withdrawn):
            place, record = found
            if record:
                await asyncio.to_thread(remove_record, record)
            while not await self._writer.write(functools.partial(retention.removed, place=place)):
                pass
        await self._writer.write(retention.remove_rest)
        while await self._writer.write(retention.gives_back):
            pass
        return count
