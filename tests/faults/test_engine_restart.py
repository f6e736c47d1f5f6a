"""An engine that is killed or restarted while sandboxes run on it: what the caller is told, and what is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator import AsyncSandbox, Config, Sandbox
from orchestrator.errors import EngineError, EngineUnavailable, SandboxDied
from orchestrator.stack import dockerd
from tests.faults import moments
from tests.faults.own_engine import OwnEngine, own_engine
from tests.faults.traces import Made, nothing_left, reaped

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.getuid() != 0, reason="needs root, to start an engine of its own"),
    pytest.mark.skipif(dockerd.find() is None, reason="needs dockerd on this machine, to start an engine of its own"),
]

# Each costs a restart: those at which the engine is asked for something, or holds something.
MOMENTS = (
    *("before the container is created", "the container is created", "the container is started", "open is sent"),
    *("before the stream is closed", "before the container is removed", "the container is removed"),
)
DEADLINE = 120.0  # seconds for one case, an engine's restart included
MARK = "mark()\nprint('go')\nimport time\nfor _ in range(2): time.sleep(0.1)\n'done'"


@pytest.fixture(scope="module")
def shared(config: Config) -> Iterator[OwnEngine]:
    with own_engine(config) as made:
        yield made


@pytest.fixture
def victim(shared: OwnEngine) -> Iterator[OwnEngine]:
    """The engine of this module, running before and after each test."""
    yield shared
    if shared.is_down:
        shared.start()


@pytest.fixture
def settings(quick: Config, victim: OwnEngine) -> Config:
    return replace(quick, docker_host=victim.address)


def case(body: Callable[[], Any]) -> None:
    async def main() -> None:
        async with asyncio.timeout(DEADLINE):
            await body()

    asyncio.run(main())


class Counted:
    """A sandbox whose code is counted from outside."""

    def __init__(self, config: Config) -> None:
        self.marks = 0
        self.sandbox = AsyncSandbox(config=config, tools=[self.tool()])

    def tool(self) -> Callable[[], None]:
        def mark() -> None:
            self.marks += 1

        return mark


def test_an_engine_that_ends_takes_the_sandbox_along_and_a_restarted_one_gives_another(
    settings: Config, victim: OwnEngine, sessions: list[Made]
) -> None:
    async def body() -> None:
        counted = Counted(settings)
        await counted.sandbox.run_code("x = 1")
        with pytest.raises(SandboxDied):
            await counted.sandbox.run_code(
                "mark()\nprint('go')\nwhile True: pass", on_stdout=lambda _: victim.kill(signal.SIGTERM)
            )
        assert counted.marks == 1
        with pytest.raises(EngineUnavailable):
            await counted.sandbox.reset()
        victim.start()
        await counted.sandbox.reset()
        assert (await counted.sandbox.run_code("'x' in globals()")).value is False
        assert counted.marks == 1
        await counted.sandbox.close()

    case(body)
    reaped(settings, *sessions)


def test_a_killed_engine_leaves_the_execution_to_its_end_and_a_restarted_one_ends_the_container(
    settings: Config, victim: OwnEngine, sessions: list[Made]
) -> None:
    async def body() -> None:
        counted = Counted(settings)
        ended = await counted.sandbox.run_code(MARK, on_stdout=lambda _: victim.kill())
        assert (ended.value, counted.marks) == ("done", 1)
        assert (await counted.sandbox.run_code("1 + 1")).value == 2  # nobody needs the engine for that
        with pytest.raises(EngineUnavailable):
            await AsyncSandbox(config=settings).start()
        victim.start()
        with pytest.raises(SandboxDied):
            await counted.sandbox.run_code("mark()")
        await counted.sandbox.reset()
        assert (await counted.sandbox.run_code("1 + 1")).value == 2
        assert counted.marks <= 2
        await counted.sandbox.close()

    case(body)
    reaped(settings, *sessions)


def test_a_sandbox_that_is_closed_while_there_is_no_engine_leaves_nothing_when_there_is_one(
    settings: Config, victim: OwnEngine, sessions: list[Made]
) -> None:
    async def body() -> None:
        sandbox = AsyncSandbox(config=settings)
        await sandbox.run_code("x = 1")
        victim.kill()
        with pytest.raises(EngineUnavailable):
            await sandbox.close()
        assert not sandbox.is_running
        await sandbox.close()
        assert not os.listdir(settings.runtime_dir)

    case(body)
    victim.start()
    reaped(settings, *sessions)


@pytest.mark.parametrize("moment", ["before the container is created", "the container is created"])
def test_an_engine_that_is_killed_during_a_start_is_told_as_that(
    moment: str, settings: Config, victim: OwnEngine, sessions: list[Made]
) -> None:
    async def body() -> None:
        with moments.at(moment, victim.kill), pytest.raises(EngineError):
            await AsyncSandbox(config=settings).start()
        assert not os.listdir(settings.runtime_dir)

    case(body)
    victim.start()
    reaped(settings, *sessions)


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_engine_that_is_killed_at_this_moment_leaves_nothing_when_it_is_there_again(
    moment: str, settings: Config, victim: OwnEngine, sessions: list[Made]
) -> None:
    async def body() -> None:
        with moments.at(moment, victim.kill), suppress(EngineError):
            async with AsyncSandbox(config=settings) as sandbox:
                await sandbox.run_code("x = 1")

    case(body)
    assert not os.listdir(settings.runtime_dir)
    victim.start()
    reaped(settings, *sessions)
    assert [mount for mount in victim.mounts() if "overlay" in mount] == []


def test_down_leaves_nothing_of_what_runs(settings: Config, sessions: list[Made]) -> None:
    sandbox = Sandbox(config=settings)
    sandbox.run_code("x = 1")
    env = {"CELLBLOCK_DOCKER_HOST": settings.docker_host, "CELLBLOCK_RUNTIME_DIR": settings.runtime_dir}
    command = [sys.executable, "-m", "orchestrator.stack", "down"]
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, timeout=DEADLINE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"removed 1 containers\nremoved 1 session folders" in done.stdout
    nothing_left(settings, *sessions)
    with pytest.raises(SandboxDied):
        sandbox.run_code("x")
    sandbox.close()
    Path(settings.runtime_dir).mkdir(mode=0o700)  # it goes with the last session in it
