"""A host that is refused is told why: the container ends after its answer, not with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

import grpc
import pytest
from executor_api.v1 import executor_pb2 as pb
from executor_api.v1 import executor_pb2_grpc

from executor_image.supervisor import server

DEADLINE = 30.0  # seconds
HELLO = pb.HostMessage(hello=pb.Hello(protocol_version=server.PROTOCOL_VERSION))
NOTHING_STAGED: Any = None  # who is refused never comes to what is staged
Told = tuple[grpc.StatusCode, bool]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ([pb.HostMessage(hello=pb.Hello(protocol_version=99))], grpc.StatusCode.UNIMPLEMENTED),
        ([HELLO, pb.HostMessage(open=pb.Open(proof=bytes(32)))], grpc.StatusCode.UNAUTHENTICATED),
        ([HELLO, HELLO], grpc.StatusCode.FAILED_PRECONDITION),
        ([pb.HostMessage(open=pb.Open())], grpc.StatusCode.FAILED_PRECONDITION),
        ([], grpc.StatusCode.FAILED_PRECONDITION),
    ],
    ids=["another version", "no token", "nothing proven", "no hello", "nothing said"],
)
def test_who_is_refused_hears_why_before_the_container_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[pb.HostMessage], code: grpc.StatusCode
) -> None:
    async def main() -> None:
        ended = asyncio.Event()
        monkeypatch.setattr(server, "end", ended.set)
        async with asyncio.timeout(DEADLINE):
            told = await _told(tmp_path, said, ended)
            assert told == (code, False)
            await ended.wait()

    asyncio.run(main())


async def _told(folder: Path, said: list[pb.HostMessage], ended: asyncio.Event) -> Told:
    """The status that an executor answers with, and whether its container had ended by then."""
    executor = server.Executor(NOTHING_STAGED, os.urandom(32), DEADLINE)
    serving = grpc.aio.server()
    executor_pb2_grpc.add_ExecutorServicer_to_server(executor, serving)  # type: ignore[no-untyped-call]
    serving.add_insecure_port(f"unix:{folder}/s")
    await serving.start()
    try:
        async with grpc.aio.insecure_channel(f"unix:{folder}/s") as channel:
            call = executor_pb2_grpc.ExecutorStub(channel).Session(iter(said))  # type: ignore[no-untyped-call]
            with contextlib.suppress(grpc.aio.AioRpcError):
                async for _ in call:
                    pass
            return await call.code(), ended.is_set()
    finally:
        await serving.stop(None)
