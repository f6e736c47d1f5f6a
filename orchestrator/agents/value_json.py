"""Values as JSON and back: in memories and records of runs, which may have been in anybody's hands.

What JSON has is written as it is. Everything else is an object with a ``$type``; a dict that has such a key itself is
written as one of these objects, too, so nobody's data can be taken for them. Only the types listed here are built.

Lost is: what a value of a class of the program's own can do (it becomes an ``Opaque`` with its repr), the names of
time zones (offsets stay), the fold of times, the payloads of nan, subclasses, and that two parts were the same object.
"""

from __future__ import annotations

import base64
import contextlib
import contextvars
import datetime
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import groupby
from types import UnionType
from typing import Any

from orchestrator.errors import ProtocolViolation, ValueNotPortable
from orchestrator.media import Media, media_of
from orchestrator.sandbox.decoding import ARRAY_WEIGHT, DECIMAL_WEIGHT, MAX_COMPARISONS, MAX_ODD_KEYS
from orchestrator.sandbox.encoding import encode
from orchestrator.sandbox.portable import ITEM_SIZES, MAX_DECIMAL_CHARS
from orchestrator.sandbox.tables import length_of
from orchestrator.sandbox.values import NDArray, Opaque, Table, decode

TAG = "$type"
MAX_DEPTH = 100  # levels; a value from a sandbox has 32, arguments from a model may have more
MAX_INT_BITS = 8192  # twice what leaves a sandbox; Python refuses to write some 14,000 in decimal
MAX_REPR = 2048  # characters of what stands for an object: as of one that could not leave a sandbox
_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,12})?|[+-]?Infinity|-?s?NaN\d*", re.ASCII)
_SURROGATES = re.compile("[\ud800-\udfff]")
_SEEDED = (str, bytes, bool, type(None))  # whose hashes nobody can choose; see decoding.py


_comparisons: contextvars.ContextVar[list[int] | None] = contextvars.ContextVar("comparisons", default=None)


@contextlib.contextmanager
def one_file() -> Iterator[None]:
    """The values read inside have one bound for all comparisons of their keys, not one each."""
    token = _comparisons.set([0])
    try:
        yield
    finally:
        _comparisons.reset(token)


def written(value: object, depth: int = 0) -> Any:
    """``value`` as what ``json`` can write. What cannot be written stands there as its type and its repr."""
    if depth > MAX_DEPTH:
        return _opaque(value)
    match value:
        case None | bool():
            return value
        case int():
            return value if value.bit_length() <= MAX_INT_BITS else _opaque(value)
        case float():
            return value if math.isfinite(value) else {TAG: "float", "value": repr(float(value))}
        case str():
            return value if not _SURROGATES.search(value) else {TAG: "text", "utf8": _base64(_utf8(value))}
        case list():
            return [written(item, depth + 1) for item in value]
        case tuple() | set() | frozenset():
            return _several(value, depth)
        case dict():
            return _dict(value, depth)
        case _:
            return _other(value)


def _several(value: tuple[Any, ...] | set[Any] | frozenset[Any], depth: int) -> Mapping[str, Any]:
    items = [written(item, depth + 1) for item in value]
    if isinstance(value, tuple):
        return {TAG: "tuple", "items": items}
    kind = "set" if isinstance(value, set) else "frozenset"
    return {TAG: kind, "items": sorted(items, key=repr)}  # in an order that depends on the elements alone


def _dict(value: dict[Any, Any], depth: int) -> Mapping[str, Any]:
    if TAG not in value and all(type(key) is str and not _SURROGATES.search(key) for key in value):
        return {key: written(item, depth + 1) for key, item in value.items()}
    pairs = [[written(key, depth + 1), written(item, depth + 1)] for key, item in value.items()]
    return {TAG: "dict", "items": pairs}


