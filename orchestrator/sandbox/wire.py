"""What can be told of a message before it is parsed. No I/O.

Parsing is where memory goes: four megabytes of empty parts become two million objects. So the size of each kind, and
the number of parts where there may be many, are looked at in the bytes as they came.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

_MAX_VARINT = 10  # bytes


class _Type(IntEnum):
    """How a field is written; the others are not in use."""

    VARINT = 0
    FIXED64 = 1
    BYTES = 2
    FIXED32 = 5


class Malformed(ValueError):
    """The bytes are no message."""


def only_field(data: bytes) -> tuple[int, memoryview]:
    """The number and the content of the one field that ``data`` consists of.

    Raises:
        Malformed: it is not just one, or not one with a content.
    """
    fields = _fields(memoryview(data))
    number, kind, content = next(fields, (0, _Type.BYTES, memoryview(b"")))
    if kind != _Type.BYTES or next(fields, None):
        raise Malformed("more than one part, or none that can be read")
    return number, content


def has_at_most(count: int, content: memoryview) -> bool:
    """Whether a message has no more fields than ``count``, those that repeat counted each.

    Raises:
        Malformed: it is no message.
    """
    return all(number < count for number, _ in enumerate(_fields(content)))


def _fields(data: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Number, wire type and content of each field on the first level."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        start, at = _skip(data, at, tag & 7)
        if at > len(data):
            raise Malformed("it ends too early")
        yield tag >> 3, tag & 7, data[start:at]


def _skip(data: memoryview, at: int, kind: int) -> tuple[int, int]:
    """Where the content of a field begins and ends."""
    match kind:
        case _Type.VARINT:
            return at, _varint(data, at)[1]
        case _Type.FIXED64:
            return at, at + 8
        case _Type.BYTES:
            length, start = _varint(data, at)
            return start, start + length
        case _Type.FIXED32:
            return at, at + 4
    raise Malformed(f"wire type {kind}")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for place, byte in enumerate(data[at : at + _MAX_VARINT]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise Malformed("a number that does not end")
