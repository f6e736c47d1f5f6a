"""Approvers: who is asked what, and that everything but a plain yes is a no."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.audit.records import Approval, ToolBegun, ToolEnded
from orchestrator.config import Config
from orchestrator.errors import AuditError
from orchestrator.events import Ending
from orchestrator.policy import ALLOWED, MAX_RUNNING, ExecutionRequest, ToolCallRequest, Verdict
from orchestrator.sandbox.approval import MAX_REASON, Approver
from orchestrator.sandbox.ledger import PARTS_OF_A_CALL
from orchestrator.tools import Tool, tool
from tests.unit.loops import in_loop, until
from tests.unit.tool_calls import DEADLINE, Calls

REQUEST = ExecutionRequest("1 + 1", 30.0)
SECRET = "sk-canary-1234"
NO_ANSWERS: list[Any] = [None, 1, 0, "yes", "y", [True], object(), Verdict("yes"), Verdict(1), Verdict(True, 5)]  # type: ignore[arg-type]
RAISED = [ValueError(SECRET), KeyError(SECRET), SystemExit(0), KeyboardInterrupt(), StopIteration(True)]


def asked(approve: Any, seconds: float = DEADLINE) -> Verdict:
    return in_loop(Approver(approve, seconds).ask(REQUEST))  # type: ignore[no-any-return]


def later(answer: Any) -> Callable[[object], Any]:
    async def approve(request: object) -> Any:
        await asyncio.sleep(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return approve


def now(answer: Any) -> Callable[[object], Any]:
    def approve(request: object) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return approve


# --------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("kind", [now, later])
def test_a_yes_is_a_yes(kind: Callable[[Any], Any]) -> None:
    assert asked(kind(True)).allowed
    assert asked(kind(Verdict(True))).allowed
    assert asked(kind(Verdict(True, "as it is Monday"))).allowed


@pytest.mark.parametrize("kind", [now, later])
def test_a_no_is_a_no_with_its_reason(kind: Callable[[Any], Any]) -> None:
    assert asked(kind(False)) == Verdict(False, "not approved", "approver")
    assert asked(kind(Verdict(False, "never on Sundays"))) == Verdict(
        False, "not approved: never on Sundays", "approver"
    )
    assert len(asked(kind(Verdict(False, "x" * 5000))).reason) <= MAX_REASON + 20


@pytest.mark.parametrize("kind", [now, later])
@pytest.mark.parametrize(
    "answer", [None, 1, 0, "yes", "y", [True], object(), Verdict("yes"), Verdict(1), Verdict(True, 5)]
)  # type: ignore[arg-type]
def test_whatever_is_no_answer_is_a_no(kind: Callable[[Any], Any], answer: Any) -> None:
    verdict = asked(kind(answer))
    assert (verdict.allowed, verdict.rule) == (False, "approval_failed")
    assert type(answer).__name__ in verdict.reason


@pytest.mark.parametrize("kind", [now, later])
@pytest.mark.parametrize("error", [*RAISED, asyncio.CancelledError()], ids=lambda error: type(error).__name__)
def test_an_approver_that_raises_says_no_and_its_words_stay_on_the_host(
    kind: Callable[[Any], Any], error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        verdict = asked(kind(error))
    assert (verdict.allowed, verdict.rule) == (False, "approval_failed")
    assert "the approver failed (it raised" in verdict.reason
    assert SECRET not in verdict.reason
    assert "refused, as the approver failed" in caplog.text
    assert (SECRET in caplog.text) == (SECRET in str(error)), "its owner is told what happened"


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("no\x1b[2J\n\u202e: " + "x" * 5000), "ValueError: no \\u202e: xxx"),
        (Unspeakable(), "Unspeakable: (its text cannot be shown)"),
    ],
)
def test_what_an_approver_raised_is_logged_so_that_it_may_be_shown(
    error: Exception, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It may quote arguments, which are the code's."""
    with caplog.at_level(logging.WARNING):
        asked(now(error))
    [record] = caplog.records
    assert told in record.getMessage()
    assert record.getMessage().isprintable()
    assert len(record.getMessage()) < 1100
    assert record.exc_info is None


