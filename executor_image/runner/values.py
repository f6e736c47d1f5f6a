"""User values <-> the wire's ``Value``. Exact types only; nothing of the user's is called but ``repr``.

``encode`` never trusts a class to behave: it asks ``type(value) is list``, not ``isinstance``, and walks containers
with the builtin types' own methods, so an overridden ``__iter__``, ``__len__`` or ``items`` is not run.
"""

from __future__ import annotations

import collections
import datetime
import sys
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

from executor_image.frames import MAX_VALUE
from executor_image.runner import arrays, media, tables
from executor_image.runner.portable import (
    MAX_DECIMAL_CHARS,
    MAX_DEPTH,
    MAX_EXPONENT_CHARS,
    MAX_INT_BYTES,
    MAX_NODES,
    MAX_ODD_KEYS,
    MAX_OPAQUE_REPR,
    NotPortable,
    TooLarge,
    of_class,
    refuse,
    safe_repr,
    type_name,
)
from executor_image.runner.protowire import chunk, double, fields, signed, unsigned, unzigzag

_PLAIN_KEYS = (str, bytes, type(None), bool)


def _text(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


class Encoder:
    """Encodes one value within the budgets. ``strict``: a part that cannot travel raises; else it becomes Opaque."""

    def __init__(self, strict: bool) -> None:
        self._strict = strict
        self._nodes = 0
        self._bytes = 0
        self._odd_keys = 0

    def value(self, value: object, path: str, depth: int = 0) -> bytes:
        """One serialised Value."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise TooLarge(f"{path}: more than {MAX_NODES:,} values in one")
        if depth > MAX_DEPTH:
            raise TooLarge(f"{path}: nested deeper than {MAX_DEPTH} levels")
        before = self._nodes
        encoded = self.encoded(value, path, depth)
        if self._nodes == before:  # a leaf: what a container holds has been counted already
            self._bytes += len(encoded)
        # The sum of the leaves stops a large value early, the length of the whole is exact.
        if max(self._bytes, len(encoded)) > MAX_VALUE:
            raise TooLarge(f"{path}: larger than {MAX_VALUE:,} bytes")
        return encoded

    def encoded(self, value: object, path: str, depth: int = 0) -> bytes:
        """One serialised Value, uncounted."""
        encode = _BY_ID.get(id(type(value))) or _special(value) or refuse
        try:
            return encode(self, value, path, depth)
        except TooLarge:
            raise
        except NotPortable:
            if self._strict:
                raise
            return opaque(value)
        except Exception as error:  # noqa: BLE001 — of a library, or a thread of the code's changes what is walked
            if self._strict:
                why = safe_repr(error, 200)
                raise NotPortable(
                    f"{path} is of type {type_name(value)}, which cannot leave the sandbox: {why}"
                ) from None
            return opaque(value)

    def items(self, values: Iterable[object], path: str, depth: int) -> bytes:
        """The body of a ValueList."""
        return b"".join(chunk(1, self.value(v, f"{path}[{i}]", depth + 1)) for i, v in enumerate(values))

    def members(self, values: Iterable[object], path: str, depth: int) -> bytes:
        """The body of the ValueList of a set."""
        members = list(values)
        self.names(members, path)
        return self.items(members, path, depth)

    def pairs(self, value: dict[Any, Any], path: str, depth: int) -> bytes:
        """The body of Pairs."""
        items = list(
            collections.OrderedDict.items(value) if type(value) is collections.OrderedDict else dict.items(value)
        )
        self.names([key for key, _ in items], path)
        out = []
        for key, item in items:
            at = f"{path}[{safe_repr(key, 40)}]"
            pair = chunk(1, self.value(key, f"{at} (the key)", depth + 1)) + chunk(2, self.value(item, at, depth + 1))
            out.append(chunk(1, pair))
        return b"".join(out)

    def names(self, keys: list[object], path: str) -> None:
        """Counts what the host will have to hash."""
        self._odd_keys += sum(type(key) not in _PLAIN_KEYS for key in keys)
        if self._odd_keys > MAX_ODD_KEYS:
            raise TooLarge(f"{path}: more than {MAX_ODD_KEYS:,} set members and keys that are neither text nor bytes")


def opaque(value: object) -> bytes:
    """A Value that says only what ``value`` is and how it prints."""
    name, shown = _text(type_name(value)[:200]), _text(safe_repr(value, MAX_OPAQUE_REPR // 4))
    return chunk(20, chunk(1, name), chunk(2, shown))


_Encode = Callable[[Encoder, Any, str, int], bytes]


def _int(_: Encoder, value: int, path: str, __: int) -> bytes:
    if -(1 << 63) <= value < 1 << 63:
        return signed(3, value)
    size = (~value if value < 0 else value).bit_length() // 8 + 1  # in two's complement, with its sign
    if size > MAX_INT_BYTES:
        raise NotPortable(
            f"{path}: an int of {value.bit_length():,} bits; at most {MAX_INT_BYTES * 8 - 1:,} can travel"
        )
    return chunk(4, value.to_bytes(size, "little", signed=True))


def _decimal(_: Encoder, value: Decimal, path: str, __: int) -> bytes:
    text = str(value)
    if len(text) > MAX_DECIMAL_CHARS:
        raise NotPortable(f"{path}: a Decimal of {len(text):,} characters; at most {MAX_DECIMAL_CHARS:,} can travel")
    if len(text.partition("E")[2]) > MAX_EXPONENT_CHARS:
        raise NotPortable(f"{path}: a Decimal whose exponent has more than twelve digits, which cannot travel")
    return chunk(17, text.encode())


def _aware_iso(value: datetime.datetime | datetime.time) -> bytes:
    # A tzinfo subclass is user code: only the standard library's travel, as the offset they give.
    zone_info = getattr(sys.modules.get("zoneinfo"), "ZoneInfo", datetime.timezone)
    if value.tzinfo is not None and type(value.tzinfo) not in (datetime.timezone, zone_info):
        value = value.replace(tzinfo=None)
    return value.isoformat().encode()


def _sequence(field: int) -> _Encode:
    return lambda encoder, value, path, depth: chunk(field, encoder.items(value, path, depth))


def _timedelta(_: Encoder, value: datetime.timedelta, __: str, ___: int) -> bytes:
    return chunk(16, signed(1, value.days), signed(2, value.seconds), signed(3, value.microseconds))


_ENCODERS: dict[type, _Encode] = {
    type(None): lambda e, v, p, d: unsigned(1, 1),
    bool: lambda e, v, p, d: unsigned(2, int(v)),
    int: _int,
    float: lambda e, v, p, d: double(5, v),
    str: lambda e, v, p, d: chunk(6, _text(v)),
    bytes: lambda e, v, p, d: chunk(7, v),
    bytearray: lambda e, v, p, d: chunk(7, bytes(v)),
    list: _sequence(8),
    collections.deque: _sequence(8),
    tuple: _sequence(9),
    range: _sequence(9),  # can be a key, so it becomes what can be one
    set: lambda e, v, p, d: chunk(10, e.members(v, p, d)),
    frozenset: lambda e, v, p, d: chunk(11, e.members(v, p, d)),
    dict: lambda e, v, p, d: chunk(12, e.pairs(v, p, d)),
    collections.OrderedDict: lambda e, v, p, d: chunk(12, e.pairs(v, p, d)),
    collections.defaultdict: lambda e, v, p, d: chunk(12, e.pairs(v, p, d)),
    collections.Counter: lambda e, v, p, d: chunk(12, e.pairs(v, p, d)),
    datetime.datetime: lambda e, v, p, d: chunk(13, _aware_iso(v)),
    datetime.date: lambda e, v, p, d: chunk(14, v.isoformat().encode()),
    datetime.time: lambda e, v, p, d: chunk(15, _aware_iso(v)),
    datetime.timedelta: _timedelta,
    Decimal: _decimal,
    complex: lambda e, v, p, d: chunk(18, double(1, v.real), double(2, v.imag)),
    media.Media: media.encode,
}
# Looked up by id, as a look-up by the class itself would call a metaclass's __hash__ and __eq__.
_BY_ID = {id(kind): encode for kind, encode in _ENCODERS.items()}


def _special(value: object) -> _Encode | None:
    """Encoders for what is known by more than its exact type: named tuples, and types of the libraries'."""
    kind = type(value)
    if of_class(kind, "__base__") is tuple and "_fields" in of_class(kind, "__dict__"):
        # With a hash of its own it could be a key though its fields cannot: the host could not make a tuple of it one.
        own_hash = "__hash__" in of_class(kind, "__dict__")
        return None if own_hash else lambda e, v, p, d: chunk(9, e.items(tuple.__iter__(v), p, d))
    return arrays.encoder(kind) or tables.encoder(value) or media.encoder(kind)


def encode_result(value: object) -> bytes:
    """Any value for the host: parts that cannot travel become Opaque, and the whole if it is too large or deep."""
    try:
        return Encoder(strict=False).value(value, "value")
    except Exception:  # noqa: BLE001 — over a budget, or a class that is hostile
        return opaque(value)


def encode_arguments(args: tuple[object, ...], kwargs: dict[str, object]) -> bytes:
    """A serialised Arguments.

    Raises:
        NotPortable: an argument cannot travel.
    """
    encoder = Encoder(strict=True)
    positional = b"".join(chunk(1, encoder.value(v, f"argument {i + 1}")) for i, v in enumerate(args))
    keyword = b"".join(
        chunk(1, chunk(1, encoder.value(k, "name")), chunk(2, encoder.value(v, f"argument {k}")))
        for k, v in kwargs.items()
    )
    encoded = chunk(1, positional) + chunk(2, keyword)
    if len(encoded) > MAX_VALUE:
        raise TooLarge(f"the arguments are larger than {MAX_VALUE:,} bytes together")
    return encoded


# ------------------------------------------------------------------------------- from the host, which is trusted


def _text_of(view: memoryview) -> str:
    return bytes(view).decode("utf-8", "surrogatepass")


def _list_of(view: memoryview) -> list[Any]:
    return [decode(item) for _, item in fields(view)]  # type: ignore[arg-type]


def decode_pairs(view: memoryview) -> dict[Any, Any]:
    """The dict of a serialised Pairs."""
    result = {}
    for _, pair in fields(view):
        parts = dict(fields(pair))  # type: ignore[arg-type]
        result[decode(parts[1])] = decode(parts[2])  # type: ignore[arg-type]
    return result


def _timedelta_of(view: memoryview) -> datetime.timedelta:
    parts = {k: unzigzag(v) for k, v in fields(view)}  # type: ignore[arg-type]
    return datetime.timedelta(parts.get(1, 0), parts.get(2, 0), parts.get(3, 0))


def _complex_of(view: memoryview) -> complex:
    parts: dict[int, Any] = dict(fields(view))
    return complex(parts.get(1, 0.0), parts.get(2, 0.0))


_DECODERS: dict[int, Callable[[Any], Any]] = {
    1: lambda v: None,
    2: bool,
    3: unzigzag,
    4: lambda v: int.from_bytes(v, "little", signed=True),
    5: float,
    6: _text_of,
    7: bytes,
    8: _list_of,
    9: lambda v: tuple(_list_of(v)),
    10: lambda v: set(_list_of(v)),
    11: lambda v: frozenset(_list_of(v)),
    12: decode_pairs,
    13: lambda v: datetime.datetime.fromisoformat(_text_of(v)),
    14: lambda v: datetime.date.fromisoformat(_text_of(v)),
    15: lambda v: datetime.time.fromisoformat(_text_of(v)),
    16: _timedelta_of,
    17: lambda v: Decimal(_text_of(v)),
    18: _complex_of,
    19: arrays.array_of,
    21: media.media_of,
    22: lambda v: tables.table_of(v, decode),
}


def decode(view: memoryview) -> Any:
    """The Python value of a serialised Value."""
    for number, value in fields(view):
        return _DECODERS[number](value)
    raise ValueError("an empty Value")
