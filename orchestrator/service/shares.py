"""What is bounded for each owner by itself, so that nobody waits for what another one does, or does not do."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial


class Shares:
    """At most ``each`` of one kind of thing at the same time for every owner; further ones of his wait."""

    def __init__(self, each: int) -> None:
        self._of = defaultdict[str, asyncio.Semaphore](partial(asyncio.Semaphore, each))

    @asynccontextmanager
    async def one(self, owner: str) -> AsyncIterator[None]:
        """One of that owner's, until the end of the block."""
        async with self._of[owner]:
            yield