@pytest.mark.parametrize("is_async", [False, True])
def test_an_approver_that_takes_too_long_says_no(is_async: bool, release: threading.Event) -> None:
    def slow(request: object) -> bool:
        release.wait(DEADLINE)
        return True

    async def slow_too(request: object) -> bool:
        await asyncio.Event().wait()
        return True

    verdict = asked(slow_too if is_async else slow, 0.02)
    assert verdict == Verdict(
        False, "not approved, as the approver failed (it gave no answer within 0.02 s)", "approval_failed"
    )


def test_questions_that_nobody_answers_do_not_pile_up(release: threading.Event) -> None:
    def slow(request: object) -> bool:
        return release.wait(DEADLINE)

    async def case() -> tuple[Verdict, Verdict]:
        approver = Approver(slow, 0.001)
        for _ in range(MAX_RUNNING):
            await approver.ask(REQUEST)
        refused = await approver.ask(REQUEST)
        release.set()
        await until(lambda: approver._foreign.left == 0)
        return refused, await Approver(slow, DEADLINE).ask(REQUEST)

    refused, then = in_loop(case())
    assert f"{MAX_RUNNING} earlier questions have not been answered yet" in refused.reason
    assert then.allowed


def test_without_an_approver_everything_is_allowed() -> None:
    assert asked(None) is ALLOWED
    with pytest.raises(TypeError, match="must be something that can be called, not str"):
        Approver("ask", 1)  # type: ignore[arg-type]


def test_an_approver_that_runs_code_which_it_would_be_asked_about_is_told_so() -> None:
    caught: list[str] = []

    async def approve(request: object) -> bool:
        with pytest.raises(RuntimeError) as error:
            await approver.ask(REQUEST)
        caught.append(str(error.value))
        return await other.ask(REQUEST) is ALLOWED

    approver, other = Approver(approve, DEADLINE), Approver(None, DEADLINE)
    assert in_loop(approver.ask(REQUEST)).allowed
    assert "an approver cannot use a sandbox that asks it" in caught[0]


def test_an_approver_runs_in_the_context_of_who_asks() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    seen = []

    async def case() -> None:
        variable.set(5)
        await Approver(lambda request: seen.append(variable.get()) or True, DEADLINE).ask(REQUEST)

    in_loop(case())
    assert seen == [5]


# ------------------------------------------------------------------------------------------------------ tool calls


@tool
def send(to: str, count: int = 1) -> str:
    """Sends.

    Args:
        to: whom.
        count: how often.
    """
    sent.append(to)
    return f"sent to {to}"


def anything(value: Any) -> None:
    """Takes it."""


sent: list[str] = []


@pytest.fixture(autouse=True)
def nothing_sent() -> None:
    sent.clear()


def called(approve: Any, *args: Any, **kwargs: Any) -> tuple[Any, Calls]:
    async def case() -> tuple[Any, Calls]:
        calls = Calls([send], Config(approval_timeout=DEADLINE), approve=approve)
        return await calls.call("send", *args, **kwargs), calls

    return in_loop(case())  # type: ignore[no-any-return]


def test_a_call_that_is_approved_is_made_and_all_of_it_is_recorded() -> None:
    requests = []
    got, calls = called(lambda request: requests.append(request) or True, "anna", count=2)
    assert (got, sent) == ("sent to anna", ["anna"])
    assert requests == [ToolCallRequest("send", {"to": "anna", "count": 2}, 3)]
    assert len(calls.left) == 2, "the clock stood still, and went on"
    begun = [type(happening) for happening in calls.recorded]
    assert begun == [Approval, ToolBegun, ToolEnded]
    (outcome,) = calls.calls.ledger.ended
    assert calls.recorded[0] == Approval("send", outcome.arguments_sha256, True, "approver", calls.recorded[0].ms)  # type: ignore[attr-defined]


def test_a_call_that_is_refused_is_not_made_and_the_code_is_told_why() -> None:
    got, calls = called(lambda request: Verdict(False, "not to strangers"), "anna")
    assert got == "PermissionError: the call of send() was not approved: not to strangers"
    assert sent == []
    (outcome,) = calls.calls.ledger.ended
    assert (outcome.ending, outcome.refused_by) == (Ending.REFUSED, "approver")
    assert [type(happening) for happening in calls.recorded] == [Approval, ToolEnded]


