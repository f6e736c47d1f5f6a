"""Values that cross the wall, both ways, and what stands for those that cannot."""

from orchestrator.sandbox.decoding import decode, decode_call, decode_message, decode_variables
from orchestrator.sandbox.encoding import encode, encode_arguments, encode_variables
from orchestrator.sandbox.portable import MAX_BYTES, MAX_DEPTH, MAX_NODES, NDArray, Opaque
from orchestrator.sandbox.tables import Table

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_NODES",
    "NDArray",
    "Opaque",
    "Table",
    "decode",
    "decode_call",
    "decode_message",
    "decode_variables",
    "encode",
    "encode_arguments",
    "encode_variables",
]
