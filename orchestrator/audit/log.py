"""The file of an audit log: lines are only ever added, by as many processes at the same time as there are.

Each record is added under a lock of the file, in one write. Before that the end of the file is looked at: it must be a
record, or what a crash left of one, and the last record that this object wrote must still be where it was.

A record is in the kernel's hands when ``append`` returns, so it outlives this process; ``sync`` puts it on the disk.
Everything here may block.
"""

from __future__ import annotations

import datetime
import fcntl
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from orchestrator.audit import chain
from orchestrator.audit.chain import Broken, BrokenChain, Head, Record, Report
from orchestrator.errors import AuditError

_MODE = 0o600
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
LOCK_DEADLINE = 10.0  # seconds for the other writers; each holds the lock for microseconds, unless it was stopped
_LOCK_POLL = 0.002  # seconds between two tries; a lock cannot be waited for with a deadline


@dataclass(frozen=True, slots=True)
class _End:
    """The last record that this process wrote: where, what, and the head after it."""

    offset: int
    line: bytes
    head: Head

    @property
    def after(self) -> int:
        return self.offset + len(self.line)


class AuditLog:
    """One file. Objects of the same path, in one process or several, may be used side by side, from any thread."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self._last: _End | None = None
        self._is_new = False  # its name may not be on the disk yet

    def append(self, kind: str, sandbox: str, data: Mapping[str, Any]) -> None:
        """Adds one record.

        Raises:
            AuditError: it is not in the file, or not whole.
        """
        with self._errors(), self._locked() as file:
            size = os.fstat(file).st_size
            head, torn = self._end(file, size)
            added = b"" if size == 0 or os.pread(file, 1, size - 1) == b"\n" else b"\n"
            if torn:
                line, head = chain.make(head, _now(), "", chain.RECOVERED, _account(torn))
                added += line + b"\n"
            line, head = chain.make(head, _now(), sandbox, kind, data)
            _write(file, added + line + b"\n")
            self._last = _End(size + len(added), line + b"\n", head)
            self._is_new = self._is_new or size == 0

    def sync(self) -> None:
        """Puts what was added on the disk. Takes as long as the disk does.

        Raises:
            AuditError: the disk failed.
        """
        with self._errors():
            _fsync(self.path, os.O_RDONLY | os.O_NOFOLLOW)
            if self._is_new:
                _fsync(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
                self._is_new = False

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """The system's errors -> ours."""
        try:
            yield
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise AuditError(
                f"the audit log {str(self.path)!r} cannot be written ({reason}), and nothing is done that would have "
                "to be recorded"
            ) from error

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The file, opened anew: a lock belongs to an opening, and so keeps threads and forked children apart, too."""
        file = os.open(self.path, _FLAGS, _MODE)
        try:
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
                raise AuditError(
                    f"the audit log {str(self.path)!r} must be a file of this user's that nobody else can open "
                    "(mode 0600)"
                )
            _lock(file)
            yield file
        finally:
            os.close(file)  # and with it the lock

    def _end(self, file: int, size: int) -> tuple[Head, bytes]:
        """The head of the chain in the file, and what a crash left behind it."""
        last = self._last
        if last and os.pread(file, len(last.line), last.offset) != last.line:
            raise AuditError(
                f"the audit log {str(self.path)!r} has been cut, changed or replaced since this process wrote to it; "
                "'cellblock audit verify' says more"
            )
        if last and last.after == size:
            return last.head, b""
        start = max(0, size - chain.MAX_TORN - chain.MAX_LINE - 2)
        found = _last_record(os.pread(file, size - start, start), whole=start == 0)
        if found is None:
            raise AuditError(
                f"{str(self.path)!r} does not end as an audit log does, and nothing is added to it; "
                "'cellblock audit verify' says more"
            )
        return found


def _last_record(tail: bytes, whole: bool) -> tuple[Head, bytes] | None:
    """The head by the last record in ``tail``, and what follows it. None if that cannot be the end of a log."""
    end = len(tail)
    while end > 0:
        start = tail.rfind(b"\n", 0, end - 1) + 1
        torn = tail[end:]
        try:
            record = chain.parse(tail[start:end].removesuffix(b"\n"))
        except BrokenChain:
            end = start
            continue
        return (record.head, torn) if _is_left_by_a_crash(torn) else None
    return (Head(), tail) if whole and _is_left_by_a_crash(tail) else None


def _is_left_by_a_crash(torn: bytes) -> bool:
    return len(torn) <= chain.MAX_TORN and chain.may_be_torn(torn)


def _account(torn: bytes) -> dict[str, Any]:
    lost = torn.removesuffix(b"\n")
    return {"torn_bytes": len(lost), "torn_sha256": chain.digest(lost)}


def _lock(file: int) -> None:
    deadline = time.monotonic() + LOCK_DEADLINE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_LOCK_POLL)


def _write(file: int, data: bytes) -> None:
    """In one call: a process that is killed has written all of it or nothing."""
    written = os.write(file, data)
    if written != len(data):
        raise OSError(f"only {written} of {len(data)} bytes could be written")


def _fsync(path: Path, flags: int) -> None:
    file = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")


# --------------------------------------------------------------------------------------------------------- reading


@contextmanager
def _lines(path: str | Path) -> Iterator[Iterable[bytes]]:
    """The lines that are there now. More may be added meanwhile; what is there does not change.

    Raises:
        AuditError: the file cannot be read.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not be waited for
        with os.fdopen(file, "rb") as opened:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise AuditError(f"{str(path)!r} is no file")
            _lock(file)  # nobody is in the midst of a record
            size = os.fstat(file).st_size
            fcntl.flock(file, fcntl.LOCK_UN)
            yield _bounded_lines(opened, size)
    except OSError as error:
        raise AuditError(f"the audit log {str(path)!r} cannot be read: {error.strerror}") from error


def _bounded_lines(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0 and (line := file.readline(min(size, chain.MAX_TORN + 1))):
        size -= len(line)
        yield line


def verify(path: str | Path, head: str = "") -> Report:
    """Whether the chain holds, and if not, where it breaks first.

    Args:
        path: of the log.
        head: the ``head`` of an earlier report, to find that the log's end has been cut off since.

    Raises:
        AuditError: the file cannot be read.
    """
    with _lines(path) as lines:
        return chain.report(lines, head)


def entries_of(path: str | Path) -> Iterator[Record | Broken]:
    """The records, and at last the first line where the chain breaks, if it does.

    Raises:
        AuditError: the file cannot be read.
    """
    with _lines(path) as lines:
        for _, found in chain.walk(lines):
            yield found


def records_of(path: str | Path) -> Iterator[Record]:
    """The records, up to the first line where the chain breaks; errors as of ``entries_of``."""
    return (found for found in entries_of(path) if isinstance(found, Record))
