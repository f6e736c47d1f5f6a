"""Hostile values in the sandbox, hostile bytes to the host: a plain value, an opaque one or a violation, never more."""

from __future__ import annotations

import collections
import datetime
from collections.abc import Callable
from typing import Any

import pytest
from executor_api.v1 import executor_pb2 as pb
from hypothesis import given, settings
from hypothesis import strategies as st

from executor_image.runner import values
from executor_image.runner.protowire import chunk
from orchestrator.errors import ProtocolViolation
from orchestrator.media import AgentAudio, AgentImage
from orchestrator.sandbox.values import MAX_NODES, Opaque, Table, decode, decode_message
from tests.unit.spent import BOUNDED, seconds_of
from tests.unit.value_samples import decode_arguments
from tests.unit.value_samples import values as portable

PLAIN = (
    *(type(None), bool, int, float, str, bytes, list, tuple, set, frozenset, dict, complex),
    *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta),
)
some = settings(max_examples=150)
COLLIDING = (1 << 61) - 1  # its multiples all hash to 0


class Raised(Exception):
    """What hostile methods raise: none of it may be run, or get out."""


def bomb(*_: Any, **__: Any) -> Any:
    raise Raised


LYING_METHODS = dict.fromkeys(("__iter__", "__len__", "__getitem__", "__eq__", "__bool__", "items", "encode"), bomb)


def hostile(base: type, *args: Any, **more: Any) -> Any:
    """An instance of a subclass of ``base`` whose every method raises."""
    names = {**LYING_METHODS, "__hash__": lambda self: 1, "__repr__": lambda self: "<hostile>", **more}
    return type("Hostile", (base,), {"__module__": "__main__", **names})(*args)


def out(value: object) -> Any:
    return decode(values.encode_result(value))


@pytest.mark.parametrize(
    "value",
    [
        hostile(list, [1, 2]),
        hostile(dict, {1: 2}),
        hostile(tuple, (1,)),
        hostile(set, {1}),
        hostile(str, "text"),
        hostile(bytes, b"data"),
        hostile(int, 5, __index__=bomb, __add__=bomb, bit_length=bomb),
        hostile(float, 0.5, __float__=bomb),
        hostile(collections.OrderedDict, {1: 2}),
        hostile(collections.Counter, "a", elements=bomb),
        hostile(datetime.datetime, 2024, 1, 1, isoformat=bomb),
    ],
    ids=lambda value: type(value).__bases__[0].__name__,
)
def test_a_subclass_leaves_as_its_repr_and_none_of_its_methods_is_run(value: Any) -> None:
    assert out([value]) == [Opaque("__main__.Hostile", "<hostile>")]
    with pytest.raises(values.NotPortable, match=r"argument 1 is of type __main__\.Hostile"):
        values.encode_arguments((value,), {})


def test_a_named_tuple_is_walked_without_its_own_methods() -> None:
    point = type("Point", (tuple,), {"_fields": ("x",), "__iter__": bomb, "__len__": bomb, "__getitem__": bomb})
    assert out(point((1,))) == (1,)


@pytest.mark.parametrize("lie", [int, list, dict, tuple, str, type(None)])
def test_a_class_that_says_it_is_another_is_not_believed(lie: type) -> None:
    liar = type("Liar", (), {"__class__": property(lambda self: lie), "__repr__": lambda self: "I lie"})()
    found = out(liar)
    assert isinstance(found, Opaque)
    assert found.text == "I lie"


def test_asking_for_the_class_of_a_value_runs_nothing_of_the_users() -> None:
    ran = []
    asked = type("Asked", (), {"__class__": property(lambda self: ran.append(1) or bomb())})()
    assert isinstance(out(asked), Opaque)
    assert not ran


class NamelessMeta(type):
    @property
    def __module__(cls) -> str:  # type: ignore[override]
        raise Raised


class Nameless(metaclass=NamelessMeta):
    """Its own class does not say where it is from."""


def test_a_class_that_refuses_to_be_named_is_opaque() -> None:
    assert isinstance(out(Nameless()), Opaque)


@pytest.mark.parametrize("error", [Raised, ValueError, RecursionError, MemoryError])
def test_a_repr_that_raises_is_shown_as_such(error: type[Exception]) -> None:
    def refuse(self: object) -> str:
        raise error

    found = out([type("Silent", (), {"__repr__": refuse})(), 1])
    assert found[1] == 1
    assert found[0].text == f"<Silent object; its repr raised {error.__name__}>"


def test_a_repr_that_is_no_text_is_shown_as_such() -> None:
    assert "its repr raised TypeError" in out(type("Odd", (), {"__repr__": lambda self: 5})()).text


def test_a_long_repr_keeps_head_and_tail() -> None:
    found = out(type("Long", (), {"__repr__": lambda self: "<" + "x" * 10**6 + ">"})())
    assert found.text[0] + found.text[-1] == "<>"
    assert len(found.text) < values.MAX_OPAQUE_REPR


