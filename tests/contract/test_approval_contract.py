"""What every sandbox backend must do: code and calls are approved first, and the time for that is not the code's."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest

from orchestrator import Config, Ending, ExecutionRequest, State, Status, ToolCallRequest, Verdict
from tests.contract.conftest import DEADLINE
from tests.contract.tools import CAUGHT, Make, Spy

pytestmark = pytest.mark.docker


def test_one_approver_is_asked_about_code_and_calls(make: Make) -> None:
    asked: list[Any] = []

    def approve(request: Any) -> Any:
        asked.append(request)
        match request:
            case ExecutionRequest(code):
                return "danger" not in code
            case ToolCallRequest("spy", {"args": args}):
                return Verdict("x" not in args, "not with x")
        return False

    spy = Spy()
    with make(tools=[spy], approve=approve, timeout=7) as one:
        execution = one.run_code(CAUGHT + "y = caught(spy, 'a'), caught(spy, 'x'); y")
        assert execution.value == (1, "PermissionError: the call of spy() was not approved: not with x")
        assert [(call.ending, call.refused_by) for call in execution.tool_calls] == [
            (Ending.OK, ""),
            (Ending.REFUSED, "approver"),
        ]
        refused = one.run_code("y = 'danger'")
        assert (refused.status, refused.state, refused.execution_count) == (Status.REFUSED, State.KEPT, 0)
        assert refused.error is not None
        assert refused.error.name == "ExecutionRefused"
        assert one.run_code("y[0]").value == 1, "nothing was run"
    assert asked[0].timeout == 7
    assert asked[1] == ToolCallRequest("spy", {"args": ("a",)}, 1)
    assert spy.calls == [("a",)]


def test_an_approver_may_be_a_coroutine_and_may_fail(make: Make) -> None:
    async def approve(request: Any) -> bool:
        await asyncio.sleep(0)
        if isinstance(request, ToolCallRequest):
            raise RuntimeError("canary-of-the-host")
        return True

    spy = Spy()
    with make(tools=[spy], approve=approve) as one:
        execution = one.run_code(CAUGHT + "caught(spy)")
        assert execution.value == (
            "PermissionError: the call of spy() was not approved, as the approver failed (it raised RuntimeError)"
        )
        assert "canary" not in repr(execution)
    assert spy.calls == []


def test_the_time_for_an_answer_is_not_the_codes(make: Make) -> None:
    """Somebody who thinks longer than the code may run does not have it stopped; code that runs on is stopped."""

    async def approve(request: Any) -> bool:
        if isinstance(request, ToolCallRequest):
            await asyncio.sleep(2.5)  # thinking is what is tested
        return True

    spy = Spy()
    with make(tools=[spy], approve=approve, timeout=2.0) as one:
        execution = one.run_code("spy()\nspy()")
        assert (execution.status, execution.value, len(spy.calls)) == (Status.OK, 2, 2)
        assert one.run_code("spy()\nwhile True: pass").status is Status.TIMEOUT


def test_an_execution_ends_though_somebody_thinks_for_ever(make: Make, config: Config) -> None:
    async def approve(request: Any) -> bool:
        if isinstance(request, ToolCallRequest):
            await asyncio.Event().wait()
        return True

    spy = Spy()
    patient = replace(config, approval_timeout=1.0)
    with make(tools=[spy], approve=approve, timeout=2.0, config=patient) as one:
        execution = one.run_code("while True:\n    try: spy()\n    except PermissionError: pass")
        assert execution.status is Status.TIMEOUT
        assert {call.ending for call in execution.tool_calls} == {Ending.REFUSED}
        assert one.run_code("1").value == 1
    assert spy.calls == []


def test_a_branch_asks_the_same_approver(make: Make) -> None:
    asked: list[str] = []

    def approve(request: Any) -> bool:
        asked.append(request.code)
        return True

    with make(approve=approve) as one:
        one.run_code("a = 1")
        with one.fork() as branch:
            assert branch.run_code("a").value == 1
    assert asked == ["a = 1", "a"]


def test_interrupting_while_code_waits_for_its_approval_refuses_it(make: Make, release: threading.Event) -> None:
    asking = threading.Event()

    def approve(request: Any) -> bool:
        asking.set()
        return release.wait(DEADLINE)

    with make(approve=approve) as one:
        interrupting = threading.Thread(target=lambda: asking.wait(DEADLINE) and one.interrupt())
        interrupting.start()
        execution = one.run_code("1")
        interrupting.join(DEADLINE)
        assert execution.status is Status.REFUSED
        assert execution.error is not None
        assert "interrupted" in execution.error.value
