"""States in a container, seen from outside: what is stopped, what is let go, who may attach."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from executor_api.v1 import executor_pb2 as pb
from executor_api.v1 import executor_pb2_grpc

from orchestrator import AsyncSandbox, Config, Limits, Sandbox, State, Status
from orchestrator.errors import CheckpointError, SandboxDied
from orchestrator.sandbox.engine import engine
from tests.conftest import mine, processes_of_each
from tests.docker.deaf import timed_out
from tests.waiting import eventually

pytestmark = pytest.mark.docker
DEADLINE = 20.0  # seconds
TURNS = 40


IMPORTS = ["os", "signal", "socket", "struct", "sys", "threading"]


@pytest.fixture
def box(config: Config) -> Iterator[Sandbox]:
    with Sandbox(authorized_imports=IMPORTS, timeout=DEADLINE) as sandbox:
        sandbox.run_code("import os, threading")
        yield sandbox


@pytest.fixture
def unconfined_box(unconfined: Config) -> Iterator[Sandbox]:
    """Without Landlock, so that code can do something to the warden."""
    with Sandbox(authorized_imports=IMPORTS, timeout=DEADLINE, config=unconfined) as sandbox:
        yield sandbox


def init_pid(config: Config) -> int:
    """The container's PID 1, as the host counts."""
    (container,) = mine(config)
    return int(engine(config).inspect_container(container.id)["State"]["Pid"])


def processes(config: Config) -> dict[int, str]:
    """Every process of the one container."""
    (found,) = processes_of_each(config)
    return found


def stopped(config: Config) -> int:
    """How many of the container's processes are stopped."""
    return sum(state.startswith("T") for state in processes(config).values())


def test_every_process_that_could_run_the_codes_is_stopped_between_executions(box: Sandbox, config: Config) -> None:
    """All but the supervisor and the warden; and what is asked for goes on."""
    eventually(lambda: stopped(config) == len(processes(config)) - 2, "not all is stopped", DEADLINE)
    with box.fork() as branch:
        branch.run_code("x = 2")
        eventually(lambda: stopped(config) == len(processes(config)) - 2, "not all is stopped", DEADLINE)
        assert box.files.list() == branch.files.list() == []
        assert branch.run_code("x").value == 2
    eventually(lambda: stopped(config) == len(processes(config)) - 2, "not all is stopped", DEADLINE)
    assert [c.execution_count for c in box.checkpoints] == [0, 1]
    eventually(lambda: stopped(config) == len(processes(config)) - 2, "not all is stopped", DEADLINE)
    box.rollback(0)
    assert box.run_code("'os' in globals()").value is False


def test_what_is_let_go_while_it_is_stopped_is_gone_too(box: Sandbox, config: Config) -> None:
    for i in range(9):
        box.run_code(f"x = {i}")
    eventually(lambda: stopped(config) == 1 + 8, "not all is stopped", DEADLINE)
    for i in range(9):
        box.run_code(f"x = {i}")
    eventually(lambda: len(processes(config)) == 1 + 1 + 1 + 8, "processes are left", DEADLINE)


FORGED = """
import os, socket, struct, sys, time
open('/tmp/ticks', 'w').close()
frames = sys.modules['executor_image.frames']
frame = sys._getframe()
while 'nonce' not in frame.f_locals: frame = frame.f_back
sock = frame.f_locals['self']._channel._sock
sock.sendall(frames.pack(frames.RESULT, frames.RESULT_HEAD.pack(frame.f_locals['nonce'], 0), b''))
data = sock.recv(65536)
number, kind = frames.FORK_BODY.unpack(data[5:10])
sock.sendall(frames.pack(frames.FORKED, frames.FORKED_BODY.pack(number, os.getpid(), 1)))
while True:
    with open('/tmp/ticks', 'a') as file: file.write('x')
    time.sleep(0.01)
"""


