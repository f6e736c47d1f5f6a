"""States in a container, seen from outside: what is stopped, what is let go, who may attach."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from executor_api.v1 import executor_pb2 as pb
from executor_api.v1 import executor_pb2_grpc

from orchestrator import AsyncSandbox, Config, Limits, Sandbox, State, Status
from orchestrator.sandbox.container import engine
from tests.conftest import mine

pytestmark = pytest.mark.docker
DEADLINE = 20.0  # seconds
HANG = "sum(range(10**12))"
TURNS = 40


@pytest.fixture
def box(config: Config) -> Iterator[Sandbox]:
    with Sandbox(authorized_imports=["os", "threading"], timeout=DEADLINE) as sandbox:
        sandbox.run_code("import os, threading")
        yield sandbox


def init_pid(config: Config) -> int:
    """The container's PID 1, as the host counts."""
    (container,) = mine(config)
    return int(engine(config).inspect_container(container.id)["State"]["Pid"])


def processes(config: Config) -> dict[int, str]:
    """Every process of the container but zombies, by the host's pid, with its state as ps writes it."""
    (container,) = mine(config)
    rows = engine(config).top(container.id, ps_args="-eo pid,stat")["Processes"]
    return {int(pid): state for pid, state in rows if not state.startswith("Z")}


def eventually(true: Callable[[], bool], failure: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < deadline, failure
        time.sleep(0.02)  # between two looks


def test_a_process_with_threads_is_stopped_between_executions_and_no_other_is(box: Sandbox, config: Config) -> None:
    assert not any(state.startswith("T") for state in processes(config).values())
    box.run_code("go = threading.Event()\nthread = threading.Thread(target=go.wait)\nthread.start()")
    eventually(lambda: sum(s.startswith("T") for s in processes(config).values()) == 1, "nothing is stopped")
    assert box.run_code("go.set(); thread.join(); 1").value == 1
    eventually(lambda: not any(s.startswith("T") for s in processes(config).values()), "something is still stopped")


def test_what_is_let_go_is_gone(box: Sandbox, config: Config) -> None:
    """Supervisor, warden, head and eight checkpoints, however much has happened."""
    for _ in range(TURNS):
        box.run_code("x = 1")
        box.undo()
        with box.fork() as branch:
            branch.run_code("x = 2")
    eventually(lambda: len(processes(config)) <= 1 + 1 + 1 + 8, "processes are left")
    eventually(lambda: not box.run_code("os.listdir('/branches')").value, "workspaces are left")


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
    eventually(lambda: len(list(descriptors.iterdir())) <= before + 3, "descriptors are left")


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
            assert branch.run_code(HANG, timeout=0.3).state is State.RESTORED
        assert box.run_code("x").value == 1


def test_processes_that_the_code_has_used_up_do_not_keep_the_state_from_coming_back(config: Config) -> None:
    with Sandbox(authorized_imports=["os", "time"]) as box:
        box.run_code("import os, time\nx = 1")
        bomb = "x = 2\nwhile True:\n    try:\n        if not os.fork(): time.sleep(600)\n    except OSError: pass"
        ended = box.run_code(bomb, timeout=0.5)
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
