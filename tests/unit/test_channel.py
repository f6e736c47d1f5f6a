"""What the host is told when its peer dies: always that it died, whatever was on its way then."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from executor_api.v1 import executor_pb2 as pb

from orchestrator.errors import ProtocolViolation, SandboxDied
from orchestrator.sandbox.channel import Channel, _failure
from orchestrator.sandbox.folders import SOCKET_NAME
from orchestrator.sandbox.session import Session

DEADLINE = 30.0  # seconds
PEER = f"""
import asyncio, sys
import grpc
from executor_api.v1 import executor_pb2 as pb, executor_pb2_grpc

class Executor(executor_pb2_grpc.ExecutorServicer):
    async def Session(self, requests, context):
        await context.read()
        await context.write(pb.ExecutorMessage(challenge=pb.Challenge()))
        await asyncio.Event().wait()  # reads nothing more: what is written then cannot go out

async def main():
    server = grpc.aio.server()
    executor_pb2_grpc.add_ExecutorServicer_to_server(Executor(), server)
    server.add_insecure_port(f"unix:{{sys.argv[1]}}/{SOCKET_NAME}")
    await server.start()
    print(flush=True)
    await server.wait_for_termination()

asyncio.run(main())
"""


@pytest.mark.parametrize("turns", [0, 1, 5, 50, 500])
def test_a_peer_that_is_killed_while_it_is_written_to_has_died(tmp_path: Path, turns: int) -> None:
    async def main() -> BaseException | None:
        directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        channel = Channel.connect(directory, Session(1 << 20))
        try:
            channel.write(pb.HostMessage(hello=pb.Hello()))
            await channel.read()
            channel.write(pb.HostMessage(file_write=pb.FileWrite(data=bytes(3 << 20))))
            for _ in range(turns):
                await asyncio.sleep(0)
            peer.kill()
            async with asyncio.timeout(DEADLINE):
                await channel.read()
        except (SandboxDied, ProtocolViolation) as error:
            return error
        finally:
            await channel.close()
            os.close(directory)
        return None

    with subprocess.Popen([sys.executable, "-c", PEER, str(tmp_path)], stdout=subprocess.PIPE) as peer:
        try:
            assert peer.stdout
            assert peer.stdout.readline() == b"\n"
            assert isinstance(asyncio.run(main()), SandboxDied)
        finally:
            peer.send_signal(signal.SIGKILL)


@pytest.mark.parametrize(
    ("code", "details", "expected"),
    [
        (grpc.StatusCode.INTERNAL, "Internal error from Core", SandboxDied),  # gRPC's own word on a failed write
        (grpc.StatusCode.INTERNAL, "Exception deserializing response!", ProtocolViolation),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max", ProtocolViolation),
        (grpc.StatusCode.UNIMPLEMENTED, "", ProtocolViolation),
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", SandboxDied),
        (grpc.StatusCode.CANCELLED, "", SandboxDied),
    ],
)
def test_a_status_is_a_death_or_a_violation(code: grpc.StatusCode, details: str, expected: type[Exception]) -> None:
    assert type(_failure(grpc.aio.AioRpcError(code, details=details))) is expected
