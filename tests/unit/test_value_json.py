"""Values written down and read again: nothing is lost, and what could harm is refused."""

from __future__ import annotations

import contextlib
import datetime
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
from hypothesis import given

from orchestrator.agents import ActionStep, AgentMemory, Timing
from orchestrator.agents.value_json import MAX_DEPTH, read
from orchestrator.errors import AgentError
from orchestrator.sandbox import NDArray, Opaque, Table
from tests.unit.fake_sandbox import answered
from tests.unit.pictures import PICTURE
from tests.unit.remembered import VALUES, again, same


@given(VALUES)
def test_values_come_back_as_they_were(value: Any) -> None:
    assert same(again(value), value)


@pytest.mark.parametrize(
    "value",
    [
        {"$type": "bytes", "data": "AAAA"},
        {"a": [{"$type": "tuple", "items": []}]},
        {"$type": {"$type": "set"}},
        {("a", 1): {2: "b"}, None: 1},
        -0.0,
        math.inf,
        "\ud800\udc00",
        {"\udfff": 1},
        datetime.datetime(2024, 1, 2, 3, 4, 5, 6, datetime.timezone(datetime.timedelta(hours=5, minutes=30))),
        Decimal("-0E-5"),
        Decimal("sNaN123"),
        complex(math.inf, -0.0),
        PICTURE,
        Opaque("Thing", "<Thing>"),
    ],
)
def test_values_that_are_easily_mistaken(value: Any) -> None:
    assert same(again(value), value)


class Secretive:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_what_cannot_be_written_becomes_text() -> None:
    assert again(range(3)) == Opaque("range", "range(0, 3)")
    assert again([Path("x")]) == [Opaque("PosixPath", "PosixPath('x')")]
    assert again(Secretive()) == Opaque("Secretive", "<Secretive>")
    assert again(1 << 20_000).type_name == "int"
    assert len(again(range(3) for _ in "x").text) <= 2048
    assert again(bytearray(b"x")) == b"x"


def test_a_value_that_holds_itself_ends_somewhere() -> None:
    value: list[Any] = []
    value.append(value)
    inner = again(value)
    for _ in range(MAX_DEPTH + 1):
        (inner,) = inner
    assert isinstance(inner, Opaque)


def sharing(count: int, length: int = 0) -> dict[str, Any]:
    """A set of keys of one hash, tuples with a long common beginning if they have a length."""
    numbers = [n * (2**61 - 1) for n in range(count)]
    keys = [{"$type": "tuple", "items": [0] * length + [number]} for number in numbers] if length else numbers
    return {"$type": "set", "items": keys}


@pytest.mark.parametrize(("count", "length"), [(2100, 0), (210, 10), (2, 2000)])
def test_keys_of_one_hash_are_bounded(count: int, length: int) -> None:
    with pytest.raises(ValueError, match="same hash"):
        read(sharing(count, length))
    assert len(read(sharing(count // 2, length // 2))) == count // 2


def test_keys_of_one_hash_are_bounded_in_all_of_a_file(tmp_path: Path) -> None:
    part = {n * (2**61 - 1) for n in range(1000)}
    assert again([part] * 5) == [part] * 5
    for parts, expected in ((4, contextlib.nullcontext()), (5, pytest.raises(AgentError, match="same hash"))):
        memory = AgentMemory("p")
        memory.append(ActionStep(1, Timing(0.0, 0.0), "x", execution=answered([part] * parts)))
        memory.save(tmp_path / "memory.json")
        with expected:
            AgentMemory.load(tmp_path / "memory.json")


def test_a_table_stays_one() -> None:
    array = NDArray("int8", (2,), b"\x01\x02")
    for table in (Table((("a", array), ("b", [1, None]))), Table((("a", array),), ("i", ["x", "y"]), True), Table(())):
        assert same(again(table), table)


@pytest.mark.parametrize(
    "change",
    [
        {"columns": [["a", [1]], ["b", [1, 2]]]},
        {"columns": [["a", "text"]]},
        {"columns": [["a", {"$type": "ndarray", "dtype": "int8", "shape": [1, 1], "data": "AA=="}]]},
        {"index": ["i", [1, 2, 3]]},
        {"series": 1},
        {"series": True, "columns": []},
        {"columns": {}},
        {"columns": [["a"]]},
    ],
)
def test_a_table_that_is_none_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        read({"$type": "table", "columns": [["a", [1]]], "index": None, "series": False} | change)


def test_arrays_of_numpy_and_dates_of_pandas() -> None:
    assert again(numpy.array([[1, 2]], "int16")) == NDArray("int16", (1, 2), b"\x01\x00\x02\x00")
    assert again(numpy.int64(5)) == 5
    assert again(pandas.NaT) is None
    assert again(pandas.Timestamp("2024-01-02")) == datetime.datetime(2024, 1, 2)
