"""Threads that read, each with a connection of its own: they see what was committed, and hold up nobody who writes."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from orchestrator.errors import StoreError
from orchestrator.store.file import connected, failing

THREADS = 4  # that read at the same time; who finds none waits

Result = TypeVar("Result")


class Reader:
    """Reads the store at ``path``, with so many threads."""

    def __init__(self, path: Path, threads: int = THREADS) -> None:
        self._path = path
        self._own = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="cellblock-store-reader")
        self._is_closed = False

    async def read(self, look: Callable[[sqlite3.Connection], Result]) -> Result:
        """What ``look`` finds.

        Raises:
            StoreError: it cannot be read, or the store is closed.
            CellblockError: whatever ``look`` raised.
        """
        if self._is_closed:
            raise StoreError(f"the store {self._path} is closed")
        with failing(self._path):
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._look, look)

    def _look(self, look: Callable[[sqlite3.Connection], Result]) -> Result:
        connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = connected(self._path, read_only=True)
            self._connections.append(connection)
        return look(connection)

    async def close(self) -> None:
        """Waits for those that read now."""
        self._is_closed = True
        await asyncio.to_thread(self._threads.shutdown)
        while self._connections:
            self._connections.pop().close()
