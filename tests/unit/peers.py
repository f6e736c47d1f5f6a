"""A peer of the supervisor's with a real channel, and a loop to use it in."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from executor_image import frames
from executor_image.supervisor.peer import Peer
from tests.unit.loops import DEADLINE

Told = list[tuple[Any, ...]]


class Pair:
    """A peer, the process's end of its channel, and what the peer has told."""

    def __init__(self, pid: int = 0, legal: frames.Legal = frames.FROM_RUNNER) -> None:
        ours, self.process = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.process.settimeout(DEADLINE)
        self.peer = Peer(ours, pid, legal)
        self.told: Told = []
        self.heard = asyncio.Event()

    def listen(self) -> None:
        self.peer.listen(self._on_frame, self._on_closed)

    def _on_frame(self, peer: Peer, kind: int, body: bytes) -> None:
        assert peer is self.peer
        self.told.append((kind, body))
        self.heard.set()

    def _on_closed(self, peer: Peer, reason: str) -> None:
        assert peer is self.peer
        self.told.append(("closed", reason))
        self.heard.set()

    async def until_told(self, number: int) -> Told:
        while len(self.told) < number:
            self.heard.clear()
            await self.heard.wait()
        return self.told

    def close(self) -> None:
        self.peer.close()
        self.process.close()


@contextmanager
def pair(pid: int = 0, listening: bool = True) -> Iterator[Pair]:
    made = Pair(pid)
    if listening:
        made.listen()
    try:
        yield made
    finally:
        made.close()


async def settled(turns: int = 5) -> None:
    """Lets the loop see what is there already."""
    for _ in range(turns):
        await asyncio.sleep(0)
