"""What the agent loop relies on, of the real sandbox and of the fake that the loop's unit tests use."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from orchestrator import AsyncClient, Client, CodeAgent, Config, ScriptedModel, tool
from orchestrator.errors import CheckpointError, ConfigError, SandboxClosed, ValueNotPortable
from orchestrator.events import Execution, ExecutionEvent, Files, FinalAnswer, Finished, Output, State, Status
from orchestrator.sandbox import AsyncSandbox
from tests.serving import Serving
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


async def variables_are_there_and_stay(sandbox: AsyncSandbox) -> None:
    execution = await sandbox.run_code("x * 2", variables={"x": 21})
    assert (execution.status, execution.value) == (Status.OK, 42)
    assert (await outcome(sandbox, "x")).value == 21


async def variables_go_with_the_execution_that_they_were_given_to(sandbox: AsyncSandbox) -> None:
    await sandbox.run_code("pass", variables={"x": 1})
    await sandbox.run_code("pass", variables={"x": 2})
    await sandbox.undo()
    assert (await outcome(sandbox, "x")).value == 1


async def a_fork_has_the_variables_of_its_parent_and_its_own(sandbox: AsyncSandbox) -> None:
    await sandbox.run_code("pass", variables={"x": 1})
    branch = await sandbox.fork()
    assert (await outcome(branch, "x")).value == 1
    await branch.run_code("pass", variables={"x": 2})
    assert (await outcome(sandbox, "x")).value == 1


async def variables_that_cannot_be_are_refused_before_anything_runs(sandbox: AsyncSandbox) -> None:
    for names in ({"1x": 1}, {"class": 1}, {"final_answer": 1}, {"__name__": 1}, {3: 1}, {"\ufb01": 1}, [("x", 1)]):
        with pytest.raises(ConfigError, match="variables"):
            await sandbox.run_code("1", variables=names)
    with pytest.raises(ValueNotPortable, match=re.escape("x['k'][0] is of type object, which cannot enter")):
        await sandbox.run_code("1", variables={"x": {"k": [object()]}})
    assert (await outcome(sandbox, "1")).execution_count == 1


class Case(NamedTuple):
    """A behaviour, and what the fake and its branches are to play."""

    behaviour: Behaviour
    script: list[Scripted] = []  # noqa: RUF012 - never changed
    forks: list[list[Scripted]] = []  # noqa: RUF012


def gave(value: int) -> Execution:
    return ran(str(value), value=value)


def x(variables: Mapping[str, Any]) -> Execution:
    return gave(variables["x"])


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
    Case(variables_are_there_and_stay, [lambda variables: gave(variables["x"] * 2), x]),
    Case(variables_go_with_the_execution_that_they_were_given_to, [ran(), ran(), x]),
    Case(a_fork_has_the_variables_of_its_parent_and_its_own, [ran(), x], [[x, ran()]]),
    Case(variables_that_cannot_be_are_refused_before_anything_runs, [gave(1)]),
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


@pytest.fixture(scope="module")
def serving(config: Config) -> Iterator[Serving]:
    made = Serving(config)
    yield made
    made.close()


@pytest.mark.docker
@pytest.mark.parametrize("behaviour", [case.behaviour for case in CASES], ids=NAMES)
def test_a_sandbox_at_a_service(serving: Serving, behaviour: Any) -> None:
    async def hold() -> None:
        async with AsyncClient(serving.address) as client:
            await asyncio.wait_for(behaviour(client.sandbox(final_answer=True)), DEADLINE)

    asyncio.run(hold())
    assert serving.held() == []


@pytest.mark.docker
def test_an_agent_of_the_app_works_in_a_sandbox_at_a_service(serving: Serving) -> None:
    @tool
    def double(n: int) -> int:
        """Doubles.

        Args:
            n: a number
        """
        return 2 * n

    steps = ["<code>\nx = double(n=21)\nprint(x)\n</code>", "<code>\nfinal_answer(x)\n</code>"]
    with Client(serving.address) as client, client.sandbox(tools=[double], final_answer=True) as one:
        agent = CodeAgent(tools=[double], model=ScriptedModel(steps), sandbox=one)
        assert agent.run("Double 21.") == 42
