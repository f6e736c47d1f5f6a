"""Values that cross the wall, both ways, and what stands for those that cannot.

Decoding builds only the types listed here, from bounded data: no type is ever constructed by a name that came from a
container. Encoding accepts exactly these types and says which part of a value cannot travel.
"""

from __future__ import annotations

import datetime
import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from typing import Any

from executor_api.v1 import executor_pb2 as pb
from google.protobuf.message import DecodeError

from orchestrator.errors import ProtocolViolation, ValueNotPortable
from orchestrator.sanitise import one_line

MAX_DEPTH = 32
MAX_NODES = 100_000
MAX_BYTES = 2 << 20
MAX_INT_BYTES = 512
MAX_DECIMAL_CHARS = 1000
MAX_SHOWN = 200  # characters of what is wrong with one: it may quote all of it
# Hashes of text and bytes are seeded. That of a number, or of a tuple or frozenset of numbers, is no secret: hostile
# code can choose keys that collide, and then a set or dict takes time that grows with the square of their number. Two
# bounds on a value keep that to a second. Keys of the same hash are compared part by part: so many comparisons at most.
MAX_COMPARISONS = 1 << 22
DECIMAL_WEIGHT = 32  # comparisons of two ints that take as long as one of a Decimal with a long int
ARRAY_WEIGHT = 8  # the same of two arrays, as this program's Python compares them; and one more for each dimension
# Keys whose different hashes lead to the same places of the table take n²/4 steps of a nanosecond. The runner knows it.
MAX_ODD_KEYS = 50_000
_SEEDED = (str, bytes, bool, type(None))
# Bytes of one item, for each dtype that can travel.
_ITEM_SIZES = (
    dict.fromkeys(("bool", "int8", "uint8"), 1)
    | dict.fromkeys(("int16", "uint16", "float16"), 2)
    | dict.fromkeys(("int32", "uint32", "float32"), 4)
    | dict.fromkeys(("int64", "uint64", "float64", "complex64"), 8)
    | {"complex128": 16}
)
_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,12})?|[+-]?Infinity|-?s?NaN\d*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Opaque:
    """Something that could not leave the sandbox: the name of its type there, and its repr."""

    type_name: str
    text: str

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class NDArray:
    """A numpy array as plain data: numpy's dtype name, the shape, and the items in C order, little endian."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def to_numpy(self) -> Any:
        """The array, writable. Needs numpy on the host."""
        import numpy  # not a dependency: only who asks for arrays needs it

        return numpy.frombuffer(self.data, numpy.dtype(self.dtype).newbyteorder("<")).reshape(self.shape).copy()


# ------------------------------------------------------------------------------------------------------- decoding


def decode(data: bytes) -> Any:
    """The value of a serialised ``Value`` from a container.

    Raises:
        ProtocolViolation: it is not one, or breaks a bound.
    """
    return _Decoder().value(_parse(pb.Value, data, MAX_BYTES * 2), 0)


def decode_message(message: pb.Value) -> Any:
    """The value of a parsed ``Value``."""
    return _Decoder().value(message, 0)


def decode_arguments(data: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a tool call."""
    args, kwargs, _ = decode_call(data)
    return args, kwargs


def decode_call(data: bytes) -> tuple[tuple[Any, ...], dict[str, Any], int]:
    """Positional and keyword arguments of a tool call, and of how many values they consist."""
    message = _parse(pb.Arguments, data, MAX_BYTES * 2)
    if not all(pair.key.WhichOneof("kind") == "text" for pair in message.keyword.items):
        raise ProtocolViolation("a keyword argument whose name is no text")
    decoder = _Decoder(may_be_opaque=False)  # whoever is asked about a call must see what it is called with
    # Depth -1: the list of arguments is no level of theirs.
    args, kwargs = tuple(decoder.items(message.positional, -1)), decoder.pairs(message.keyword, -1)
    return args, kwargs, decoder.nodes


def _parse(kind: Any, data: bytes, limit: int) -> Any:
    if len(data) > limit:
        raise ProtocolViolation(f"a value of {len(data):,} bytes")
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise ProtocolViolation(f"a value that cannot be read: {error}") from None


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


