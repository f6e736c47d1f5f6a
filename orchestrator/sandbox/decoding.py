"""Values from a container: only the types listed here are built, from bounded data, none by a name from there."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Sequence
from decimal import Decimal
from itertools import groupby
from typing import Any

from executor_api.v1 import executor_pb2 as pb
from google.protobuf.message import DecodeError

from orchestrator.errors import ProtocolViolation
from orchestrator.media import AgentAudio, AgentImage, media_of
from orchestrator.sandbox.portable import (
    FORMATS,
    ITEM_SIZES,
    MAX_BYTES,
    MAX_DECIMAL_CHARS,
    MAX_DEPTH,
    MAX_INT_BYTES,
    MAX_NODES,
    NDArray,
    Opaque,
)
from orchestrator.sandbox.tables import Table
from orchestrator.sanitise import one_line

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
_MIMES = {number: mime for mime, number in FORMATS.items()}
_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,12})?|[+-]?Infinity|-?s?NaN\d*", re.ASCII)


def decode(data: bytes) -> Any:
    """The value of a serialised ``Value`` from a container.

    Raises:
        ProtocolViolation: it is not one, or breaks a bound.
    """
    return _Decoder().value(_parse(pb.Value, data, MAX_BYTES * 2), 0)


def decode_message(message: pb.Value) -> Any:
    """The value of a parsed ``Value``."""
    return _Decoder().value(message, 0)


def decode_call(data: bytes) -> tuple[tuple[Any, ...], dict[str, Any], int]:
    """Positional and keyword arguments of a tool call, and of how many values they consist."""
    message = _parse(pb.Arguments, data, MAX_BYTES * 2)
    if not all(pair.key.WhichOneof("kind") == "text" for pair in message.keyword.items):
        raise ProtocolViolation("a keyword argument whose name is no text")
    decoder = _Decoder(may_be_opaque=False)  # whoever is asked about a call must see what it is called with
    # Depth -1: the list of arguments is no level of theirs.
    args, kwargs = tuple(decoder.items(message.positional, -1)), decoder.pairs(message.keyword, -1)
    return args, kwargs, decoder.nodes


def decode_variables(data: bytes) -> dict[str, Any]:
    """The values, by name, of a serialised ``Pairs`` from an app.

    Raises:
        ProtocolViolation: it is not one, or breaks a bound.
    """
    message = _parse(pb.Pairs, data, MAX_BYTES * 2)
    if not all(pair.key.WhichOneof("kind") == "text" for pair in message.items):
        raise ProtocolViolation("a variable whose name is no text")
    return _Decoder(may_be_opaque=False).pairs(message, -1)


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
            case "media":
                self._weight += ARRAY_WEIGHT
                return _media(part)
            case "table":
                return self._table(part, depth)
            case "opaque":
                _require(self._may_be_opaque, "a tool's argument")
                return Opaque(_text(part.type_name)[:200], _text(part.repr)[:2048])
            case _:
                raise ValueError("empty")

    def _table(self, part: pb.Table, depth: int) -> Table:
        self._require_room(2 * len(part.columns), depth)  # before there is an object for each
        names = self.keys([column.key for column in part.columns], depth)  # they may become those of a dict
        columns = [self._column(column.value, depth) for column in part.columns]
        index = self._named(part.index, depth) if part.HasField("index") else None
        lengths = {rows for _, rows in columns} | ({index[1]} if index else set())
        _require(len(lengths) < 2, "columns of different lengths")
        _require(not part.series or len(columns) == 1, "a series of several columns")
        named = tuple(zip(names, (values for values, _ in columns), strict=True))
        return Table(named, index[0] if index else None, part.series)

    def _named(self, part: pb.Pair, depth: int) -> tuple[tuple[Any, Any], int]:
        values, rows = self._column(part.value, depth)
        return (self.keys([part.key], depth)[0], values), rows

    def _column(self, message: pb.Value, depth: int) -> tuple[NDArray | list[Any], int]:
        """The values, and how many there are."""
        match self.value(message, depth + 1):
            case NDArray(shape=(rows,)) as array:
                return array, rows
            case list() as items:
                return items, len(items)
        raise ValueError("a column that is none")


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


def _media(part: pb.Media) -> AgentImage | AgentAudio:
    _require(part.format in _MIMES, "unknown format")
    return media_of(part.data, _MIMES[part.format])


def _array(part: pb.NDArray) -> NDArray:
    dtype, shape = _text(part.dtype), tuple(part.shape)
    _require(dtype in ITEM_SIZES and len(shape) <= 32, "unknown dtype or too many dimensions")
    _require(math.prod(shape) * ITEM_SIZES[dtype] == len(part.data), "shape and data differ")
    return NDArray(dtype, shape, part.data)
