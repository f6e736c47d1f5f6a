"""The work of a run: what its agent does, as a stream of events.

Right before the agent begins, ``check`` raises if somebody has interrupted the run: until then the agent hears nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

from orchestrator_api.v1 import orchestrator_pb2 as pb

from orchestrator.agents.loop import MultiStepAgent
from orchestrator.agents.record import copy_to_continue, part_of
from orchestrator.agents.recording import load_recording
from orchestrator.agents.run import AgentEvent
from orchestrator.errors import AgentInterrupted
from orchestrator.media import media_of
from orchestrator.sandbox.values import decode_variables
from orchestrator.store import StoredRun


class NotBegun(AgentInterrupted):
    """What had ended the run was before its beginning: there is nothing to go on with."""


class Started:
    """That of a run that begins.

    Args:
        request: what it was asked for with.
        record: where it records itself.
        continued: the record of the run whose memory and variables it has.
    """

    def __init__(self, request: pb.StartRun, record: Path, continued: Path | None) -> None:
        self._request = request
        self._record = record
        self._continued = continued

    async def __call__(self, agent: MultiStepAgent, check: Callable[[], None]) -> AsyncGenerator[AgentEvent, None]:
        request = self._request
        if self._continued:
            await self._take_over(agent, self._continued, check)
        else:
            check()
        events = agent.astream(
            request.task,
            reset=self._continued is None,
            images=[media_of(image.data, image.mime) for image in request.images] or None,
            additional_args=_arguments(request.additional_args),
            max_steps=request.max_steps if request.HasField("max_steps") else None,
        )
        async with aclosing(events):
            async for event in events:
                yield event

    async def _take_over(self, agent: MultiStepAgent, continued: Path, check: Callable[[], None]) -> None:
        """What the earlier run had. If that fails there is no record: this run has not begun, and is not resumed."""
        try:
            await asyncio.to_thread(copy_to_continue, continued, self._record)
            await agent.atake_over()
            check()
        except BaseException:
            for left in (self._record, part_of(self._record)):
                left.unlink(missing_ok=True)
            raise


class Resumed:
    """That of one that goes on, from its last finished step."""

    def __init__(self, stored: StoredRun) -> None:
        self._stored = stored

    async def __call__(self, agent: MultiStepAgent, check: Callable[[], None]) -> AsyncGenerator[AgentEvent, None]:
        await asyncio.to_thread(_require_begun, Path(self._stored.record))
        check()
        async with aclosing(agent.astream_resume()) as events:
            async for event in events:
                yield event


def _require_begun(record: Path) -> None:
    """A crash can leave a record without a run of its own, or with nothing at all in it."""
    is_empty = record.exists() and not record.stat().st_size
    if is_empty or load_recording(record).run is None:
        record.unlink()  # nothing of this run is there to be resumed
        raise NotBegun("interrupted before it began")


def _arguments(data: bytes) -> dict[str, Any] | None:
    return decode_variables(data) if data else None
