"""What nothing can be faster than: a bare gRPC echo over a unix socket, a plain ``docker run`` of the same image."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from orchestrator.config import Config
from orchestrator.sandbox import Portal
from orchestrator.stack.engine import connect
from orchestrator.stack.image import image_tag

_METHOD = "/benchmark.Echo/Stream"
_START_DEADLINE = 20.0  # seconds


async def _serve(address: str) -> None:
    async def stream(_: Any, context: Any) -> None:
        while (message := await context.read()) is not grpc.aio.EOF:
            await context.write(message)

    server = grpc.aio.server()
    handler: Any = grpc.stream_stream_rpc_method_handler(stream)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("benchmark.Echo", {"Stream": handler}),))
    server.add_insecure_port(address)
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


class Echo:
    """One bidirectional stream to an echo server in a process of its own."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._channel: Any = None
        self._call: Any = None

    async def open(self) -> None:
        """Opens the stream."""
        self._channel = grpc.aio.insecure_channel(self._address)
        self._call = self._channel.stream_stream(_METHOD)()

    async def exchange(self, message: bytes) -> bytes:
        """There and back."""
        await self._call.write(message)
        reply: bytes = await self._call.read()
        return reply

    async def close(self) -> None:
        """Closes the stream."""
        self._call.cancel()
        await self._channel.close()


@contextmanager
def echo() -> Iterator[Echo]:
    """An open echo; used from synchronous code through the same background loop as a ``Sandbox``."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"unix:{Path(folder) / 'echo.sock'}"
        command = [sys.executable, "-m", "benchmarks.floors", address]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            server.stdout.readline()
            client = Echo(address)
            Portal.run(client.open())
            try:
                yield client
            finally:
                Portal.run(client.close())
                server.kill()


def docker_run(config: Config) -> float:
    """Seconds for a container of the executor image that starts Python and ends, with the engine's defaults."""
    client = connect(config.docker_host)
    started = time.perf_counter()
    entry = ["/opt/py/bin/python3", "-I", "-S", "-c", "pass"]
    image = config.image or image_tag()
    client.containers.run(image, entrypoint=entry, command=[], user="1000:1000", network_mode="none", remove=True)
    seconds = time.perf_counter() - started
    client.close()
    return seconds


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