def test_a_text_that_lies_about_its_length_does_not_get_past_the_bound() -> None:
    text = type("Short", (str,), {"__len__": lambda self: 0})("x" * 5_000_000)
    encoded = values.encode_result(type("Liar", (), {"__repr__": lambda self: text})())
    assert len(encoded) < 2 * values.MAX_OPAQUE_REPR


def test_a_time_zone_of_the_users_is_not_asked() -> None:
    zone = type("Zone", (datetime.tzinfo,), {"utcoffset": bomb, "__module__": "__main__"})()
    assert out(datetime.datetime(2024, 1, 1, tzinfo=zone)) == datetime.datetime(2024, 1, 1)
    pretender = type("Zone", (datetime.tzinfo,), {"utcoffset": bomb, "__module__": "zoneinfo"})()
    assert out(datetime.datetime(2024, 1, 1, tzinfo=pretender)) == datetime.datetime(2024, 1, 1)


def test_a_container_that_changes_while_it_is_walked_is_opaque() -> None:
    growing: dict[Any, Any] = {}
    grow = type("Grow", (), {"__repr__": lambda self: str(growing.setdefault(len(growing), 0))})()
    growing["x"] = grow
    assert isinstance(out(growing), (dict, Opaque))


def test_a_class_whose_name_is_no_unicode_is_opaque() -> None:
    names = {"__module__": "m", "__qualname__": "\udcff", "__repr__": lambda self: "r"}
    assert out(type("Odd", (), names)()) == Opaque("m.\udcff", "r")


# ----------------------------------------------------------------------------------------------- bytes to the host


def only_plain(value: Any) -> bool:
    match value:
        case list() | tuple() | set() | frozenset():
            return all(map(only_plain, value))
        case dict():
            return all(only_plain(k) and only_plain(v) for k, v in value.items())
        case Table():
            return all(map(only_plain, (*value.columns, value.index)))
        case _:
            media = isinstance(value, AgentImage | AgentAudio)
            return media or type(value) in PLAIN or type(value).__name__ in ("Decimal", "NDArray", "Opaque")


def decoded_or_refused(data: bytes) -> None:
    for read in (decode, decode_arguments):
        try:
            found = read(data)
        except ProtocolViolation:
            continue
        assert only_plain(found)


@some
@given(st.binary(max_size=300))
def test_any_bytes_decode_to_plain_values_or_are_a_violation(data: bytes) -> None:
    decoded_or_refused(data)


