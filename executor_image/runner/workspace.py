"""The workspace as part of a state: its files are held in memory, so that a copy of the process has them too.

A fork shares memory and not files. So before each fork the head looks at its workspace and reads what has changed into
plain bytes. Copies share them, page by page, and whatever a process is dropped or killed for takes its files along.
No code of later executions can reach the bytes of a copy, as it could reach files that were laid aside somewhere.

Covered are folders, regular files with their modes and times, links and named pipes; not sockets, not ``/tmp``, not
that two names are one file. Looking trusts inode, change time, size and mode, which together tell every change but one
through a writable mapping (``fault_dirty_shared_page`` in the kernel's mm/memory.c is not asked for pages that were
mapped by reading). So where ``mmap`` has been imported everything is read again. Going back compares contents.
"""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
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
    """A folder, file, link, pipe or socket. ``content`` is a file's bytes, a link's target, or nothing."""

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
        self._folder: str | None = None  # the current one, if it is inside
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
        except BaseException as error:  # noqa: BLE001 — user code may have replaced what is called here
            self._entries, self.reason = {}, f"the files cannot be read: {type(error).__name__}"
        return not self.reason

    def _current_folder(self) -> str | None:
        with suppress(OSError):
            here = os.getcwd()
            if here == self.root or here.startswith(self.root + "/"):
                return here[len(self.root) :].lstrip("/")
        return None

    def _read(self) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        size = 0
        unsure_from = 0 if "mmap" in sys.modules else time_ns() - _TICK
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
        if before and before.sure and before.signature == signature and unsure_from:
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
            self._remove_others("")
            for path, entry in self._entries.items():
                self._put_back(path, entry)
            self._settle()
        except OSError as error:
            return f"not every file could be written back: {error.strerror}"
        except BaseException as error:  # noqa: BLE001 — see look
            return f"not every file could be written back: {type(error).__name__}"
        return ""

    def move(self, root: str) -> str:
        """Makes a copy of the workspace at ``root``, and works in it. Why that could not be done, or nothing.

        What is open of the workspace is open of the copy then.
        """
        before, self.root = self.root, root
        try:
            _remove_tree(root)
            os.makedirs(root, 0o700)
        except OSError as error:
            return f"its folder cannot be made: {error.strerror}"
        if reason := self.restore():
            return reason
        if os.environ.get("HOME") == before:
            os.environ["HOME"] = root
        _reopen(before, root)
        return ""

    def _remove_others(self, prefix: str) -> None:
        """What is not in the state, and what is of another kind there. Folders are made fit to be worked in."""
        folder = os.path.join(self.root, prefix)
        os.chmod(folder, 0o700)
        with os.scandir(folder) as entries:
            found = [(f"{prefix}{entry.name}", entry.stat(follow_symlinks=False)) for entry in entries]
        for path, status in found:
            entry, mode = self._entries.get(path), status.st_mode
            shared = status.st_nlink > 1 and not stat.S_ISDIR(mode)  # writing one name of a file would write others
            if entry is None or stat.S_IFMT(entry.mode) != stat.S_IFMT(mode) or shared:
                _remove_tree(os.path.join(self.root, path))
            elif stat.S_ISDIR(mode):
                self._remove_others(f"{path}/")
            elif stat.S_ISREG(mode) and status.st_size > len(entry.content):  # makes room for what is to grow
                whole = os.path.join(self.root, path)
                os.chmod(whole, 0o600)
                os.truncate(whole, len(entry.content))

    def _put_back(self, path: str, entry: Entry) -> None:
        """Folders get their mode and time at last: a folder may not be writable, and what is made in it changes it."""
        whole = os.path.join(self.root, path)
        there = os.path.lexists(whole)
        if stat.S_ISDIR(entry.mode):
            if not there:
                os.mkdir(whole, 0o700)
        elif stat.S_ISLNK(entry.mode):
            if not there or os.readlink(os.fsencode(whole)) != entry.content:
                _remove_tree(whole)
                os.symlink(entry.content, os.fsencode(whole))
        elif stat.S_ISFIFO(entry.mode):
            if not there:
                os.mkfifo(whole)
        elif stat.S_ISREG(entry.mode):
            _write(whole, entry, there)

    def _settle(self) -> None:
        """Modes and times, from the bottom up; what has been written back has another signature now."""
        for path, entry in reversed(self._entries.items()):
            whole = os.path.join(self.root, path)
            if stat.S_ISDIR(entry.mode) or stat.S_ISFIFO(entry.mode):
                os.chmod(whole, stat.S_IMODE(entry.mode))
            if not stat.S_ISSOCK(entry.mode) and os.lstat(whole).st_mtime_ns != entry.modified:
                os.utime(whole, ns=(entry.modified, entry.modified), follow_symlinks=False)
        for path, entry in self._entries.items():
            with suppress(OSError):  # a socket that is not there any more, or a folder that lets nobody in
                signature = _signature(os.lstat(os.path.join(self.root, path)))
                self._entries[path] = replace(
                    entry, signature=signature, sure=entry.sure and signature == entry.signature
                )
        if self._folder is not None:  # it may be another folder of that name
            with suppress(OSError):
                os.chdir(os.path.join(self.root, self._folder))


