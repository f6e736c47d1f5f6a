"""What a sandbox writes its records through; without an audit log, nothing happens here."""

from __future__ import annotations

import asyncio
import functools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Self

from orchestrator.audit.log import AuditLog
from orchestrator.audit.records import Happening

_THREADS = 4  # that may wait for the disk at the same time
_threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="cellblock-audit")


@functools.cache  # one for all of this process, which notices if what any of them wrote is no longer there
def _log_at(path: str) -> AuditLog:
    return AuditLog(path)


def _forget_after_fork() -> None:
    global _threads
    _threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="cellblock-audit")


os.register_at_fork(after_in_child=_forget_after_fork)


@dataclass(frozen=True, slots=True)
class Journal:
    """Records what happens in one sandbox, named ``sandbox``."""

    log: AuditLog | None = None
    sandbox: str = ""

    @classmethod
    def at(cls, path: str) -> Self:
        """One that writes to the audit log at ``path``; to none, if that is empty."""
        return cls(_log_at(os.path.abspath(path))) if path else cls()

    def named(self, sandbox: str) -> Self:
        """The same for that sandbox."""
        return replace(self, sandbox=sandbox)

    async def record(self, happening: Happening) -> None:
        """Writes it down before what it tells of goes on.

        If this is cancelled, it is written first.

        Raises:
            AuditError: it could not be. Then what it tells of must not happen.
        """
        if self.log is None:
            return
        try:
            writing = asyncio.wrap_future(_threads.submit(self._write, self.log, happening))
        except RuntimeError:  # the process is ending and its pools have been shut down
            self._write(self.log, happening)
            return
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            writing.add_done_callback(lambda done: done.cancelled() or done.exception())  # heard, if by nobody else
            await asyncio.wait({writing})  # what is recorded next must not come before it
            raise

    def _write(self, log: AuditLog, happening: Happening) -> None:
        log.append(happening.kind, self.sandbox, happening.data())
        if happening.durable:
            log.sync()
