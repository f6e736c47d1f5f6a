"""A container whose host has gone, and another host that comes for it: who may, what is there then, and what is not."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from executor_api.v1 import executor_pb2 as pb

from orchestrator import AsyncSandbox, Config, Limits, SandboxDied, SandboxStartError, Status
from orchestrator.errors import EngineUnavailable
from orchestrator.events import Output
from orchestrator.sandbox import folders
from orchestrator.sandbox.channel import PROTOCOL_VERSION, Channel
from orchestrator.sandbox.engine import is_running, remove_container
from orchestrator.sandbox.folders import TICKET, SessionFolder, own_runtime_dir, put
from orchestrator.sandbox.leftovers import collect_garbage, list_containers
from orchestrator.sandbox.lockdown import Owner
from orchestrator.sandbox.session import Session
from orchestrator.sandbox.ticket import Ticket, tickets
from tests.conftest import mine
from tests.docker.deaf import DEAF
from tests.unit.loops import in_loop

pytestmark = pytest.mark.docker
SECONDS = 60.0


def folder_of(sandbox: AsyncSandbox) -> Path:
    """Of its session."""
    return own_runtime_dir(Config.load()) / sandbox.name


def ticket_of(sandbox: AsyncSandbox) -> Ticket:
    """As another process would read it."""
    ticket = Ticket.read(folder_of(sandbox))
    assert ticket
    return ticket


async def lost(sandbox: AsyncSandbox) -> Ticket:
    """Its stream ends as it does when its process dies, which would do nothing about the container any more."""
    ticket, link = ticket_of(sandbox), sandbox._link
    assert link
    sandbox._link = None
    await link.channel.close()
    os.close(link.directory)
    return ticket


def with_one(test: Callable[[AsyncSandbox], Awaitable[None]], **settings: Any) -> None:
    """A sandbox that outlives its process; its container is removed."""

    async def main() -> None:
        sandbox = AsyncSandbox(**settings)
        sandbox.outlive("a note")
        await sandbox.start()
        try:
            await test(sandbox)
        finally:
            await sandbox.close()
            for container in mine(Config.load()):
                remove_container(Config.load(), container.id)
            for path in list(folders._sessions.values()):  # what was only said to be lost, is still counted
                SessionFolder(path).remove()

    in_loop(main(), SECONDS)


async def resumed(ticket: Ticket, **settings: Any) -> AsyncSandbox:
    """Another one that goes on with it."""
    sandbox = AsyncSandbox(**settings)
    sandbox.outlive("another note", ticket, or_new=False)
    await sandbox.start()
    assert sandbox.was_kept
    return sandbox


async def begun(sandbox: AsyncSandbox, code: str) -> asyncio.Task[None]:
    """Runs it until it has said something; then it goes on."""
    said = asyncio.Event()

    async def run() -> None:
        async for event in sandbox.stream(code, timeout=300):
            if isinstance(event, Output):
                said.set()

    task = asyncio.create_task(run())
    heard = asyncio.create_task(said.wait())
    await asyncio.wait((task, heard), return_when=asyncio.FIRST_COMPLETED)
    assert heard.done()
    return task


def test_its_ticket_is_for_its_user_alone_and_outside_of_the_container() -> None:
    async def test(sandbox: AsyncSandbox) -> None:
        found = (folder_of(sandbox) / TICKET).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o600, os.getuid())
        assert ticket_of(sandbox).note == "a note"
        assert tickets(Config.load()) == []  # it has an owner
        looked = await sandbox.run_code("import os\nsorted(os.listdir('/run'))")
        assert TICKET not in str(looked.value)

    with_one(test)


def test_everything_is_as_it_was_and_counts_go_on() -> None:
    async def test(sandbox: AsyncSandbox) -> None:
        await sandbox.run_code("x = object(); told = id(x)")
        kept = await sandbox.checkpoint("kept")
        await sandbox.run_code("del x")
        for turn in range(3):
            sandbox = await resumed(await lost(sandbox))
            assert sandbox.last_execution == 2 + turn
            execution = await sandbox.run_code("'x' in globals()")
            assert (execution.value, execution.execution_count) == (False, 3 + turn)
        assert (await sandbox.isolation()).complete
        await sandbox.rollback(kept)
        assert (await sandbox.run_code("id(x) == told")).value is True
        await sandbox.close()

    with_one(test)


@pytest.mark.parametrize(
    ("code", "after"),
    [
        ("n = 1\nprint('on')\nwhile True: pass", 1),
        ("n = 1\nwhile True: print('on' * 1000)", 1),
        ("n = 1\nwhile True: print('o', end='')", 1),
        (f"n = 1\n{DEAF}", 0),
        ("n = 1\nprint('on')\nimport os\nos.fork() or os.fork()\nwhile True: pass", 1),
        ("n = 1\nprint('on')\nwait_for_ever()", 1),
    ],
    ids=["a loop", "a flood", "many pieces", "it hears no interrupt", "it has forked", "a tool is under way"],
)
def test_what_ran_has_ended_before_anything_else_is_done(code: str, after: int) -> None:
    async def wait_for_ever() -> None:
        """Does not return."""
        await asyncio.Event().wait()

    async def test(sandbox: AsyncSandbox) -> None:
        await sandbox.run_code("n = 0")
        running = await begun(sandbox, code)
        ticket = await lost(sandbox)
        with pytest.raises(SandboxDied):
            await running
        second = await resumed(ticket, **settings)
        execution = await second.run_code("n")
        assert execution.status is Status.OK
        assert execution.value == after
        await second.close()

    patient = replace(Config.load(), grace=5.0)  # enough for what hears the interrupt to end by itself
    settings: dict[str, Any] = {"tools": [wait_for_ever], "authorized_imports": ["os"], "config": patient}
    with_one(test, **settings)


def test_it_has_one_host_at_a_time() -> None:
    async def test(sandbox: AsyncSandbox) -> None:
        await sandbox.run_code("x = 1")
        with pytest.raises(SandboxDied, match="has its host"):
            await asked(ticket_of(sandbox), ticket_of(sandbox).token)
        assert (await sandbox.run_code("x")).value == 1
        assert (await sandbox.fork()).is_running

    with_one(test)


def test_who_does_not_know_the_token_changes_nothing() -> None:
    async def test(sandbox: AsyncSandbox) -> None:
        await sandbox.run_code("x = 1")
        ticket = await lost(sandbox)
        for _ in range(3):
            with pytest.raises(SandboxStartError, match="does not know this session's token"):
                await asked(ticket, os.urandom(32))
            with pytest.raises(SandboxDied):
                await asked(ticket, os.urandom(32), believes=True)
        second = await resumed(ticket)
        assert (await second.run_code("x")).value == 1
        await second.close()

    with_one(test)


async def asked(ticket: Ticket, token: bytes, *, believes: bool = False) -> None:
    """Another connection to its socket; one that ``believes`` does not mind what the executor has proven."""
    directory = os.open(ticket.session.socket_dir, os.O_RDONLY | os.O_DIRECTORY)
    channel = Channel.connect(directory, Session(1 << 20))
    try:
        if not believes:
            await channel.resume(token)
            return
        channel.write(pb.HostMessage(hello=pb.Hello(protocol_version=PROTOCOL_VERSION)))
        await channel.read()
        channel.session.resume()
        channel.write(pb.HostMessage(resume=pb.Resume(proof=token)))
        await channel.read()
    finally:
        await channel.close()
        os.close(directory)


def test_a_host_that_is_lost_while_it_comes_ends_nothing() -> None:
    async def test(sandbox: AsyncSandbox) -> None:
        await sandbox.run_code("n = 0")
        running = await begun(sandbox, DEAF)
        ticket = await lost(sandbox)
        with pytest.raises(SandboxDied):
            await running
        for _ in range(2):
            with pytest.raises(TimeoutError):  # it is answered when that has been killed
                async with asyncio.timeout(0.05):
                    await asked(ticket, ticket.token)
        second = await resumed(ticket, config=patient)
        assert (await second.run_code("n")).value == 0
        await second.close()

    patient = replace(Config.load(), grace=10.0)  # longer than those two take
    with_one(test, config=patient)


def test_where_another_process_goes_on_with_it_nothing_happens_to_it() -> None:
    async def test(sandbox: AsyncSandbox) -> None:
        await sandbox.run_code("n = 1")
        ticket = await lost(sandbox)
        put(Path(ticket.session.socket_dir).parent / "owner", str(Owner.of(os.getppid())))
        other = AsyncSandbox()
        other.outlive("a note", ticket, or_new=False)
        with pytest.raises(SandboxStartError, match="another process goes on with"):
            await other.start()
        with pytest.raises(SandboxDied):  # it is not another one then, unasked
            await other.run_code("1")
        await other.close()
        put(Path(ticket.session.socket_dir).parent / "owner", str(Owner.me()))
        second = await resumed(ticket)
        assert (await second.run_code("n")).value == 1
        await second.close()

    with_one(test)


def test_the_note_of_who_goes_on_with_it_is_for_the_next_one() -> None:
    async def test(sandbox: AsyncSandbox) -> None:
        second = await resumed(await lost(sandbox))
        assert ticket_of(second).note == "another note"
        await second.close()

    with_one(test)


def test_one_that_waits_is_left_where_it_is_whatever_engine_is_asked(tmp_path: Path) -> None:
    async def test(sandbox: AsyncSandbox) -> None:
        await sandbox.run_code("n = 1")
        ticket = await lost(sandbox)
        folder = Path(ticket.session.socket_dir).parent
        put(folder / "owner", dead_owner())
        away = replace(Config.load(), docker_host=f"unix://{tmp_path}/away.sock")
        with pytest.raises(EngineUnavailable):
            collect_garbage(away)
        assert [found.container for found in tickets(Config.load())] == [ticket.container]
        collect_garbage(Config.load())
        second = await resumed(ticket)
        assert (await second.run_code("n")).value == 1
        await second.close()
        assert not folder.exists()

    with_one(test)


def dead_owner() -> str:
    """Of a process that has ended."""
    with subprocess.Popen(["true"], stdout=subprocess.DEVNULL) as process:
        owner = Owner.of(process.pid)
    return str(owner) if owner else f"{process.pid}:1:{Owner.me().boot}:{Owner.me().namespace}"


def test_what_has_a_ticket_and_no_container_is_garbage() -> None:
    async def test(sandbox: AsyncSandbox) -> None:
        ticket = await lost(sandbox)
        folder = Path(ticket.session.socket_dir).parent
        remove_container(Config.load(), ticket.container)
        put(folder / "owner", dead_owner())
        collect_garbage(Config.load())
        assert not folder.exists()

    with_one(test)


def test_one_that_was_made_and_never_ran_is_garbage() -> None:
    """Its process was killed between the two. Whoever collects garbage first, removes it."""
    program = (
        "import asyncio, os, docker\n"
        "from orchestrator import AsyncSandbox\n"
        "def start(client, container, **more):\n"
        "    print(container, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "docker.APIClient.start = start\n"
        "sandbox = AsyncSandbox()\n"
        "sandbox.outlive('a note')\n"
        "asyncio.run(sandbox.start())\n"
    )
    died = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert died.returncode == -signal.SIGKILL
    collect_garbage(Config.load())
    assert died.stdout.strip() not in {found.id for found in list_containers(Config.load())}


def test_a_process_that_ends_without_closing_it_leaves_it_for_the_next() -> None:
    program = (
        "import asyncio\n"
        "from orchestrator import AsyncSandbox\n"
        "async def main():\n"
        "    sandbox = AsyncSandbox()\n"
        "    sandbox.outlive('left at the exit')\n"
        "    await sandbox.start()\n"
        "    await sandbox.run_code('n = 1')\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", program], timeout=SECONDS, check=True)
    (ticket,) = [found for found in tickets(Config.load()) if found.note == "left at the exit"]

    async def main() -> None:
        sandbox = await resumed(ticket)
        assert (await sandbox.run_code("n")).value == 1
        await sandbox.close()

    in_loop(main(), SECONDS)


def test_a_close_ends_it_though_the_engine_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(sandbox: AsyncSandbox) -> None:
        link = sandbox._link
        assert link
        monkeypatch.setattr("orchestrator.sandbox.container.remove_container", lambda *_: False)
        await sandbox.close()
        while await asyncio.to_thread(is_running, Config.load(), link.container.id):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)

    with_one(test)


def test_one_that_was_not_said_to_outlive_its_host_does_not() -> None:
    async def main() -> None:
        async with AsyncSandbox() as sandbox:
            assert sandbox._link
            container = sandbox._link.container
            assert Ticket.read(folder_of(sandbox)) is None
            await sandbox._link.channel.close()
            while await asyncio.to_thread(is_running, Config.load(), container.id):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0)

    in_loop(main(), SECONDS)


def test_other_settings_are_refused_and_it_is_gone() -> None:
    async def test(sandbox: AsyncSandbox) -> None:
        ticket = await lost(sandbox)
        with pytest.raises(SandboxStartError, match="other settings"):
            await resumed(ticket, authorized_imports=["wave"])
        assert ticket.container not in [found.id for found in list_containers(Config.load())]

    with_one(test)


@pytest.mark.parametrize("change", [Limits(memory="256m"), Limits(cpus=0.5)], ids=repr)
def test_other_limits_are_other_settings(change: Limits) -> None:
    async def test(sandbox: AsyncSandbox) -> None:
        with pytest.raises(SandboxStartError, match="other settings"):
            await resumed(await lost(sandbox), limits=change)

    with_one(test)


def test_where_a_new_one_will_do_there_is_a_new_one() -> None:
    async def test(sandbox: AsyncSandbox) -> None:
        await sandbox.run_code("x = 1")
        another = AsyncSandbox(timeout=29)
        another.outlive("a note", replace(await lost(sandbox), token=os.urandom(32)))
        async with another:
            assert not another.was_kept
            assert (await another.run_code("'x' in globals()")).value is False
            assert ticket_of(another).note == "a note"

    with_one(test)


def test_one_that_has_been_reset_is_waited_for_as_well() -> None:
    async def test(sandbox: AsyncSandbox) -> None:
        await sandbox.reset()
        await sandbox.run_code("x = 2")
        second = await resumed(await lost(sandbox))
        assert (await second.run_code("x")).value == 2
        await second.reset()
        assert not second.was_kept
        await second.close()

    with_one(test)


def test_threads_that_the_code_has_left_are_told_of() -> None:
    async def test(sandbox: AsyncSandbox) -> None:
        await sandbox.run_code("import threading\nend = threading.Event()\nthreading.Thread(target=end.wait).start()")
        second = await resumed(await lost(sandbox), authorized_imports=["threading"])
        assert not second.forkable
        await second.run_code("end.set()")
        await second.close()

    with_one(test, authorized_imports=["threading"])


def test_a_ticket_that_is_none_is_nobodys(tmp_path: Path) -> None:
    config = Config(runtime_dir=str(tmp_path / "run"))
    folder = own_runtime_dir(config) / ("a" * 16)
    folder.mkdir(mode=0o700)
    assert tickets(config) == []
    for text in ("", "{", "[]", "{}", '{"session": {"id": "x"}}', "[" * 100_000):
        (folder / TICKET).write_text(text)
        assert tickets(config) == []
