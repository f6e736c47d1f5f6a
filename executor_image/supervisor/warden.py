"""The way to the warden, the process that signals runners for this one. See executor_image/launcher/warden.py."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass

from executor_image import frames
from executor_image.supervisor.peer import Peer, PeerGone

# Seconds, above the two waits of a sweep. User code may have stopped the warden, and then nobody can wake it.
ANSWER_DEADLINE = 6.5


@dataclass(frozen=True)
class Staying:
    """Pids that a sweep leaves alone: those that run, those that are stopped, and those whose descendants stay, too."""

    keep: list[int]
    stopped: list[int]
    spare: list[int]


class Warden:
    """``on_gone`` is called when it has ended: nothing can be stopped any more."""

    def __init__(self, sock: socket.socket, pid: int, on_gone: Callable[[], None]) -> None:
        self.pid = pid
        self._peer = Peer(sock, pid, frames.FROM_WARDEN)
        self._one_at_a_time = asyncio.Lock()
        self._peer.listen(lambda *_: None, lambda *_: on_gone())

    def signal(self, pid: int, number: int) -> None:
        """Signals one process of the runner's uid."""
        if pid > 1 and pid != self.pid:  # a pid may be a head's own word
            self._peer.send(frames.SIGNAL, frames.SIGNAL_BODY.pack(pid, number))

    async def sweep(self, who_stays: Callable[[], Staying]) -> int:
        """Kills every process of the runner's uid but these; gives how many of them are still there after that.

        ``who_stays`` is asked in the moment of sending: what other branches start or stop later is told the warden
        after this.

        Raises:
            PeerGone: the warden has ended, or does not answer.
        """
        body = await self._ask(frames.SWEEP, lambda: json.dumps(asdict(who_stays())).encode(), frames.SWEPT)
        return int(frames.SWEPT_BODY.unpack(body)[1])

    async def remove(self, branch: int) -> None:
        """Removes a branch's workspace; errors as of ``sweep``."""
        await self._ask(frames.REMOVE, lambda: frames.U32.pack(branch), frames.REMOVED)

    async def check(self) -> None:
        """Waits until it has done what it was told before; errors as of ``sweep``."""
        await self._ask(frames.CHECK, bytes, frames.CHECKED)

    async def _ask(self, kind: int, body: Callable[[], bytes], answer: int) -> bytes:
        """Whoever asks may be cancelled; the answer to it must not be taken for that to the next."""
        return await asyncio.shield(self._answered(kind, body, answer))

    async def _answered(self, kind: int, body: Callable[[], bytes], answer: int) -> bytes:
        try:
            async with self._one_at_a_time, asyncio.timeout(ANSWER_DEADLINE):
                return await self._peer.ask(kind, body(), answer)
        except TimeoutError:
            raise PeerGone("the warden does not answer") from None
