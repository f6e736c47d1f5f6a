"""The workspace as part of a state: its files are held in memory, so that a copy of the process has them too.

A fork shares memory and not files. So before each fork the head looks at its workspace and reads what has changed into
plain bytes. Copies share them, page by page, and whatever a process is dropped or killed for takes its files along.
No code of later executions can reach the bytes of a copy, as it could reach files that were laid aside somewhere.

Covered are folders, regular files with their modes and times, and links; not what is neither (pipes, sockets), not
``/tmp``, not that two names are one file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from time import time_ns  # as it is before any user code

WORKSPACE = "/workspace"
BRANCHES = "/branches"
_MAX_ENTRIES = 16_384  # looked at before each fork
_MAX_DEPTH = 32
# File times tick as the kernel's timer does, 10 ms at the slowest: what was changed in the moment that it was looked at
# may change again within the same tick, and is looked at again the next time.
_TICK = 20_000_000  # nanoseconds

Signature = tuple[int, int, int, int]  # inode, change time in ns, size, mode: user code cannot set the change time


@dataclass(frozen=True)
class Entry:
    """A folder, a regular file or a link. ``content`` is a file's bytes, a link's target, or nothing."""

    signature: Signature
    mode: int
    modified: int  # ns
    content: bytes
    sure: bool  # the signature tells every later change


class NotCovered(Exception):
    """The workspace cannot be part of a state; the message says why."""


class Workspace:
    """The folder that user code works in, as it was when ``look`` was called last."""

    def __init__(self, cap: int) -> None:
        self.root = WORKSPACE
        self._cap = cap
        self._entries: dict[str, Entry] = {}
        self._folder = ""  # the current one, if it is inside
        self.reason = "it has not been looked at"  # why it is not covered; empty if it is

    def look(self) -> bool:
        """Takes in what has changed; False if the workspace is not covered, and ``reason`` says why."""
        try:
            self._entries = self._read()
            self._folder = self._current_folder()
            self.reason = ""
        except NotCovered as error:
            self._entries, self.reason = {}, str(error)
        except MemoryError:
            self._entries, self.reason = {}, "there is too little memory for a copy of the files"
        except OSError as error:
            self._entries, self.reason = {}, f"a file cannot be read: {error.strerror}"
        except Exception as error:  # noqa: BLE001 — user code may have replaced what is called here
            self._entries, self.reason = {}, f"the files cannot be read: {type(error).__name__}"
        return not self.reason

    def _current_folder(self) -> str:
        with suppress(OSError):
            here = os.getcwd()
            if here == self.root or here.startswith(self.root + "/"):
                return here[len(self.root) :].lstrip("/")
        return ""

    def _read(self) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        size = 0
        unsure_from = time_ns() - _TICK
        for path, found in _walk(self.root, "", 0):
            entry = self._entry(path, found, unsure_from)
            entries[path] = entry
            size += len(entry.content)
            if len(entries) > _MAX_ENTRIES:
                raise NotCovered(f"the workspace has more than {_MAX_ENTRIES:,} files")
            if size > self._cap:
                raise NotCovered(f"the workspace holds more than {self._cap:,} bytes")
        return entries

    def _entry(self, path: str, found: os.stat_result, unsure_from: int) -> Entry:
        signature = _signature(found)
        before = self._entries.get(path)
        if before and before.sure and before.signature == signature:
            return before
        if stat.S_ISREG(found.st_mode) and found.st_size > self._cap:
            raise NotCovered(f"the workspace holds more than {self._cap:,} bytes")
        content = _content(os.path.join(self.root, path), found.st_mode)
        if before and before.content == content:
            content = before.content  # one object, whose pages are shared
        return Entry(signature, found.st_mode, found.st_mtime_ns, content, found.st_ctime_ns < unsure_from)

    # -------------------------------------------------------------------------------------------------- going back

    def restore(self) -> str:
        """Makes the workspace what it was. Why that is not done, or is done in part only; empty if it is done."""
        if self.reason:
            return self.reason
        try:
            self._remove_others()
            for path, entry in self._entries.items():
                self._put_back(path, entry)
            for path, entry in reversed(self._entries.items()):  # what is below a folder changes its time
                if not stat.S_ISLNK(entry.mode):
                    os.utime(os.path.join(self.root, path), ns=(entry.modified, entry.modified))
            self._settle()
        except OSError as error:
            return f"a file cannot be written back: {error.strerror}"
        except Exception as error:  # noqa: BLE001 — see look
            return f"the files cannot be written back: {type(error).__name__}"
        return ""

    def move(self, root: str) -> str:
        """Makes a copy of the workspace at ``root``, and works in it. Why that could not be done, or nothing."""
        try:
            os.makedirs(root, 0o700)
        except OSError as error:
            return f"its folder cannot be made: {error.strerror}"
        if os.environ.get("HOME") == self.root:
            os.environ["HOME"] = root
        self.root = root
        return self.restore()

    def _remove_others(self) -> None:
        """What is not in the state, and what is of another kind there."""
        for path, found in reversed(list(_walk(self.root, "", 0, special=True))):
            entry = self._entries.get(path)
            if entry is None or stat.S_IFMT(entry.mode) != stat.S_IFMT(found.st_mode):
                whole = os.path.join(self.root, path)
                if stat.S_ISDIR(found.st_mode):
                    os.rmdir(whole)
                else:
                    os.unlink(whole)

    def _put_back(self, path: str, entry: Entry) -> None:
        whole = os.path.join(self.root, path)
        try:
            found: os.stat_result | None = os.lstat(whole)
        except FileNotFoundError:
            found = None
        if found and entry.sure and _signature(found) == entry.signature:
            return
        if stat.S_ISDIR(entry.mode):
            if found is None:
                os.mkdir(whole)
        elif stat.S_ISLNK(entry.mode):
            if found:
                os.unlink(whole)
            os.symlink(entry.content, os.fsencode(whole))
            return
        else:
            _write(whole, entry.content, found)
        os.chmod(whole, stat.S_IMODE(entry.mode))

    def _settle(self) -> None:
        """What was written back has other signatures now; and the current folder may be another of that name."""
        for path, entry in self._entries.items():
            signature = _signature(os.lstat(os.path.join(self.root, path)))
            if not entry.sure or signature != entry.signature:
                self._entries[path] = Entry(signature, entry.mode, entry.modified, entry.content, sure=False)
        with suppress(OSError):
            os.chdir(os.path.join(self.root, self._folder))


def _signature(found: os.stat_result) -> Signature:
    return found.st_ino, found.st_ctime_ns, found.st_size, found.st_mode


def _content(path: str, mode: int) -> bytes:
    if stat.S_ISDIR(mode):
        return b""
    if stat.S_ISLNK(mode):
        return os.readlink(os.fsencode(path))
    with open(path, "rb", buffering=0, opener=_opener) as file:
        return file.read()


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _write(path: str, content: bytes, found: os.stat_result | None) -> None:
    """Into the file that is there, if it is one: whoever has it open has the content of before again."""
    if found and not found.st_mode & stat.S_IWUSR:
        os.chmod(path, 0o600)
    with open(path, "wb", opener=_opener) as file:
        file.write(content)


def _walk(root: str, prefix: str, depth: int, special: bool = False) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below ``root``, a folder before what is in it. ``special``: also pipes and sockets."""
    if depth > _MAX_DEPTH:
        raise NotCovered(f"the workspace has folders more than {_MAX_DEPTH} deep")
    with os.scandir(os.path.join(root, prefix)) as entries:
        found = sorted(((entry.name, entry.stat(follow_symlinks=False)) for entry in entries), key=lambda e: e[0])
    for name, status in found:
        path = f"{prefix}{name}"
        if stat.S_ISDIR(status.st_mode):
            yield path, status
            yield from _walk(root, f"{path}/", depth + 1, special)
        elif special or stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
            yield path, status
