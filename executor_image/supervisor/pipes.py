"""What C code of one branch writes to descriptors 1 and 2."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from executor_api.v1 import executor_pb2 as pb

from executor_image import frames

_LAST_READS = 8  # of a pipe at the end of an execution: more than it can hold

Take = Callable[[pb.Output.Stream, bytes], None]


class Pipes:
    """Reads both pipes as they fill; ``take`` gets what was in them. Owns the descriptors."""

    def __init__(self, out: int, err: int, take: Take) -> None:
        self._streams = {out: pb.Output.STREAM_STDOUT, err: pb.Output.STREAM_STDERR}
        self._take = take
        for pipe in self._streams:
            os.set_blocking(pipe, False)
        self.pause(False)

    def pause(self, paused: bool) -> None:
        """Stops or goes on reading."""
        loop = asyncio.get_running_loop()
        for pipe in self._streams:
            if paused:
                loop.remove_reader(pipe)
            else:
                loop.add_reader(pipe, self._read, pipe)

    def drain(self) -> None:
        """Takes what is in them now."""
        for pipe in self._streams:
            for _ in range(_LAST_READS):
                if not self._read(pipe):
                    break

    def _read(self, pipe: int) -> bool:
        try:
            data = os.read(pipe, frames.MAX_PIECE)
        except BlockingIOError:
            return False
        if not data:  # every writer is gone, and with them the last runner
            asyncio.get_running_loop().remove_reader(pipe)
        else:
            self._take(self._streams[pipe], data)
        return bool(data)

    def close(self) -> None:
        """Lets the pipes go."""
        self.pause(True)
        for pipe in self._streams:
            os.close(pipe)
        self._streams = {}
