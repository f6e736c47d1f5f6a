"""Messages of any shape, as hypothesis strategies. Made from their descriptors: a new field is tried by itself."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from hypothesis import strategies as st

_INTS = {
    FieldDescriptor.TYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.TYPE_UINT64: (0, (1 << 64) - 1),
    FieldDescriptor.TYPE_SINT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_SINT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_ENUM: (-(1 << 31), (1 << 31) - 1),
}
# What parsers of text inside a message meet: dates, numbers, names of types, nothing.
_TEXTS = [
    *(b"", b"2024-01-31T12:30:00.000001+01:00", b"0000-00-00", b"9999-12-31", b"23:59:59.999999-23:59", b"24:00"),
    *(b"1e999999999999", b"-sNaN12", b"Infinity", b"0x10", b"1_0", b"int8", b"float64", b"complex128", b"object"),
    *(b"\xff\xfe", "٣".encode(), b"\xed\xa0\x80", b"\x1b[2J", b"add", b"a/../b", b"\0"),
]
MAX_DEPTH = 5


def integers(low: int, high: int) -> st.SearchStrategy[int]:
    """Mostly small ones, the edges, and any."""
    edges = [n for n in (low, low + 1, 0, 1, 2, 3, 7, high - 1, high) if low <= n <= high]
    return st.sampled_from(edges) | st.integers(low, high)


def messages(kind: Any, own: dict[str, st.SearchStrategy[Any]] | None = None, depth: int = 0) -> st.SearchStrategy[Any]:
    """Messages of a class. ``own`` has strategies for fields of some names, at whatever depth."""
    chosen = own or {}
    fields = [field for field in kind.DESCRIPTOR.fields if depth < MAX_DEPTH or field.message_type is None]
    parts = {
        field.name: chosen[field.name] if field.name in chosen else _field(field, chosen, depth) for field in fields
    }
    if kind.DESCRIPTOR.oneofs and fields:
        single = [part.map(lambda value, name=name: kind(**{name: value})) for name, part in parts.items()]
        return st.one_of(*single, st.just(kind()))
    return st.fixed_dictionaries({}, optional=parts).map(lambda given: kind(**given))


def _field(field: Any, own: dict[str, st.SearchStrategy[Any]], depth: int) -> st.SearchStrategy[Any]:
    one = st.deferred(lambda: _single(field, own, depth))
    return st.lists(one, max_size=4) if field.is_repeated else one


def _single(field: Any, own: dict[str, st.SearchStrategy[Any]], depth: int) -> st.SearchStrategy[Any]:
    match field.type:
        case FieldDescriptor.TYPE_MESSAGE:
            return messages(field.message_type._concrete_class, own, depth + 1)
        case FieldDescriptor.TYPE_BYTES:
            return st.sampled_from(_TEXTS) | st.binary(max_size=40)
        case FieldDescriptor.TYPE_STRING:
            return st.text(max_size=20)
        case FieldDescriptor.TYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.TYPE_DOUBLE:
            return st.floats()
        case kind:
            return integers(*_INTS[kind])


def damaged(data: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """The bytes with some changed, cut out, or put in."""
    edits = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 3), st.binary(max_size=6)), max_size=4)
    return st.tuples(data, edits).map(lambda both: _edited(*both))


def _edited(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for place, removed, added in edits:
        at = place % (len(data) + 1)
        data = data[:at] + added + data[at + removed :]
    return data
