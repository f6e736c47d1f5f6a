"""Files of the workspace, read and written with the runner's own rights. Links are never followed."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from executor_image.frames import MAX_FILE_PIECE, MAX_FILES, MAX_OUTCOME
from executor_image.runner.protowire import chunk, unsigned

_MAX_DEPTH = 32
_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # NONBLOCK: opening a FIFO must not wait for its other end


def handle(root: str, body: bytes) -> bytes:
    """The serialised FileReply to one request about the workspace at ``root``."""
    head, _, data = body.partition(b"\0")
    request = json.loads(head)
    try:
        match request["op"]:
            case "read":
                return chunk(1, _read(root, request["path"], request["offset"], request["length"]))
            case "write":
                _write(root, request["path"], data, request["append"])
                return b""
            case _:
                return b"".join(_list(root))
    except (OSError, ValueError, OverflowError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return chunk(3, text.encode("utf-8", "replace") or b"failed")


def _parts(path: str) -> list[str]:
    parts = [p for p in path.split("/") if p not in ("", ".")]
    if path.startswith("/") or ".." in parts or not parts or "\0" in path:
        raise ValueError("a path inside the workspace is needed, relative and without '..'")
    return parts


def _open_folder(root: str, parts: list[str], make: bool) -> int:
    """Walks down one component at a time, so a link on the way is refused and not followed."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for part in parts:
        try:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=folder)
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | _SAFE, dir_fd=folder)
        finally:
            os.close(folder)
        folder = below
    return folder


def _open_file(root: str, path: str, flags: int, make: bool = False) -> int:
    *folders, name = _parts(path)
    folder = _open_folder(root, folders, make)
    try:
        fd = os.open(name, flags | _SAFE, 0o600, dir_fd=folder)
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ValueError("not a regular file")
    return fd


def _read(root: str, path: str, offset: int, length: int) -> bytes:
    fd = _open_file(root, path, os.O_RDONLY)
    try:
        return os.pread(fd, min(length, MAX_FILE_PIECE), offset)
    finally:
        os.close(fd)


def _write(root: str, path: str, data: bytes, append: bool) -> None:
    mode = os.O_APPEND if append else os.O_TRUNC
    with os.fdopen(_open_file(root, path, os.O_WRONLY | os.O_CREAT | mode, make=True), "wb") as file:
        file.write(data)


def _list(root: str) -> Iterator[bytes]:
    total = 0
    for count, (path, size) in enumerate(_walk(root, "", 0)):
        entry = chunk(2, chunk(1, os.fsencode(path)), unsigned(2, size))
        total += len(entry)
        if count >= MAX_FILES or total > MAX_OUTCOME:
            return
        yield entry


def _walk(folder: str, prefix: str, depth: int) -> Iterator[tuple[str, int]]:
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        if entry.is_dir(follow_symlinks=False) and depth < _MAX_DEPTH:
            yield from _walk(entry.path, f"{prefix}{entry.name}/", depth + 1)
        elif entry.is_file(follow_symlinks=False):
            yield prefix + entry.name, entry.stat(follow_symlinks=False).st_size
