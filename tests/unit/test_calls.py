"""One call of a tool: it ends in one way, whatever the tool does, and the ledger says which."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from executor_api.v1 import executor_pb2 as pb

from orchestrator.events import Ending, ToolOutcome
from orchestrator.sandbox.invocation import MAX_MESSAGE
from orchestrator.sandbox.ledger import MAX_ERROR
from tests.unit.tool_calls import DEADLINE, EXECUTION, Calls, add, in_loop, later, run


def value(result: tuple[Any, ToolOutcome]) -> Any:
    got, outcome = result
    assert (outcome.ending, outcome.error) == (Ending.OK, None), got
    return got


def failure(result: tuple[Any, ToolOutcome], ending: Ending = Ending.FAILED) -> tuple[str, str]:
    got, outcome = result
    assert outcome.ending is ending
    assert outcome.error == got[:MAX_ERROR]
    name, _, message = got.partition(": ")
    return name, message


class Called:
    name = "called"

    async def __call__(self, a: int) -> int:
        return a * 2


def raising(error: BaseException, expose: bool = True, is_async: bool = False) -> Callable[..., Any]:
    def fails() -> None:
        raise error

    async def fails_later() -> None:
        raise error

    function: Any = fails_later if is_async else fails
    function.expose_errors = expose
    return function  # type: ignore[no-any-return]


def test_a_result_comes_back_with_its_numbers() -> None:
    async def case() -> pb.ToolResult:
        calls = Calls([add])
        await calls.call("add", 1, b=5)
        return calls.answers[1]

    answer = in_loop(case())
    assert (answer.id, answer.call) == (EXECUTION, 1)


@pytest.mark.parametrize(("function", "expected"), [(add, 3), (later, 2), (Called(), 2)])
def test_every_kind_of_callable_is_called(function: Callable[..., Any], expected: int) -> None:
    assert value(run(function, 1)) == expected


def test_an_awaitable_that_a_plain_function_gives_is_awaited() -> None:
    def gives(a: int) -> Any:
        return later(a)

    assert value(run(gives, 4)) == 5


def test_a_plain_function_runs_in_a_thread_of_its_own() -> None:
    def where() -> bool:
        return threading.current_thread() is threading.main_thread() or not threading.current_thread().daemon

    assert value(run(where)) is False


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("error", "name"),
    [
        (ValueError("no"), "ValueError"),
        (KeyError("k"), "KeyError"),
        (type("Own", (Exception,), {})("mine"), "Own"),
        (ExceptionGroup("several", [ValueError(1)]), "ExceptionGroup"),
        (TimeoutError(), "TimeoutError"),
        (StopIteration(), None),
        (SystemExit(3), "SystemExit"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (asyncio.CancelledError(), "CancelledError"),
    ],
    ids=lambda part: type(part).__name__ if isinstance(part, BaseException) else "",
)
def test_whatever_a_tool_raises_is_a_failure_of_the_call(
    error: BaseException, name: str | None, is_async: bool
) -> None:
    try:
        told, _ = failure(run(raising(error, is_async=is_async)))
    except BaseException as escaped:  # noqa: BLE001 - an exception that ends the program must not end the tests
        pytest.fail(f"{type(escaped).__name__} of a tool got out")
    assert told == name or name is None


def test_an_exception_without_a_text_is_still_a_failure() -> None:
    silent = type("Silent", (Exception,), {"__str__": lambda self: 1 / 0})
    assert failure(run(raising(silent())))[0] == "Silent"


def test_no_traceback_of_the_host_and_no_more_than_the_bound_goes_back() -> None:
    got, outcome = run(raising(ValueError("x" * (2 * MAX_MESSAGE) + "\udcff")))
    assert MAX_MESSAGE <= len(got) <= MAX_MESSAGE + len("ValueError: ")
    assert len(outcome.error or "") == MAX_ERROR
    assert ".py" not in failure(run(raising(ValueError("plain"))))[1]


def test_a_message_is_within_its_bound_in_bytes() -> None:
    got, _ = run(raising(ValueError("ü" * MAX_MESSAGE)))
    assert len(got.encode()) <= MAX_MESSAGE + len("ValueError: ")


@pytest.mark.parametrize("is_async", [False, True])
def test_hidden_errors_say_only_that_it_failed(is_async: bool) -> None:
    function = raising(ValueError("password is 1234"), expose=False, is_async=is_async)
    name = "fails_later" if is_async else "fails"
    assert failure(run(function)) == ("ToolError", f"{name} failed")


@pytest.mark.parametrize("expose", [False, True])
def test_a_result_that_cannot_travel_names_its_type_and_path(expose: bool) -> None:
    def gives() -> Any:
        return {"a": [1, threading.Lock()]}

    gives.expose_errors = expose  # type: ignore[attr-defined]
    name, message = failure(run(gives))
    assert name == "TypeError"
    assert message == "the result of gives()['a'][1] is of type _thread.lock, which cannot enter the sandbox"


def test_a_result_whose_own_code_raises_is_a_failure() -> None:
    class Hostile(dict[str, int]):
        def items(self) -> Any:
            raise RuntimeError("the hostile object's own")

    def gives() -> Any:
        return Hostile(a=1)

    assert failure(run(gives)) == ("RuntimeError", "the hostile object's own")


def test_a_result_too_large_to_travel_is_a_failure() -> None:
    def gives() -> bytes:
        return bytes(100 << 20)

    assert "can travel" in failure(run(gives))[1]


def test_many_calls_run_at_the_same_time() -> None:
    together = threading.Barrier(5)

    def meet() -> bool:
        together.wait(DEADLINE)
        return True

    async def case() -> list[Ending]:
        calls = Calls([meet])
        for _ in range(5):
            await calls.begin("meet")
        return [outcome.ending for outcome in await calls.settled()]

    assert in_loop(case()) == [Ending.OK] * 5
