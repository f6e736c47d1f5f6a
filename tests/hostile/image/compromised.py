"""In the container: the real launcher and supervisor, whose conversation with the host has been taken over.

Everything that is read from the kernel when a sandbox comes up is true. From then on the code that is sent is run
nowhere: it is the name of what is done.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import types
from typing import Any

SERVER = "executor_image.supervisor.server"


async def flood(context: Any, execution: int, pb: Any) -> None:
    """Legal pieces without end."""
    piece = pb.ExecutorMessage(output=pb.Output(id=execution, stream=1, text=b"x" * (256 << 10)))
    while True:
        await context.write(piece)


async def stall(context: Any, execution: int, pb: Any) -> None:
    """Nothing."""
    await asyncio.Event().wait()


async def garbage(context: Any, execution: int, pb: Any) -> None:
    """A hundred thousand parts."""
    await context.write(pb.ExecutorMessage(state_reply=pb.StateReply(checkpoints=[pb.CheckpointInfo()] * 100_000)))


async def forge(context: Any, execution: int, pb: Any) -> None:
    """The end of an execution of another sandbox."""
    await context.write(pb.ExecutorMessage(finished=pb.Finished(id=execution + 1, status=1, state=1)))


async def die(context: Any, execution: int, pb: Any) -> None:
    """Takes the container along."""
    os._exit(1)


async def refuse(context: Any, execution: int, pb: Any) -> None:
    """A status that speaks to the terminal."""
    import grpc

    await context.abort(grpc.StatusCode.UNAVAILABLE, "\x1b]0;pwned\x07\x1b[2J\u202e")


async def vanish(context: Any, execution: int, pb: Any) -> None:
    """Ends the stream, and leaves a link where its socket was."""
    os.unlink("/run/s/executor.sock")
    os.symlink("/var/run/docker.sock", "/run/s/executor.sock")


ATTACKS = {attack.__name__: attack for attack in (flood, stall, garbage, forge, die, refuse, vanish)}


async def _converse(session: Any, context: Any) -> None:
    from executor_api.v1 import executor_pb2 as pb

    while message := await context.read():
        if message.WhichOneof("kind") == "execute":
            await ATTACKS[message.execute.code.decode()](context, message.execute.id, pb)
            return


def _run(*arguments: Any) -> None:
    """In the place of the server's own: imports it as late as the launcher would, and takes it over."""
    del sys.modules[SERVER]
    server: Any = importlib.import_module(SERVER)
    server._converse = _converse
    server.run(*arguments)


if __name__ == "__main__":
    stand_in: Any = types.ModuleType(SERVER)
    stand_in.run = _run
    sys.modules[SERVER] = stand_in
    from executor_image.launcher.__main__ import main

    main()