def _other(value: object) -> Mapping[str, Any]:
    match value:
        case bytes() | bytearray():
            return {TAG: "bytes", "data": _base64(value)}
        case datetime.datetime() if _is_own(value):
            return {TAG: "datetime", "value": value.isoformat()}
        case datetime.date() if _is_own(value):
            return {TAG: "date", "value": value.isoformat()}
        case datetime.time():
            return {TAG: "time", "value": value.isoformat()}
        case datetime.timedelta():
            return {TAG: "timedelta", "value": [value.days, value.seconds, value.microseconds]}
        case Decimal() if len(str(value)) <= MAX_DECIMAL_CHARS:
            return {TAG: "decimal", "value": str(value)}
        case complex():
            return {TAG: "complex", "value": [written(value.real), written(value.imag)]}
        case NDArray(dtype, shape, data):
            return {TAG: "ndarray", "dtype": dtype, "shape": list(shape), "data": _base64(data)}
        case Table(columns, index, is_series):
            pairs = [[written(name), written(values)] for name, values in columns]
            rows = None if index is None else [written(index[0]), written(index[1])]
            return {TAG: "table", "columns": pairs, "index": rows, "series": is_series}
        case Media(data, mime):
            return {TAG: "media", "mime": mime, "data": _base64(data)}
        case Opaque(type_name, text):
            return {TAG: "opaque", "type_name": written(type_name), "text": written(text)}
        case _:
            return _foreign(value)


def _is_own(value: datetime.date) -> bool:
    """Whether it is Python's own date, and no library's that says it is one."""
    return type(value).__module__ == "datetime"


def _foreign(value: object) -> Mapping[str, Any]:
    """numpy's arrays and scalars as what a sandbox would be given; anything else as its repr."""
    try:
        plain = decode(encode(value, "value"))
    except (ValueNotPortable, ProtocolViolation):  # the latter: pandas' NaT says that it is a date
        return _opaque(value)
    made: Mapping[str, Any] = written(plain) if type(plain) is not type(value) else _opaque(value)
    return made


def _opaque(value: object) -> Mapping[str, Any]:
    kind = type(value)
    try:
        text = repr(value)[:MAX_REPR]
    except Exception:  # noqa: BLE001 - the repr of a class of the program's own, or of too large an int
        text = f"<{kind.__qualname__}>"
    return {TAG: "opaque", "type_name": kind.__qualname__, "text": written(text)}


def _base64(data: bytes | bytearray) -> str:
    return base64.b64encode(data).decode()


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def read(data: object, depth: int = 0) -> Any:
    """The value that was written as ``data``.

    Raises:
        ValueError, TypeError, KeyError, ArithmeticError: it is none.
    """
    if depth > 2 * MAX_DEPTH:
        raise ValueError("a value is nested too deep")
    match data:
        case None | bool() | int() | float() | str():
            return data
        case list():
            return [read(item, depth + 1) for item in data]
        case dict() if TAG not in data:
            return {key: read(item, depth + 1) for key, item in data.items()}
        case dict():
            return _tagged(data, depth)
        case _:
            raise ValueError(f"a {type(data).__name__} is no value")


def _tagged(data: Mapping[str, Any], depth: int) -> Any:
    kind = data[TAG]
    if kind in ("tuple", "set", "frozenset"):
        items = [read(item, depth + 1) for item in _typed(data["items"], list)]
        return tuple(items) if kind == "tuple" else {"set": set, "frozenset": frozenset}[kind](_hashed(items))
    if kind == "dict":
        pairs = [(read(key, depth + 1), read(item, depth + 1)) for key, item in _typed(data["items"], list)]
        _hashed([key for key, _ in pairs])
        return dict(pairs)
    if not isinstance(kind, str) or kind not in _READERS:
        raise ValueError(f"there is no type {str(kind)[:40]!r}")
    return _READERS[kind](data)


def _typed(part: Any, kind: type[Any] | UnionType) -> Any:
    if not isinstance(part, kind):
        raise ValueError(f"a {type(part).__name__} is not expected here")
    return part


