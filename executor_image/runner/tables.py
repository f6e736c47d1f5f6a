"""Tables and times of pandas. Without pandas a table from the host is a dict from column to list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from executor_image.frames import MAX_VALUE
from executor_image.runner import arrays
from executor_image.runner.portable import (
    DTYPES,
    MAX_NODES,
    Encode,
    Encoder,
    NotPortable,
    TooLarge,
    class_of,
    library,
    of_class,
    refuse,
    safe_repr,
)
from executor_image.runner.protowire import chunk, fields, unsigned

Column = tuple[Any, Any]  # name, and an array or a list
_Decode = Callable[[memoryview], Any]
_UNNAMED_INDEX = "index"  # in a dict
_UNHASHABLE = frozenset((8, 10, 12, 22))  # fields of a Value: list, set, dict, table


def encoder(value: object) -> Encode | None:
    """How a value is encoded, if it is of a class of pandas's own; a subclass's methods are the user's."""
    kind = type(value)
    name = of_class(kind, "__name__")
    encode = _ENCODERS.get(name)
    if encode and class_of("pandas", name) is kind:
        return encode
    nothing = {"NaTType": "NaT", "NAType": "NA"}.get(name, "")
    return _nothing if nothing and class_of("pandas", nothing) is value else None


def _nothing(encoder: Encoder, _: object, path: str, depth: int) -> bytes:
    return encoder.encoded(None, path, depth)


def _timestamp(encoder: Encoder, value: Any, path: str, depth: int) -> bytes:
    if value.nanosecond:  # finer than Python's, as of numpy
        return refuse(encoder, value, path, depth)
    return encoder.encoded(value.to_pydatetime(), path, depth)


def _timedelta(encoder: Encoder, value: Any, path: str, depth: int) -> bytes:
    if value.nanoseconds:
        return refuse(encoder, value, path, depth)
    return encoder.encoded(value.to_pytimedelta(), path, depth)


def _frame(encoder: Encoder, value: Any, path: str, depth: int) -> bytes:
    if 2 * len(value.columns) > MAX_NODES:
        raise TooLarge(f"{path}: a table of {len(value.columns):,} columns")
    columns = [(name, value.iloc[:, place]) for place, name in enumerate(value.columns)]
    return _table(encoder, columns, value.index, path, depth)


def _series(encoder: Encoder, value: Any, path: str, depth: int) -> bytes:
    return _table(encoder, [(value.name, value)], value.index, path, depth, unsigned(3, 1))


def _table(encoder: Encoder, columns: list[Column], index: Any, path: str, depth: int, more: bytes = b"") -> bytes:
    encoder.names([name for name, _ in columns], path)
    rows = len(index)
    out = [chunk(1, _column(encoder, name, values, rows, path, depth)) for name, values in columns]
    # Rows that are only counted need no index, unless there is nothing else to count them by.
    counted = type(index) is class_of("pandas", "RangeIndex") and (index.start, index.step, index.name) == (0, 1, None)
    if not counted or not (columns or rows == 0):
        name = tuple(index.names) if index.nlevels > 1 else index.name
        out.append(chunk(2, _column(encoder, name, index, rows, f"{path}.index", depth)))
    return chunk(22, *out, more)


def _column(encoder: Encoder, name: object, values: Any, rows: int, path: str, depth: int) -> bytes:
    at = f"{path}[{safe_repr(name, 40)}]"
    if rows > MAX_VALUE:  # not even as a byte each
        raise NotPortable(f"{at}: a column of {rows:,} rows, which cannot travel")
    plain = _plain(values)
    is_list = type(plain) is list
    if not is_list and plain.nbytes > MAX_VALUE:
        raise NotPortable(f"{at}: a column of {plain.nbytes:,} bytes; at most {MAX_VALUE:,} can travel")
    # The host would end the container for a column that is none. Code can take numpy away, or change rows in a thread.
    if len(plain) != rows or not (is_list or arrays.encoder(type(plain))):
        raise NotPortable(f"{at} is no column that can travel")
    label = encoder.value(name, f"{at} (the name)", depth + 1)
    if not _hashable(memoryview(label)):
        raise NotPortable(f"{at}: a name that cannot be the key of a dict, which cannot travel; name it by a text")
    return chunk(1, label) + chunk(2, encoder.value(plain, at, depth + 1))


def _hashable(label: memoryview) -> bool:
    """Whether the host can hash what it makes of a Value; it would end the container for a name that it cannot.

    pandas takes any object as a label, and hashes it when somebody looks for it.
    """
    number, part = next(fields(label))
    if number == 9:  # a tuple
        return all(_hashable(item) for _, item in fields(part))  # type: ignore[arg-type]
    return number not in _UNHASHABLE and not (number == 17 and b"sNaN" in bytes(part))  # type: ignore[arg-type]


def _plain(values: Any) -> Any:
    """An array where the dtype is one that can travel, else a list; in a dtype of pandas's own, nothing is None."""
    is_numpy = type(values.dtype).__module__.partition(".")[0] == "numpy"
    if is_numpy and values.dtype.name in DTYPES:
        return values.to_numpy()
    items = values.astype(object).tolist() if getattr(values, "nlevels", 1) == 1 else values.tolist()
    if is_numpy and values.dtype.kind == "O":
        return items
    return [None if missing else item for item, missing in zip(items, values.isna().tolist(), strict=True)]


_ENCODERS: dict[str, Encode] = {
    "DataFrame": _frame,
    "Series": _series,
    "Timestamp": _timestamp,
    "Timedelta": _timedelta,
}


# ------------------------------------------------------------------------------- from the host, which is trusted


def table_of(view: memoryview, decode: _Decode) -> Any:
    """The DataFrame or Series of a serialised Table, or a dict of lists."""
    columns: list[Column] = []
    index, is_series = None, False
    for number, part in fields(view):
        if number == 1:
            columns.append(_pair(part, decode))
        elif number == 2:
            index = _pair(part, decode)
        else:
            is_series = bool(part)
    pandas = library("pandas")
    if pandas is None:
        first = [] if index is None else [(_UNNAMED_INDEX if index[0] is None else index[0], index[1])]
        return {name: _list(values) for name, values in (*first, *columns)}
    rows = None if index is None else _index(pandas, *index)
    made = [pandas.Series(_typed(pandas, values), index=rows, name=name) for name, values in columns]
    if is_series:
        return made[0]
    frame = pandas.DataFrame(dict(enumerate(made)), index=rows)
    frame.columns = pandas.Index([name for name, _ in columns])
    return frame


def _pair(view: Any, decode: _Decode) -> Column:
    parts: dict[int, Any] = dict(fields(view))
    return decode(parts[1]), decode(parts[2])


def _list(values: Any) -> list[Any]:
    made: list[Any] = values if type(values) is list else values.tolist()
    return made


def _typed(pandas: Any, values: Any) -> Any:
    """A list gets a better dtype than object only where that changes none of its items."""
    return pandas.Series(values, dtype=object).infer_objects().array if type(values) is list else values


def _index(pandas: Any, name: object, values: Any) -> Any:
    index = pandas.Index(values)
    several = index.nlevels > 1
    if several and type(name) is tuple and len(name) == index.nlevels:
        index.names = list(name)
    elif not several:
        index.name = name
    return index
