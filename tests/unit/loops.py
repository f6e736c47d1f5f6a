"""An event loop of a test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

DEADLINE = 20.0  # seconds; a child that runs a loop has a little more


def in_loop(case: Coroutine[Any, Any, Any], seconds: float = DEADLINE) -> Any:
    """What the coroutine gives, in a loop of its own, within ``seconds``; no descriptor stays with the loop."""

    async def within_deadline() -> Any:
        async with asyncio.timeout(seconds):
            return await case

    return asyncio.run(within_deadline())


async def until(it_is_so: Callable[[], object]) -> None:
    """Waits for what the loop will bring about; the deadline is that of ``in_loop``."""
    while not it_is_so():  # noqa: ASYNC110 - what is waited for tells nobody
        await asyncio.sleep(0)
