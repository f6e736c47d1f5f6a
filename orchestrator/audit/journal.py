"""What a sandbox writes its records through; without an audit log, nothing happens here."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Self

from orchestrator.audit.log import AuditLog
from orchestrator.audit.records import Happening
from orchestrator.errors import AuditError

_THREADS = 4  # that may wait for the disk at the same time
_threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="cellblock-audit")

_NOTHING: Mapping[str, str] = MappingProxyType({})
_concerns: ContextVar[Mapping[str, str]] = ContextVar("cellblock_audit_concerns", default=_NOTHING)


def concern(**names: str) -> None:
    """What is recorded in this context from now on, and in tasks that are begun in it, has these names besides.

    For what a sandbox does not know of itself: whose it is, and which run works in it. Empty ones are left out.
    """
    _concerns.set({name: value for name, value in names.items() if value})


class _Once:
    """Calls ``work`` the first time that it is called, whoever does. A pool that can start no thread says so only
    after it has queued what it was given."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._claimed = threading.Lock()

    def __call__(self) -> bool:
        """False if somebody else has called it, or does."""
        if not self._claimed.acquire(blocking=False):
            return False
        self._work()
        return True


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
            AuditError: it could not be, or that is not known. Then what it tells of must not happen.
        """
        if self.log is None:
            return
        job = _Once(functools.partial(self._write, self.log, happening, _concerns.get()))
        try:
            writing = asyncio.wrap_future(_threads.submit(job))
        except RuntimeError as error:  # the process is ending, or may have no more threads: then it is written here
            if job():
                return
            raise AuditError(f"whether a record is in the audit log is not known: {error}") from None
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            writing.add_done_callback(lambda done: done.cancelled() or done.exception())  # heard, if by nobody else
            await asyncio.wait({writing})  # what is recorded next must not come before it
            raise

    def _write(self, log: AuditLog, happening: Happening, concerns: Mapping[str, str]) -> None:
        log.append(happening.kind, self.sandbox, {**concerns, **happening.data()})
        if happening.durable:
            log.sync()
