"""What every sandbox backend must do with the variables that an execution is given."""

import datetime
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from orchestrator import ExecutionRequest, Sandbox, State, Status
from orchestrator.errors import ConfigError, ValueNotPortable
from orchestrator.sandbox.variables import MAX_VARIABLES
from tests.contract.conftest import add, echo

pytestmark = pytest.mark.docker

GIVEN: dict[str, Any] = {
    "nothing": None,
    "number": 1 << 100,
    "ratio": -math.inf,
    "text": "ü\ud800",
    "raw": b"\0\xff",
    "nested": {(1, "a"): [{"b": {1, 2}}, frozenset({3})]},
    "moment": datetime.datetime(2026, 5, 1, 12, 30, tzinfo=datetime.UTC),
    "price": Decimal("12.50"),
}


def test_variables_keep_their_types(sandbox: Sandbox) -> None:
    execution = sandbox.run_code(f"dict({', '.join(f'{name}={name}' for name in GIVEN)})", variables=GIVEN)
    assert execution.value == GIVEN
    assert [type(value) for value in execution.value.values()] == [type(value) for value in GIVEN.values()]
    assert sandbox.run_code("number, text").value == (GIVEN["number"], GIVEN["text"]), "they stay"


def test_an_array_is_an_array(sandbox: Sandbox) -> None:
    code = "type(grid).__name__, str(grid.dtype), grid.sum(axis=0).tolist()"
    given = {"grid": np.arange(6, dtype="int16").reshape(2, 3)}
    assert sandbox.run_code(code, variables=given).value == ("ndarray", "int16", [3, 5, 7])


def test_they_replace_what_has_their_names_and_leave_the_rest(sandbox: Sandbox) -> None:
    sandbox.run_code("a, b = 1, 2")
    assert sandbox.run_code("a, b", variables={"a": 10}).value == (10, 2)


def test_a_variable_of_the_tools_argument_arrives(sandbox: Sandbox) -> None:
    assert sandbox.run_code("echo(given)", variables={"given": {"k": (1, 2)}}).value == {"k": (1, 2)}


def test_they_are_there_when_the_code_fails(sandbox: Sandbox) -> None:
    for code, status in (("1/0", Status.ERROR), ("this is no code", Status.ERROR)):
        execution = sandbox.run_code(code, variables={"seen": code})
        assert (execution.status, execution.state) == (status, State.KEPT)
        assert sandbox.run_code("seen").value == code


def test_a_killed_execution_takes_them_with_it(sandbox: Sandbox) -> None:
    sandbox.run_code("x = 'before'")
    execution = sandbox.run_code("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", variables={"x": "given"})
    assert (execution.status, execution.state) == (Status.DIED, State.RESTORED)
    assert sandbox.run_code("x").value == "before"


def test_going_back_takes_them_away(sandbox: Sandbox) -> None:
    kept = sandbox.checkpoint()
    sandbox.run_code("pass", variables={"fresh": 1})
    sandbox.rollback(kept)
    assert sandbox.run_code("'fresh' in globals()").value is False
    sandbox.drop(kept)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"two words": 1}, "'two words' cannot be the name of a variable"),
        ({"lambda": 1}, "'lambda' cannot be the name"),
        ({1: 1}, "a name of type int cannot be the name"),
        ({"__builtins__": {}}, "'__builtins__' is Python's own"),
        ({"final_answer": 1}, "'final_answer' is the name of a function of the sandbox"),
        ({"add": 1}, "'add' is the name of a function of the sandbox"),
        ({"\ufb01": 1}, "is 'fi' in Python"),
        ({"x" * 300: 1}, "takes more than 256 bytes"),
        (dict.fromkeys(f"v{n}" for n in range(MAX_VARIABLES + 1)), f"257 variables; at most {MAX_VARIABLES}"),
        ("x=1", "variables must be a dict from name to value, not str"),
    ],
)
def test_names_that_cannot_be_are_told_on_the_host(sandbox: Sandbox, given: Any, told: str) -> None:
    before = sandbox.run_code("1").execution_count
    with pytest.raises(ConfigError, match=told):
        sandbox.run_code("print('not run')", variables=given)
    assert sandbox.run_code("1").execution_count == before + 1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"x": [1, object()]}, r"x\[1\] is of type object, which cannot enter the sandbox"),
        ({"x": bytes(2 << 20)}, r"the variables take 2,097,\d\d\d bytes; at most 2,097,152 can travel"),
        ({"x": bytes(1 << 20), "y": bytes(1 << 20)}, r"the variables take 2,097,\d\d\d bytes"),
        ({"x": [None] * 60_000, "y": [None] * 60_000}, r"y\[\d+\]: more than 100,000 values in one"),
    ],
)
def test_values_that_cannot_travel_are_told_on_the_host(sandbox: Sandbox, given: Any, told: str) -> None:
    with pytest.raises(ValueNotPortable, match=told):
        sandbox.run_code("print('not run')", variables=given)


def test_as_many_as_may_be(sandbox: Sandbox) -> None:
    given = {f"v{n}": n for n in range(MAX_VARIABLES)}
    assert sandbox.run_code("sum(globals()[f'v{n}'] for n in range(256))", variables=given).value == sum(range(256))
    large = {"large": bytes((2 << 20) - 100)}
    assert sandbox.run_code(f"len(large) # {'x' * 1_000_000}", variables=large).value == (2 << 20) - 100


def test_an_approver_sees_them(make: Callable[..., Sandbox]) -> None:
    asked: list[ExecutionRequest] = []

    def approve(request: Any) -> bool:
        asked.append(request)
        return "no" not in request.variables

    with make(tools=[add, echo], approve=approve) as one:
        assert one.run_code("x", variables={"x": 1}).value == 1
        assert one.run_code("1", variables={"no": 1}).status is Status.REFUSED
        assert one.run_code("'no' in globals()").value is False
    assert [dict(request.variables) for request in asked] == [{"x": 1}, {"no": 1}, {}]
