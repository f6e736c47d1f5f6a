"""A page of a real server, as it is fetched: what tests of fetching have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from orchestrator.tools.web.rules import FetchRules
from orchestrator.tools.web.safe_fetch import Fetched, fetch
from tests.unit.web_server import serving

HERE = FetchRules(allowed_hosts=frozenset({"127.0.0.1"}), seconds=20.0)


def run(test: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(60):
            return await test

    return asyncio.run(bounded())


async def got(told: Any, rules: FetchRules = HERE, path: str = "/", host: str = "127.0.0.1") -> Fetched:
    """What a server that answers everything so gives."""
    async with serving({path.partition("?")[0]: told}) as server:
        return await fetch(server.url(path, host), rules)
