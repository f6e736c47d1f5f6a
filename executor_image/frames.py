"""Frames between the supervisor and one runner process: ``u32 length | u8 type | body`` on a private socketpair.

Standard library only: the runner has nothing else. The supervisor parses what comes up as hostile: a type that is not
listed for that direction, or a body out of its bounds, is a ``FrameViolation``, and that ends the process that sent it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

HEADER = struct.Struct("<IB")
U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")
EXECUTE_HEAD = struct.Struct("<16sQ")  # nonce, execution id
CALL_HEAD = struct.Struct("<16sIH")  # nonce, call number, length of the name; then name, then arguments
TOOL_HEAD = struct.Struct("<IB")  # call number, 0 value | 1 failure
RESULT_HEAD = struct.Struct("<16sB")  # nonce, one of OUTCOME_*
FORKED_BODY = struct.Struct("<Ii")  # generation, pid or -1
SIGNAL_BODY = struct.Struct("<Bi")  # one of SIGNAL_*, pid of the head

# supervisor -> runner
SETUP = 1  # JSON: import rules, tools, environment; the first frame, once
FORK = 2  # u32 generation; comes with one fd, the new checkpoint's channel
EXECUTE = 3  # EXECUTE_HEAD, code
TOOL_RESULT = 4  # TOOL_HEAD, serialised Value or JSON [type name, message]
SIGNAL = 5  # SIGNAL_BODY: to the checkpoint, about the head
FILE = 6  # JSON request, NUL, data
INTERRUPT = 7  # u64 execution id: to the head, before the checkpoint is told to send the signal

# runner -> supervisor
READY = 33  # SETUP is done
FORKED = 34  # FORKED_BODY
STDOUT = 36
STDERR = 37
TOOL_CALL = 38  # CALL_HEAD, name, arguments
FINAL = 39  # nonce, serialised Value
RESULT = 40  # RESULT_HEAD, serialised Outcome
FILE_REPLY = 41  # serialised FileReply

SIGNAL_INTERRUPT = 1
SIGNAL_KILL = 2  # everything of this uid but the process that is told

OUTCOME_OK = 0
OUTCOME_ERROR = 1
OUTCOME_IMPORT_DENIED = 2

NONCE_BYTES = 16
MAX_CODE = 1 << 20  # source of one action: a model's reply is far smaller
MAX_VALUE = 2 << 20  # a value on the wire; an Outcome adds text and bundles to it and stays below gRPC's 4 MiB
MAX_OUTCOME = 3 << 20
MAX_TEXT = 64 << 10  # repr of the value, message and traceback of an error
MAX_PIECE = 64 << 10  # one piece of output; longer writes are cut into several
MAX_FILE_PIECE = 1 << 20
MAX_FILES = 4096  # listed below the workspace
MAX_NAME = 256
MAX_SETUP = 16 << 20  # what fits into an Open of 4 MiB, as JSON

# Smallest and largest legal body of each type, by direction.
Legal = dict[int, tuple[int, int]]
FROM_RUNNER: Legal = {
    READY: (0, 0),
    FORKED: (FORKED_BODY.size, FORKED_BODY.size),
    STDOUT: (1, MAX_PIECE),
    STDERR: (1, MAX_PIECE),
    TOOL_CALL: (CALL_HEAD.size, CALL_HEAD.size + MAX_NAME + MAX_VALUE),
    FINAL: (NONCE_BYTES, NONCE_BYTES + MAX_VALUE),
    RESULT: (RESULT_HEAD.size, RESULT_HEAD.size + MAX_OUTCOME),
    FILE_REPLY: (0, MAX_OUTCOME),
}
TO_RUNNER: Legal = {
    SETUP: (0, MAX_SETUP),
    FORK: (U32.size, U32.size),
    EXECUTE: (EXECUTE_HEAD.size, EXECUTE_HEAD.size + MAX_CODE),
    TOOL_RESULT: (TOOL_HEAD.size, TOOL_HEAD.size + MAX_OUTCOME),
    SIGNAL: (SIGNAL_BODY.size, SIGNAL_BODY.size),
    INTERRUPT: (U64.size, U64.size),
    FILE: (0, MAX_FILE_PIECE + (64 << 10)),
}
_NOT_LEGAL = (1, 0)  # no length is


class FrameViolation(Exception):
    """The peer sent a frame that is not legal in this direction."""


def pack(kind: int, *parts: bytes) -> bytes:
    """One frame."""
    return b"".join((HEADER.pack(sum(map(len, parts)), kind), *parts))


class FrameReader:
    """Cuts a byte stream into frames; ``legal`` says which types are, and how long."""

    def __init__(self, legal: Legal) -> None:
        self._legal = legal
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The frames that ``data`` completes.

        Raises:
            FrameViolation: a type that is not legal here, or a body out of its bounds.
        """
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= HEADER.size:
                length, kind = HEADER.unpack_from(buffer, start)
                shortest, longest = self._legal.get(kind, _NOT_LEGAL)
                if not shortest <= length <= longest:
                    raise FrameViolation(f"frame of type {kind} and {length} bytes")
                end = start + HEADER.size + length
                if len(buffer) < end:
                    break
                body = bytes(buffer[start + HEADER.size : end])
                start = end
                yield kind, body
        finally:
            del buffer[:start]
