"""What code has to pass before it is sent: it must not be too long, and the approver must allow it."""

from __future__ import annotations

import asyncio

from orchestrator.audit.chain import digest
from orchestrator.events import Execution, Status
from orchestrator.policy import ExecutionRequest, Verdict
from orchestrator.sandbox.approval import Approver, Record, decided
from orchestrator.sandbox.execution import encoded, not_run


class Gate:
    """That of one sandbox, or of one branch."""

    def __init__(self, approver: Approver) -> None:
        self._approver = approver
        self._asking: set[asyncio.Task[Verdict]] = set()

    def interrupt(self) -> None:
        """Nobody wants to know any more: what is being asked about is refused."""
        for asking in self._asking:
            asking.cancel()

    async def passed(self, request: ExecutionRequest, record: Record) -> bytes | Execution:
        """The code as it is sent; else what the model is told of why it is not.

        Raises:
            AuditError: the approver's verdict cannot be recorded.
        """
        source = encoded(request.code)
        if isinstance(source, Execution) or not self._approver.asks:
            return source
        verdict = await decided(self._ask(request), "code", digest(source), record)
        if verdict.allowed:
            return source
        name = "ApprovalFailed" if verdict.rule == "approval_failed" else "ExecutionRefused"
        return not_run(Status.REFUSED, name, f"this code was {verdict.reason}.")

    async def _ask(self, request: ExecutionRequest) -> Verdict:
        asking = asyncio.ensure_future(self._approver.ask(request))
        self._asking.add(asking)
        try:
            await asyncio.wait({asking})
        finally:
            self._asking.discard(asking)
            asking.cancel()
        return Verdict(False, "interrupted", "interrupted") if asking.cancelled() else asking.result()
