"""SER-*: values that are none. A violation or plain data, in time."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from executor_api.v1 import executor_pb2 as pb

from orchestrator import NDArray, Opaque
from orchestrator.errors import ProtocolViolation, ValueNotPortable
from orchestrator.sandbox.values import MAX_DEPTH, encode
from tests.hostile.lies import LYING_VALUES, array, ends, nested, of, told
from tests.hostile.oracle import refused
from tests.hostile.peer import finished, varint


@pytest.mark.parametrize("where", ["as the value", "as the final answer"])
@pytest.mark.parametrize("lie", LYING_VALUES)
def test_a_value_that_is_none_is_a_violation(lie: str, where: str) -> None:
    data = LYING_VALUES[lie]
    if where == "as the value":
        field = b"\x0a" + varint(len(data)) + data
        end = finished(1, outcome=field)
    else:
        end = finished(1, final_answer=data)
    if not data and where == "as the final answer":
        assert told(end).final_answer is None  # an empty field is no answer
        return
    text = refused(ends(end), error=ProtocolViolation)
    assert len(text) < 500


PLAIN_VALUES: list[tuple[bytes, Any]] = [
    (of(decimal=b"1e999999999999"), Decimal("1e999999999999")),
    (nested(MAX_DEPTH), None),
    (array(b"int8", [0, 2**63], b""), NDArray("int8", (0, 2**63), b"")),
    (of(opaque=pb.Opaque(type_name=b"os.system", repr=b"touch canary")), Opaque("os.system", "touch canary")),
    (
        of(dict=pb.Pairs(items=[pb.Pair(key=pb.Value(text=b"__type__"), value=pb.Value(text=b"Path"))])),
        {"__type__": "Path"},
    ),
]


@pytest.mark.parametrize(("data", "value"), PLAIN_VALUES, ids=["SER-14", "SER-07", "zero", "SER-05", "SER-04"])
def test_what_can_be_a_value_is_plain_data_and_nothing_is_made_by_name(data: bytes, value: Any) -> None:
    execution = told(finished(1, final_answer=data))
    assert execution.final_answer is not None
    assert value is None or execution.final_answer.value == value


def test_a_huge_decimal_costs_nothing_to_show_and_to_send_on() -> None:
    """What a host may do with a value without thinking: show it, compare it, put it into a dict, hand it back."""
    execution = told(finished(1, final_answer=of(decimal=b"-1e-999999999999")))
    assert execution.final_answer is not None
    value = execution.final_answer.value
    assert len(repr(value)) < 100
    assert {value: 1}[Decimal("-1e-999999999999")] == 1
    assert encode(value, "value") == of(decimal=b"-1E-999999999999")
    with pytest.raises(ValueNotPortable):
        encode(Decimal("1" * 2000), "value")
