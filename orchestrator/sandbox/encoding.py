"""Values for a container: exactly the types listed here. An error says which part of a value cannot travel."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from executor_api.v1 import executor_pb2 as pb

from orchestrator.errors import ValueNotPortable
from orchestrator.media import Media
from orchestrator.sandbox import libraries
from orchestrator.sandbox.portable import (
    FORMATS,
    MAX_BYTES,
    MAX_DECIMAL_CHARS,
    MAX_DEPTH,
    MAX_INT_BYTES,
    MAX_NODES,
    NDArray,
)
from orchestrator.sandbox.tables import Table, length_of

# Not to be hashed where it arrives: an array is numpy's there, a table pandas's, a picture Pillow's.
_UNHASHABLE = frozenset(("list", "set", "dict", "ndarray", "table"))
_PICTURES = frozenset(number for mime, number in FORMATS.items() if mime.startswith("image/"))


def encode(value: object, what: str) -> bytes:
    """A serialised ``Value``; ``what`` begins the path in an error, such as ``result``.

    Raises:
        ValueNotPortable: names the type and the path of the part that cannot travel.
    """
    return _bounded(_Encoder().value(value, what, 0).SerializeToString(), f"{what} takes")


def encode_variables(variables: Mapping[str, object]) -> bytes:
    """A serialised ``Pairs``, all within the bounds of one value.

    Raises:
        ValueNotPortable: names the type and the path of the part that cannot travel.
    """
    encoder, message = _Encoder(), pb.Pairs()
    for name, value in variables.items():
        message.items.append(pb.Pair(key=pb.Value(text=name.encode()), value=encoder.value(value, name, 0)))
    return _bounded(message.SerializeToString(), "the variables take")


def encode_arguments(args: Iterable[object], kwargs: Mapping[str, object]) -> tuple[bytes, bytes]:
    """Those of a call, positional as a serialised ``ValueList``, by name as ``Pairs``; together within the bounds.

    Raises:
        ValueNotPortable: names the type and the path of the part that cannot travel.
    """
    encoder, positional, keyword = _Encoder(), pb.ValueList(), pb.Pairs()
    for place, value in enumerate(args, 1):
        positional.items.append(encoder.value(value, f"argument {place}", 0))
    for name, value in kwargs.items():
        keyword.items.append(pb.Pair(key=pb.Value(text=name.encode()), value=encoder.value(value, name, 0)))
    made = positional.SerializeToString(), keyword.SerializeToString()
    _bounded(b"".join(made), "the arguments take")
    return made


def _bounded(data: bytes, what: str) -> bytes:
    if len(data) > MAX_BYTES:
        raise ValueNotPortable(f"{what} {len(data):,} bytes; at most {MAX_BYTES:,} can travel")
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
        message = self._message(value, path, depth)
        if message is None:
            kind = type(value)
            name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
            raise ValueNotPortable(f"{path} is of type {name}, which cannot enter the sandbox")
        return message

    def _message(self, value: object, path: str, depth: int) -> pb.Value | None:
        message = _scalar(value, path) or self._container(value, path, depth)
        if message is None and (made := libraries.plain(value, path)) is not libraries.UNKNOWN:
            message = _scalar(made, path) or self._container(made, path, depth)
        return message

    def _container(self, value: object, path: str, depth: int) -> pb.Value | None:
        match value:
            case list():
                return pb.Value(list=self._items(value, path, depth))
            case tuple():
                return pb.Value(tuple=self._items(value, path, depth))
            case set():
                return pb.Value(set=self._members(value, path, depth))
            case frozenset():
                return pb.Value(frozen_set=self._members(value, path, depth))
            case dict():
                return pb.Value(dict=pb.Pairs(items=self._pairs(value, path, depth)))
            case Table():
                return pb.Value(table=self._table(value, path, depth))
            case _:
                return None

    def _items(self, values: Iterable[object], path: str, depth: int) -> pb.ValueList:
        return pb.ValueList(items=(self.value(v, f"{path}[{i}]", depth + 1) for i, v in enumerate(values)))

    def _members(self, values: Iterable[object], path: str, depth: int) -> pb.ValueList:
        return pb.ValueList(items=(self._key(v, f"{path}[{i}]", depth) for i, v in enumerate(values)))

    def _pairs(self, value: dict[Any, Any], path: str, depth: int) -> Iterator[pb.Pair]:
        for key, item in value.items():
            at = f"{path}[{_shown(key)}]"
            yield pb.Pair(key=self._key(key, f"{at} (the key)", depth), value=self.value(item, at, depth + 1))

    def _table(self, table: Table, path: str, depth: int) -> pb.Table:
        parts = (*table.columns, *([table.index] if table.index else []))
        lengths = {length_of(values) for _, values in parts}
        if len(lengths) > 1 or None in lengths:
            raise ValueNotPortable(f"{path}: a Table needs columns of one length, each a list or an NDArray")
        if table.is_series and len(table.columns) != 1:
            raise ValueNotPortable(f"{path}: a Series has one column, not {len(table.columns)}")
        columns = [self._column(column, path, depth) for column in table.columns]
        index = self._column(table.index, path, depth) if table.index else None
        return pb.Table(columns=columns, index=index, series=table.is_series)

    def _column(self, column: tuple[Any, Any], path: str, depth: int) -> pb.Pair:
        name, values = column
        at = f"{path}[{_shown(name)}]"
        values = list(values) if isinstance(values, tuple) else values
        key = self._key(name, f"{at} (the name)", depth)
        return pb.Pair(key=key, value=self.value(values, at, depth + 1))

    def _key(self, value: object, path: str, depth: int) -> pb.Value:
        """What the sandbox has to hash. It makes another class of some of what can be hashed here."""
        message = self.value(value, path, depth + 1)
        if not _hashable(message):
            kind = type(value).__name__
            raise ValueNotPortable(
                f"{path} is of type {kind}, which cannot be a key in the sandbox; take a text for it"
            )
        return message


def _hashable(message: pb.Value) -> bool:
    match message.WhichOneof("kind"):
        case "tuple":
            return all(map(_hashable, message.tuple.items))
        case "decimal":
            return b"sNaN" not in message.decimal
        case "media":
            return message.media.format not in _PICTURES
        case kind:
            return kind not in _UNHASHABLE


def _shown(key: object) -> str:
    try:
        return repr(str(key)[:40])
    except Exception:  # noqa: BLE001 — a class of the program's own, or an int of too many digits: the path says less
        return f"<{type(key).__name__}>"


def _scalar(value: object, path: str) -> pb.Value | None:
    if value is None or libraries.is_nothing(value):
        return pb.Value(none=True)
    match value:
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
            return pb.Value(datetime=libraries.pythons_time(value, path).isoformat().encode())
        case datetime.date():
            return pb.Value(date=value.isoformat().encode())
        case datetime.time():
            return pb.Value(time=value.isoformat().encode())
        case datetime.timedelta():
            exact = libraries.pythons_time(value, path)
            parts = pb.Timedelta(days=exact.days, seconds=exact.seconds, microseconds=exact.microseconds)
            return pb.Value(timedelta=parts)
        case Decimal():
            return _decimal(value, path)
        case complex():
            return pb.Value(complex=pb.Complex(real=value.real, imag=value.imag))
        case NDArray():
            return pb.Value(ndarray=pb.NDArray(dtype=value.dtype.encode(), shape=value.shape, data=value.data))
        case Media() if value.mime in FORMATS:
            return pb.Value(media=pb.Media(format=FORMATS[value.mime], data=value.data))
        case _:
            return None


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
