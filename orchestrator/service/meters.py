"""What sandboxes of apps use: held against the quotas of their tokens, and counted for Prometheus."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from orchestrator.events import ExecutionEvent, Finished
from orchestrator.service.access import Caller
from orchestrator.service.app_tools import place
from orchestrator.service.metrics import Metrics
from orchestrator.service.quotas import Accounts
from orchestrator.service.spans import Spans


class Meters:
    """Of all sandboxes.

    Args:
        accounts: what tokens have used, and may use.
        metrics: what is measured.
        spans: what is made of executions for OpenTelemetry; none if it is left out.
    """

    def __init__(self, accounts: Accounts, metrics: Metrics, spans: Spans | None = None) -> None:
        self._accounts = accounts
        self._metrics = metrics
        self._spans = spans or Spans()

    async def open(self, who: Caller) -> Callable[[], None]:
        """A place for one more sandbox of that token's; what is given frees it.

        Raises:
            Overloaded: it may have no more now.
        """
        return (await self._accounts.sandbox(who)).free

    def started(self, seconds: float, *, from_pool: bool = False) -> None:
        """A sandbox is ready, after so long; ``from_pool``: it was before."""
        self._metrics.sandbox_started(seconds, from_pool=from_pool)

    async def check(self, who: Caller) -> None:
        """Before an execution.

        Raises:
            Overloaded: the token's processor time is used up.
        """
        await self._accounts.check_cpu(who)

    async def counted(
        self, who: Caller, events: AsyncGenerator[ExecutionEvent, None]
    ) -> AsyncGenerator[ExecutionEvent, None]:
        """The events of an execution as they are, counted, if its owner has processor time left when its turn comes.

        What is not heard to its end, as its sandbox was closed or died, counts as if it had computed all the time: else
        closing in time would cost nothing.

        Raises:
            Overloaded: there is none left; those before it in the queue have used it up.
        """
        begun, used = time.monotonic(), None
        try:
            async with aclosing(events):
                await self._accounts.check_cpu(who)
                with self._spans.execution(place.get().sandbox) as spans:
                    async for event in events:
                        self._metrics.execution_event(event)
                        spans.add(event)
                        if isinstance(event, Finished):
                            used = event.execution.usage.cpu_seconds
                            await self._accounts.add_cpu(who.name, used)
                        yield event
        finally:
            if used is None:
                await self._accounts.add_cpu(who.name, time.monotonic() - begun)
