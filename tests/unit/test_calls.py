"""Tool calls of an execution: each ends in one way, whatever the tool does, and the ledger says which."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import pytest
from executor_api.v1 import executor_pb2 as pb

from executor_image.runner.values import encode_arguments
from orchestrator.audit.records import ToolBegun, ToolEnded
from orchestrator.config import Config, Limits
from orchestrator.errors import AuditError
from orchestrator.events import Ending, ToolOutcome
from orchestrator.policy import MAX_RUNNING
from orchestrator.sandbox import ledger
from orchestrator.sandbox.foreign import Foreign
from orchestrator.sandbox.invocation import MAX_MESSAGE
from orchestrator.sandbox.ledger import MAX_ERROR, MAX_REFUSED
from orchestrator.tools import Tool, tool
from tests.unit.tool_calls import DEADLINE, EXECUTION, Calls, in_loop, until


def run(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, ToolOutcome]:
    """One call: what the code gets (a failure as ``TypeName: message``), and its line in the ledger."""

    async def case() -> tuple[Any, ToolOutcome]:
        calls = Calls([function])
        got = await calls.call(getattr(function, "name", None) or function.__name__, *args, **kwargs)
        (outcome,) = calls.calls.ledger.ended
        return got, outcome

    return in_loop(case())  # type: ignore[no-any-return]


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


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What hanging tools wait for; set at the end, so that no thread is left."""
    event = threading.Event()
    yield event
    event.set()


def add(a: int, b: int = 2) -> int:
    """Adds."""
    return a + b


async def later(a: int) -> int:
    """Adds one, later."""
    await asyncio.sleep(0)
    return a + 1


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


def hanging(release: threading.Event, is_async: bool, ended: threading.Event | None = None) -> Callable[..., Any]:
    """Hangs until it is released; the async one does not hear that it is cancelled."""

    def hangs() -> str:
        release.wait(DEADLINE)
        if ended:
            ended.set()
        return "late"

    async def hangs_deaf() -> str:
        while not release.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue
        if ended:
            ended.set()
        return "late"

    return hangs_deaf if is_async else hangs


# ------------------------------------------------------------------------------------------------------ one call


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


# ------------------------------------------------------------------------------------------------- what is not made


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, 2, 3), {}), ((1,), {"c": 2}), ((1,), {"a": 2})])
def test_wrong_arguments_are_a_type_error_and_the_tool_is_not_called(args: Any, kwargs: Any) -> None:
    called = []

    def spy(a: int, b: int = 2) -> None:
        called.append(a)

    got, outcome = run(spy, *args, **kwargs)
    assert got.startswith("TypeError: ")
    assert (outcome.ending, outcome.refused_by, called) == (Ending.REFUSED, "arguments", [])


@pytest.mark.parametrize("name", ["other", "Add", "add ", "__class__", "_private", "ａdd", "add\u200b", ""])
def test_a_tool_that_is_not_granted_is_refused(name: str) -> None:
    async def case() -> tuple[Any, ToolOutcome]:
        calls = Calls([add])
        return await calls.call(name, 1), calls.calls.ledger.ended[0]

    got, outcome = in_loop(case())
    assert got.startswith("PermissionError: ")
    assert "is not granted to this sandbox; granted: add" in got
    assert (outcome.ending, outcome.refused_by, outcome.name) == (Ending.REFUSED, "not_granted", name)


def test_of_a_refused_call_not_even_the_arguments_are_looked_at() -> None:
    async def case() -> pb.ToolResult:
        calls = Calls([add])
        await calls.calls.begin(pb.ToolCall(id=EXECUTION, call=1, name=b"other", arguments=b"\xff no arguments"))
        return calls.answers[1]

    assert "not granted" in in_loop(case()).failure.message


def test_calls_over_the_budget_are_refused_and_the_tool_is_not_called() -> None:
    called = []

    def spy() -> None:
        called.append(1)

    async def case() -> list[Any]:
        calls = Calls([spy], Config(limits=Limits(tool_calls=3)))
        return [await calls.call("spy") for _ in range(5)]

    refused = "PermissionError: this execution has used up its 3 tool calls"
    assert in_loop(case()) == [None, None, None, refused, refused]
    assert len(called) == 3


