"""Values that can cross the wall, as hypothesis strategies, and how they are compared."""

from __future__ import annotations

import collections
import datetime
import math
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from orchestrator.sandbox.values import NDArray, decode_call

DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)
Point = collections.namedtuple("Point", "x y")

any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)  # lone surrogates among it
edges = [v for n in (31, 32, 63, 64, 127, 4094) for b in (-1, 1) for v in (b << n, (b << n) - 1, (b << n) + 1)]
integers = st.integers(-(1 << 300), 1 << 300) | st.sampled_from([*edges, 0, (1 << 4095) - 1, -(1 << 4095)])
floats = st.floats(allow_nan=True, allow_infinity=True)
offsets = st.integers(-86399, 86399).map(lambda s: datetime.timezone(datetime.timedelta(seconds=s)))
zones = st.sampled_from([datetime.UTC, ZoneInfo("UTC")])
decimals = st.decimals() | st.sampled_from([Decimal(t) for t in ("-sNaN12", "NaN", "-Infinity", "1E+999999", "-0E-9")])
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
)
keys = (
    st.none()
    | st.booleans()
    | integers
    | any_text
    | st.binary(max_size=20)
    | st.datetimes()
    | st.dates()
    | st.tuples(st.integers(), any_text)
    | st.frozensets(st.integers(), max_size=3)
)
scalars = (
    keys
    | floats
    | st.complex_numbers(allow_nan=True)
    | decimals
    | st.datetimes(timezones=offsets | zones)
    | st.times()
    | st.times(timezones=offsets)
    | st.timedeltas()
    | st.sets(keys, max_size=4)
)


def decode_arguments(data: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a tool call."""
    return decode_call(data)[:2]


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.lists(inner, max_size=4).map(tuple)
            | st.dictionaries(keys, inner, max_size=4)
        ),
        max_leaves=12,
    )


values = nested(scalars)
with_arrays = nested(scalars | arrays)


def same(a: Any, b: Any) -> bool:
    """Equal, of the same type all the way down; NaN is NaN, -0.0 is not 0.0, an array is its items."""
    a, b = (v.to_numpy() if isinstance(v, NDArray) else v for v in (a, b))
    if type(a) is not type(b):
        return False
    match a:
        case np.ndarray():
            return a.dtype.name == b.dtype.name and a.shape == b.shape and a.tobytes() == b.tobytes()
        case float():
            return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
        case complex():
            return same(a.real, b.real) and same(a.imag, b.imag)
        case Decimal():
            return str(a) == str(b)
        case datetime.datetime() | datetime.time():
            return a.replace(tzinfo=None) == b.replace(tzinfo=None) and a.utcoffset() == b.utcoffset()
        case list() | tuple():
            return len(a) == len(b) and all(map(same, a, b))
        case dict():
            return len(a) == len(b) and all(same(k, m) and same(v, w) for (k, v), (m, w) in zip(a.items(), b.items()))  # noqa: B905
        case _:
            return a == b


def deep(levels: int, leaf: Any = 1, kind: type = list) -> Any:
    """``leaf`` inside that many containers."""
    for _ in range(levels):
        leaf = {1: leaf} if kind is dict else kind([leaf])
    return leaf
