"""Tables across the wall, both ways."""

from __future__ import annotations

import datetime
import sys
import types
from contextlib import suppress
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from executor_api.v1 import executor_pb2 as pb
from hypothesis import given, settings
from hypothesis import strategies as st

from executor_image.runner import values
from orchestrator.errors import ConfigError, ProtocolViolation, ValueNotPortable
from orchestrator.sandbox.values import MAX_BYTES, NDArray, Opaque, Table, decode, encode
from tests.unit.value_samples import any_text, decode_arguments

NOON = datetime.datetime(2026, 5, 1, 12)


def out(value: object) -> Any:
    """From the sandbox to the host."""
    return decode(values.encode_result(value))


def into(value: object) -> Any:
    """From the host into the sandbox."""
    return values.decode(memoryview(encode(value, "value")))


FRAMES = {
    "numbers": pd.DataFrame({"i": np.arange(3, dtype="int8"), "f": [0.5, np.nan, 1.5], "b": [True, False, True]}),
    "texts": pd.DataFrame({"name": ["pen", "ink", "ü"], "n": [1, 2, 3]}),
    "times": pd.DataFrame({"at": pd.to_datetime([NOON, NOON]), "for": pd.to_timedelta([1, 2], "s")}),
    "zones": pd.DataFrame({"at": pd.to_datetime([NOON, NOON]).tz_localize("UTC")}),
    "objects": pd.DataFrame({"o": [Decimal("1.5"), None, [1, {"k": (2,)}]]}),
    "labelled": pd.DataFrame({"v": [1, 2]}, index=pd.Index(["a", "b"], name="key")),
    "from five": pd.DataFrame({"v": [1, 2]}, index=pd.RangeIndex(5, 7)),
    "two levels": pd.DataFrame({"v": [1, 2]}, index=pd.MultiIndex.from_tuples([(1, "a"), (2, "b")], names=["n", "t"])),
    "levels above": pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("a", 2)])),
    "by time": pd.DataFrame({"v": [1, 2]}, index=pd.DatetimeIndex([NOON, NOON + datetime.timedelta(1)])),
    "unnamed columns": pd.DataFrame([[1, 2], [3, 4]]),
    "one name twice": pd.DataFrame([[1, "x"]], columns=["a", "a"]),
    "one label twice": pd.DataFrame({"v": [1, 2]}, index=["a", "a"]),
    "no rows": pd.DataFrame({"v": np.array([], dtype="float32")}),
    "no columns": pd.DataFrame(index=pd.RangeIndex(3)),
    "nothing": pd.DataFrame(),
}
SERIES = {
    "numbers": pd.Series([1, 2, 3], name="n", dtype="uint16"),
    "texts": pd.Series(["a", "b"], index=["x", "y"]),
    "unnamed": pd.Series([0.5]),
}
loosely: dict[str, Any] = {
    "check_index_type": False,  # counted rows without columns come back as labels
    "check_freq": False,
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_crosses_both_ways_and_is_the_same(name: str) -> None:
    frame = FRAMES[name]
    there = into(frame)
    assert type(there) is pd.DataFrame
    pd.testing.assert_frame_equal(there, frame, check_column_type=False, **loosely)
    found = out([frame])[0]
    assert isinstance(found, Table)
    pd.testing.assert_frame_equal(found.to_pandas(), frame, check_column_type=False, **loosely)
    pd.testing.assert_frame_equal(into(found), frame, check_column_type=False, **loosely)
    assert found.rows == len(frame)
    assert found.names == tuple(frame.columns)


@pytest.mark.parametrize("name", SERIES)
def test_a_series_stays_one(name: str) -> None:
    series = SERIES[name]
    found = out(series)
    assert found.is_series
    pd.testing.assert_series_equal(found.to_pandas(), series)
    pd.testing.assert_series_equal(into(series), series)
    pd.testing.assert_series_equal(into(found), series)


def test_what_the_host_gets_is_plain() -> None:
    found = out(pd.DataFrame({"n": [1, 2], "t": ["a", None], "at": [NOON, pd.NaT]}, index=["x", "y"]))
    name, numbers = found.columns[0]
    assert (name, type(numbers), numbers.dtype, numbers.shape) == ("n", NDArray, "int64", (2,))
    assert found.to_dict() == {"n": [1, 2], "t": ["a", None], "at": [NOON, None]}
    assert found.index == (None, ["x", "y"])
    shown = repr(found)
    assert shown.startswith("Table({'n': [1, 2], 't': ['a', None], 'at': [datetime.datetime(2026, 5, 1, 12, 0), None]}")
    assert shown.endswith("index=None: ['x', 'y'])")


def test_tables_that_differ_are_shown_as_different() -> None:
    """By its repr somebody judges what a tool is called with."""
    ones = [NDArray(dtype, (1,), bytes([1]) + bytes(size)) for dtype, size in (("int8", 0), ("uint8", 0), ("int16", 1))]
    tables = [Table((("a", one),)) for one in (*ones, [1])]
    tables += [Table((("a", [1]),), is_series=True), Table((("a", ones[0]),), is_series=True)]
    tables += [Table((("a", [1]),), (None, labels)) for labels in (*ones, [1])]
    tables += [Table((("a", [1]), ("b", ones[0]))), Table((("a", ones[0]), ("b", [1]))), Table(())]
    assert len({repr(table) for table in tables}) == len(tables)
    assert repr(tables[5]) == "Table({'a': [1]}, is_series=True, dtypes=['int8'])"
    assert repr(tables[6]) == "Table({'a': [1]}, index_dtype='int8', index=None: [1])"


def test_columns_of_dtypes_of_pandas_have_none_where_nothing_is() -> None:
    frame = pd.DataFrame(
        {
            "i": pd.array([1, None], dtype="Int64"),
            "b": pd.array([True, None], dtype="boolean"),
            "c": pd.Categorical(["x", None]),
            "s": pd.array(["x", None], dtype="string"),
        }
    )
    assert out(frame).to_dict() == {"i": [1, None], "b": [True, None], "c": ["x", None], "s": ["x", None]}
    assert decode(encode(frame, "value")).to_dict() == out(frame).to_dict()


def test_times_of_pandas_leave_as_pythons_if_they_are_as_coarse() -> None:
    stamp, delta = pd.Timestamp(NOON), pd.Timedelta(1, "s")
    assert out([stamp, delta, pd.NaT, pd.NA]) == [NOON, datetime.timedelta(seconds=1), None, None]
    assert into([stamp, delta, pd.NaT, pd.NA]) == [NOON, datetime.timedelta(seconds=1), None, None]
    fine = pd.Timestamp("2026-05-01T12:00:00.000000001")
    assert isinstance(out(fine), Opaque)
    assert isinstance(out(pd.Series([fine])).columns[0][1][0], Opaque)
    with pytest.raises(values.NotPortable, match=r"argument 1\['at'\]\[0\] is of type pandas"):
        values.encode_arguments((pd.DataFrame({"at": [fine]}),), {})


def test_a_part_that_cannot_travel_is_opaque_and_no_argument() -> None:
    frame = pd.DataFrame({"o": [1, object()]}, dtype=object)
    one, other = out(frame).columns[0][1]
    assert one == 1
    assert isinstance(other, Opaque)
    with pytest.raises(values.NotPortable, match=r"argument 1\['o'\]\[1\] is of type object"):
        values.encode_arguments((frame,), {})
    with pytest.raises(ValueNotPortable, match=r"value\['o'\]\[1\] is of type object"):
        encode(frame, "value")


def test_a_time_that_pythons_own_cannot_be_does_not_enter() -> None:
    """It would lose its nanoseconds on the way, or fail where it arrives."""
    fine, far = pd.Timestamp("2026-05-01T12:00:00.000000001"), pd.Timestamp(np.datetime64("12000-01-01", "s"))
    for value, why in (
        (fine, r"finer than a microsecond.* \.floor\('us'\)"),
        (pd.Timedelta(1, "ns"), "finer than a microsecond"),
        (far, "year 12000 is out of range.* as text"),
        (pd.Timedelta(np.timedelta64(10**15, "s")), "beyond what Python's own can be.* as text"),
    ):
        for holder, path in ((value, "value"), ({"k": (value,)}, r"value\['k'\]\[0\]"), (pd.Series([value]), "value")):
            with pytest.raises(ValueNotPortable, match=rf"^{path}.*: a Time\w+ .*{why}"):
                encode(holder, "value")
    assert into(fine.floor("us")) == NOON


def test_a_time_that_pythons_own_cannot_be_is_opaque_by_itself() -> None:
    for far in (pd.Timestamp(np.datetime64("12000-01-01", "s")), pd.Timedelta(np.timedelta64(10**15, "s"))):
        assert out([far, 1]) == [Opaque(f"pandas.{type(far).__name__}", repr(far)), 1]
        assert out(pd.Series([far])).columns[0][1] == [Opaque(f"pandas.{type(far).__name__}", repr(far))]
        with pytest.raises(
            values.NotPortable, match=r"argument 1\[0\] is of type pandas\.Time\w+, which cannot.*Error"
        ):
            values.encode_arguments(([far],), {})


def with_name(name: object) -> list[Any]:
    """What has a name that pandas itself would not hash."""
    series, index = pd.Series([1, 2]), pd.Index([1, 2])
    series._name = index._name = name
    return [pd.Series([1, 2], index=index), series, labelled(name)]


def labelled(name: object) -> Any:
    labels = np.empty(1, dtype=object)
    labels[0] = name
    return pd.DataFrame([[1]], columns=pd.Index(labels))


@pytest.mark.parametrize("name", [[1], {}, {1}, (1, ("a", [2])), FRAMES["texts"], Decimal("sNaN")], ids=str)
def test_a_name_that_cannot_be_hashed_is_no_violation(name: object) -> None:
    for table in with_name(name):
        found, other = out([table, 1])
        assert isinstance(found, Opaque)
        assert other == 1
        with pytest.raises(values.NotPortable, match="name that cannot be the key of a dict"):
            values.encode_arguments((table,), {})
        with pytest.raises(ValueNotPortable, match=r"\(the name\) is of type .*, which cannot be a key in the sandbox"):
            encode(table, "value")


def test_a_name_of_parts_that_can_be_hashed_stays() -> None:
    for name in ((1, ("a", None)), frozenset((1, 2)), b"x", NOON, Decimal("NaN")):
        (found,) = out(labelled(name)).names
        assert repr(found) == repr(name)
        assert into(labelled(name)).shape == (1, 1)


def bomb(*_: Any, **__: Any) -> Any:
    raise AssertionError("a method of the user's was called")


@pytest.mark.parametrize("base", [pd.DataFrame, pd.Series])
def test_subclasses_are_opaque_and_none_of_their_methods_is_run(base: type) -> None:
    names = {
        "columns": property(bomb),
        "iloc": property(bomb),
        "__repr__": lambda self: "<mine>",
    }
    for name in ("Own", base.__name__):
        own = type(name, (base,), {"__module__": "pandas", **names})
        made = own.__new__(own)
        assert out([made])[0].text == "<mine>"


def test_arguments_have_tables_too() -> None:
    (given,), named = decode_arguments(values.encode_arguments((FRAMES["texts"],), {"s": SERIES["numbers"]}))
    pd.testing.assert_frame_equal(given.to_pandas(), FRAMES["texts"])
    pd.testing.assert_series_equal(named["s"].to_pandas(), SERIES["numbers"])


@pytest.mark.parametrize(
    "make",
    [
        lambda: pd.DataFrame({"x": np.zeros(MAX_BYTES // 8)}),  # with its name it is a few bytes too many
        lambda: pd.DataFrame(np.zeros((200_000, 2))),
        lambda: pd.DataFrame(np.zeros((1, 60_000))),
        lambda: pd.DataFrame({"x": ["a"] * 100_000}),
        lambda: pd.DataFrame({"x": [b"x" * MAX_BYTES]}),
        lambda: pd.DataFrame(index=np.zeros(300_000)),
        lambda: pd.DataFrame({n: ["a"] * 1000 for n in range(100)}),
    ],
)
def test_beyond_the_bounds_it_is_opaque_and_no_argument(make: Any) -> None:
    frame = make()
    assert isinstance(out(frame), Opaque)
    with pytest.raises(values.NotPortable):
        values.encode_arguments((frame,), {})
    with pytest.raises(ValueNotPortable):
        encode(frame, "value")


def test_as_much_as_there_may_be() -> None:
    assert out(pd.DataFrame(np.zeros((260_000, 1)))).rows == 260_000
    assert len(out(pd.DataFrame(np.zeros((1, 30_000)))).names) == 30_000


@settings(max_examples=60)
@given(st.dictionaries(any_text | st.integers(-(2**63), 2**63 - 1), st.lists(st.floats() | any_text), max_size=4))
def test_any_table_of_the_host_arrives_as_a_dict_where_there_is_no_pandas(columns: dict[Any, list[Any]]) -> None:
    length = min(map(len, columns.values()), default=0)
    table = Table(tuple((name, items[:length]) for name, items in columns.items()))
    sent = encode(table, "value")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pandas", None)
        there = values.decode(memoryview(sent))
    assert repr(there) == repr(table.to_dict())


def test_without_pandas_the_index_is_a_column_and_arrays_are_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    labelled, other = encode(FRAMES["labelled"], "value"), encode(FRAMES["from five"], "value")
    cube = encode(np.arange(8, dtype="complex64").reshape(2, 2, 2), "value")
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert values.decode(memoryview(labelled)) == {"key": ["a", "b"], "v": [1, 2]}
    assert values.decode(memoryview(other)) == {"index": [5, 6], "v": [1, 2]}
    assert values.decode(memoryview(cube)) == [[[0j, 1 + 0j], [2 + 0j, 3 + 0j]], [[4 + 0j, 5 + 0j], [6 + 0j, 7 + 0j]]]


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [("bool", (2,)), ("float16", (2, 2)), ("uint64", (1, 2, 1)), ("complex128", ()), ("int8", (0,)), ("int8", (0, 3))],
)
def test_an_array_is_the_same_lists_with_numpy_and_without(
    dtype: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.ones(shape, dtype)
    sent = encode(array, "value")
    assert decode(sent).to_list() == array.tolist()
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert values.decode(memoryview(sent)) == array.tolist()


def test_a_table_of_the_hosts_own_must_be_one() -> None:
    for wrong in (
        Table((("a", [1]), ("b", [1, 2]))),
        Table((("a", [1]),), ("i", [])),
        Table((("a", "text"),)),
        Table((("a", NDArray("int8", (1, 1), b"\0")),)),
        Table((), is_series=True),
    ):
        with pytest.raises(ValueNotPortable, match=r"columns of one length|has one column"):
            encode([wrong], "value")
    with pytest.raises(TypeError, match="unhashable"):
        hash(Table(()))


def test_without_pandas_on_the_host_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match="pip install pandas"):
        Table(()).to_pandas()


def test_code_that_takes_numpy_away_gets_an_opaque_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """A column that is none would be a violation, for which the host ends the container."""
    monkeypatch.setitem(sys.modules, "numpy", types.ModuleType("numpy"))
    assert isinstance(out([FRAMES["labelled"]])[0], Opaque)


# ------------------------------------------------------------------------------------------------------ hostile bytes


def listed(*numbers: int) -> pb.Value:
    return pb.Value(list=pb.ValueList(items=[pb.Value(integer=number) for number in numbers]))


def pair(name: Any, column: pb.Value) -> pb.Pair:
    return pb.Pair(key=pb.Value(text=name) if isinstance(name, bytes) else name, value=column)


SQUARE = pb.Value(ndarray=pb.NDArray(dtype=b"int8", shape=[2, 2], data=bytes(4)))


@pytest.mark.parametrize(
    "table",
    [
        pb.Table(columns=[pair(b"a", listed(1)), pair(b"b", listed(1, 2))]),
        pb.Table(columns=[pair(b"a", listed(1))], index=pair(b"i", listed())),
        pb.Table(columns=[pair(b"a", SQUARE)]),
        pb.Table(columns=[pair(b"a", pb.Value(text=b"abc"))]),
        pb.Table(columns=[pair(b"a", pb.Value(tuple=pb.ValueList()))]),
        pb.Table(columns=[pair(b"a", pb.Value())]),
        pb.Table(columns=[pb.Pair()]),
        pb.Table(columns=[pair(listed(), listed())]),
        pb.Table(columns=[pair(pb.Value(table=pb.Table()), listed())]),
        pb.Table(index=pair(listed(), listed())),
        pb.Table(index=pb.Pair()),
        pb.Table(series=True),
        pb.Table(columns=[pair(b"a", listed()), pair(b"b", listed())], series=True),
        pb.Table(columns=[pair(b"a", pb.Value(opaque=pb.Opaque()))]),
    ],
)
def test_tables_that_are_none_are_a_violation(table: pb.Table) -> None:
    with pytest.raises(ProtocolViolation):
        decode(pb.Value(table=table).SerializeToString())


def test_an_opaque_cell_in_an_argument_is_a_violation() -> None:
    cell = pb.Value(list=pb.ValueList(items=[pb.Value(opaque=pb.Opaque(type_name=b"x", repr=b"y"))]))
    message = pb.Value(table=pb.Table(columns=[pair(b"a", cell)]))
    assert decode(message.SerializeToString()).columns == (("a", [Opaque("x", "y")]),)
    with pytest.raises(ProtocolViolation, match="a tool's argument"):
        decode_arguments(pb.Arguments(positional=pb.ValueList(items=[message])).SerializeToString())


def test_millions_of_columns_and_cells_are_refused_before_there_is_an_object_for_each() -> None:
    columns = pb.Value(table=pb.Table(columns=[pb.Pair()] * 200_000))
    with pytest.raises(ProtocolViolation, match="too many parts"):
        decode(columns.SerializeToString())
    wide = pb.Table(columns=[pair(b"", pb.Value(list=pb.ValueList()))] * 60_000)
    with pytest.raises(ProtocolViolation, match="too many parts"):
        decode(pb.Value(table=wide).SerializeToString())


@settings(max_examples=150)
@given(st.sampled_from(sorted(FRAMES)), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_table_with_a_piece_cut_out_is_plain_or_a_violation(name: str, a: int, b: int) -> None:
    data = values.encode_result([FRAMES[name]])
    start, end = sorted((a % (len(data) + 1), b % (len(data) + 1)))
    with suppress(ProtocolViolation):
        found = decode(data[:start] + data[end:])
        for table in found if isinstance(found, list) else []:
            if isinstance(table, Table):
                assert all(len(column) == table.rows for column in table.to_dict().values())
                encode(table, "value")


def test_names_that_collide_are_refused() -> None:
    columns = [pair(pb.Value(big_integer=(n * ((1 << 61) - 1)).to_bytes(16, "little")), listed()) for n in range(3000)]
    with pytest.raises(ProtocolViolation, match="too many keys of the same hash"):
        decode(pb.Value(table=pb.Table(columns=columns)).SerializeToString())


def test_tables_in_tables_are_as_deep_as_lists_may_be() -> None:
    nested = pd.DataFrame({"x": [1]})
    for _ in range(12):
        nested = pd.DataFrame({"x": [nested]})
    assert isinstance(out(nested), Table)
    for _ in range(5):
        nested = pd.DataFrame({"x": [nested]})
    assert isinstance(out(nested), Opaque)
    value = listed(1)
    for _ in range(17):
        value = pb.Value(table=pb.Table(columns=[pair(b"x", pb.Value(list=pb.ValueList(items=[value])))]))
    with pytest.raises(ProtocolViolation, match="too deep"):
        decode(value.SerializeToString())