def test_arguments_over_the_budget_of_bytes_are_refused_and_the_tool_is_not_called() -> None:
    called = []

    def take(data: bytes) -> None:
        called.append(len(data))

    async def case() -> tuple[list[Any], tuple[ToolOutcome, ...]]:
        calls = Calls([take], Config(limits=Limits(tool_bytes="10k")))
        got = [await calls.call("take", bytes(size)) for size in (4000, 4000, 4000, 10)]
        return got, calls.calls.ledger.ended

    got, ledger = in_loop(case())
    assert (got[0], got[1], got[3], called) == (None, None, None, [4000, 4000, 10])
    assert "do not fit into the" in got[2]
    assert (ledger[2].ending, ledger[2].refused_by) == (Ending.REFUSED, "max_bytes")


def test_a_result_over_the_budget_of_bytes_is_not_sent_and_said_to_have_been_made() -> None:
    def give(size: int) -> bytes:
        return bytes(size)

    async def case() -> tuple[list[Any], tuple[ToolOutcome, ...]]:
        calls = Calls([give], Config(limits=Limits(tool_bytes="10k")))
        got = [await calls.call("give", size) for size in (6000, 6000, 10)]
        return got, calls.calls.ledger.ended

    got, ledger = in_loop(case())
    assert got[1].startswith("PermissionError: give() has ended, but its result cannot be sent: ")
    assert (len(got[0]), len(got[2])) == (6000, 10)
    assert [(o.ending, o.refused_by) for o in ledger] == [
        (Ending.OK, ""),
        (Ending.FAILED, "max_bytes"),
        (Ending.OK, ""),
    ]


def test_too_many_at_once_are_refused_until_some_have_ended(release: threading.Event) -> None:
    def hangs() -> int:
        release.wait(DEADLINE)
        return 1

    async def case() -> tuple[str, Any]:
        calls = Calls([hangs])
        for _ in range(MAX_RUNNING):
            await calls.begin("hangs")
        one_more = await calls.begin("hangs")
        release.set()
        await calls.settled()
        return calls.answers[one_more].failure.message, await calls.call("hangs")

    told, then = in_loop(case())
    assert told == f"{MAX_RUNNING} tool calls of this sandbox run already; wait for some to end"
    assert then == 1


@pytest.mark.parametrize("is_async", [False, True])
def test_what_was_given_up_and_still_runs_counts_in_every_execution_of_the_sandbox(
    release: threading.Event, is_async: bool
) -> None:
    hangs = hanging(release, is_async)

    async def case() -> tuple[str, Any]:
        foreign = Foreign()
        first = Calls([hangs], foreign=foreign)
        for _ in range(MAX_RUNNING):
            await first.begin(hangs.__name__)
        await asyncio.sleep(0)
        await first.calls.end()
        for _ in range(5):  # turns of the loop, in which all that hears it has been cancelled
            await asyncio.sleep(0)
        assert foreign.left == MAX_RUNNING
        second = Calls([add], foreign=foreign)
        refused = await second.call("add", 1)
        release.set()
        await until(lambda: not foreign.left)
        return refused, await second.call("add", 1)

    refused, then = in_loop(case())
    assert "run already" in refused
    assert then == 3


def test_what_was_given_up_counts_for_what_it_holds(release: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "PARTS_OF_A_CALL", 100)
    many = [0] * 800

    started = []

    def hangs(values: list[int]) -> None:
        started.append(len(values))
        release.wait(DEADLINE)

    async def case() -> tuple[int, str]:
        foreign = Foreign()
        first = Calls([hangs], foreign=foreign)
        for _ in range(8):
            await first.begin("hangs", many)
        await until(lambda: len(started) == 8)
        await first.calls.end()
        await until(lambda: foreign.left == 8 * 9)
        refused = await Calls([add], foreign=foreign).call("add", 1)
        held = foreign.left
        release.set()
        await until(lambda: not foreign.left)
        return held, refused

    held, refused = in_loop(case())
    assert held == 8 * 9
    assert "run already" in refused


