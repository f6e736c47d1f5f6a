"""A session whose host has gone: what runs is stopped, what it still says is dropped, until another host resumes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from executor_image.supervisor.session import FORK_DEADLINE, KILL_DEADLINE, Session
from executor_image.supervisor.states import STATE_DEADLINE

# Seconds beyond the grace for what was asked for to have ended: a kill and the way back, or a state request.
RESUME_MARGIN = max(2 * KILL_DEADLINE, FORK_DEADLINE + STATE_DEADLINE) + 1


class Orphan:
    """Made when the stream of a session is lost.

    Args:
        session: what it was of; also an attribute. Its branches end with their own streams.
        lease: seconds that another host has to come.
        end: is called when it has not.
    """

    def __init__(self, session: Session, lease: float, end: Callable[[], object]) -> None:
        self.session = session
        self._grace = session.grace
        self._lease = asyncio.get_running_loop().call_later(lease, end)
        self._said = asyncio.Event()
        self._listening = asyncio.create_task(self._listen())
        session.stop()

    async def _listen(self) -> None:
        """Takes what was meant for the host, so that nothing waits for somebody to take it."""
        while True:
            message = await self.session.outbox.get()
            if message.HasField("finished"):
                self.session.settle()
            self._said.set()

    async def resumed(self) -> None:
        """There is another host: waits until nothing of the one before is under way.

        Raises:
            TimeoutError: something does not end.
        """
        self._lease.cancel()
        try:
            async with asyncio.timeout(self._grace + RESUME_MARGIN):
                while self.session.is_busy or not self.session.outbox.is_empty:
                    self._said.clear()
                    await self._said.wait()
        finally:
            self._listening.cancel()
