"""Questions of the policy's that wait for somebody's decision: may this tool be called, may this code be run?"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from orchestrator.client.runs import Question
from orchestrator.configured import Asked
from orchestrator.errors import NotFound
from orchestrator.events import ApprovalAsked, ApprovalDecided
from orchestrator.policy import ToolCallRequest, Verdict
from orchestrator.sanitise import one_line

MAX_REASON = 500  # characters of a reason; it is told to the code and to the model
UNANSWERED = Verdict(False, "nobody answered in time", "approver")

Tell = Callable[[ApprovalAsked | ApprovalDecided], Awaitable[None]]


class Questions:
    """Those of one run. ``tell`` is given what becomes of each, before anybody can answer it or is let go on.

    Args:
        tell: writes an event.
        seconds: that somebody has to answer.
    """

    def __init__(self, tell: Tell, seconds: float) -> None:
        self._tell = tell
        self._seconds = seconds
        self._waiting: dict[str, tuple[Question, asyncio.Future[tuple[Verdict, str]]]] = {}

    @property
    def open(self) -> tuple[Question, ...]:
        """Those that wait, oldest first."""
        return tuple(question for question, _ in self._waiting.values())

    async def ask(self, asked: Asked) -> Verdict:
        """Waits for a decision. One that nobody makes in time is a refusal, and so is one that is no longer needed."""
        question = _question(asked, self._seconds)
        answer: asyncio.Future[tuple[Verdict, str]] = asyncio.get_running_loop().create_future()
        self._waiting[question.id] = (question, answer)
        verdict, by = Verdict(False, "no longer needed", "approver"), ""
        try:
            await self._tell(_event(question))
            verdict, by = await self._answered(answer)
        finally:
            del self._waiting[question.id]
            await self._tell(ApprovalDecided(question.id, verdict.allowed, verdict.reason, by))
        return verdict

    async def _answered(self, answer: asyncio.Future[tuple[Verdict, str]]) -> tuple[Verdict, str]:
        try:
            async with asyncio.timeout(self._seconds):
                return await answer
        except TimeoutError:
            return UNANSWERED, ""

    def decide(self, id: str, approved: bool, reason: str, by: str) -> None:
        """Answers a question.

        Args:
            id: of the question.
            approved: whether it may be done.
            reason: why not; the code and the model are told.
            by: who answers.

        Raises:
            NotFound: there is no such question, or it has been answered.
        """
        _, answer = self._waiting.get(id, (None, None))
        if answer is None or answer.done():
            raise NotFound(f"there is no question {one_line(id, 40)!r} that waits for an answer")
        text = one_line(reason, MAX_REASON) or f"refused by {by}"
        answer.set_result((Verdict(True) if approved else Verdict(False, text, "approver"), by))


def _question(asked: Asked, seconds: float) -> Question:
    """With so much time to be answered."""
    now, request = time.time(), asked.request
    new = Question(secrets.token_hex(8), now, now + seconds, agent=asked.agent, reason=asked.reason)
    if isinstance(request, ToolCallRequest):
        return replace(new, tool=request.tool, arguments=request.arguments)
    return replace(new, code=request.code, arguments=request.variables)


def _event(question: Question) -> ApprovalAsked:
    """What the run's stream has of it."""
    arguments = dict(question.arguments or {})
    return ApprovalAsked(
        question.id, question.tool, arguments, question.code, question.deadline, question.agent, question.reason
    )
