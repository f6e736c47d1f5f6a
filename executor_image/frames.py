"""Frames between the supervisor and one other process: ``u32 length | u8 type | body`` on a private socketpair.

The other is a runner process (a head or a checkpoint), or the warden. Standard library only: the runner has nothing
else. The supervisor parses what comes up as hostile: a type that is not listed for that direction, or a body out of its
bounds, is a ``FrameViolation``, and that ends the process that sent it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

HEADER = struct.Struct("<IB")
U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")
EXECUTE_HEAD = struct.Struct("<16sQI")  # nonce, execution id, length of the variables; then they, then the code
CALL_HEAD = struct.Struct("<16sIH")  # nonce, call number, length of the name; then name, then arguments
TOOL_HEAD = struct.Struct("<IB")  # call number, 0 value | 1 failure
RESULT_HEAD = struct.Struct("<16sB")  # nonce, one of OUTCOME_*
FORK_BODY = struct.Struct("<IB")  # number of the copy, one of FORK_*
FORKED_BODY = struct.Struct("<IiB")  # number, pid (-1: failed, 0: not known), 1 if the workspace is part of the copy
SIGNAL_BODY = struct.Struct("<iB")  # pid, signal
SWEPT_BODY = struct.Struct("<II")  # processes that were killed, and that are still there

# supervisor -> runner
SETUP = 1  # JSON: import rules, tools, environment; the first frame, once
FORK = 2  # FORK_BODY; comes with the copy's channel as a descriptor, of a branch also with what its 1 and 2 write to
EXECUTE = 3  # EXECUTE_HEAD, serialised Pairs, code
TOOL_RESULT = 4  # TOOL_HEAD, serialised Value or JSON [type name, message]
FILE = 6  # JSON request, NUL, data
INTERRUPT = 7  # u64 execution id: before the warden is told to send the signal
WAKE = 8  # u32 branch, or 0: a copy becomes a head, in the workspace of that branch or in its own as it was

# runner -> supervisor
READY = 33  # SETUP is done
FORKED = 34  # FORKED_BODY
STDOUT = 36
STDERR = 37
TOOL_CALL = 38  # CALL_HEAD, name, arguments
FINAL = 39  # nonce, serialised Value
RESULT = 40  # RESULT_HEAD, serialised Outcome
FILE_REPLY = 41  # serialised FileReply
WOKEN = 42  # u8 1 if the files are those of the copy, else the reason as text
BORN = 43  # the first word of a branch's first head: by it the kernel tells its pid

# supervisor -> warden
SIGNAL = 64  # SIGNAL_BODY
SWEEP = 65  # JSON: which processes may stay
REMOVE = 66  # u32 branch whose workspace nobody needs any more
CHECK = 67  # is it awake, and has it done what it was told before?

# warden -> supervisor
SWEPT = 96  # SWEPT_BODY
REMOVED = 97
CHECKED = 98

FORK_CHECKPOINT = 0  # of the present state, the workspace looked at again
FORK_COPY = 1  # of a checkpoint, as it is
FORK_BRANCH = 2  # as FORK_COPY, with descriptors of its own and PID 1 as parent
FORK_PRESENT_BRANCH = 3  # the same of the present state

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
MAX_REASON = 1000  # why files were kept
MAX_SWEEP = 64 << 10  # JSON of some hundred pids

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
    WOKEN: (1, 1 + MAX_REASON),
    BORN: (0, 0),
}
TO_RUNNER: Legal = {
    SETUP: (0, MAX_SETUP),
    FORK: (FORK_BODY.size, FORK_BODY.size),
    EXECUTE: (EXECUTE_HEAD.size, EXECUTE_HEAD.size + MAX_VALUE + MAX_CODE),
    TOOL_RESULT: (TOOL_HEAD.size, TOOL_HEAD.size + MAX_OUTCOME),
    INTERRUPT: (U64.size, U64.size),
    FILE: (0, MAX_FILE_PIECE + (64 << 10)),
    WAKE: (U32.size, U32.size),
}
TO_WARDEN: Legal = {
    SIGNAL: (SIGNAL_BODY.size, SIGNAL_BODY.size),
    SWEEP: (0, MAX_SWEEP),
    REMOVE: (U32.size, U32.size),
    CHECK: (0, 0),
}
FROM_WARDEN: Legal = {
    SWEPT: (SWEPT_BODY.size, SWEPT_BODY.size),
    REMOVED: (0, 0),
    CHECKED: (0, 0),
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
