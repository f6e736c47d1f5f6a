"""Keeps other programs from going on with a record that one goes on with: they would make its calls twice."""

from __future__ import annotations

import fcntl
import os
import threading
import weakref
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import AgentError

_Key = tuple[int, int]  # device and inode of a file


@dataclass(slots=True)
class _Held:
    """One for each file: a lock is felt by whoever opens the file anew, in this program, too."""

    handle: int
    owners: int = 0


_held: dict[_Key, _Held] = {}
_gone: deque[_Key] = deque()  # of each owner that is gone, a key
_lock = threading.Lock()


def hold(path: Path, owner: object, *, create: bool = False) -> None:
    """Makes the file this program's as long as ``owner`` is there. A child that is forked has it, too.

    Args:
        path: the file.
        owner: whoever goes on with it; others in this program may, too.
        create: make it if it is not there, readable for its owner alone.

    Raises:
        AgentError: another program has it.
        OSError: it cannot be opened or locked.
    """
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
    found = os.fstat(handle)
    key = found.st_dev, found.st_ino
    with _lock:
        _let_go()
        if key in _held:
            os.close(handle)
        else:
            _lock_file(handle, path)
            _held[key] = _Held(handle)
        _held[key].owners += 1
    weakref.finalize(owner, _leave, key)
    _tidy()


def _lock_file(handle: int, path: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise AgentError(
            f"another program goes on with the record {path}: wait until it has ended, or record in another file"
        ) from None
    except BaseException:
        os.close(handle)
        raise


def _leave(key: _Key) -> None:
    """Called wherever garbage is collected, in the middle of the functions here, too: it waits for nothing."""
    _gone.append(key)
    _tidy()


def _tidy() -> None:
    while _gone and _lock.acquire(blocking=False):  # otherwise whoever has it does this next
        try:
            _let_go()
        finally:
            _lock.release()


def _let_go() -> None:
    while _gone:
        key = _gone.popleft()
        _held[key].owners -= 1
        if not _held[key].owners:
            os.close(_held.pop(key).handle)