@pytest.mark.parametrize("approve", [now(ValueError(SECRET)), later(ValueError(SECRET)), now(None)])
def test_a_call_whose_approver_fails_is_not_made(approve: Any) -> None:
    got, calls = called(approve, "anna")
    assert got.startswith("PermissionError: the call of send() was not approved, as the approver failed")
    assert (sent, SECRET in got) == ([], False)
    assert calls.calls.ledger.ended[0].refused_by == "approval_failed"


@pytest.mark.parametrize(("args", "kwargs"), [((5,), {}), ((), {}), (("anna",), {"count": "two"}), (("a", 1, 2), {})])
def test_nobody_is_asked_about_arguments_that_the_tool_would_not_take(args: Any, kwargs: Any) -> None:
    requests: list[Any] = []
    got, calls = called(lambda request: requests.append(request) or True, *args, **kwargs)
    assert got.startswith("TypeError: ")
    assert (requests, sent) == ([], [])
    assert calls.calls.ledger.ended[0].refused_by == "arguments"


def test_a_question_that_nobody_answers_counts_for_as_much_as_its_arguments_hold(release: threading.Event) -> None:
    async def case() -> int:
        calls = Calls([anything], Config(approval_timeout=0.01), approve=lambda request: release.wait(DEADLINE))
        await calls.call("anything", [0] * 2 * PARTS_OF_A_CALL)
        left = calls.calls._host.approver._foreign.left
        release.set()
        await until(lambda: calls.calls._host.approver._foreign.left == 0)
        return left

    assert in_loop(case()) == 3


def test_a_check_that_does_not_end_counts_for_as_much_as_its_arguments_hold(release: threading.Event) -> None:
    class Slow(Tool):
        name, description, inputs, output_type = "slow", "Takes its time to check.", {}, "null"

        def forward(self) -> None: ...

        def check_arguments(self, *args: Any, **kwargs: Any) -> Any:
            release.wait(DEADLINE)

    async def case() -> tuple[Any, int]:
        calls = Calls([Slow()], Config(tool_timeout=0.01), approve=now(True))
        got = await calls.call("slow", [0] * 2 * PARTS_OF_A_CALL)
        left = calls.calls._host.foreign.left
        release.set()
        await until(lambda: calls.calls._host.foreign.left == 0)
        return got, left

    got, left = in_loop(case())
    assert "could not be checked within 0.01 s" in got
    assert left == 3


def test_the_time_of_the_approver_is_not_the_tools(release: threading.Event) -> None:
    """A tool has its own timeout, however long somebody thought before."""

    async def case() -> Any:
        calls = Calls([send], Config(tool_timeout=2.0), approve=lambda request: release.wait(DEADLINE))
        number = await calls.begin("send", "anna")
        await asyncio.wait(calls.calls.running, timeout=2.5)
        release.set()
        await calls.settled()
        return calls.answers[number].WhichOneof("outcome")

    assert in_loop(case()) == "value"


def test_a_call_that_waits_for_its_approval_when_the_execution_ends_was_never_made(release: threading.Event) -> None:
    asked_for = threading.Event()

    def slow(request: object) -> bool:
        asked_for.set()
        return release.wait(DEADLINE)

    async def case() -> Any:
        calls = Calls([send], approve=slow)
        await calls.begin("send", "anna")
        await asyncio.to_thread(asked_for.wait, DEADLINE)
        told = await calls.calls.end()
        release.set()
        await until(lambda: calls.calls._host.approver._foreign.left == 0)
        return told

    (outcome,) = in_loop(case())
    assert (outcome.ending, outcome.refused_by, outcome.effect_unknown) == (Ending.REFUSED, "execution_ended", False)
    assert sent == []


def test_a_call_whose_approval_cannot_be_recorded_is_not_made() -> None:
    async def case() -> None:
        calls = Calls([send], approve=now(True))
        calls.fails_to_record = Approval
        await calls.begin("send", "anna")
        with pytest.raises(AuditError):
            await calls.settled()

    in_loop(case())
    assert sent == []
