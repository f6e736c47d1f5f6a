"""Questions of a run's policy: asked, answered once, refused when nobody answers."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from orchestrator.configured import Asked
from orchestrator.errors import NotFound
from orchestrator.events import ApprovalAsked, ApprovalDecided
from orchestrator.policy import ExecutionRequest, ToolCallRequest, Verdict
from orchestrator.service.questions import MAX_REASON, Questions

CALL = Asked("buyer", ToolCallRequest("pay", {"amount": 3}, 1), "money", "policy[0]")
CODE = Asked("buyer", ExecutionRequest("print(n)", 30.0, {"n": 1}))


class Journal:
    """What the run's stream has."""

    def __init__(self) -> None:
        self.events: list[ApprovalAsked | ApprovalDecided] = []
        self.heard = asyncio.Event()

    async def tell(self, event: ApprovalAsked | ApprovalDecided) -> None:
        self.events.append(event)
        self.heard.set()

    async def question(self) -> ApprovalAsked:
        async with asyncio.timeout(10):
            await self.heard.wait()
        (asked,) = (event for event in self.events if isinstance(event, ApprovalAsked))
        return asked


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


@pytest.mark.parametrize(
    ("approved", "reason", "verdict"),
    [
        (True, "", Verdict(True)),
        (False, "too much\n", Verdict(False, "too much", "approver")),
        (False, "", Verdict(False, "refused by me", "approver")),
    ],
)
def test_a_question_is_in_the_stream_before_its_answer(approved: bool, reason: str, verdict: Verdict) -> None:
    async def test() -> None:
        journal = Journal()
        questions = Questions(journal.tell, 30)
        asking = asyncio.create_task(questions.ask(CALL))
        asked = await journal.question()
        assert (asked.tool, asked.arguments, asked.agent, asked.reason) == ("pay", {"amount": 3}, "buyer", "money")
        assert [question.id for question in questions.open] == [asked.question]
        questions.decide(asked.question, approved, reason, "me")
        assert await asking == verdict
        assert journal.events[1:] == [ApprovalDecided(asked.question, approved, verdict.reason, "me")]
        assert questions.open == ()

    run(test())


def test_it_is_answered_once() -> None:
    async def test() -> None:
        journal = Journal()
        questions = Questions(journal.tell, 30)
        asking = asyncio.create_task(questions.ask(CODE))
        asked = await journal.question()
        assert (asked.tool, asked.code, asked.arguments) == ("", "print(n)", {"n": 1})
        questions.decide(asked.question, True, "", "me")
        with pytest.raises(NotFound):
            questions.decide(asked.question, False, "", "somebody else")
        assert (await asking).allowed
        for id in (asked.question, "", "x" * 1000):
            with pytest.raises(NotFound):
                questions.decide(id, True, "", "me")

    run(test())


def test_what_nobody_answers_is_refused() -> None:
    async def test() -> None:
        journal = Journal()
        verdict = await Questions(journal.tell, 0.01).ask(CALL)
        assert (verdict.allowed, verdict.reason) == (False, "nobody answered in time")
        assert journal.events[-1] == ApprovalDecided(journal.events[0].question, False, verdict.reason, "")

    run(test())


def test_what_is_no_longer_needed_is_refused_and_said_to_be() -> None:
    async def test() -> None:
        journal = Journal()
        questions = Questions(journal.tell, 30)
        asking = asyncio.create_task(questions.ask(CALL))
        asked = await journal.question()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert journal.events[-1] == ApprovalDecided(asked.question, False, "no longer needed", "")
        with pytest.raises(NotFound):
            questions.decide(asked.question, True, "", "me")

    run(test())


def test_a_long_reason_is_cut() -> None:
    async def test() -> None:
        journal = Journal()
        questions = Questions(journal.tell, 30)
        asking = asyncio.create_task(questions.ask(CALL))
        questions.decide((await journal.question()).question, False, "x" * 10_000, "me")
        assert len((await asking).reason) <= MAX_REASON

    run(test())
