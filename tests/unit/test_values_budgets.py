"""What bounds a value: depth, parts, bytes; and what is said of the part that breaks them."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from executor_api.v1 import executor_pb2 as pb

from executor_image import frames
from executor_image.runner import values
from executor_image.runner.protowire import chunk
from orchestrator.errors import ProtocolViolation, ValueNotPortable
from orchestrator.sandbox.values import MAX_BYTES, MAX_DEPTH, MAX_NODES, Opaque, decode, encode
from tests.unit.value_samples import decode_arguments, deep

MANY_SMALL = ["x" * 20] * 95_000  # within the budget of bytes, until the wire's own tags are added
DEEPEST_LEAF = datetime.timedelta(1)  # itself a message inside the value


def doubling(levels: int) -> Any:
    """Few objects, 2**levels values on the wire."""
    shared: Any = [1]
    for _ in range(levels):
        shared = [shared, shared]
    return shared


def cycle(kind: type) -> Any:
    value: Any = kind()
    if kind is dict:
        value["self"] = value
    else:
        value.append(value)
    return value


TOO_MUCH: list[tuple[str, Callable[[], object], str]] = [
    ("depth", lambda: deep(MAX_DEPTH + 1), "nested deeper than 32 levels"),
    ("depth of tuples", lambda: deep(MAX_DEPTH + 1, kind=tuple), "nested deeper than 32 levels"),
    ("depth of dicts", lambda: deep(MAX_DEPTH + 1, kind=dict), "nested deeper than 32 levels"),
    ("cycle", lambda: cycle(list), "nested deeper than 32 levels"),
    ("cycle of dicts", lambda: cycle(dict), "nested deeper than 32 levels"),
    ("parts", lambda: [None] * MAX_NODES, r"\[99999\]: more than 100,000 values in one"),
    ("shared parts", lambda: doubling(17), "more than 100,000 values in one"),
    ("bytes", lambda: b"x" * (MAX_BYTES + 1), "2,097,152"),
    ("text", lambda: "ü" * (MAX_BYTES // 2 + 1), "2,097,152"),
    ("bytes in sum", lambda: [b"x" * (MAX_BYTES // 2)] * 3, "2,097,152"),
    ("an int", lambda: 1 << 4096, "an int of 4,097 bits"),
    ("a negative int", lambda: -(1 << 5000), "an int of 5,001 bits"),
    ("a Decimal", lambda: Decimal("1" * 1001), "a Decimal of 1,001 characters"),
    ("an array", lambda: np.zeros(MAX_BYTES + 1, "uint8"), "2,097,152"),
]
each_budget = pytest.mark.parametrize(("make", "says"), [pytest.param(m, s, id=name) for name, m, s in TOO_MUCH])


@each_budget
def test_an_argument_over_a_budget_is_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(values.NotPortable, match=f"^argument 1.*{says}"):
        values.encode_arguments((make(),), {})


@each_budget
def test_a_value_from_the_host_over_a_budget_is_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueNotPortable, match=f"^result.*{says}"):
        encode(make(), "result")


@each_budget
def test_a_result_over_a_budget_leaves_as_its_repr(make: Callable[[], object], says: str) -> None:
    found = decode(values.encode_result(make()))
    assert isinstance(found, Opaque)
    assert found.type_name.rpartition(".")[2] == type(make()).__name__
    assert len(found.text) <= values.MAX_OPAQUE_REPR


@pytest.mark.parametrize("kind", [list, tuple, dict])
def test_the_deepest_legal_value_crosses_both_ways_in_every_message(kind: type) -> None:
    value = deep(MAX_DEPTH, DEEPEST_LEAF, kind)
    assert decode(values.encode_result(value)) == value
    assert values.decode(memoryview(encode(value, "value"))) == value
    assert pb.Outcome.FromString(chunk(1, values.encode_result(value))).HasField("value")


@pytest.mark.parametrize("kind", [list, tuple, dict])
def test_the_deepest_legal_argument_arrives(kind: type) -> None:
    value = deep(MAX_DEPTH, DEEPEST_LEAF, kind)
    assert decode_arguments(values.encode_arguments((value,), {"k": value})) == ((value,), {"k": value})


@pytest.mark.parametrize("value", [[None] * (MAX_NODES - 1), dict.fromkeys(range(MAX_NODES // 2 - 1))])
def test_as_many_parts_as_allowed_cross_both_ways(value: object) -> None:
    assert decode(values.encode_result(value)) == value
    assert values.decode(memoryview(encode(value, "value"))) == value


@pytest.mark.parametrize("value", [MANY_SMALL, deep(31, b"x" * (MAX_BYTES - 5))], ids=["many small parts", "one deep"])
def test_an_encoded_value_is_never_larger_than_its_frame(value: object) -> None:
    assert len(values.encode_result(value)) <= frames.MAX_VALUE
    try:
        arguments = values.encode_arguments((value,), {})
    except values.NotPortable:
        return
    assert len(arguments) <= frames.MAX_VALUE


def test_arguments_share_one_budget() -> None:
    half = b"x" * (MAX_BYTES // 2)
    with pytest.raises(values.NotPortable, match="argument c: larger than"):
        values.encode_arguments((half,), {"a": half[:-100], "b": 1, "c": half})


def test_the_host_refuses_what_the_runner_should_not_have_sent() -> None:
    too_deep = pb.Value(integer=1)
    for _ in range(MAX_DEPTH + 1):
        too_deep = pb.Value(list=pb.ValueList(items=[too_deep]))
    too_many = pb.Value(list=pb.ValueList(items=[pb.Value(none=True)] * (MAX_NODES + 2000)))
    for message in (too_deep, too_many):
        with pytest.raises(ProtocolViolation, match="too deep or has too many parts"):
            decode(message.SerializeToString())
    with pytest.raises(ProtocolViolation, match="bytes"):
        decode(bytes(2 * MAX_BYTES + 1))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (print, r" is of type builtin_function_or_method, which cannot"),
        ([1, {"a": (object(),)}], r"\[1\]\['a'\]\[0\] is of type object, which cannot"),
        ({"a": {"b": {1j: print}}}, r"\['a'\]\['b'\]\[.*1j.*\] is of type builtin_function_or_method, which cannot"),
        ({print: 1}, r"\[.*print.*\] \(the key\) is of type builtin_function_or_method, which cannot"),
        ([datetime.UTC], r"\[0\] is of type datetime\.timezone, which cannot"),
    ],
)
def test_the_message_names_path_and_type_on_either_side(value: object, says: str) -> None:
    with pytest.raises(values.NotPortable, match=f"^argument 2{says} leave the sandbox"):
        values.encode_arguments((0, value), {})
    with pytest.raises(values.NotPortable, match=f"^argument k{says} leave the sandbox"):
        values.encode_arguments((), {"k": value})
    with pytest.raises(ValueNotPortable, match=rf"^result\(\){says} enter the sandbox"):
        encode(value, "result()")


def test_only_the_part_that_cannot_travel_becomes_opaque() -> None:
    found = decode(values.encode_result({"f": print, "n": [1, 2.5]}))
    assert found["n"] == [1, 2.5]
    assert found["f"] == Opaque("builtin_function_or_method", "<built-in function print>")
    assert repr(found["f"]) == "<built-in function print>"


@pytest.mark.parametrize("part", [np.array([object()]), np.array(["a"])], ids=["of objects", "of text"])
def test_an_array_that_cannot_travel_leaves_the_rest_as_it_is(part: Any) -> None:
    found = decode(values.encode_result({"n": 1, "part": part}))
    assert found["n"] == 1
    assert isinstance(found["part"], Opaque)


def test_a_number_that_cannot_travel_is_refused_as_an_argument() -> None:
    with pytest.raises(values.NotPortable, match="longdouble"):
        values.encode_arguments((np.longdouble(1),), {})


def test_the_host_holds_a_decimal_to_the_wires_bound() -> None:
    assert encode(Decimal("1" * 1000), "result")
    with pytest.raises(ValueNotPortable, match="result"):
        encode(Decimal("1" * 1001), "result")


def test_a_key_too_large_to_print_is_still_named_as_not_portable() -> None:
    with pytest.raises(values.NotPortable, match=r"16,610 bits|the key"):
        values.encode_arguments(({10**5000: 1},), {})
    with pytest.raises(ValueNotPortable, match=r"16,610 bits|the key"):
        encode({10**5000: 1}, "result")
