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
from executor_image.runner.protowire import chunk, double, fields, packed, signed, unsigned, unzigzag

MAX_DEPTH = 32  # levels of containers; each is two of protobuf's 100
MAX_NODES = 100_000
MAX_INT_BYTES = 512
MAX_DECIMAL_CHARS = 1000
MAX_OPAQUE_REPR = 2048
_FLOATS = ("float16", "float32", "float64", "complex64", "complex128")
DTYPES = frozenset(("bool", *_FLOATS, *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))))


class NotPortable(TypeError):
    """A value cannot leave the sandbox; the message names the type and the path of the part that cannot."""


def safe_repr(value: object, limit: int) -> str:
    """``repr(value)``, cut to ``limit`` characters; what to show instead if it raises."""
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 — a repr is user code: what it raises is shown, and fails nothing
        text = f"<{type(value).__name__} object; its repr raised {type(error).__name__}>"
    return text if len(text) <= limit else f"{text[: limit // 2]} … {text[-limit // 2 :]}"


def _text(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


class Encoder:
    """Encodes one value within the budgets. ``strict``: a part that cannot travel raises; else it becomes Opaque."""

    def __init__(self, strict: bool) -> None:
        self._strict = strict
        self._nodes = 0
        self._bytes = 0

    def value(self, value: object, path: str, depth: int = 0) -> bytes:
        """One serialised Value."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise NotPortable(f"{path}: more than {MAX_NODES:,} values in one")
        if depth > MAX_DEPTH:
            raise NotPortable(f"{path}: nested deeper than {MAX_DEPTH} levels")
        before = self._nodes
        encode = _ENCODERS.get(type(value)) or _special(value)
        encoded = encode(self, value, path, depth) if encode else self._opaque(value, path)
        if self._nodes == before:  # a leaf: what a container holds has been counted already
            self._bytes += len(encoded)
        if self._bytes > MAX_VALUE:
            raise NotPortable(f"{path}: larger than {MAX_VALUE:,} bytes")
        return encoded

    def items(self, values: Iterable[object], path: str, depth: int) -> bytes:
        """The body of a ValueList."""
        return b"".join(chunk(1, self.value(v, f"{path}[{i}]", depth + 1)) for i, v in enumerate(values))

    def pairs(self, value: dict[Any, Any], path: str, depth: int) -> bytes:
        """The body of Pairs."""
        out = []
        for key, item in dict.items(value):
            at = f"{path}[{safe_repr(key, 40)}]"
            pair = chunk(1, self.value(key, f"{at} (the key)", depth + 1)) + chunk(2, self.value(item, at, depth + 1))
            out.append(chunk(1, pair))
        return b"".join(out)

    def _opaque(self, value: object, path: str) -> bytes:
        if self._strict:
            raise NotPortable(f"{path} is of type {_type_name(value)}, which cannot leave the sandbox")
        return opaque(value)


def opaque(value: object) -> bytes:
    """A Value that says only what ``value`` is and how it prints."""
    name, shown = _text(_type_name(value)[:200]), _text(safe_repr(value, MAX_OPAQUE_REPR // 4))
    return chunk(20, chunk(1, name), chunk(2, shown))


_Encode = Callable[[Encoder, Any, str, int], bytes]


def _int(_: Encoder, value: int, path: str, __: int) -> bytes:
    if -(1 << 63) <= value < 1 << 63:
        return signed(3, value)
    size = value.bit_length() // 8 + 1
    if size > MAX_INT_BYTES:
        raise NotPortable(f"{path}: an int of {value.bit_length():,} bits; at most {MAX_INT_BYTES * 8} can travel")
    return chunk(4, value.to_bytes(size, "little", signed=True))


def _decimal(_: Encoder, value: Decimal, path: str, __: int) -> bytes:
    text = str(value)
    if len(text) > MAX_DECIMAL_CHARS:
        raise NotPortable(f"{path}: a Decimal of {len(text):,} characters; at most {MAX_DECIMAL_CHARS:,} can travel")
    return chunk(17, text.encode())


def _aware_iso(value: datetime.datetime | datetime.time) -> bytes:
    # A tzinfo subclass is user code: only the standard library's travel, as the offset they give.
    if value.tzinfo is not None and type(value.tzinfo).__module__ not in ("datetime", "zoneinfo"):
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
    range: _sequence(8),
    tuple: _sequence(9),
    set: _sequence(10),
    frozenset: _sequence(11),
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
}


def _special(value: object) -> _Encode | None:
    """Encoders for what is known by more than its exact type: named tuples and numpy's own types."""
    if isinstance(value, tuple) and type(value).__bases__ == (tuple,) and hasattr(type(value), "_fields"):
        return lambda e, v, p, d: chunk(9, e.items(tuple.__iter__(v), p, d))
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or type(value).__module__ != "numpy":
        return None
    if type(value) is getattr(numpy, "ndarray", None):
        return _ndarray
    if isinstance(value, getattr(numpy, "generic", ())):
        return lambda e, v, p, d: e.value(v.item(), p, d) if type(v.item()) in _ENCODERS else opaque(v)
    return None


def _ndarray(encoder: Encoder, value: Any, path: str, _: int) -> bytes:
    dtype = value.dtype.name
    if dtype not in DTYPES:
        raise NotPortable(
            f"{path}: a numpy array of dtype {dtype}; it can travel as one of {', '.join(sorted(DTYPES))}"
        )
    if value.nbytes > MAX_VALUE:
        raise NotPortable(f"{path}: a numpy array of {value.nbytes:,} bytes; at most {MAX_VALUE:,} can travel")
    data = value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
    shape = b"".join(unsigned(2, size) for size in value.shape)
    return chunk(19, chunk(1, dtype.encode()), shape, chunk(3, data))


def encode_result(value: object) -> bytes:
    """Any value for the host: parts that cannot travel become Opaque, and the whole if it is too large or deep."""
    try:
        return Encoder(strict=False).value(value, "value")
    except (NotPortable, RecursionError, RuntimeError):  # RuntimeError: a container that changes while it is walked
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
    return chunk(1, positional) + chunk(2, keyword)


# ------------------------------------------------------------------------------- from the host, which is trusted


def _text_of(view: memoryview) -> str:
    return bytes(view).decode("utf-8", "surrogatepass")


def _list_of(view: memoryview) -> list[Any]:
    return [decode(item) for _, item in fields(view)]  # type: ignore[arg-type]


def _dict_of(view: memoryview) -> dict[Any, Any]:
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


def _ndarray_of(view: memoryview) -> Any:
    import numpy  # only when the host sends an array, and then the image has it

    parts: dict[int, Any] = dict(fields(view))
    shape = packed(parts.get(2, memoryview(b"")))
    return numpy.frombuffer(bytes(parts.get(3, b"")), bytes(parts[1]).decode()).reshape(shape).copy()


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
    12: _dict_of,
    13: lambda v: datetime.datetime.fromisoformat(_text_of(v)),
    14: lambda v: datetime.date.fromisoformat(_text_of(v)),
    15: lambda v: datetime.time.fromisoformat(_text_of(v)),
    16: _timedelta_of,
    17: lambda v: Decimal(_text_of(v)),
    18: _complex_of,
    19: _ndarray_of,
}


def decode(view: memoryview) -> Any:
    """The Python value of a serialised Value."""
    for number, value in fields(view):
        return _DECODERS[number](value)
    raise ValueError("an empty Value")
