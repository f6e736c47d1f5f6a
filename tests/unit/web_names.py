"""Names that only a test knows, for fetching from servers on 127.0.0.1."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence

from orchestrator.tools.web.rules import system_resolve


def resolving(**names: Sequence[str]) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    """A resolver that knows these names, ``a_test`` for a.test."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        if host.replace(".", "_") not in names:
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return names[host.replace(".", "_")]

    return resolve


def besides_system(
    first: Callable[[str, int], Awaitable[Sequence[str]]],
) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    """``first`` for names that end in .test, the machine's own resolver for all others."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        return await (first if host.endswith(".test") else system_resolve)(host, port)

    return resolve