@some
@given(portable, st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_message_with_changed_bytes_decodes_to_plain_values_or_is_a_violation(
    value: Any, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(values.encode_result(value))
    for at, byte in changes:
        data[at % len(data)] = byte
    decoded_or_refused(bytes(data))


@some
@given(portable, st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_message_with_a_piece_cut_out_decodes_to_plain_values_or_is_a_violation(value: Any, a: int, b: int) -> None:
    data = values.encode_result(value)
    start, end = sorted((a % (len(data) + 1), b % (len(data) + 1)))
    decoded_or_refused(data[:start] + data[end:])


@some
@given(st.integers(1, 25), st.binary(max_size=60))
def test_any_tag_with_any_body_decodes_to_plain_values_or_is_a_violation(field: int, body: bytes) -> None:
    decoded_or_refused(chunk(field, body))


ONE, NAN = pb.Value(integer=1), pb.Value(decimal=b"sNaN")
EMPTY_LIST = pb.Value(list=pb.ValueList())


@pytest.mark.parametrize(
    "message",
    [
        pb.Value(),
        pb.Value(list=pb.ValueList(items=[pb.Value()])),
        pb.Value(text=b"\xff"),
        pb.Value(big_integer=bytes(513)),
        pb.Value(decimal=b"1" * 1001),
        pb.Value(decimal=b"1e9999999999999"),
        pb.Value(decimal="١".encode()),
        pb.Value(datetime=b"tomorrow"),
        pb.Value(date=b"2024-13-01"),
        pb.Value(time=b"25:00"),
        pb.Value(timedelta=pb.Timedelta(days=1 << 62)),
        pb.Value(set=pb.ValueList(items=[EMPTY_LIST])),
        pb.Value(set=pb.ValueList(items=[NAN])),
        pb.Value(dict=pb.Pairs(items=[pb.Pair(key=EMPTY_LIST, value=ONE)])),
        pb.Value(dict=pb.Pairs(items=[pb.Pair(key=ONE)])),
        pb.Value(ndarray=pb.NDArray(dtype=b"object", shape=[1], data=bytes(8))),
        pb.Value(ndarray=pb.NDArray(dtype=b"float64", shape=[2], data=bytes(8))),
        pb.Value(ndarray=pb.NDArray(dtype=b"\xff", shape=[0])),
        pb.Value(ndarray=pb.NDArray(dtype=b"int8", shape=[1 << 63, 0, 1 << 63][:1], data=b"")),
        pb.Value(ndarray=pb.NDArray(dtype=b"int8", shape=[1] * 33, data=b"x")),
        pb.Value(opaque=pb.Opaque(type_name=b"\xff")),
    ],
    ids=lambda message: str(message).replace("\n", " ")[:40] or "empty",
)
def test_a_value_that_is_none_is_a_violation(message: pb.Value) -> None:
    with pytest.raises(ProtocolViolation):
        decode(message.SerializeToString())
    with pytest.raises(ProtocolViolation):
        decode_message(message)


def test_a_keyword_must_be_text() -> None:
    keyword = pb.Pairs(items=[pb.Pair(key=ONE, value=ONE)])
    with pytest.raises(ProtocolViolation, match="keyword"):
        decode_arguments(pb.Arguments(keyword=keyword).SerializeToString())


def test_an_opaque_is_cut_to_its_bounds() -> None:
    found = decode(pb.Value(opaque=pb.Opaque(type_name=b"t" * 10**5, repr=b"r" * 10**6)).SerializeToString())
    assert (len(found.type_name), len(found.text)) == (200, 2048)


@pytest.mark.parametrize("inside", [False, True])
def test_no_argument_of_a_tool_is_opaque(inside: bool) -> None:
    """Its repr would be the code's own words, in a question about the call."""
    value = pb.Value(opaque=pb.Opaque(type_name=b"x", repr=b"'anna', 5)\npay('mallory', 5000"))
    value = pb.Value(list=pb.ValueList(items=[value])) if inside else value
    with pytest.raises(ProtocolViolation, match="opaque"):
        decode_arguments(pb.Arguments(positional=pb.ValueList(items=[value])).SerializeToString())


def big(value: int) -> pb.Value:
    return pb.Value(big_integer=value.to_bytes(value.bit_length() // 8 + 1, "little"))


def colliding_ints() -> pb.Value:
    return pb.Value(set=pb.ValueList(items=[big(i * COLLIDING) for i in range(MAX_NODES // 2)]))


def colliding_kinds_of_number() -> pb.Value:
    """To compare a Decimal with an int of 512 bytes takes a thousand times as long as two ints."""
    numbers = [big((1 << 4000) - (1 << 4000) % COLLIDING + i * COLLIDING) for i in range(1000)]
    decimals = [pb.Value(decimal=str(i * COLLIDING).encode()) for i in range(1000)]
    return pb.Value(set=pb.ValueList(items=[*numbers, *decimals]))


def colliding_trees() -> pb.Value:
    """Frozensets of two frozensets that collide: comparing two takes the square of what they hold."""
    leaves = iter(range(1 << 13))

    def tree(levels: int) -> pb.Value:
        parts = [tree(levels - 1), tree(levels - 1)] if levels else [big(next(leaves) * COLLIDING)]
        return pb.Value(frozen_set=pb.ValueList(items=parts))

    return tree(12)


def colliding_arrays() -> pb.Value:
    """Empty ones, told apart by their last dimensions alone."""

    def array(number: int) -> pb.Value:
        last = [5 + (number >> 3 * place & 7) * COLLIDING for place in range(5)]
        return pb.Value(ndarray=pb.NDArray(dtype=b"int8", shape=[0] * 27 + last))

    return pb.Value(set=pb.ValueList(items=[array(number) for number in range(10_000)]))


@pytest.mark.parametrize("make", [colliding_ints, colliding_kinds_of_number, colliding_trees, colliding_arrays])
def test_keys_chosen_to_collide_cannot_hold_up_the_host(make: Callable[[], pb.Value]) -> None:
    data = make().SerializeToString()

    def refused() -> None:
        with pytest.raises(ProtocolViolation, match="too many keys of the same hash"):
            decode(data)

    assert seconds_of(refused) < BOUNDED  # it is known before they are compared, which takes the square of their number


@pytest.mark.parametrize(
    "value",
    [
        {1 << i for i in range(4000)},  # 61 hashes
        {(x, y, z) for x in range(-9, 9) for y in range(-9, 9) for z in range(-9, 9)},  # -1 and -2 share one
        {type("Same", (), {"__repr__": lambda self: "same"})(): i for i in range(5000)},
        set(map(str, range(MAX_NODES - 1))),
    ],
    ids=["powers of two", "a grid", "objects of one repr", "text"],
)
def test_honest_keys_that_collide_arrive(value: Any) -> None:
    assert isinstance(out(value), type(value))


def test_a_named_tuple_with_a_hash_of_its_own_is_no_key_that_cannot_be_one() -> None:
    odd = type("Odd", (tuple,), {"_fields": ("x",), "__hash__": lambda self: 1, "__repr__": lambda self: "odd"})
    ((key, found),) = out({odd(([],)): 1}).items()
    assert (key.text, found) == ("odd", 1)


def test_a_keyword_that_cannot_be_a_key_is_a_violation() -> None:
    keyword = pb.Pairs(items=[pb.Pair(key=EMPTY_LIST, value=ONE)])
    with pytest.raises(ProtocolViolation):
        decode_arguments(pb.Arguments(keyword=keyword).SerializeToString())
