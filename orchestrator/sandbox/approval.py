"""Asks the user's approver. Whatever goes wrong in it counts as no."""

from __future__ import annotations

import contextvars
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from orchestrator.audit.records import Approval, Happening, milliseconds
from orchestrator.errors import ApprovalFailed
from orchestrator.policy import ALLOWED, MAX_RUNNING, Approve, Request, Verdict
from orchestrator.sandbox.foreign import Foreign, Overdue, Raised, words_of
from orchestrator.sandbox.grants import is_async
from orchestrator.sanitise import one_line

MAX_REASON = 500  # characters of a reason that is told to the code and the model
MAX_LOGGED = 1000  # characters of what an approver raised, in the log
Record = Callable[[Happening], Awaitable[None]]
_log = logging.getLogger(__name__)
_deciding: contextvars.ContextVar[tuple[Approve, ...]] = contextvars.ContextVar("deciding", default=())


class Approver:
    """Whom a sandbox asks. Without an ``approve``, everything is allowed."""

    def __init__(self, approve: Approve | None, seconds: float) -> None:
        if approve is not None and not callable(approve):
            raise TypeError(f"approve must be something that can be called, not {type(approve).__name__}")
        self._approve = approve
        self._seconds = seconds
        self._foreign = Foreign()

    @property
    def asks(self) -> bool:
        """True if there is somebody to ask."""
        return self._approve is not None

    async def ask(self, request: Request, weight: int = 1) -> Verdict:
        """The verdict. If the one who waits for it is cancelled, the question is dropped.

        ``weight``: for how many questions it counts as long as the approver holds on to it.

        Raises:
            RuntimeError: the approver itself runs code in a sandbox that would ask it.
        """
        if self._approve is None:
            return ALLOWED
        self.require_free()
        try:
            return _verdict(await self._answer(self._approve, request, weight))
        except ApprovalFailed as error:
            # The code is told no more than this: what the approver raised may hold secrets of the host.
            _log.warning("refused, as the approver failed: %s", _whole(error))
            return Verdict(False, f"not approved, as the approver failed ({error})", "approval_failed")

    def require_free(self) -> None:
        """Goes on unless it is the approver itself that would have to be asked.

        Raises:
            RuntimeError: it is.
        """
        if self._approve is not None and self._approve in _deciding.get():
            raise RuntimeError("an approver cannot use a sandbox that asks it; give it another sandbox")

    async def answer(self, request: Request) -> Any:
        """What the approver says, whatever that is: for a service, which judges it.

        Raises:
            ApprovalFailed: it raised, which is the cause.
        """
        assert self._approve
        return await self._answer(self._approve, request, 1)

    async def _answer(self, approve: Approve, request: Request, weight: int) -> Any:
        if self._foreign.left >= MAX_RUNNING:
            raise ApprovalFailed(f"{self._foreign.left} earlier questions have not been answered yet")
        token = _deciding.set((*_deciding.get(), approve))
        try:
            return await self._foreign.run(
                lambda: approve(request), is_async=is_async(approve), seconds=self._seconds, weight=weight
            )
        except Raised as raised:
            raise ApprovalFailed(f"it raised {type(raised.error).__name__}") from raised.error
        except Overdue:
            raise ApprovalFailed(f"it gave no answer within {self._seconds:g} s") from None
        finally:
            _deciding.reset(token)


async def decided(asking: Awaitable[Verdict], what: str, sha256: str, record: Record) -> Verdict:
    """The verdict that ``asking`` gives, once it has been recorded: of the tool ``what``, or of ``code``.

    Raises:
        AuditError: it cannot be recorded.
    """
    started = time.monotonic()
    verdict = await asking
    taken = milliseconds(time.monotonic() - started)
    await record(Approval(what, sha256, verdict.allowed, verdict.rule, taken))
    return verdict


def _whole(error: ApprovalFailed) -> str:
    """For the log: with what was raised, which may quote arguments of the code's."""
    raised = error.__cause__
    if raised is None:
        return str(error)
    return one_line(f"{error}: {words_of(raised)[:MAX_LOGGED]}", MAX_LOGGED)


def _verdict(answer: Any) -> Verdict:
    match answer:
        case True:
            return Verdict(True, rule="approver")
        case False:
            return Verdict(False, "not approved", "approver")
        case Verdict(allowed=True | False as allowed, reason=str() as reason):
            told = f": {reason[:MAX_REASON]}" if reason else ""
            return Verdict(allowed, f"not approved{told}", "approver")
    raise ApprovalFailed(f"it gave {type(answer).__name__}, which is neither True, False nor a Verdict")
