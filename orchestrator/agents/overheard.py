"""Lets a manager's stream carry what members of its team do while its own action is carried out.

The action runs in a task of its own, whose context names a listener; a member's run, started somewhere below it, finds
the listener there. Two runs at the same time have a listener each.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

from orchestrator.agents.run import AgentEvent, Overheard

MAX_WAITING = 256  # events that nobody has taken yet; then members wait, as an execution's output does

Own = TypeVar("Own")
_listener: contextvars.ContextVar[Listener | None] = contextvars.ContextVar("listener", default=None)


class Listener:
    """Takes events of members. They may run on another event loop than the one who listens."""

    def __init__(self, queue: asyncio.Queue[object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue = queue
        self._closed = False

    def close(self) -> None:
        """Nobody listens any more: what waits to be heard, or comes later, is dropped."""
        self._closed = True
        while not self._queue.empty():  # wakes those who wait for room
            self._queue.get_nowait()

    async def hear(self, agent: str, event: AgentEvent) -> None:
        """Waits until there is room for it."""
        if self._closed:
            return
        heard = Overheard(agent, event)
        if asyncio.get_running_loop() is self._loop:
            await self._queue.put(heard)
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._queue.put(heard), self._loop))


def listener() -> Listener | None:
    """Who listens to the run that is started here, if anybody does."""
    return _listener.get()


_END = object()


async def with_team(events: AsyncGenerator[Own, None]) -> AsyncGenerator[Own | Overheard, None]:
    """``events``, and between them what members do who are called by what happens in there."""
    queue: asyncio.Queue[object] = asyncio.Queue(MAX_WAITING)
    ear = Listener(queue)

    async def pump() -> None:
        _listener.set(ear)
        try:
            async with aclosing(events):
                async for event in events:
                    await queue.put(event)
        finally:
            if not _is_cancelled():
                await queue.put(_END)

    pumping = asyncio.create_task(pump())
    try:
        while (event := await queue.get()) is not _END:
            yield event  # type: ignore[misc]  # whatever was put in
        await pumping
    finally:
        pumping.cancel()
        await asyncio.wait({pumping})
        ear.close()


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