def test_when_nothing_can_be_recorded_all_calls_are_given_up_all_the_same(release: threading.Event) -> None:
    hangs = hanging(release, is_async=True)

    async def case() -> tuple[Ending, ...]:
        calls = Calls([hangs])
        for _ in range(3):
            await calls.begin(hangs.__name__)
        await until(lambda: len(calls.recorded) == 3)
        calls.fails_to_record = ToolEnded
        with pytest.raises(AuditError):
            await calls.calls.end()
        assert not calls.calls.ledger.open
        release.set()
        return tuple(call.ending for call in calls.calls.ledger.ended)

    assert in_loop(case()) == (Ending.CANCELLED,) * 3


def test_what_a_check_of_the_tools_own_raises_is_told_as_the_tool_allows() -> None:
    class Secretive(Tool):
        name, description, inputs, output_type = "secretive", "Is so.", {}, "null"
        expose_errors = False

        def forward(self) -> None: ...

        def check_arguments(self, *args: Any, **kwargs: Any) -> Any:
            raise ValueError("secret")

    async def case() -> Any:
        return await Calls([Secretive()], approve=lambda request: True).call("secretive")

    told = in_loop(case())
    assert "secret" not in told.replace("secretive", "")
    assert "ToolError" in told


def test_failures_are_charged_as_results_are() -> None:
    def fails(a: int) -> None:
        raise ValueError("x" * 1000)

    async def case() -> list[Any]:
        calls = Calls([fails], Config(limits=Limits(tool_bytes="3k")))
        return [await calls.call("fails", 1) for _ in range(5)]

    *told, last = in_loop(case())
    assert "PermissionError" in last
    assert "ValueError" in told[0]


# ----------------------------------------------------------------------------------------------- timeouts, the end


@pytest.mark.parametrize("is_async", [False, True])
def test_a_tool_that_takes_too_long_is_a_timeout_of_unknown_effect(release: threading.Event, is_async: bool) -> None:
    ended = threading.Event()
    hangs = hanging(release, is_async, ended)
    name = hangs.__name__

    async def case() -> tuple[Any, ToolOutcome, int]:
        calls = Calls([hangs, add], Config(tool_timeout=0.02))
        got = await calls.call(name)
        (outcome,) = calls.calls.ledger.ended
        release.set()
        await asyncio.to_thread(ended.wait, DEADLINE)
        assert await calls.call("add", 1) == 3, "the execution goes on"
        return got, outcome, len(calls.answers)

    got, outcome, answers = in_loop(case())
    assert got == (
        f"TimeoutError: {name}() had not ended after 0.02 s. Whether it took effect is not known: find out before you "
        "call it again"
    )
    assert (outcome.ending, outcome.effect_unknown) == (Ending.TIMED_OUT, True)
    assert answers == 2, "its late result was not sent"


def test_a_tools_own_timeout_is_the_one_that_counts(release: threading.Event) -> None:
    @tool(timeout=0.02)
    def hangs() -> None:
        """Hangs."""
        release.wait(DEADLINE)

    async def case() -> Any:
        return await Calls([hangs], Config(tool_timeout=100)).call("hangs")

    assert in_loop(case()).startswith("TimeoutError: hangs() had not ended after 0.02 s.")


@pytest.mark.parametrize("is_async", [False, True])
def test_what_runs_when_the_execution_ends_is_cancelled_and_its_late_end_is_nobodys(
    release: threading.Event, is_async: bool
) -> None:
    ended = threading.Event()
    hangs = hanging(release, is_async, ended)

    async def case() -> tuple[list[ToolOutcome], tuple[ToolOutcome, ...], Calls, list[Any]]:
        problems: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        calls = Calls([hangs])
        await calls.begin(hangs.__name__)
        await until(lambda: calls.recorded)
        told = await calls.calls.end()
        release.set()
        await asyncio.to_thread(ended.wait, DEADLINE)
        for _ in range(3):
            await asyncio.sleep(0)
        return told, calls.calls.ledger.ended, calls, problems

    told, ledger, calls, problems = in_loop(case())
    (outcome,) = told
    assert tuple(told) == ledger
    assert (outcome.ending, outcome.effect_unknown) == (Ending.CANCELLED, True)
    assert outcome.error == "Cancelled: the execution ended before it did; whether it took effect is not known"
    assert (calls.answers, problems) == ({}, [])


