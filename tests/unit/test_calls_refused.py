"""Calls that are not made: not granted, not what the tool takes, over a budget, or too many at once."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from executor_api.v1 import executor_pb2 as pb

from orchestrator.audit.records import ToolEnded
from orchestrator.config import Config, Limits
from orchestrator.errors import AuditError
from orchestrator.events import Ending, ToolOutcome
from orchestrator.policy import MAX_RUNNING
from orchestrator.sandbox import ledger
from orchestrator.sandbox.foreign import Foreign
from orchestrator.tools import Tool
from tests.unit.loops import until
from tests.unit.tool_calls import DEADLINE, EXECUTION, Calls, add, hanging, in_loop, run


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
