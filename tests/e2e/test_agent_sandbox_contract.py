"""What the agent loop relies on, of the real sandbox and of the fake that the loop's unit tests use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from orchestrator.errors import SandboxClosed
from orchestrator.events import Execution, ExecutionEvent, FinalAnswer, Finished, Output, Status
from orchestrator.sandbox import AsyncSandbox
from tests.unit.fake_sandbox import HANG, FakeSandbox, Scripted, answered, failed, ran

Behaviour = Callable[[AsyncSandbox], Coroutine[Any, Any, None]]
HANG_CODE = "print('on', flush=True)\nwhile True: pass"


async def events_of(sandbox: AsyncSandbox, code: str) -> list[ExecutionEvent]:
    async with aclosing(sandbox.stream(code)) as stream:
        return [event async for event in stream]


async def outcome(sandbox: AsyncSandbox, code: str) -> Execution:
    events = await events_of(sandbox, code)
    assert [type(event) for event in events].count(Finished) == 1
    assert isinstance(events[-1], Finished)
    return events[-1].execution


async def a_value(sandbox: AsyncSandbox) -> None:
    execution = await outcome(sandbox, "6 * 7")
    assert (execution.status, execution.value, execution.text, execution.error) == (Status.OK, 42, "42", None)
    assert execution.final_answer is None


async def an_error_is_a_value(sandbox: AsyncSandbox) -> None:
    execution = await outcome(sandbox, "1/0")
    assert execution.status is Status.ERROR
    assert execution.error is not None
    assert execution.error.name == "ZeroDivisionError"


async def a_final_answer(sandbox: AsyncSandbox) -> None:
    execution = await outcome(sandbox, "final_answer({'n': 1})")
    assert execution.ok
    assert execution.final_answer == FinalAnswer({"n": 1})


async def an_interrupt_ends_an_execution(sandbox: AsyncSandbox) -> None:
    execution = None
    async with aclosing(sandbox.stream(HANG_CODE)) as stream:
        async for event in stream:
            if isinstance(event, Output):
                asyncio.get_running_loop().call_later(0.05, lambda: asyncio.ensure_future(sandbox.interrupt()))
            if isinstance(event, Finished):
                execution = event.execution
    assert execution is not None
    assert execution.status is Status.INTERRUPTED
    assert (await outcome(sandbox, "6 * 7")).value == 42


async def closing_the_stream_frees_the_sandbox(sandbox: AsyncSandbox) -> None:
    async with aclosing(sandbox.stream(HANG_CODE)) as stream:
        async for event in stream:
            if isinstance(event, Output):
                break
    assert (await outcome(sandbox, "6 * 7")).value == 42


async def an_interrupt_without_an_execution_does_nothing(sandbox: AsyncSandbox) -> None:
    await sandbox.interrupt()
    assert (await outcome(sandbox, "6 * 7")).value == 42


async def a_closed_sandbox_cannot_start(sandbox: AsyncSandbox) -> None:
    await sandbox.start()
    await sandbox.start()
    await sandbox.close()
    await sandbox.close()
    with pytest.raises(SandboxClosed):
        await sandbox.start()


async def it_says_what_it_was_made_with(sandbox: AsyncSandbox) -> None:
    assert sandbox.has_final_answer
    assert sandbox.tool_names == frozenset()
    assert "math" in sandbox.authorized_imports


# Each with what the fake is to play.
BEHAVIOURS: list[tuple[Behaviour, list[Scripted]]] = [
    (a_value, [ran("42", value=42)]),
    (an_error_is_a_value, [failed()]),
    (a_final_answer, [answered({"n": 1})]),
    (an_interrupt_ends_an_execution, [HANG, ran("42", value=42)]),
    (closing_the_stream_frees_the_sandbox, [HANG, ran("42", value=42)]),
    (an_interrupt_without_an_execution_does_nothing, [ran("42", value=42)]),
    (a_closed_sandbox_cannot_start, []),
    (it_says_what_it_was_made_with, []),
]
NAMES = [behaviour.__name__ for behaviour, _ in BEHAVIOURS]


@pytest.mark.parametrize(("behaviour", "script"), BEHAVIOURS, ids=NAMES)
def test_the_fake_sandbox(behaviour: Behaviour, script: list[Scripted]) -> None:
    asyncio.run(behaviour(FakeSandbox(script)))


@pytest.mark.docker
@pytest.mark.parametrize("behaviour", [behaviour for behaviour, _ in BEHAVIOURS], ids=NAMES)
def test_the_real_sandbox(behaviour: Behaviour) -> None:
    async def hold() -> None:
        sandbox = AsyncSandbox(final_answer=True)
        try:
            await behaviour(sandbox)
        finally:
            await sandbox.close()

    asyncio.run(hold())
