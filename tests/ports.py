"""A port for a server that has to be told which before it begins."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from pathlib import Path


def own_port() -> int:
    """A free one of 127.0.0.1 that nobody is given meanwhile: who asks for any gets one of a higher range."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(lowest // 2, lowest)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