class _Decoder:
    """Counts nodes, keys and their collisions over one value."""

    def __init__(self, may_be_opaque: bool = True) -> None:
        self._may_be_opaque = may_be_opaque
        self.nodes = 0
        self._weight = 0  # of the nodes so far: what comparing each of them once costs
        self._odd_keys = 0
        self._comparisons = 0

    def value(self, message: pb.Value, depth: int) -> Any:
        self.nodes += 1
        self._weight += 1
        self._require_room(0, depth)
        kind = message.WhichOneof("kind")
        try:
            return self._build(kind, getattr(message, kind) if kind else None, depth)
        except (ValueError, ArithmeticError, TypeError) as error:  # not a date, unhashable key, bad UTF-8
            raise ProtocolViolation(f"a {kind or 'value'} that is none: {one_line(str(error), MAX_SHOWN)}") from None

    def _require_room(self, parts: int, depth: int) -> None:
        if self.nodes + parts > MAX_NODES + 1000 or depth > MAX_DEPTH:
            raise ProtocolViolation("a value that is too deep or has too many parts")

    def items(self, message: pb.ValueList, depth: int) -> list[Any]:
        return [self.value(item, depth + 1) for item in message.items]

    def pairs(self, message: pb.Pairs, depth: int) -> dict[Any, Any]:
        self._require_room(2 * len(message.items), depth)  # before there is an object for each
        keys = self.keys([pair.key for pair in message.items], depth)
        return dict(zip(keys, (self.value(pair.value, depth + 1) for pair in message.items), strict=True))

    def keys(self, messages: Sequence[pb.Value], depth: int) -> list[Any]:
        """Elements of a set or keys of a dict, which can be made of them in bounded time."""
        keys, weights = [], []
        for message in messages:
            before = self._weight
            keys.append(self.value(message, depth + 1))
            weights.append(self._weight - before)
        self._odd_keys += sum(type(key) not in _SEEDED for key in keys)
        self._comparisons += _comparisons(keys, weights, messages)
        _require(self._odd_keys <= MAX_ODD_KEYS, f"more than {MAX_ODD_KEYS:,} keys that are neither text nor bytes")
        _require(self._comparisons <= MAX_COMPARISONS, "too many keys of the same hash")
        return keys

    def _build(self, kind: str | None, part: Any, depth: int) -> Any:
        match kind:
            case "none":
                return None
            case "boolean" | "integer" | "number" | "data":
                return part
            case "big_integer":
                _require(len(part) <= MAX_INT_BYTES, "too long")
                return int.from_bytes(part, "little", signed=True)
            case "text":
                return _text(part)
            case "list":
                return self.items(part, depth)
            case "tuple":
                return tuple(self.items(part, depth))
            case "set":
                return set(self.keys(part.items, depth))
            case "frozen_set":
                return frozenset(self.keys(part.items, depth))
            case "dict":
                return self.pairs(part, depth)
            case "datetime":
                return datetime.datetime.fromisoformat(_text(part))
            case "date":
                return datetime.date.fromisoformat(_text(part))
            case "time":
                return datetime.time.fromisoformat(_text(part))
            case "timedelta":
                return datetime.timedelta(part.days, part.seconds, part.microseconds)
            case "decimal":
                self._weight += DECIMAL_WEIGHT - 1
                _require(len(part) <= MAX_DECIMAL_CHARS and bool(_DECIMAL.fullmatch(_text(part))), "not a number")
                return Decimal(_text(part))
            case "complex":
                return complex(part.real, part.imag)
            case "ndarray":
                self._weight += ARRAY_WEIGHT + len(part.shape)
                return _array(part)
            case "opaque":
                _require(self._may_be_opaque, "a tool's argument")
                return Opaque(_text(part.type_name)[:200], _text(part.repr)[:2048])
            case _:
                raise ValueError("empty")


def _require(condition: bool, why: str) -> None:
    if not condition:
        raise ValueError(why)


def _comparisons(keys: list[Any], weights: list[int], messages: Sequence[pb.Value]) -> int:
    """At most so many comparisons of parts it takes to tell these keys from each other."""
    hashes = list(map(hash, keys))
    order = sorted(range(len(keys)), key=hashes.__getitem__)  # sorted, as a dict of them is what is to be prevented
    total = 0
    for _, group in groupby(order, key=hashes.__getitem__):
        sharing = list(group)
        if len(sharing) > 1:  # the same key many times is compared once each: only different ones count
            different = {messages[i].SerializeToString(): weights[i] for i in sharing}
            total += sum(different.values()) ** 2 if len(different) > 1 else 0
    return total


def _array(part: pb.NDArray) -> NDArray:
    dtype, shape = _text(part.dtype), tuple(part.shape)
    _require(dtype in _ITEM_SIZES and len(shape) <= 32, "unknown dtype or too many dimensions")
    _require(math.prod(shape) * _ITEM_SIZES[dtype] == len(part.data), "shape and data differ")
    return NDArray(dtype, shape, part.data)


# ------------------------------------------------------------------------------------------------------- encoding


def encode(value: object, what: str) -> bytes:
    """A serialised ``Value``; ``what`` begins the path in an error, such as ``result``.

    Raises:
        ValueNotPortable: names the type and the path of the part that cannot travel.
    """
    data = _Encoder().value(value, what, 0).SerializeToString()
    if len(data) > MAX_BYTES:
        raise ValueNotPortable(f"{what} takes {len(data):,} bytes; at most {MAX_BYTES:,} can travel")
    return data