def test_code_that_forges_its_own_end_does_not_go_on_either(box: Sandbox, config: Config) -> None:
    """It answers for the process that it is, which it can; what it cannot is run when nobody asked for anything."""
    assert box.run_code(FORGED).state is State.KEPT
    ticks = Path(f"/proc/{init_pid(config)}/root/tmp/ticks")
    eventually(lambda: stopped(config) == len(processes(config)) - 2, "not all is stopped", DEADLINE)
    before = len(ticks.read_text())
    time.sleep(0.3)  # what is waited for is that nothing happens
    assert len(ticks.read_text()) == before


def test_a_frame_too_many_from_a_checkpoint_costs_that_checkpoint_alone(box: Sandbox) -> None:
    code = """
import os, sys
generation = sys.modules['executor_image.runner.generation']
frames, original, me = generation.frames, generation._fork_child, os.getpid()
def fork_child():
    if os.getpid() == me: return original()
    frame = sys._getframe(1)
    forked = frames.pack(frames.FORKED, frames.FORKED_BODY.pack(frame.f_locals['number'], -1, 1))
    frame.f_locals['self']._channel._sock.sendall(forked + frames.pack(frames.STDOUT, b'x'))
    while True: pass
generation._fork_child = fork_child
"""
    with box.fork() as other:
        other.run_code("precious = 1")
        box.run_code(code)
        box.run_code("1")
        with pytest.raises(CheckpointError):
            box.rollback(2)
        assert other.run_code("precious").value == 1


NATIVE = """
import os
warden = min(int(p) for p in os.listdir('/proc') if p.isdigit() and int(p) > 1
             and b'launcher' in open(f'/proc/{p}/cmdline', 'rb').read())
"""


def test_a_branch_that_kills_the_warden_ends_the_container_and_not_only_itself(
    unconfined_box: Sandbox, config: Config
) -> None:
    """It cannot be stopped any more but by the end of all."""
    box = unconfined_box
    branch = box.fork()
    ended = branch.run_code(f"{NATIVE}os.kill(warden, 9)\nwhile True: pass", timeout=DEADLINE)
    assert (ended.status, ended.state) == (Status.DIED, State.LOST)
    branch.close()
    eventually(lambda: not mine(config), "the container goes on, and the code in it", DEADLINE)
    with pytest.raises(SandboxDied):
        box.run_code("1")
    box.reset()
    assert box.run_code("1").ok


def test_a_stopped_warden_is_noticed_while_nobody_asks_for_anything(unconfined_box: Sandbox, config: Config) -> None:
    unconfined_box.run_code(f"{NATIVE}import signal; os.kill(warden, signal.SIGSTOP)")
    eventually(lambda: not mine(config), "the container goes on without a watch", DEADLINE)


def test_what_is_let_go_is_gone(box: Sandbox, config: Config) -> None:
    """Supervisor, warden, head and eight checkpoints, however much has happened."""
    for _ in range(TURNS):
        box.run_code("x = 1")
        box.undo()
        with box.fork() as branch:
            branch.run_code("x = 2")
    eventually(lambda: len(processes(config)) <= 1 + 1 + 1 + 8, "processes are left", DEADLINE)
    eventually(lambda: not box.run_code("os.listdir('/branches')").value, "workspaces are left", DEADLINE)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to see the supervisor's descriptors")
def test_the_supervisor_keeps_no_descriptor_of_what_is_gone(box: Sandbox, config: Config) -> None:
    descriptors = Path(f"/proc/{init_pid(config)}/fd")

    def turn() -> None:
        box.run_code("x = 1")
        box.checkpoint("name")
        box.run_code("import os; os._exit(1)")
        box.rollback("name")
        box.drop("name")
        with box.fork() as branch:
            branch.run_code("x = 2")

    for _ in range(10):
        turn()
    before = len(list(descriptors.iterdir()))
    for _ in range(TURNS):
        turn()
    eventually(lambda: len(list(descriptors.iterdir())) <= before + 3, "descriptors are left", DEADLINE)


