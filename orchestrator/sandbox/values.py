"""Values that cross the wall, both ways, and what stands for those that cannot.

Decoding builds only the types listed here, from bounded data: no type is ever constructed by a name that came from a
container. Encoding accepts exactly these types and says which part of a value cannot travel.
"""

from __future__ import annotations

import datetime
import math
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from executor_api.v1 import executor_pb2 as pb
from google.protobuf.message import DecodeError

from orchestrator.errors import ProtocolViolation, ValueNotPortable

MAX_DEPTH = 32
MAX_NODES = 100_000
MAX_BYTES = 2 << 20
MAX_INT_BYTES = 512
MAX_DECIMAL_CHARS = 1000
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
    message = _parse(pb.Arguments, data, MAX_BYTES * 2)
    decoder = _Decoder()
    keyword = decoder.pairs(message.keyword, 0)
    if not all(isinstance(name, str) for name in keyword):
        raise ProtocolViolation("a keyword argument whose name is no text")
    return tuple(decoder.items(message.positional, 0)), keyword


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
    """Counts nodes over one value."""

    def __init__(self) -> None:
        self._nodes = 0

    def value(self, message: pb.Value, depth: int) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES + 1000 or depth > MAX_DEPTH:
            raise ProtocolViolation("a value that is too deep or has too many parts")
        kind = message.WhichOneof("kind")
        try:
            return self._build(kind, getattr(message, kind) if kind else None, depth)
        except (ValueError, ArithmeticError, TypeError) as error:  # not a date, unhashable key, bad UTF-8
            raise ProtocolViolation(f"a {kind} that is none: {error}") from None

    def items(self, message: pb.ValueList, depth: int) -> list[Any]:
        return [self.value(item, depth + 1) for item in message.items]

    def pairs(self, message: pb.Pairs, depth: int) -> dict[Any, Any]:
        return {self.value(pair.key, depth + 1): self.value(pair.value, depth + 1) for pair in message.items}

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
                return set(self.items(part, depth))
            case "frozen_set":
                return frozenset(self.items(part, depth))
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
                _require(len(part) <= MAX_DECIMAL_CHARS and bool(_DECIMAL.fullmatch(_text(part))), "not a number")
                return Decimal(_text(part))
            case "complex":
                return complex(part.real, part.imag)
            case "ndarray":
                return _array(part)
            case "opaque":
                return Opaque(_text(part.type_name)[:200], _text(part.repr)[:2048])
            case _:
                raise ValueError("empty")


def _require(condition: bool, why: str) -> None:
    if not condition:
        raise ValueError(why)


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
            at = f"{path}[{str(key)[:40]!r}]"
            yield pb.Pair(key=self.value(key, f"{at} (the key)", depth + 1), value=self.value(item, at, depth + 1))


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
            return pb.Value(decimal=str(value).encode())
        case complex():
            return pb.Value(complex=pb.Complex(real=value.real, imag=value.imag))
        case NDArray():
            return pb.Value(ndarray=pb.NDArray(dtype=value.dtype.encode(), shape=value.shape, data=value.data))
        case _:
            return _numpy(value, path)


def _integer(value: int, path: str) -> pb.Value:
    if -(1 << 63) <= value < 1 << 63:
        return pb.Value(integer=value)
    size = value.bit_length() // 8 + 1
    if size > MAX_INT_BYTES:
        raise ValueNotPortable(f"{path}: an int of {value.bit_length():,} bits; at most {MAX_INT_BYTES * 8} can travel")
    return pb.Value(big_integer=value.to_bytes(size, "little", signed=True))


def _numpy(value: Any, path: str) -> pb.Value | None:
    """numpy's arrays and scalars, if the host's program uses numpy at all."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, (numpy.ndarray, numpy.generic)):
        return None
    if isinstance(value, numpy.generic):
        item = value.item()
        return None if isinstance(item, numpy.generic) else _scalar(item, path)
    if value.dtype.name not in _ITEM_SIZES:
        raise ValueNotPortable(f"{path}: a numpy array of dtype {value.dtype}, which cannot enter the sandbox")
    data = value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
    return _scalar(NDArray(value.dtype.name, value.shape, data), path)