class _Encoder:
    """Counts nodes over one value."""

    def __init__(self) -> None:
        self._nodes = 0

    def value(self, value: object, path: str, depth: int) -> pb.Value:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise ValueNotPortable(f"{path}: more than {MAX_NODES:,} values in one")
        if depth > MAX_DEPTH:
            raise ValueNotPortable(f"{path}: nested deeper than {MAX_DEPTH} levels")
        message = _scalar(value, path) or self._container(value, path, depth)
        if message is None:
            kind = type(value)
            name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
            raise ValueNotPortable(f"{path} is of type {name}, which cannot enter the sandbox")
        return message

    def _container(self, value: object, path: str, depth: int) -> pb.Value | None:
        match value:
            case list():
                return pb.Value(list=self._items(value, path, depth))
            case tuple():
                return pb.Value(tuple=self._items(value, path, depth))
            case set():
                return pb.Value(set=self._items(value, path, depth))
            case frozenset():
                return pb.Value(frozen_set=self._items(value, path, depth))
            case dict():
                return pb.Value(dict=pb.Pairs(items=self._pairs(value, path, depth)))
            case _:
                return None

    def _items(self, values: Iterable[object], path: str, depth: int) -> pb.ValueList:
        return pb.ValueList(items=(self.value(v, f"{path}[{i}]", depth + 1) for i, v in enumerate(values)))

    def _pairs(self, value: dict[Any, Any], path: str, depth: int) -> Iterator[pb.Pair]:
        for key, item in value.items():
            at = f"{path}[{_shown(key)}]"
            yield pb.Pair(key=self.value(key, f"{at} (the key)", depth + 1), value=self.value(item, at, depth + 1))


def _shown(key: object) -> str:
    try:
        return repr(str(key)[:40])
    except Exception:  # noqa: BLE001 — a class of the program's own, or an int of too many digits: the path says less
        return f"<{type(key).__name__}>"


def _scalar(value: object, path: str) -> pb.Value | None:
    match value:
        case None:
            return pb.Value(none=True)
        case bool():
            return pb.Value(boolean=value)
        case int():
            return _integer(value, path)
        case float():
            return pb.Value(number=value)
        case str():
            return pb.Value(text=value.encode("utf-8", "surrogatepass"))
        case bytes() | bytearray():
            return pb.Value(data=bytes(value))
        case datetime.datetime():
            return pb.Value(datetime=value.isoformat().encode())
        case datetime.date():
            return pb.Value(date=value.isoformat().encode())
        case datetime.time():
            return pb.Value(time=value.isoformat().encode())
        case datetime.timedelta():
            parts = pb.Timedelta(days=value.days, seconds=value.seconds, microseconds=value.microseconds)
            return pb.Value(timedelta=parts)
        case Decimal():
            return _decimal(value, path)
        case complex():
            return pb.Value(complex=pb.Complex(real=value.real, imag=value.imag))
        case NDArray():
            return pb.Value(ndarray=pb.NDArray(dtype=value.dtype.encode(), shape=value.shape, data=value.data))
        case _:
            return _numpy(value, path)


def _integer(value: int, path: str) -> pb.Value:
    if -(1 << 63) <= value < 1 << 63:
        return pb.Value(integer=value)
    size = (~value if value < 0 else value).bit_length() // 8 + 1  # in two's complement, with its sign
    if size > MAX_INT_BYTES:
        raise ValueNotPortable(
            f"{path}: an int of {value.bit_length():,} bits; at most {MAX_INT_BYTES * 8 - 1:,} can travel"
        )
    return pb.Value(big_integer=value.to_bytes(size, "little", signed=True))


def _decimal(value: Decimal, path: str) -> pb.Value:
    text = str(value)
    if len(text) > MAX_DECIMAL_CHARS:
        most = f"at most {MAX_DECIMAL_CHARS:,} can travel"
        raise ValueNotPortable(f"{path}: a Decimal of {len(text):,} characters; {most}")
    return pb.Value(decimal=text.encode())


def _numpy(value: Any, path: str) -> pb.Value | None:
    """numpy's arrays and scalars, if the host's program uses numpy at all."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, (numpy.ndarray, numpy.generic)):
        return None
    if isinstance(value, numpy.generic):
        item = value.item()
        if isinstance(value, (numpy.datetime64, numpy.timedelta64)):  # finer than Python's or NaT: a number, or None
            return _scalar(item, path) if isinstance(item, (datetime.date, datetime.timedelta)) else None
        return None if isinstance(item, numpy.generic) else _scalar(item, path)
    if value.dtype.name not in _ITEM_SIZES:
        raise ValueNotPortable(f"{path}: a numpy array of dtype {value.dtype}, which cannot enter the sandbox")
    data = value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
    return _scalar(NDArray(value.dtype.name, value.shape, data), path)
