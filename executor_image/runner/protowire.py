"""Protocol Buffers' wire format, as much of it as the runner needs.

There is no protobuf library in the runner's prefix (it would be one more native kit for hostile code), so the few
messages that the runner writes and reads are encoded here by hand. The tests hold this against the real library.
Source of the format: protobuf.dev, "Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_DOUBLE = struct.Struct("<d")
VARINT, FIXED64, LENGTH = 0, 1, 2


def varint(value: int) -> bytes:
    """An unsigned number, seven bits a byte."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def unsigned(field: int, value: int) -> bytes:
    """A uint or bool field."""
    return varint(field << 3 | VARINT) + varint(value)


def signed(field: int, value: int) -> bytes:
    """A sint64 field (zigzag)."""
    return unsigned(field, (value << 1) ^ (value >> 63))


def double(field: int, value: float) -> bytes:
    """A double field."""
    return varint(field << 3 | FIXED64) + _DOUBLE.pack(value)


def chunk(field: int, *parts: bytes) -> bytes:
    """A bytes or message field."""
    return b"".join((varint(field << 3 | LENGTH), varint(sum(map(len, parts))), *parts))


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("varint too long")


def fields(data: memoryview) -> Iterator[tuple[int, int | float | memoryview]]:
    """``(field number, value)`` for each field of a message; a length-delimited one as a view.

    Raises:
        ValueError: not a message.
    """
    at, end = 0, len(data)
    while at < end:
        tag, at = _read_varint(data, at)
        wire = tag & 7
        if wire == VARINT:
            value, at = _read_varint(data, at)
            yield tag >> 3, value
        elif wire == FIXED64:
            yield tag >> 3, _DOUBLE.unpack_from(data, at)[0]
            at += 8
        elif wire == LENGTH:
            length, at = _read_varint(data, at)
            if at + length > end:
                raise ValueError("truncated field")
            yield tag >> 3, data[at : at + length]
            at += length
        else:
            raise ValueError(f"wire type {wire}")


def unzigzag(value: int) -> int:
    """The signed number behind a sint64 field."""
    return (value >> 1) ^ -(value & 1)


def packed(data: memoryview) -> list[int]:
    """The numbers of a packed repeated uint64 field."""
    values, at = [], 0
    while at < len(data):
        value, at = _read_varint(data, at)
        values.append(value)
    return values
