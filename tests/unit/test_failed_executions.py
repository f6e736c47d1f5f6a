"""What a failure of the sandbox tells of the tool calls that it ended, and how deep tools may nest."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.config import Config
from orchestrator.errors import AuditError, OutcomeUnknown, ProtocolViolation, SandboxClosed, SandboxDied, SandboxError
from orchestrator.events import Ending
from orchestrator.sandbox import AsyncSandbox
from orchestrator.sandbox.calls import ToolCalls
from orchestrator.sandbox.execution import MAX_NESTED, serving, with_ledger
from tests.unit.loops import until
from tests.unit.tool_calls import Calls, in_loop


async def waits() -> None:
    await asyncio.Event().wait()


async def ended(tool_hangs: bool) -> ToolCalls:
    calls = Calls([waits])
    await calls.call("other")
    if tool_hangs:
        await calls.begin("waits")
        await until(lambda: len(calls.recorded) == 2)
    await calls.calls.end()
    return calls.calls


def told(error: SandboxError | AuditError, tool_hangs: bool) -> SandboxError | AuditError:
    return with_ledger(error, in_loop(ended(tool_hangs)))


@pytest.mark.parametrize("kind", [SandboxDied, ProtocolViolation])
def test_a_death_while_a_tool_ran_is_of_unknown_outcome(kind: type[SandboxError]) -> None:
    """Of a violation too: an executor could choose by it what is told."""
    error = told(kind("the container is gone"), tool_hangs=True)
    assert type(error) is OutcomeUnknown
    assert type(error.__cause__) is kind
    assert str(error) == "the container is gone; tools ran for it, and whether they took effect is not known"
    assert [call.ending for call in error.tool_calls] == [Ending.REFUSED, Ending.CANCELLED]


@pytest.mark.parametrize(
    ("error", "tool_hangs"),
    [
        (SandboxDied("x"), False),
        (AuditError("x"), True),
        (ProtocolViolation("x"), False),
        (SandboxClosed("x"), True),
    ],
)
def test_every_other_failure_stays_what_it_is_and_has_the_ledger(
    error: SandboxError | AuditError, tool_hangs: bool
) -> None:
    assert told(error, tool_hangs) is error
    assert len(error.tool_calls) == 1 + tool_hangs
    assert type(error)("another").tool_calls == ()


def test_tools_that_wait_for_each_others_sandboxes_nest_so_deep_only() -> None:
    """TOOL-04: found before a container is started."""

    async def case() -> str:
        serving.set((object(),) * MAX_NESTED)  # type: ignore[arg-type]
        sandbox = AsyncSandbox(config=Config(docker_host="unix:///nonexistent.sock"))
        with pytest.raises(RuntimeError) as error:
            await sandbox.run_code("1")
        return str(error.value)

    assert in_loop(case()) == f"{MAX_NESTED} tools wait for each other's sandboxes; they may use no further one"