def test_an_async_tool_hears_that_its_execution_has_ended() -> None:
    heard = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            heard.append(True)

    async def case() -> None:
        calls = Calls([waits])
        await calls.begin("waits")
        await until(lambda: calls.recorded)
        await calls.calls.end()
        await until(lambda: heard)

    in_loop(case())


def test_a_call_that_was_never_made_when_the_execution_ended_has_had_no_effect() -> None:
    called = []

    async def spy() -> None:
        called.append(1)

    async def case() -> list[ToolOutcome]:
        calls = Calls([spy])
        await calls.begin("spy")  # and before its task has had a turn:
        return await calls.calls.end()

    (outcome,) = in_loop(case())
    assert (outcome.ending, outcome.refused_by, outcome.effect_unknown) == (Ending.REFUSED, "execution_ended", False)
    assert called == []


def test_an_outcome_that_nobody_has_taken_yet_is_given_at_the_end() -> None:
    async def case() -> list[ToolOutcome]:
        calls = Calls([later])
        await calls.begin("later", 1)
        await asyncio.wait(calls.calls.running)
        return await calls.calls.end()

    assert [outcome.ending for outcome in in_loop(case())] == [Ending.OK]


# ----------------------------------------------------------------------------------------- the ledger, and records


def test_the_ledger_tells_of_each_call_its_name_arguments_and_sizes() -> None:
    async def case() -> tuple[ToolOutcome, ...]:
        calls = Calls([add, later])
        await calls.call("add", 1, b=5)
        await calls.call("later", 1)
        return calls.calls.ledger.ended

    first, second = in_loop(case())
    arguments = encode_arguments((1,), {"b": 5})
    assert (first.id, first.name, second.id, second.name) == (1, "add", 2, "later")
    assert (first.arguments_sha256, first.arguments_bytes) == (sha256(arguments).hexdigest(), len(arguments))
    assert first.result_bytes > 0
    assert first.seconds >= 0
    assert first.arguments_sha256 != second.arguments_sha256


def test_what_is_recorded_is_each_call_before_it_is_made_and_each_end() -> None:
    seen: list[int] = []

    async def case() -> Calls:
        async def watched(a: int) -> None:
            seen.append(len(calls.recorded))

        calls = Calls([watched])
        await calls.call("watched", 1)
        await calls.call("watched")
        await calls.call("other")
        return calls

    recorded = in_loop(case()).recorded
    assert [type(happening) for happening in recorded] == [ToolBegun, ToolEnded, ToolEnded, ToolEnded]
    assert seen == [1], "the first record was there when the tool was called"
    assert [(e.ending, e.refused_by) for e in recorded if isinstance(e, ToolEnded)] == [
        ("ok", ""),
        ("refused", "arguments"),
        ("refused", "not_granted"),
    ]


def test_a_flood_of_refused_calls_is_answered_and_not_written_down_for_ever() -> None:
    most = MAX_REFUSED + 500

    async def case() -> Calls:
        calls = Calls([add])
        for number in range(1, most + 1):
            await calls.calls.begin(pb.ToolCall(id=EXECUTION, call=number, name=b"other"))
        await calls.calls.begin(
            pb.ToolCall(id=EXECUTION, call=most + 1, name=b"add", arguments=encode_arguments((1,), {}))
        )
        await calls.settled()
        return calls

    calls = in_loop(case())
    assert len(calls.answers) == most + 1
    assert len(calls.calls.ledger.ended) == MAX_REFUSED + 1, "a call that is made is always written down"
    assert len([e for e in calls.recorded if isinstance(e, ToolEnded)]) == MAX_REFUSED + 1
