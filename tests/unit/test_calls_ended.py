"""How calls end, by themselves, at their timeout or with the execution; and what is written down of each."""

from __future__ import annotations

import asyncio
import threading
from hashlib import sha256
from typing import Any

import pytest
from executor_api.v1 import executor_pb2 as pb

from executor_image.runner.values import encode_arguments
from orchestrator.audit.records import ExecutionFinished, ToolBegun, ToolEnded
from orchestrator.config import Config, Limits
from orchestrator.events import Ending, Execution, State, Status, ToolOutcome
from orchestrator.sandbox.ledger import MAX_REFUSED
from orchestrator.tools import tool
from tests.unit.loops import until
from tests.unit.tool_calls import DEADLINE, EXECUTION, Calls, add, hanging, in_loop, later

# ----------------------------------------------------------------------------------------------- timeouts, the end


@pytest.mark.parametrize("is_async", [False, True])
def test_a_tool_that_takes_too_long_is_a_timeout_of_unknown_effect(release: threading.Event, is_async: bool) -> None:
    ended = threading.Event()
    hangs = hanging(release, is_async, ended)
    hangs.timeout = 0.02  # type: ignore[attr-defined]
    name = hangs.__name__

    async def case() -> tuple[Any, ToolOutcome, int]:
        calls = Calls([hangs, add])
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


def test_a_flood_of_calls_refused_by_one_rule_hides_no_other_rule() -> None:
    """``limits`` in the audit log is read from what is written down."""

    async def case() -> Calls:
        calls = Calls([add], Config(limits=Limits(tool_calls=MAX_REFUSED + 1)))
        for number in range(1, MAX_REFUSED + 2):
            await calls.calls.begin(pb.ToolCall(id=EXECUTION, call=number, name=b"other"))
        await calls.calls.begin(pb.ToolCall(id=EXECUTION, call=MAX_REFUSED + 2, name=b"add"))
        return calls

    calls = in_loop(case())
    execution = Execution(Status.OK, State.KEPT, 1, tool_calls=calls.calls.ledger.ended)
    assert ExecutionFinished.of(execution).limits == ("max_calls",)
    assert len(execution.tool_calls) == MAX_REFUSED + 1
