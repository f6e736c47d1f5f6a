"""The runner's hand-written protobuf against the real one: any value crosses both ways and is the same value."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import enum
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePath
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import pytest
from executor_api.v1 import executor_pb2 as pb
from hypothesis import given, settings
from hypothesis import strategies as st

from executor_image.runner import protowire, values
from orchestrator.errors import ValueNotPortable
from orchestrator.sandbox.values import NDArray, Opaque, decode, encode
from tests.unit.value_samples import Point, any_text, decode_arguments, integers, same, scalars, with_arrays
from tests.unit.value_samples import values as portable

some = settings(max_examples=120)
few = settings(max_examples=60)
OFFSET = datetime.timezone(datetime.timedelta(hours=5, minutes=30))


class Pair(NamedTuple):
    left: int
    right: int


def out(value: object) -> Any:
    """From the sandbox to the host."""
    return decode(values.encode_result(value))


def into(value: object) -> Any:
    """From the host into the sandbox."""
    return values.decode(memoryview(encode(value, "value")))


@some
@given(with_arrays)
def test_a_value_leaves_the_sandbox_as_it_is(value: Any) -> None:
    assert same(out(value), value)


@some
@given(with_arrays)
def test_a_value_enters_the_sandbox_as_it_is(value: Any) -> None:
    assert same(into(value), value)


@some
@given(portable)
def test_the_runner_writes_the_message_that_protobuf_writes(value: Any) -> None:
    parsed = pb.Value.FromString(values.encode_result(value))
    assert parsed.SerializeToString() == encode(value, "value")  # what protobuf did not know would be kept


@few
@given(st.lists(scalars, max_size=5), st.dictionaries(any_text, scalars, max_size=5))
def test_arguments_arrive_as_they_were_given(args: list[Any], kwargs: dict[str, Any]) -> None:
    positional, keyword = decode_arguments(values.encode_arguments(tuple(args), kwargs))
    assert same(positional, tuple(args))
    assert same(keyword, kwargs)


@few
@given(
    number=st.integers(1, 2**29 - 1),
    unsigned=st.integers(0, 2**64 - 1),
    signed=st.integers(-(2**63), 2**63 - 1),
    double=st.floats(),
    data=st.binary(),
)
def test_a_field_is_read_as_it_was_written(number: int, unsigned: int, signed: int, double: float, data: bytes) -> None:
    message = b"".join(
        (
            protowire.unsigned(number, unsigned),
            protowire.signed(number, signed),
            protowire.double(number, double),
            protowire.chunk(number, data),
        )
    )
    read = list(protowire.fields(memoryview(message)))
    assert [field for field, _ in read] == [number] * 4
    assert read[0][1] == unsigned
    assert protowire.unzigzag(read[1][1]) == signed  # type: ignore[arg-type]
    assert same(read[2][1], double)
    assert bytes(read[3][1]) == data  # type: ignore[arg-type]


@few
@given(integers)
def test_an_int_takes_the_small_field_where_it_fits(value: int) -> None:
    kind = pb.Value.FromString(values.encode_result(value)).WhichOneof("kind")
    assert kind == ("integer" if -(1 << 63) <= value < 1 << 63 else "big_integer")


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Point(1, [2]), (1, [2])),
        (Pair(1, 2), (1, 2)),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (collections.deque([1, 2], 5), [1, 2]),
        (bytearray(b"ab"), b"ab"),
        (range(2, 5), (2, 3, 4)),
        (np.float32(0.5), 0.5),
        (np.int64(-3), -3),
        (np.bool_(True), True),
        (np.str_("ü"), "ü"),
        (np.complex128(1j), 1j),
        (np.datetime64("2024-05-06T07:08:09"), datetime.datetime(2024, 5, 6, 7, 8, 9)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_relative_of_a_plain_type_leaves_the_sandbox_as_that_type(value: object, plain: object) -> None:
    assert same(out(value), plain)
    assert same(out([value]), [plain])


def test_an_ordered_dict_keeps_its_own_order() -> None:
    value = collections.OrderedDict(a=1, b=2, c=3)
    value.move_to_end("a")
    assert list(out(value)) == list(value)


def test_a_range_may_be_a_key_or_an_element_of_a_set() -> None:
    assert set(map(type, out({range(3): "x"}))) <= {tuple, Opaque}
    assert len(out({range(3), range(4)})) == 2


@pytest.mark.parametrize("text", ["1E+1000000000000", "1E+999999999999999999", "-1E-999999999999999999"])
def test_a_decimal_of_any_exponent_leaves_as_itself_or_opaque(text: str) -> None:
    found = out(Decimal(text))
    assert text in str(found)


@pytest.mark.parametrize("unit", ["ns", "ps"])
def test_a_time_finer_than_pythons_does_not_turn_into_a_number(unit: str) -> None:
    moment, span = np.datetime64("2020-01-01", unit), np.timedelta64(5, unit)
    assert isinstance(out(moment), Opaque)
    assert isinstance(out(span), Opaque)
    with pytest.raises(ValueNotPortable):
        encode(moment, "value")


def test_no_time_at_all_is_not_none() -> None:
    assert out(np.datetime64("NaT")).type_name == "numpy.datetime64"
    with pytest.raises(ValueNotPortable):
        encode(np.timedelta64("NaT"), "value")


@pytest.mark.parametrize(
    "value",
    [
        datetime.datetime(2024, 2, 29, 23, 59, 59, 999999),
        datetime.datetime.min,
        datetime.datetime.max,
        datetime.datetime(2024, 1, 1, tzinfo=OFFSET),
        datetime.time(1, 2, 3, 4, tzinfo=OFFSET),
        datetime.time.max,
        datetime.date.min,
        datetime.timedelta.min,
        datetime.timedelta.max,
        datetime.timedelta(0),
    ],
    ids=repr,
)
def test_the_ends_of_the_calendar_cross_both_ways(value: Any) -> None:
    assert same(out(value), value)
    assert same(into(value), value)


@pytest.mark.parametrize(
    "value",
    [
        {"kind": "opaque", "opaque": {"type_name": "x", "repr": "y"}},
        {"__type__": "datetime", "value": "2024-01-01"},
        {"big_integer": b"\x01", "integer": 1},
        {20: ("x", "y"), 1: True},
        {"dtype": "float64", "shape": [1], "data": b"12345678"},
    ],
)
def test_a_dict_that_looks_like_a_tag_stays_a_dict(value: dict[Any, Any]) -> None:
    assert same(out(value), value)
    assert same(into(value), value)


@pytest.mark.parametrize("value", [b"\x08\x01", "\x08\x01", [b"\x52\x00"]])
def test_bytes_that_look_like_a_message_stay_bytes(value: object) -> None:
    assert same(out(value), value)
    assert same(into(value), value)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3).T,  # not in C order
        np.arange(10)[::3],
        np.array([1.5, 2.5], ">f8"),  # big endian
        np.array(7),
        np.zeros((0, 3), "int16"),
        np.asfortranarray(np.ones((2, 2), "complex64")),
    ],
    ids=["transposed", "strided", "big endian", "no dimension", "empty", "Fortran order"],
)
def test_an_array_of_any_layout_crosses_both_ways(array: Any) -> None:
    left, entered = out(array), into(array)
    assert isinstance(left, NDArray)
    for found in (left.to_numpy(), entered):
        assert np.array_equal(found, array)
        assert found.dtype.name == array.dtype.name
        found[...] = 1  # it is the receiver's own


def test_an_array_that_left_may_enter_again() -> None:
    array = np.arange(4, dtype="uint16")
    assert np.array_equal(into({"again": [out(array)]})["again"][0], array)


def test_dtypes_that_are_no_plain_numbers_do_not_travel() -> None:
    arrays = [np.array([object()]), np.array(["a"]), np.array(["2020-01-01"], "M8[D]"), np.zeros(2, "i4,f8")]
    for array in arrays:
        assert isinstance(out(array), Opaque)
        with pytest.raises(ValueNotPortable, match=r"value\['k'\]\[0\]: a numpy array of dtype"):
            encode({"k": [array]}, "value")
        with pytest.raises(values.NotPortable, match=r"argument 1\['k'\]\[0\]: a numpy array of dtype"):
            values.encode_arguments(({"k": [array]},), {})


class Number(enum.IntEnum):
    ONE = 1


class Colour(enum.Enum):
    RED = 1


class Text(enum.StrEnum):
    A = "a"


class Flag(enum.IntFlag):
    ON = 1


class Own(dict[str, int]):
    pass


@dataclasses.dataclass(frozen=True)
class Record:
    x: int = 1


@pytest.mark.parametrize(
    ("value", "there", "here"),
    [
        (Point(1, 2), (1, 2), (1, 2)),
        (collections.OrderedDict(a=1), {"a": 1}, {"a": 1}),
        (collections.defaultdict(int, a=1), {"a": 1}, {"a": 1}),
        (collections.Counter("a"), {"a": 1}, {"a": 1}),
        (bytearray(b"x"), b"x", b"x"),
        (collections.deque([1]), [1], None),
        (range(2), (0, 1), None),
        (Number.ONE, Opaque, 1),
        (Text.A, Opaque, "a"),
        (Flag.ON, Opaque, 1),
        (Colour.RED, Opaque, None),
        (Record(), Opaque, None),
        (Own(a=1), Opaque, {"a": 1}),
        *((value, Opaque, None) for value in (PurePath("x"), UUID(int=1), Fraction(1, 2), memoryview(b"x"), len)),
        *((value, Opaque, None) for value in ((one for one in "a"), {1: 2}.keys(), ValueError("x"))),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_nearly_portable_becomes_what_the_page_says(value: Any, there: Any, here: Any) -> None:
    """docs/values.md has this as a table: out of the sandbox, into it."""
    found = decode(values.encode_result(value))
    assert type(found) is Opaque if there is Opaque else (found, type(found)) == (there, type(there))
    if here is None:
        with pytest.raises(ValueNotPortable, match="cannot enter the sandbox"):
            encode(value, "value")
    else:
        arrived = values.decode(memoryview(encode(value, "value")))
        assert (arrived, type(arrived)) == (here, type(here))