def _signature(found: os.stat_result) -> Signature:
    return found.st_ino, found.st_ctime_ns, found.st_size, found.st_mode


def _content(path: str, mode: int) -> bytes:
    if stat.S_ISLNK(mode):
        return os.readlink(os.fsencode(path))
    if not stat.S_ISREG(mode):
        return b""
    with open(path, "rb", buffering=0, opener=_opener) as file:
        return file.read()


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)


def _write(path: str, entry: Entry, there: bool) -> None:
    """Into the file that is there, if there is one: whoever has it open has the content of before again."""
    if there:
        mode = os.lstat(path).st_mode
        if mode & (stat.S_IRUSR | stat.S_IWUSR) != stat.S_IRUSR | stat.S_IWUSR:
            os.chmod(path, 0o600)
    if not there or _content(path, entry.mode) != entry.content:
        with open(path, "wb", opener=_opener) as file:
            file.write(entry.content)
    if os.lstat(path).st_mode != entry.mode:
        os.chmod(path, stat.S_IMODE(entry.mode))


def _remove_tree(path: str) -> None:
    """Whatever is there; folders that let nobody in are opened first."""
    if not os.path.lexists(path):
        return
    if os.path.islink(path) or not os.path.isdir(path):
        os.unlink(path)
        return
    os.chmod(path, 0o700)
    for folder, names, _ in os.walk(path):
        for name in names:
            below = os.path.join(folder, name)
            if not os.path.islink(below):
                os.chmod(below, 0o700)
    shutil.rmtree(path)


def _reopen(before: str, root: str) -> None:
    """Descriptors of files in the old workspace become descriptors of the same files in the new one."""
    for fd in range(resource.getrlimit(resource.RLIMIT_NOFILE)[0]):  # Landlock lets nobody list /proc/self/fd
        with suppress(OSError):  # there is none, or it cannot be opened again and stays what it is
            path = os.readlink(f"/proc/self/fd/{fd}")
            if not path.startswith(before + "/") or not stat.S_ISREG(os.fstat(fd).st_mode):
                continue
            flags = fcntl.fcntl(fd, fcntl.F_GETFL) & ~(os.O_CREAT | os.O_EXCL | os.O_TRUNC)
            new = os.open(root + path[len(before) :], flags | os.O_NOFOLLOW)
            os.lseek(new, os.lseek(fd, 0, os.SEEK_CUR), os.SEEK_SET)
            os.dup2(new, fd, inheritable=os.get_inheritable(fd))
            os.close(new)


def _walk(root: str, prefix: str, depth: int) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below ``root``, a folder before what is in it."""
    if depth > _MAX_DEPTH:
        raise NotCovered(f"the workspace has folders more than {_MAX_DEPTH} deep")
    with os.scandir(os.path.join(root, prefix)) as entries:
        found = sorted(((entry.name, entry.stat(follow_symlinks=False)) for entry in entries), key=lambda e: e[0])
    for name, status in found:
        path = f"{prefix}{name}"
        yield path, status
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(root, f"{path}/", depth + 1)
