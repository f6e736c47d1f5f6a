"""How often an address may fail to show a token: a handful at once, then one from time to time."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import unquote

AT_ONCE = 10  # an app that was given the wrong token tries it a few times, in a few places
SECONDS_EACH = 6.0  # then one for each of these: what is looked up and logged for a stranger stays little
MAX_ADDRESSES = 4096  # that are remembered, about a megabyte; the one that tried longest ago is forgotten first


def address_of(peer: str) -> str:
    """Whose attempts are counted together, of gRPC's name for a peer: its address without the port.

    Of IPv6 it is the network of 64 bits, which is one customer's.
    """
    host = unquote(peer.partition(":")[2]).rpartition(":")[0].strip("[]")
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:  # no address of the internet: then all of them count together
        return peer.partition(":")[0]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or ipaddress.ip_network((int(address), 64), strict=False))


class Attempts:
    """A bucket for each address, kept as the time at which it is full again.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def take(self, address: str) -> float:
        """Counts an attempt before it is judged, so that many at the same time are not all let through.

        Returns:
            0, or in how many seconds one may be made; then this one was not counted and must not be judged.
        """
        now = self._clock()
        full_at = max(now, self._full_at.get(address, 0.0)) + SECONDS_EACH
        if (wait := full_at - now - AT_ONCE * SECONDS_EACH) > 0:
            return wait
        self._full_at[address] = full_at
        self._full_at.move_to_end(address)
        if len(self._full_at) > MAX_ADDRESSES:
            self._full_at.popitem(last=False)
        return 0.0

    def give_back(self, address: str) -> None:
        """The attempt that was taken did not fail."""
        if address in self._full_at:
            self._full_at[address] -= SECONDS_EACH
