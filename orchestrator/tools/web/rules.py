"""What may be fetched for code that chose the address: which URLs, at which addresses, how much, how long."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx2

from orchestrator.sanitise import one_line
from orchestrator.tools.web.addresses import is_public

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_URL = 8192  # characters: more than servers take, and little to parse
_MAX_SHOWN = 200  # characters of a URL in a message
_MAX_ADDRESSES = 8  # of one name that are tried
_MAX_LOOKUPS = 16  # at the same time, in this process; each takes a thread until it is answered or the system gives up


async def system_resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of ``host`` as this machine knows them, best first. Raises OSError if it has none."""
    ask = functools.partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_lookups(), ask)
    return [str(address[0]) for *_, address in found]


@functools.cache
def _lookups() -> ThreadPoolExecutor:
    """Apart from the loop's threads, which everything else here waits for: code may ask for names that take forever."""
    return ThreadPoolExecutor(_MAX_LOOKUPS, thread_name_prefix="cellblock-lookup")


@functools.cache
def default_tls() -> ssl.SSLContext:
    """Checks certificates against those that this machine trusts. Made once: reading them takes a while."""
    return httpx2.create_ssl_context()


@dataclass(frozen=True, slots=True)
class FetchRules:
    """Bounds of a fetch.

    Attributes:
        allow_private_addresses: also addresses of this machine and of networks that are not public.
        allowed_hosts: names or addresses (``::1`` without brackets; upper case or lower is the same) that may be at any
            address and any port. Others are not shut out by it.
        allowed_ports: of all other hosts.
        max_bytes: of a body, unpacked; what comes after is left out.
        seconds: for the whole of it, redirects included.
        resolve: gives the addresses of a name.
        tls: what checks certificates; None for this machine's own.
    """

    allow_private_addresses: bool = False
    allowed_hosts: frozenset[str] = frozenset()
    allowed_ports: frozenset[int] = frozenset(_DEFAULT_PORTS.values())
    max_bytes: int = 5 << 20
    seconds: float = 20.0
    resolve: Resolve = system_resolve
    tls: ssl.SSLContext | None = None

    def check_url(self, url: str) -> httpx2.URL:
        """The parsed URL.

        Raises:
            ValueError: it is none, or not of http or https.
            PermissionError: it holds a user name or a password, or names a port that is not allowed.
        """
        try:
            parsed = httpx2.URL(url) if len(url) <= _MAX_URL else None
        except (httpx2.InvalidURL, ValueError):
            parsed = None
        if parsed is None or parsed.scheme not in _DEFAULT_PORTS or not parsed.raw_host:
            raise ValueError(f"{shown(url)} is no URL of http or https")
        if parsed.userinfo:
            raise PermissionError("a URL with a user name or a password in it is not fetched")
        if not self._is_allowed(parsed) and port_of(parsed) not in self.allowed_ports:
            raise PermissionError(f"{shown(url)}: port {port_of(parsed)} is not allowed")
        return parsed

    async def addresses(self, url: httpx2.URL) -> Sequence[str]:
        """Where the URL's host is. Each of them may be connected to; one that may not spoils all.

        Raises:
            PermissionError: the host has none, or not only public ones. Which of the two is not said: names of the
                inner network are no business of the code's.
        """
        try:
            found = list(dict.fromkeys(await self.resolve(url.raw_host.decode("ascii"), port_of(url))))
        except (OSError, ValueError):  # UnicodeError too: a label that is too long
            found = []
        if not found or not (self._is_allowed(url) or self.allow_private_addresses or all(map(is_public, found))):
            raise PermissionError(f"{shown(url.host)} has no public address")
        return found[:_MAX_ADDRESSES]

    def _is_allowed(self, url: httpx2.URL) -> bool:
        return url.host.lower() in map(str.lower, self.allowed_hosts)


def port_of(url: httpx2.URL) -> int:
    """The port, which is the scheme's where the URL names none."""
    return _DEFAULT_PORTS[url.scheme] if url.port is None else url.port


def shown(text: str) -> str:
    """A URL or a name for a message: on one line and short."""
    return one_line(text, _MAX_SHOWN)
