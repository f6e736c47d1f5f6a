"""A part of the executor that is killed from outside: one terminal result or a death told as one, and no code twice."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from orchestrator import AsyncSandbox, Config, Execution, State, Status
from orchestrator.errors import SandboxDied
from orchestrator.events import Finished
from tests.conftest import mine
from tests.faults.inside import Inside, needs_root
from tests.waiting import eventually

pytestmark = [pytest.mark.docker, needs_root]

DEADLINE = 100.0  # seconds for one case
PARTS = ("supervisor", "head", "warden", "checkpoint")
TURNS = {"supervisor": 6, "head": 16, "warden": 4, "checkpoint": 16}  # where there has to be a new container, fewer
# Seen from outside: the tool counts how often it is called, and with which number.
CODE = "mark({number})\nprint('go')\nwhile True: pass"
SHORT = "mark({number})\nfor _ in range(200_000): pass\n{number}"


@dataclass
class Told:
    """What a caller was told of one execution."""

    results: list[Execution] = field(default_factory=list)
    death: SandboxDied | None = None

    @property
    def result(self) -> Execution:
        (result,) = self.results
        return result


class Watched:
    """A sandbox whose executions are counted from outside."""

    def __init__(self, config: Config) -> None:
        self.marks: list[int] = []
        self.config = config
        self.sandbox = AsyncSandbox(config=config, tools=[self.mark], authorized_imports=["os"], timeout=2.0)
        self.head = 0
        self.in_call: Callable[[], object] = lambda: None

    @property
    def mark(self) -> Callable[[int], None]:
        def mark(number: int) -> None:
            self.marks.append(number)
            self.in_call()

        return mark

    async def begin(self) -> None:
        await self.sandbox.start()
        await self.look()

    async def look(self) -> None:
        """Its processes, as they are now."""
        # One that is replaced may still be removed in the background.
        await asyncio.to_thread(eventually, lambda: len(mine(self.config)) == 1, "there is not one container")
        (container,) = mine(self.config)
        self.inside = Inside(self.config, container.id)
        self.head = (await self.sandbox.run_code("import os; os.getpid()")).value

    def kill(self, who: str, number: int = signal.SIGKILL) -> None:
        with suppress(OSError, IndexError, ValueError, StopIteration):  # it is gone already
            self.inside.kill(who, self.head, number)

    async def run(self, code: str, on_output: Callable[[], object] = lambda: None) -> Told:
        """One execution, every event of it looked at."""
        told = Told()
        try:
            async for event in self.sandbox.stream(code):
                assert not told.results, f"{event} after the end"
                match event:
                    case Finished(execution):
                        told.results.append(execution)
                    case _ if type(event).__name__ == "Output":
                        on_output()
        except SandboxDied as death:
            told.death = death
        assert len(told.results) + (told.death is not None) == 1, told
        return told


def case(config: Config, body: Callable[[Watched], Any]) -> None:
    """Runs it with a sandbox that is there, within a deadline; nothing is left of it."""

    async def main() -> None:
        watched = Watched(config)
        async with asyncio.timeout(DEADLINE):
            try:
                await watched.begin()
                await body(watched)
            finally:
                await watched.sandbox.close()

    asyncio.run(main())
    eventually(lambda: mine(config) == [], "a container outlived its sandbox")


async def works_again(watched: Watched, times: list[int]) -> None:
    """The next executions do what they should, in a new container where that is needed, and nothing is run again."""
    with suppress(SandboxDied):
        await watched.sandbox.run_code("mark(100)")
    begun = watched.marks[len(times) :]
    if watched.sandbox.is_running:
        assert begun == [100]
        return
    assert begun in ([], [100])  # it may have come so far before the death of before was noticed
    await watched.sandbox.reset()
    await watched.sandbox.run_code("mark(101)")
    assert watched.marks == [*times, *begun, 101]


@pytest.mark.parametrize("part", PARTS)
def test_killed_while_code_runs(part: str, quick: Config) -> None:
    async def body(watched: Watched) -> None:
        told = await watched.run(CODE.format(number=1), lambda: watched.kill(part))
        assert watched.marks == [1]
        if part == "supervisor":
            assert told.death
        else:
            expected = {
                "head": {(Status.DIED, State.RESTORED)},
                "warden": {(Status.DIED, State.LOST)},
                "checkpoint": {(Status.TIMEOUT, State.KEPT)},
            }
            assert (told.result.status, told.result.state) in expected[part]
        await works_again(watched, [1])

    case(replace(quick, grace=5.0), body)  # enough for the code to hear that its time is over, and be kept


@pytest.mark.parametrize("part", PARTS)
def test_killed_while_a_tool_runs(part: str, quick: Config) -> None:
    async def body(watched: Watched) -> None:
        watched.in_call = lambda: watched.kill(part)
        told = await watched.run("mark(1)\n'on'")
        watched.in_call = lambda: None
        assert watched.marks == [1]
        assert bool(told.death) == (part == "supervisor")
        if part == "head":
            assert (told.result.status, told.result.state) == (Status.DIED, State.RESTORED)
        await works_again(watched, [1])

    case(quick, body)


@pytest.mark.parametrize("part", PARTS)
def test_killed_while_nothing_runs(part: str, quick: Config) -> None:
    async def body(watched: Watched) -> None:
        await watched.sandbox.run_code("x = 5\nmark(1)")
        await watched.sandbox.checkpoints()  # one has been made by now
        watched.kill(part)
        told = await watched.run("mark(2)\nx")
        if told.death or told.result.status is Status.DIED:  # the kill was noticed after the code had been sent
            assert part in ("supervisor", "warden", "head")
            assert watched.marks in ([1], [1, 2])  # at most once: it had begun, or it had not
        else:
            assert (told.result.value, watched.marks) == (5, [1, 2])
        await works_again(watched, list(watched.marks))

    case(quick, body)


@pytest.mark.parametrize("part", PARTS)
def test_killed_at_any_moment(part: str, quick: Config) -> None:
    """Around the beginning and the end of an execution, too, where a result may be on its way."""
    chance = random.Random(part)

    async def body(watched: Watched) -> None:
        for number in range(TURNS[part]):
            watched.marks.clear()
            killer = threading.Timer(chance.uniform(0, 0.03), watched.kill, [part])
            killer.start()
            told = await watched.run(SHORT.format(number=number))
            killer.join()
            assert watched.marks in ([], [number])
            if told.results and told.result.ok:
                assert (told.result.value, watched.marks) == (number, [number])
            with suppress(SandboxDied):  # what the kill came too late for
                await watched.sandbox.run_code("1")
            if not watched.sandbox.is_running:
                await watched.sandbox.reset()
            await watched.look()

    case(quick, body)


@pytest.mark.parametrize("operation", ["write", "read", "checkpoint", "rollback", "fork", "checkpoints"])
def test_a_supervisor_killed_during_another_request_is_told_as_dead(operation: str, quick: Config) -> None:
    async def body(watched: Watched) -> None:
        sandbox = watched.sandbox
        await sandbox.files.write("file", bytes(1000))
        await sandbox.checkpoint("here")
        requests: dict[str, Callable[[], Any]] = {
            "write": lambda: sandbox.files.write("file", bytes(8 << 20)),
            "read": lambda: sandbox.files.read("file"),
            "checkpoint": lambda: sandbox.checkpoint("there"),
            "rollback": lambda: sandbox.rollback("here"),
            "fork": sandbox.fork,
            "checkpoints": sandbox.checkpoints,
        }
        os.kill(watched.inside.supervisor, signal.SIGSTOP)  # what it is asked now it never answers
        asking = asyncio.ensure_future(requests[operation]())
        await asyncio.sleep(0)
        watched.kill("supervisor")
        with pytest.raises(SandboxDied):
            await asking
        await works_again(watched, [])

    case(quick, body)


def test_a_head_whose_death_is_noticed_between_two_executions_loses_nothing(quick: Config) -> None:
    async def body(watched: Watched) -> None:
        await watched.sandbox.run_code("x = [1, 2]\nopen('file', 'w').write('kept')")
        assert (await watched.sandbox.checkpoints())[-1].is_current
        head = watched.inside.pid_of("head", watched.head)
        os.kill(head, signal.SIGKILL)
        await asyncio.to_thread(eventually, lambda: not os.path.exists(f"/proc/{head}"), "nobody asks how it ended")
        assert (await watched.sandbox.run_code("x, open('file').read()")).value == ([1, 2], "kept")

    case(quick, body)


def test_a_supervisor_that_is_stopped_is_given_up_after_a_while(quick: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.sandbox.sandbox.HOST_MARGIN", 0.5)

    async def body(watched: Watched) -> None:
        told = await watched.run(CODE.format(number=1), lambda: watched.kill("supervisor", signal.SIGSTOP))
        assert told.death
        await works_again(watched, [1])

    case(quick, body)