def _hashed(keys: Sequence[Any]) -> Sequence[Any]:
    """The keys, if they are not so many of chosen hashes that a table of them takes forever."""
    odd = [key for key in keys if type(key) not in _SEEDED]
    if len(odd) > MAX_ODD_KEYS:
        raise ValueError(f"more than {MAX_ODD_KEYS:,} keys that are neither text nor bytes")
    count = _comparisons.get() or [0]
    for _, group in groupby(sorted(odd, key=hash), key=hash):
        sharing = list(group)
        count[0] += sum(map(_weight, sharing)) ** 2 if len(sharing) > 1 else 0
        if count[0] > MAX_COMPARISONS:
            raise ValueError("too many keys of the same hash")
    return keys


def _weight(key: Any) -> int:
    """How many comparisons of two ints it takes to compare it."""
    match key:
        case tuple() | frozenset():
            return 1 + sum(map(_weight, key))
        case Decimal():
            return DECIMAL_WEIGHT
        case NDArray() | Media() | Table():
            return ARRAY_WEIGHT
        case _:
            return 1


def _bytes(part: Any) -> bytes:
    return base64.b64decode(_typed(part, str), validate=True)


def _float(data: Mapping[str, Any]) -> float:
    if data["value"] not in ("nan", "inf", "-inf"):
        raise ValueError("not a number that JSON lacks")
    return float(data["value"])


def _decimal(data: Mapping[str, Any]) -> Decimal:
    text = _typed(data["value"], str)
    if len(text) > MAX_DECIMAL_CHARS or not _DECIMAL.fullmatch(text):
        raise ValueError("not a Decimal")
    return Decimal(text)


def _complex(data: Mapping[str, Any]) -> complex:
    real, imag = (read(part) for part in _typed(data["value"], list))
    return complex(_typed(real, float), _typed(imag, float))


def _timedelta(data: Mapping[str, Any]) -> datetime.timedelta:
    days, seconds, microseconds = (_typed(part, int) for part in _typed(data["value"], list))
    return datetime.timedelta(days, seconds, microseconds)


def _ndarray(data: Mapping[str, Any]) -> NDArray:
    dtype, shape, content = data["dtype"], tuple(_typed(data["shape"], list)), _bytes(data["data"])
    if not all(type(size) is int and size >= 0 for size in shape) or len(shape) > 32:
        raise ValueError("not the shape of an array")
    if math.prod(shape) * ITEM_SIZES[_typed(dtype, str)] != len(content):
        raise ValueError("shape and data of an array differ")
    return NDArray(dtype, shape, content)


def _table(data: Mapping[str, Any]) -> Table:
    columns = tuple(_column(pair) for pair in _typed(data["columns"], list))
    index = None if data["index"] is None else _column(data["index"])
    is_series = _typed(data["series"], bool)
    lengths = {length_of(values) for _, values in (*columns, *([index] if index else []))}
    if len(lengths) > 1 or (is_series and len(columns) != 1):
        raise ValueError("columns of a table differ in length, or are too many")
    _hashed([name for name, _ in columns])
    return Table(columns, index, is_series)


def _column(pair: Any) -> tuple[Any, Any]:
    name, values = (read(part) for part in _typed(pair, list))
    if isinstance(values, NDArray) and len(values.shape) != 1:
        raise ValueError("a column of a table has more than one dimension")
    return name, _typed(values, NDArray | list)


def _read_opaque(data: Mapping[str, Any]) -> Opaque:
    return Opaque(_typed(read(data["type_name"]), str), _typed(read(data["text"]), str))


_READERS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "float": _float,
    "text": lambda data: _bytes(data["utf8"]).decode("utf-8", "surrogatepass"),
    "bytes": lambda data: _bytes(data["data"]),
    "datetime": lambda data: datetime.datetime.fromisoformat(data["value"]),
    "date": lambda data: datetime.date.fromisoformat(data["value"]),
    "time": lambda data: datetime.time.fromisoformat(data["value"]),
    "timedelta": _timedelta,
    "decimal": _decimal,
    "complex": _complex,
    "ndarray": _ndarray,
    "table": _table,
    "media": lambda data: media_of(_bytes(data["data"]), _typed(data["mime"], str)),
    "opaque": _read_opaque,
}