def test_states_take_nothing_from_what_the_code_may_start(config: Config) -> None:
    code = """
import threading
go = threading.Event()
threads = [threading.Thread(target=go.wait) for _ in range(40)]
for thread in threads: thread.start()
go.set()
for thread in threads: thread.join()
len(threads)
"""
    with Sandbox(authorized_imports=["threading"], limits=Limits(pids=64)) as box:
        for i in range(10):
            box.run_code(f"x = {i}")
        with box.fork() as branch:
            assert (box.run_code(code).value, branch.run_code(code).value) == (40, 40)


def test_the_fewest_processes_there_may_be_are_enough(config: Config) -> None:
    with Sandbox(limits=Limits(pids=24, checkpoints=1)) as box:
        box.run_code("x = 1")
        with box.fork() as branch:
            branch.run_code("x = 2")
            assert timed_out(branch).state is State.RESTORED
        assert box.run_code("x").value == 1


def test_processes_that_the_code_has_used_up_do_not_keep_the_state_from_coming_back(config: Config) -> None:
    with Sandbox(authorized_imports=["os", "time"]) as box:
        box.run_code("import os, time\nx = 1")
        bomb = "x = 2\nwhile True:\n    try:\n        if not os.fork(): time.sleep(600)\n    except OSError: pass"
        ended = box.run_code(bomb, timeout=3)
        assert ended.status is Status.TIMEOUT
        assert box.run_code("x").value == (2 if ended.state is State.KEPT else 1)
        box.checkpoint("after the bomb")


@pytest.mark.parametrize("secret", [b"", b"x" * 32])
def test_nobody_attaches_to_a_branch_without_its_secret(config: Config, secret: bytes) -> None:
    async def attach() -> tuple[object, object]:
        async with AsyncSandbox() as box:
            branch = await box.fork()
            assert box._link is not None
            refused = await first_answer(box._link.channel, pb.Attach(branch=1, secret=secret))
            return refused, (await branch.run_code("1 + 1")).value

    assert asyncio.run(asyncio.wait_for(attach(), DEADLINE)) == (grpc.StatusCode.FAILED_PRECONDITION, 2)


def test_a_second_stream_that_says_hello_is_refused(config: Config) -> None:
    async def hello() -> object:
        async with AsyncSandbox() as box:
            assert box._link is not None
            return await first_answer(box._link.channel, None)

    assert asyncio.run(asyncio.wait_for(hello(), DEADLINE)) == grpc.StatusCode.FAILED_PRECONDITION


async def first_answer(channel: Any, attach: pb.Attach | None) -> object:
    """What a further stream on the same connection is told first: a message's kind, or the status it ends with."""
    stub: Any = executor_pb2_grpc.ExecutorStub(channel._channel)
    call = stub.Session()
    try:
        message = pb.HostMessage(attach=attach) if attach else pb.HostMessage(hello=pb.Hello(protocol_version=1))
        await call.write(message)
        answer = await call.read()
        return answer.WhichOneof("kind") if answer is not grpc.aio.EOF else await call.code()
    except grpc.aio.AioRpcError as error:
        return error.code()


def test_what_a_thread_starts_until_it_is_stopped_is_found(config: Config) -> None:
    """It is looked for strays once nothing runs any more that could start some."""
    starts = """
import os, threading, time
def start_processes():
    while True:
        try:
            if os.fork() == 0: time.sleep(600)
        except OSError: time.sleep(0.01)  # there may be no more of them
        time.sleep(0.0003)
threading.Thread(target=start_processes, daemon=True).start()
time.sleep(0.01)
"""
    with (
        Sandbox(authorized_imports=["os", "threading", "time"], limits=Limits(checkpoints=1)) as box,
        box.fork() as branch,
    ):
        for _ in range(10):
            assert branch.run_code(starts).status is Status.OK
            assert not branch.forkable
            assert branch.checkpoints  # is answered when it has been looked for strays
            # supervisor, warden, two heads, and each has at most two states, one of which may just be let go
            assert len(processes(config)) <= 2 + 2 + 2 * 2
            branch.rollback(0)
