"""What the agent loop relies on, of the real sandbox and of the fake that the loop's unit tests use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from orchestrator.errors import CheckpointError, SandboxClosed
from orchestrator.events import Execution, ExecutionEvent, Files, FinalAnswer, Finished, Output, State, Status
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


async def undo_goes_back_before_the_last_execution(sandbox: AsyncSandbox) -> None:
    first = await outcome(sandbox, "x = 1")
    broken = await outcome(sandbox, "x = 2\n1/0")
    assert (broken.status, broken.state, broken.restored_to) == (Status.ERROR, State.KEPT, None)
    rollback = await sandbox.undo()
    assert rollback.checkpoint.execution_count == first.execution_count < broken.execution_count
    assert (rollback.files, rollback.files_reason) == (Files.RESTORED, "")
    assert (await outcome(sandbox, "x")).value == 1


async def undo_goes_back_to_the_same_state_after_each_failure(sandbox: AsyncSandbox) -> None:
    first = await outcome(sandbox, "x = 1")
    for _ in range(2):
        broken = await outcome(sandbox, "x += 1\n1/0")
        rollback = await sandbox.undo()
        assert rollback.checkpoint.execution_count == first.execution_count < broken.execution_count
    assert (await outcome(sandbox, "x")).value == 1


async def undo_twice_goes_back_twice(sandbox: AsyncSandbox) -> None:
    first = await outcome(sandbox, "x = 1")
    await outcome(sandbox, "x = 2")
    await outcome(sandbox, "x = 3")
    await sandbox.undo()
    assert (await sandbox.undo()).checkpoint.execution_count == first.execution_count
    assert (await outcome(sandbox, "x")).value == 1


async def undo_takes_back_that_execution_or_nothing(sandbox: AsyncSandbox) -> None:
    first = await outcome(sandbox, "x = 1")
    second = await outcome(sandbox, "x = 2")
    with pytest.raises(CheckpointError, match=f"not that of execution {first.execution_count} any more"):
        await sandbox.undo(first.execution_count)
    assert (await sandbox.undo(second.execution_count)).checkpoint.execution_count == first.execution_count
    with pytest.raises(CheckpointError, match="not that of execution"):
        await sandbox.undo(second.execution_count)
    assert (await outcome(sandbox, "x")).value == 1


async def undo_of_nothing_is_an_error_and_harmless(sandbox: AsyncSandbox) -> None:
    await sandbox.start()
    with pytest.raises(CheckpointError):
        await sandbox.undo()
    assert (await outcome(sandbox, "6 * 7")).value == 42


async def code_too_long_is_never_run_and_counts_for_nothing(sandbox: AsyncSandbox) -> None:
    await outcome(sandbox, "x = 1")
    await outcome(sandbox, "x = 2")
    refused = await outcome(sandbox, "#" * (2 << 20))
    assert (refused.status, refused.state, refused.execution_count) == (Status.ERROR, State.KEPT, 0)
    await sandbox.undo()
    assert (await outcome(sandbox, "x")).value == 1


async def a_fork_goes_on_from_here_and_neither_sees_the_other(sandbox: AsyncSandbox) -> None:
    await outcome(sandbox, "x = 1")
    branch = await sandbox.fork()
    assert sandbox.branches == (branch,)
    await branch.start()
    assert (await outcome(branch, "x += 1\nx")).value == 2
    assert (await outcome(sandbox, "x")).value == 1
    await branch.close()
    await branch.close()
    assert sandbox.branches == ()
    with pytest.raises(SandboxClosed):
        await branch.start()
    assert (await outcome(sandbox, "x")).value == 1


async def a_fork_has_the_settings_of_its_parent(sandbox: AsyncSandbox) -> None:
    branch = await sandbox.fork()
    assert branch.has_final_answer
    assert branch.tool_names == sandbox.tool_names
    assert branch.authorized_imports == sandbox.authorized_imports
    assert (await outcome(branch, "final_answer(1)")).final_answer == FinalAnswer(1)


async def a_fork_can_undo_its_own_executions(sandbox: AsyncSandbox) -> None:
    first = await outcome(sandbox, "x = 1")
    branch = await sandbox.fork()
    broken = await outcome(branch, "x = 2\n1/0")
    rollback = await branch.undo()
    assert rollback.checkpoint.execution_count == first.execution_count < broken.execution_count
    assert (await outcome(branch, "x")).value == 1


async def a_fork_runs_beside_its_parent(sandbox: AsyncSandbox) -> None:
    branch = await sandbox.fork()
    execution = None
    async with aclosing(branch.stream(HANG_CODE)) as stream:
        async for event in stream:
            if isinstance(event, Output):
                await sandbox.interrupt()  # is not for the branch
                assert (await outcome(sandbox, "6 * 7")).value == 42
                await branch.interrupt()
            if isinstance(event, Finished):
                execution = event.execution
    assert execution is not None
    assert execution.status is Status.INTERRUPTED


async def closing_a_sandbox_ends_its_branches(sandbox: AsyncSandbox) -> None:
    branch = await sandbox.fork()
    twig = await branch.fork()
    await sandbox.close()
    for ended in (branch, twig):
        with pytest.raises(SandboxClosed):
            await outcome(ended, "1")
    for refused in (sandbox.fork, sandbox.undo, branch.fork, branch.undo):
        with pytest.raises(SandboxClosed):
            await refused()


class Case(NamedTuple):
    """A behaviour, and what the fake and its branches are to play."""

    behaviour: Behaviour
    script: list[Scripted] = []  # noqa: RUF012 - never changed
    forks: list[list[Scripted]] = []  # noqa: RUF012


def gave(value: int) -> Execution:
    return ran(str(value), value=value)


TOO_LONG = replace(failed("CodeTooLong"), execution_count=0)
CASES = [
    Case(a_value, [gave(42)]),
    Case(an_error_is_a_value, [failed()]),
    Case(a_final_answer, [answered({"n": 1})]),
    Case(an_interrupt_ends_an_execution, [HANG, gave(42)]),
    Case(closing_the_stream_frees_the_sandbox, [HANG, gave(42)]),
    Case(an_interrupt_without_an_execution_does_nothing, [gave(42)]),
    Case(a_closed_sandbox_cannot_start),
    Case(it_says_what_it_was_made_with),
    Case(undo_goes_back_before_the_last_execution, [ran(), failed(), gave(1)]),
    Case(undo_goes_back_to_the_same_state_after_each_failure, [ran(), failed(), failed(), gave(1)]),
    Case(undo_twice_goes_back_twice, [ran(), ran(), ran(), gave(1)]),
    Case(undo_takes_back_that_execution_or_nothing, [ran(), ran(), gave(1)]),
    Case(undo_of_nothing_is_an_error_and_harmless, [gave(42)]),
    Case(code_too_long_is_never_run_and_counts_for_nothing, [ran(), ran(), TOO_LONG, gave(1)]),
    Case(a_fork_goes_on_from_here_and_neither_sees_the_other, [ran(), gave(1), gave(1)], [[gave(2)]]),
    Case(a_fork_has_the_settings_of_its_parent, [], [[answered(1)]]),
    Case(a_fork_can_undo_its_own_executions, [ran()], [[failed(), gave(1)]]),
    Case(a_fork_runs_beside_its_parent, [gave(42)], [[HANG]]),
    Case(closing_a_sandbox_ends_its_branches),
]
NAMES = [case.behaviour.__name__ for case in CASES]
DEADLINE = 60.0  # seconds for one of them, a container's start included


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_the_fake_sandbox(case: Case) -> None:
    sandbox = FakeSandbox(case.script, forks=case.forks)
    asyncio.run(asyncio.wait_for(case.behaviour(sandbox), DEADLINE))


@pytest.mark.docker
@pytest.mark.parametrize("behaviour", [case.behaviour for case in CASES], ids=NAMES)
def test_the_real_sandbox(behaviour: Behaviour) -> None:
    async def hold() -> None:
        sandbox = AsyncSandbox(final_answer=True)
        try:
            await asyncio.wait_for(behaviour(sandbox), DEADLINE)
        finally:
            await sandbox.close()

    asyncio.run(hold())
