"""How the service's server is bounded and keeps connections: the options of its ``grpc.aio.server``."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.client.transport import BOTH_ENDS

MAX_STREAMS = 1024  # calls of one connection at the same time: an app's executions are one each

SERVER_OPTIONS: Sequence[tuple[str, int]] = (
    *BOTH_ENDS,
    ("grpc.max_concurrent_streams", MAX_STREAMS),
    # Clients ask every 30 s whether the connection still holds.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),  # two services on one port would share its calls
)
