"""Code before it is sent: who is asked about it, and that nothing but a yes lets it pass."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchestrator.audit.records import Approval, Happening
from orchestrator.errors import AuditError
from orchestrator.events import Execution, State, Status
from orchestrator.policy import ExecutionRequest, Verdict
from orchestrator.sandbox.approval import Approver
from orchestrator.sandbox.execution import MAX_CODE
from orchestrator.sandbox.gate import Gate
from tests.unit.test_approval import SECRET, later, now
from tests.unit.tool_calls import DEADLINE, in_loop


def passed(approve: Any, code: str = "1 + 1") -> tuple[Any, list[Happening]]:
    recorded: list[Happening] = []

    async def record(happening: Happening) -> None:
        recorded.append(happening)

    gate = Gate(Approver(approve, DEADLINE))
    return in_loop(gate.passed(ExecutionRequest(code, 30.0), record)), recorded


def test_code_that_is_approved_passes_as_it_is() -> None:
    requests = []
    source, recorded = passed(lambda request: requests.append(request) or True, "'ü'\ud800")
    assert source == "'ü'\ud800".encode("utf-8", "surrogatepass")
    assert requests == [ExecutionRequest("'ü'\ud800", 30.0)]
    assert [(r.what, r.allowed) for r in recorded if isinstance(r, Approval)] == [("code", True)]


@pytest.mark.parametrize(
    ("approve", "name", "text"),
    [
        (now(False), "ExecutionRefused", "this code was not approved. Nothing was run."),
        (
            now(Verdict(False, "too risky")),
            "ExecutionRefused",
            "this code was not approved: too risky. Nothing was run.",
        ),
        (
            later(ValueError(SECRET)),
            "ApprovalFailed",
            "this code was not approved, as the approver failed (it raised ValueError). Nothing was run.",
        ),
    ],
)
def test_code_that_is_refused_is_an_execution_that_never_ran(approve: Any, name: str, text: str) -> None:
    execution, recorded = passed(approve)
    assert isinstance(execution, Execution)
    assert (execution.status, execution.state, execution.execution_count) == (Status.REFUSED, State.KEPT, 0)
    assert execution.error is not None
    assert (execution.error.name, execution.error.value) == (name, text)
    assert [r.allowed for r in recorded if isinstance(r, Approval)] == [False]


def test_code_whose_approval_cannot_be_recorded_does_not_pass() -> None:
    async def record(happening: Happening) -> None:
        raise AuditError("the disk is full")

    with pytest.raises(AuditError):
        in_loop(Gate(Approver(now(True), DEADLINE)).passed(ExecutionRequest("1", 30.0), record))


def test_nobody_is_asked_about_code_that_could_not_be_sent() -> None:
    requests: list[Any] = []
    execution, _ = passed(lambda request: requests.append(request) or True, "#" * (MAX_CODE + 1))
    assert execution.error.name == "CodeTooLong"
    assert requests == []


def test_an_interrupt_while_somebody_is_asked_is_a_no() -> None:
    async def case() -> Any:
        asking = asyncio.Event()

        async def never(request: object) -> bool:
            asking.set()
            await asyncio.Event().wait()
            return True

        async def record(happening: Happening) -> None:
            pass

        gate = Gate(Approver(never, DEADLINE))
        passing = asyncio.create_task(gate.passed(ExecutionRequest("1", 30.0), record))
        await asking.wait()
        gate.interrupt()
        return await passing

    execution = in_loop(case())
    assert (execution.status, execution.error.value) == (Status.REFUSED, "this code was interrupted. Nothing was run.")
