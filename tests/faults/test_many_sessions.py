"""Many sandboxes at once: as many as there may be, none that notices another's death, nothing left of any."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import AsyncSandbox, Config, Limits, Status
from orchestrator.errors import SandboxDied, TooManySandboxes
from orchestrator.sandbox.engine import engine
from tests.conftest import mine, none_of_mine
from tests.faults.inside import Inside, needs_root
from tests.faults.traces import Made, nothing_left
from tests.waiting import eventually

pytestmark = pytest.mark.docker

DEADLINE = 150.0  # seconds for one case
MOST = 5  # sandboxes at the same time, in the storm
OPENERS, TURNS = 12, 4
SMALL = Limits(memory="128m", disk="8m")


def case(body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(DEADLINE):
            await body()

    asyncio.run(main())


# -------------------------------------------------------------------------------------------------- open and close


def test_a_storm_of_openers_is_admitted_up_to_the_limit_and_leaves_nothing(quick: Config, sessions: list[Made]) -> None:
    config = replace(quick, max_sandboxes=MOST, limits=SMALL)
    before = Holdings()
    answers: list[object] = []

    async def open_and_close() -> None:
        for turn in range(TURNS):
            try:
                async with AsyncSandbox(config=config) as sandbox:
                    assert len(mine(config)) <= MOST
                    answers.append((await sandbox.run_code(f"{turn} + 1")).value == turn + 1)
            except TooManySandboxes:
                answers.append(None)

    case(lambda: asyncio.gather(*(open_and_close() for _ in range(OPENERS))))
    assert len(answers) == OPENERS * TURNS
    assert False not in answers
    assert answers.count(True) >= MOST
    assert answers.count(None) > 0
    assert len(sessions) == answers.count(True)  # who is refused costs the engine nothing
    assert mine(config) == []
    nothing_left(config, *sessions)
    eventually(lambda: before.exceeded_by() == [], lambda: "; ".join(before.exceeded_by()))


class Holdings:
    """What this process holds: descriptors and threads."""

    def __init__(self) -> None:
        self._threads = {thread.name for thread in threading.enumerate()}
        self._files = self._sockets_and_folders()

    @staticmethod
    def _sockets_and_folders() -> int:
        found = 0
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                found += os.readlink(f"/proc/self/fd/{name}").startswith(("socket:", "/run", "/tmp"))
        return found

    def exceeded_by(self) -> list[str]:
        """Connections to the engine are kept, one for each of its threads; so are the threads of gRPC and of these."""
        more = self._sockets_and_folders() - self._files
        extra = [f"{more} descriptors"] if more > MOST + 4 else []
        tools = [t.name for t in threading.enumerate() if t.name == "cellblock-tool"]
        return extra + tools


def test_whoever_was_refused_may_come_again(quick: Config, sessions: list[Made]) -> None:
    config = replace(quick, max_sandboxes=1)

    async def body() -> None:
        first, second = AsyncSandbox(config=config), AsyncSandbox(config=config)
        await first.start()
        with pytest.raises(TooManySandboxes, match="max_sandboxes"):
            await second.run_code("1")
        await first.reset()  # one goes, one comes
        await first.close()
        assert (await second.run_code("1 + 1")).value == 2
        await second.close()

    case(body)
    assert mine(config) == []
    nothing_left(config, *sessions)


# ---------------------------------------------------------------------------------------------- deaths of neighbours

TAKEOVER = """
import os, sys
channel = sys.stdout._send.__self__._channel
while True: channel.send(40, b"x" * 17)
"""
# How an executor, or what runs in it, comes to its end. The first two are killed from outside when they print.
DEATHS = {
    "supervisor killed": "print('go')\nwhile True: pass",
    "container killed": "print('go')\nwhile True: pass",
    "warden killed by the code": "import os, signal\nfor p in os.listdir('/proc'):\n"
    "    if p.isdigit() and int(p) != os.getpid():\n        try: os.kill(int(p), 9)\n        except OSError: pass\n"
    "while True: pass",
    "out of memory": "import mmap\nm = mmap.mmap(-1, 1 << 30)\nwhile m.write(b'x' * 65536): pass",
    "aborted": "import os; os.abort()",
    "fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "forged frames": TAKEOVER,
    "flood": "while True: print('x' * 65536)",
}
NEIGHBOURS = 6
WORK = """
total = 0
for step in range(20):
    total += double(step)
    with open('log', 'a') as log: log.write(f'{step}\\n')
total, open('log').read().count('\\n')
"""


@needs_root
def test_executors_that_die_in_every_way_disturb_no_other(quick: Config, sessions: list[Made]) -> None:
    config = replace(quick, limits=SMALL)

    async def double(x: int) -> int:
        await asyncio.sleep(0)
        return 2 * x

    async def neighbour() -> None:
        async with AsyncSandbox(config=config, tools=[double], timeout=DEADLINE) as sandbox:
            await all_ready.wait()
            for turn in (1, 2):
                execution = await sandbox.run_code(WORK)
                assert (execution.status, execution.value) == (Status.OK, (380, 20 * turn)), execution.error

    async def doomed(name: str, code: str) -> None:
        async with AsyncSandbox(config=config, authorized_imports=["*"], timeout=1.0) as sandbox:
            await all_ready.wait()
            with suppress(SandboxDied):
                await sandbox.run_code(code, on_stdout=killer(name, sandbox))

    def killer(name: str, sandbox: AsyncSandbox) -> Callable[[str], object]:
        assert sandbox._link
        found = sandbox._link.container.id
        deaths: dict[str, Callable[[str], object]] = {
            "supervisor killed": lambda _: os.kill(Inside(config, found).supervisor, signal.SIGKILL),
            "container killed": lambda _: engine(config).kill(found),
        }
        return deaths.get(name, lambda _: None)

    all_ready = asyncio.Barrier(NEIGHBOURS + len(DEATHS))
    case(
        lambda: asyncio.gather(*(neighbour() for _ in range(NEIGHBOURS)), *(doomed(*death) for death in DEATHS.items()))
    )
    none_of_mine(config)
    nothing_left(config, *sessions)


# ------------------------------------------------------------------------------------------------------- core dumps


# A child of the code's own: were it the code's process, its files would be gone with it, and a core file among them.
CRASHED = """
import os
if not (pid := os.fork()):
    open('mark', 'w').close()
    {crash}
status = os.waitpid(pid, 0)[1]
os.WTERMSIG(status), os.WCOREDUMP(status), sorted(os.listdir('.') + os.listdir('/tmp'))
"""


def test_a_crash_leaves_no_core_file(quick: Config) -> None:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()

    async def body() -> None:
        async with AsyncSandbox(config=quick, authorized_imports=["os", "resource"]) as sandbox:
            limits = await sandbox.run_code("import resource; resource.getrlimit(resource.RLIMIT_CORE)")
            assert limits.value == (1, 1)
            raised = await sandbox.run_code("resource.setrlimit(resource.RLIMIT_CORE, (1 << 30, 1 << 30))")
            assert raised.error
            for crash, signal_ in (("os.abort()", 6), ("os.kill(os.getpid(), 11)", 11), ("os.kill(os.getpid(), 6)", 6)):
                execution = await sandbox.run_code(CRASHED.format(crash=crash))
                assert execution.value == (signal_, False, ["mark"]), pattern

    case(body)
