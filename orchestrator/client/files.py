"""Files of a sandbox at a service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from orchestrator_api.v1 import orchestrator_pb2 as pb

from orchestrator.client.connection import TURN_SECONDS, AsyncConnection, new_key
from orchestrator.client.sandbox_messages import KEY_METADATA, PIECE
from orchestrator.errors import ServiceError
from orchestrator.sandbox.files import MAX_FILE, AnyFiles, FileEntry, content_bytes, path_bytes


class RemoteFiles(AnyFiles):
    """``sandbox.files``. Paths are relative to the workspace; links are not followed."""

    def __init__(self, connection: AsyncConnection, use: Callable[[], AbstractAsyncContextManager[str]]) -> None:
        self._connection = connection
        self._use = use

    async def write(self, path: str, data: bytes | str) -> None:
        """See ``AnyFiles.write``."""
        name, content = path_bytes(path), content_bytes(data)
        key, how = ((KEY_METADATA, new_key()),), self._connection.how
        async with self._use() as id:
            write = self._connection.stub("Sandboxes", "WriteFile")
            await self._connection.again(
                lambda again: write(_pieces(id, name, content), **how(TURN_SECONDS, key, again))
            )

    async def read(self, path: str) -> bytes:
        """See ``AnyFiles.read``."""
        name = path_bytes(path)
        async with self._use() as id:
            request = pb.FilePath(sandbox=id, path=name)
            content: bytes = await self._connection.again(lambda _: self._content(request))
            return content

    async def _content(self, request: pb.FilePath) -> bytes:
        content = bytearray()
        call = self._connection.stub("Sandboxes", "ReadFile")(request, **self._connection.how(TURN_SECONDS))
        async for piece in call:
            content += piece.data
            if len(content) > MAX_FILE + PIECE:
                call.cancel()
                raise ServiceError(f"the service sent more than {MAX_FILE:,} bytes of a file")
        return bytes(content)

    async def list(self) -> list[FileEntry]:
        """See ``AnyFiles.list``."""
        async with self._use() as id:
            found = await self._connection.sandboxes("ListFiles", pb.SandboxId(id=id), seconds=TURN_SECONDS)
        return [FileEntry(entry.path.decode("utf-8", "surrogateescape"), entry.size) for entry in found.entries]


async def _pieces(id: str, path: bytes, content: bytes) -> AsyncIterator[pb.FilePiece]:
    yield pb.FilePiece(sandbox=id, path=path, data=content[:PIECE])
    for start in range(PIECE, len(content), PIECE):
        yield pb.FilePiece(data=content[start : start + PIECE])
