"""Asks the user's approver. Whatever goes wrong in it counts as no."""

from __future__ import annotations

import contextvars
import logging
from typing import Any

from orchestrator.errors import ApprovalFailed
from orchestrator.policy import ALLOWED, MAX_RUNNING, Approve, Request, Verdict
from orchestrator.sandbox.foreign import Foreign, Overdue, Raised
from orchestrator.sandbox.grants import is_async
from orchestrator.sanitise import one_line

MAX_REASON = 500  # characters of a reason that is told to the code and the model
MAX_LOGGED = 1000  # characters of what an approver raised, in the log
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

    async def ask(self, request: Request) -> Verdict:
        """The verdict. If the one who waits for it is cancelled, the question is dropped.

        Raises:
            RuntimeError: the approver itself runs code in a sandbox that would ask it.
        """
        if self._approve is None:
            return ALLOWED
        if self._approve in _deciding.get():
            raise RuntimeError("an approver cannot use a sandbox that asks it; give it another sandbox")
        try:
            return _verdict(await self._answer(self._approve, request))
        except ApprovalFailed as error:
            # The code is told no more than this: what the approver raised may hold secrets of the host.
            _log.warning("refused, as the approver failed: %s", _whole(error))
            return Verdict(False, f"not approved, as the approver failed ({error})", "approval_failed")

    async def _answer(self, approve: Approve, request: Request) -> Any:
        if self._foreign.left >= MAX_RUNNING:
            raise ApprovalFailed(f"{self._foreign.left} earlier questions have not been answered yet")
        token = _deciding.set((*_deciding.get(), approve))
        try:
            return await self._foreign.run(lambda: approve(request), is_async=is_async(approve), seconds=self._seconds)
        except Raised as raised:
            raise ApprovalFailed(f"it raised {type(raised.error).__name__}") from raised.error
        except Overdue:
            raise ApprovalFailed(f"it gave no answer within {self._seconds:g} s") from None
        finally:
            _deciding.reset(token)


def _whole(error: ApprovalFailed) -> str:
    """For the log: with what was raised, which may quote arguments of the code's."""
    raised = error.__cause__
    if raised is None:
        return str(error)
    try:
        text = str(raised)
    except Exception:  # noqa: BLE001 — it is the approver's
        text = "nothing that could be shown"
    return one_line(f"{error}: {text}", MAX_LOGGED)


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
