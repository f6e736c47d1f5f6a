"""How connections between an app and the service are bounded and kept: options of gRPC's, for both ends."""

from __future__ import annotations

from collections.abc import Sequence

MAX_MESSAGE = 4 << 20  # bytes, as the .proto says
MAX_METADATA = 32 << 10  # bytes; the message of an error is part of it

BOTH_ENDS: Sequence[tuple[str, int]] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_metadata_size", MAX_METADATA),
    ("grpc.absolute_max_metadata_size", MAX_METADATA),
    ("grpc.compression_enabled_algorithms_bitset", 1),  # identity only: no decompression bombs
    ("grpc.keepalive_time_ms", 30_000),  # a connection that has gone silent is found out, by either
    ("grpc.keepalive_timeout_ms", 15_000),
)
CLIENT_OPTIONS: Sequence[tuple[str, int]] = (
    *BOTH_ENDS,
    ("grpc.enable_retries", 0),  # the client knows what may be sent again
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
