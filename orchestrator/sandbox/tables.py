"""Tables as plain data: what stands on the host for a DataFrame of the sandbox's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.sandbox.portable import NDArray

Values = NDArray | Sequence[Any]


@dataclass(frozen=True, slots=True)
class Table:
    """A DataFrame of pandas, or a Series (``is_series``), as plain data.

    Attributes:
        columns: pairs of a name and its values: an ``NDArray`` of one dimension, or a list.
        index: the same of the rows' labels; None if they are counted from 0.
        is_series: it was a Series; then there is one column.
    """

    columns: tuple[tuple[Any, Values], ...]
    index: tuple[Any, Values] | None = None
    is_series: bool = False

    __hash__ = None  # type: ignore[assignment] # its lists can be changed

    @property
    def names(self) -> tuple[Any, ...]:
        """Those of the columns."""
        return tuple(name for name, _ in self.columns)

    @property
    def rows(self) -> int:
        """How many there are."""
        parts = (*self.columns, *([self.index] if self.index else []))
        return length_of(parts[0][1]) or 0 if parts else 0

    def to_dict(self) -> dict[Any, list[Any]]:
        """Column -> list, without the index. Of several columns of one name, the last."""
        return {name: _list(values) for name, values in self.columns}

    def to_pandas(self) -> Any:
        """The DataFrame or Series. Needs pandas.

        Raises:
            ConfigError: pandas is missing.
        """
        try:
            import pandas  # type: ignore[import-untyped,unused-ignore] # only who asks for a DataFrame needs it
        except ImportError:
            raise ConfigError("to_pandas() needs pandas; install it with: pip install pandas") from None
        index = None if self.index is None else _index(pandas, *self.index)
        made = [pandas.Series(_typed(pandas, values), index=index, name=name) for name, values in self.columns]
        if self.is_series:
            return made[0]
        frame = pandas.DataFrame(dict(enumerate(made)), index=index)
        frame.columns = pandas.Index(list(self.names))
        return frame

    def __repr__(self) -> str:
        """All of it: who is asked about a call must see what it is called with."""
        shown = ["{" + ", ".join(f"{name!r}: {_list(values)!r}" for name, values in self.columns) + "}"]
        if self.is_series:
            shown.append("is_series=True")
        dtypes = [_dtype(values) for _, values in self.columns]
        if any(dtypes):
            shown.append(f"dtypes={dtypes!r}")
        if self.index:
            name, labels = self.index
            dtype = _dtype(labels)
            shown += [f"index_dtype={dtype!r}"] if dtype else []
            shown.append(f"index={name!r}: {_list(labels)!r}")
        return f"Table({', '.join(shown)})"


def length_of(values: object) -> int | None:
    """How many there are in a column; None if it is none."""
    match values:
        case NDArray(shape=(rows,)):
            return rows
        case list() | tuple():
            return len(values)
        case _:
            return None


def _dtype(values: Values) -> str | None:
    """An array's; None for a list, whose items show their types."""
    return values.dtype if isinstance(values, NDArray) else None


def _list(values: Values) -> list[Any]:
    made: list[Any] = values.to_list() if isinstance(values, NDArray) else list(values)
    return made


def _typed(pandas: Any, values: Values) -> Any:
    """A list gets a better dtype than object only where that changes none of its items."""
    if isinstance(values, NDArray):
        return values.to_numpy()
    return pandas.Series(list(values), dtype=object).infer_objects().array


def _index(pandas: Any, name: Any, values: Values) -> Any:
    index = pandas.Index(values.to_numpy() if isinstance(values, NDArray) else list(values))
    if index.nlevels == 1:
        index.name = name
    elif isinstance(name, tuple) and len(name) == index.nlevels:
        index.names = list(name)
    return index
