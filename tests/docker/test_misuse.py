"""Cancelling, closing and flooding at awkward moments: one operation ends, the sandbox does not."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from orchestrator import AsyncSandbox, Config, Sandbox, State, Status
from orchestrator.errors import SandboxClosed
from orchestrator.policy import MAX_RUNNING
from tests.conftest import mine, none_of_mine

pytestmark = pytest.mark.docker

DEADLINE = 60.0  # seconds for one case


def within_deadline(case: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with asyncio.timeout(DEADLINE):
            return await case()

    return asyncio.run(main())


def test_runs_cancelled_at_any_moment_leave_the_sandbox_working(config: Config) -> None:
    async def case() -> list[Any]:
        seen = []
        async with AsyncSandbox() as sandbox:
            await sandbox.run_code("x = 1")
            for turn in range(40):
                with suppress(TimeoutError):
                    await asyncio.wait_for(sandbox.run_code("while True: pass"), turn / 8000)
                after = await sandbox.run_code("x")
                seen.append((after.status, after.value))
        return seen

    assert within_deadline(case) == [(Status.OK, 1)] * 40


def test_a_cancelled_file_request_leaves_the_sandbox_working(config: Config) -> None:
    async def case() -> Any:
        async with AsyncSandbox() as sandbox:
            with suppress(TimeoutError):
                await asyncio.wait_for(sandbox.files.write("big", b"x" * (8 << 20)), 0.002)
            return (await sandbox.run_code("1 + 1")).value

    assert within_deadline(case) == 2


def test_a_cancelled_interrupt_harms_nothing(config: Config) -> None:
    async def case() -> Any:
        async with AsyncSandbox() as sandbox:
            started = asyncio.Event()
            running = asyncio.create_task(
                sandbox.run_code("print('go')\nwhile True: pass", on_stdout=lambda _: started.set())
            )
            await started.wait()
            for _ in range(50):
                interrupting = asyncio.create_task(sandbox.interrupt())
                await asyncio.sleep(0)
                interrupting.cancel()
            return (await running).status

    assert within_deadline(case) is Status.INTERRUPTED


def test_an_interrupt_that_comes_before_the_code_starts_is_not_lost(config: Config) -> None:
    async def case() -> list[Any]:
        seen = []
        async with AsyncSandbox(config=Config(grace=5.0)) as sandbox:
            for _ in range(10):
                running = asyncio.create_task(sandbox.run_code("while True: pass"))
                for _ in range(1000):  # turns of the loop, until the code has been sent: it has hardly arrived then
                    if sandbox._conversation:
                        break
                    await asyncio.sleep(0)
                await sandbox.interrupt()
                seen.append((await running).state)
        return seen

    assert within_deadline(case) == [State.KEPT] * 10


def test_close_during_a_run_ends_it_at_once(config: Config) -> None:
    async def case() -> float:
        sandbox = AsyncSandbox()
        started = asyncio.Event()
        code = "print('go')\nwhile True: pass"
        running = asyncio.create_task(sandbox.run_code(code, on_stdout=lambda _: started.set()))
        await started.wait()
        begun = time.monotonic()
        await sandbox.close()
        with pytest.raises(SandboxClosed):
            await running
        return time.monotonic() - begun

    assert within_deadline(case) < 10  # the execution's own timeout is 30 s
    assert mine(config) == []


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.15, 0.25])
def test_close_during_the_start_leaves_no_container(config: Config, delay: float) -> None:
    async def case() -> None:
        sandbox = AsyncSandbox()
        starting = asyncio.create_task(sandbox.start())
        await asyncio.wait({starting}, timeout=delay)
        await sandbox.close()
        with suppress(SandboxClosed):
            await starting
        assert not sandbox.is_running

    within_deadline(case)
    none_of_mine(config)


def test_a_flood_of_tool_calls_costs_the_host_a_bounded_number_of_threads(config: Config) -> None:
    release = threading.Event()

    def slow() -> None:
        release.wait(DEADLINE)

    # Below the tool's function: calls are sent, and nobody waits for their results.
    flood = """
import sys
generation, pack = sys.stdout._send.__self__, sys.modules["struct"].pack
for number in range(1, 400):
    generation._channel.send(38, pack("<16sIH", generation._calls.nonce, number, 4), b"slow", b"")
"""

    async def case() -> tuple[Any, int]:
        async with AsyncSandbox(tools=[slow], authorized_imports=["sys"]) as sandbox:
            before, most = threading.active_count(), 0
            running = asyncio.create_task(sandbox.run_code(flood + "slow()", timeout=1.0))
            while not running.done():
                most = max(most, threading.active_count() - before)
                await asyncio.wait({running}, timeout=0.02)
            release.set()
            return (await sandbox.run_code("1 + 1")).value, most

    value, threads = within_deadline(case)
    assert value == 2
    assert threads <= MAX_RUNNING + 8


def test_a_handler_that_raises_stops_the_execution_and_keeps_the_state(config: Config) -> None:
    async def case() -> Any:
        def refuse(_: str) -> None:
            raise ValueError("the handler's own")

        async with AsyncSandbox(config=replace(config, grace=5.0)) as sandbox:
            with pytest.raises(ValueError, match="the handler's own"):
                await sandbox.run_code("x = 3\nprint('go')\nwhile True: pass", on_stdout=refuse)
            return (await sandbox.run_code("x")).value

    assert within_deadline(case) == 3


def test_a_tool_that_uses_the_sandbox_it_is_called_from_is_told_so(config: Config) -> None:
    def reenter() -> object:
        return sandbox.run_code("1").value

    async def reenter_later() -> object:
        return (await sandbox.asynchronous.run_code("1")).value

    with Sandbox(tools=[reenter, reenter_later]) as sandbox:
        for name in ("reenter", "reenter_later"):
            execution = sandbox.run_code(f"{name}()", timeout=10)
            assert execution.error is not None
            assert execution.error.name == "RuntimeError"
        assert sandbox.run_code("1 + 1").value == 2
