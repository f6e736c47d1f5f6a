"""What numpy, pandas and Pillow have made, as what can travel. None is imported: who has a value of theirs has it."""

from __future__ import annotations

import datetime
import sys
from typing import Any, TypeVar

from orchestrator.errors import ConfigError, ValueNotPortable
from orchestrator.media import AgentImage, is_picture
from orchestrator.sandbox.portable import ITEM_SIZES, MAX_NODES, NDArray
from orchestrator.sandbox.tables import Table

_Time = TypeVar("_Time", datetime.datetime, datetime.timedelta)
UNKNOWN = object()  # what is given for a value of none of them, as None is a value


def plain(value: Any, path: str) -> Any:
    """A value of Python's own, an NDArray, a Table, or an AgentImage; else ``UNKNOWN``.

    Raises:
        ValueNotPortable: it is of one of the libraries and cannot travel.
    """
    for of_library in (_of_numpy, _of_pandas, _of_pillow):
        made = of_library(value, path)
        if made is not UNKNOWN:
            return made
    return UNKNOWN


def is_nothing(value: object) -> bool:
    """pandas's words for a missing value, one of which says that it is a datetime."""
    pandas: Any = sys.modules.get("pandas")
    return pandas is not None and (value is pandas.NaT or value is pandas.NA)


def pythons_time(value: _Time, path: str) -> _Time:
    """A datetime or timedelta, and of pandas's the same in Python's own class.

    Raises:
        ValueNotPortable: it is finer than a microsecond, or further away than Python's can be.
    """
    pandas: Any = sys.modules.get("pandas")
    if pandas is None or not isinstance(value, (pandas.Timestamp, pandas.Timedelta)):
        return value
    given: Any = value
    is_stamp = isinstance(given, pandas.Timestamp)
    name = "Timestamp" if is_stamp else "Timedelta"
    if given.nanosecond if is_stamp else given.nanoseconds:
        how = "round it with .floor('us') (a column with .dt.floor('us')), or hand it over as text"
        raise ValueNotPortable(f"{path}: a {name} finer than a microsecond, which cannot enter the sandbox; {how}")
    try:
        made: _Time = given.to_pydatetime() if is_stamp else given.to_pytimedelta()
    except (ValueError, OverflowError) as error:
        why = f"beyond what Python's own can be ({error})"
        raise ValueNotPortable(
            f"{path}: a {name} {why}, which cannot enter the sandbox; hand it over as text"
        ) from None
    return made


def _of_numpy(value: Any, path: str) -> Any:
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, (numpy.ndarray, numpy.generic)):
        return UNKNOWN
    if isinstance(value, numpy.generic):
        item = value.item()
        if isinstance(value, (numpy.datetime64, numpy.timedelta64)):  # finer than Python's or NaT: a number, or None
            return item if isinstance(item, (datetime.date, datetime.timedelta)) else UNKNOWN
        return UNKNOWN if isinstance(item, numpy.generic) else item
    if value.dtype.name not in ITEM_SIZES:
        raise ValueNotPortable(f"{path}: a numpy array of dtype {value.dtype}, which cannot enter the sandbox")
    data = value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
    return NDArray(value.dtype.name, value.shape, data)


def _of_pandas(value: Any, path: str) -> Any:
    pandas: Any = sys.modules.get("pandas")
    if pandas is None:
        return UNKNOWN
    if isinstance(value, pandas.DataFrame):
        if 2 * len(value.columns) > MAX_NODES:
            raise ValueNotPortable(f"{path}: a table of {len(value.columns):,} columns; more than {MAX_NODES:,} values")
        columns = [(name, value.iloc[:, place]) for place, name in enumerate(value.columns)]
        return _table(pandas, columns, value.index, path)
    if isinstance(value, pandas.Series):
        return _table(pandas, [(value.name, value)], value.index, path, is_series=True)
    return UNKNOWN


def _table(pandas: Any, columns: list[tuple[Any, Any]], index: Any, path: str, is_series: bool = False) -> Table:
    made = tuple((name, _column(values, f"{path}[{name!r:.40}]")) for name, values in columns)
    # Rows that are only counted need no index, unless there is nothing else to count them by.
    counted = isinstance(index, pandas.RangeIndex) and (index.start, index.step, index.name) == (0, 1, None)
    if counted and (columns or len(index) == 0):
        return Table(made, is_series=is_series)
    name = tuple(index.names) if index.nlevels > 1 else index.name
    return Table(made, (name, _column(index, f"{path}.index")), is_series)


def _column(values: Any, path: str) -> NDArray | list[Any]:
    """An array where the dtype is one that can travel, else a list; in a dtype of pandas's own, nothing is None."""
    numpy: Any = sys.modules["numpy"]  # without which there is no pandas
    is_numpy = isinstance(values.dtype, numpy.dtype)
    if is_numpy and values.dtype.name in ITEM_SIZES:
        made: NDArray = _of_numpy(values.to_numpy(), path)
        return made
    items: list[Any] = values.tolist() if getattr(values, "nlevels", 1) > 1 else values.astype(object).tolist()
    if is_numpy and values.dtype.kind == "O":
        return items
    return [None if missing else item for item, missing in zip(items, values.isna().tolist(), strict=True)]


def _of_pillow(value: Any, path: str) -> Any:
    if not is_picture(type(value)):
        return UNKNOWN
    try:
        return AgentImage.of(value)
    except ConfigError as error:
        raise ValueNotPortable(f"{path}: {error}") from None
