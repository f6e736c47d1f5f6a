"""Files of a sandbox's workspace, moved over its stream. Never by the engine: its archive calls follow links."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from executor_api.v1 import executor_pb2 as pb

from orchestrator.errors import ProtocolViolation, SandboxFileError
from orchestrator.portal import Portal
from orchestrator.sandbox.session import MAX_PATH
from orchestrator.sanitise import one_line

if TYPE_CHECKING:  # an app that has its sandboxes at a service needs no engine
    from orchestrator.sandbox.link import Link

PIECE = 1 << 20  # bytes in one request
MAX_FILE = 256 << 20  # bytes taken in for one read: the host's memory is not the container's to fill
REQUEST_DEADLINE = 40.0  # seconds for one piece; the executor gives up after 20, and may need 17 to tell it
FILE_DEADLINE = 300.0  # seconds for a whole file: each piece in time is not enough, of hundreds
MAX_REASON = 300  # characters


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A regular file, its path relative to the workspace, its size in bytes. Paths are the sandbox's words."""

    path: str
    size: int


class AnyFiles(ABC):
    """``sandbox.files``, wherever the sandbox is. Paths are relative to the workspace; links are not followed."""

    @abstractmethod
    async def write(self, path: str, data: bytes | str) -> None:
        """Writes a file whole, folders on the way included; text as UTF-8.

        Raises:
            SandboxFileError: the path is outside the workspace, or the file system refuses (full, a folder, a link).
        """

    @abstractmethod
    async def read(self, path: str) -> bytes:
        """A file's content.

        Raises:
            SandboxFileError: there is no such regular file, or it is larger than 256 MiB.
        """

    @abstractmethod
    async def list(self) -> list[FileEntry]:
        """Every regular file below the workspace, at most 4,096."""


class AsyncFiles(AnyFiles):
    """Those of a sandbox of this process."""

    def __init__(self, use: Callable[[], AbstractAsyncContextManager[Link]]) -> None:
        self._use = use

    async def write(self, path: str, data: bytes | str) -> None:
        """See ``AnyFiles.write``."""
        name, content = path_bytes(path), content_bytes(data)
        async with self._use() as link, asyncio.timeout(FILE_DEADLINE):
            for start in range(0, max(len(content), 1), PIECE):
                piece = pb.FileWrite(path=name, data=content[start : start + PIECE], append=start > 0)
                _checked(path, await link.request_file(REQUEST_DEADLINE, file_write=piece))

    async def read(self, path: str) -> bytes:
        """See ``AnyFiles.read``."""
        name, content = path_bytes(path), bytearray()
        async with self._use() as link, asyncio.timeout(FILE_DEADLINE):
            while True:
                request = pb.FileRead(path=name, offset=len(content), length=PIECE)
                reply = _checked(path, await link.request_file(REQUEST_DEADLINE, file_read=request))
                if len(reply.data) > PIECE:
                    raise ProtocolViolation("the executor sent more of a file than was asked for")
                content += reply.data
                if len(reply.data) < PIECE:
                    return bytes(content)
                if len(content) > MAX_FILE:
                    raise SandboxFileError(f"{path!r} is larger than {MAX_FILE:,} bytes")

    async def list(self) -> list[FileEntry]:
        """See ``AnyFiles.list``."""
        async with self._use() as link:
            reply = _checked("", await link.request_file(REQUEST_DEADLINE, file_list=pb.FileList()))
        # As the file system has them, so that each can be read back; sanitise before showing them.
        return [FileEntry(entry.path.decode("utf-8", "surrogateescape"), entry.size) for entry in reply.entries]


def path_bytes(path: str) -> bytes:
    """A path as it travels.

    Raises:
        SandboxFileError: there can be no such path.
    """
    if not isinstance(path, str):
        raise TypeError(f"a path must be a str, not {type(path).__name__}")
    try:
        name = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise SandboxFileError(f"{path[:100]!r} is no path") from None
    if not name or len(name) > MAX_PATH or b"\0" in name:
        raise SandboxFileError(f"{path[:100]!r} is no path")
    return name


def content_bytes(data: bytes | str) -> bytes:
    """What is written into a file.

    Raises:
        SandboxFileError: the text has no form in UTF-8.
    """
    try:
        return data.encode() if isinstance(data, str) else bytes(data)
    except UnicodeEncodeError as error:
        raise SandboxFileError(f"the text cannot be written as UTF-8: {error.reason}; encode it yourself") from None


def _checked(path: str, reply: pb.FileReply) -> pb.FileReply:
    if reply.error:
        reason = one_line(reply.error.decode("utf-8", "replace"), MAX_REASON)
        raise SandboxFileError(f"{path!r}: {reason}" if path else reason)
    return reply


class Files:
    """``AnyFiles`` for code that does not await."""

    def __init__(self, files: AnyFiles) -> None:
        self._files = files

    def write(self, path: str, data: bytes | str) -> None:
        """See ``AnyFiles.write``."""
        Portal.run(self._files.write(path, data))

    def read(self, path: str) -> bytes:
        """See ``AnyFiles.read``."""
        return Portal.run(self._files.read(path))

    def list(self) -> list[FileEntry]:
        """See ``AnyFiles.list``."""
        return Portal.run(self._files.list())
