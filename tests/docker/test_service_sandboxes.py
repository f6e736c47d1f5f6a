"""Sandboxes over the API where things go wrong: lost connections, lost clients, slow and hostile ones."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, aclosing, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from orchestrator_api.v1 import orchestrator_pb2 as pb
from orchestrator_api.v1 import orchestrator_pb2_grpc as stubs

from orchestrator import AsyncClient, Client, Config, Limits, Output, Sandbox, Status
from orchestrator.client.sandbox import RemoteSandbox
from orchestrator.client.sandbox_messages import KEY_METADATA
from orchestrator.errors import SandboxClosed, SandboxDied, ServiceUnavailable
from orchestrator.sandbox.grpc_quiet import grpc
from orchestrator.service import executions
from orchestrator.service.executions import MAX_UNREAD
from orchestrator.service.opening import MAX_STARTING
from tests.cutting import Cutting
from tests.serving import DEADLINE, Serving, somebody

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def serving(config: Config) -> Iterator[Serving]:
    made = Serving(replace(config, grace=10.0))  # enough for whatever hears an interrupt to end by itself
    yield made
    made.close()


@pytest.fixture
def proxy(serving: Serving, tmp_path: Path) -> Iterator[Cutting]:
    made = Cutting(tmp_path / "p.sock", serving.path)
    yield made
    made.after_request, made.bytes_of_answers = lambda data: False, None
    made.cut()


@pytest.fixture
def client(proxy: Cutting) -> Iterator[Client]:
    with Client(proxy.address) as made:
        yield made
        proxy.after_request, proxy.bytes_of_answers = lambda data: False, None


def remote(sandbox: Sandbox) -> RemoteSandbox:
    made = sandbox.asynchronous
    assert isinstance(made, RemoteSandbox)
    return made


# --------------------------------------------------------------------------------------------------- lost connections


def test_a_connection_that_is_cut_again_and_again_loses_and_repeats_no_event(client: Client, proxy: Cutting) -> None:
    seen: list[str] = []
    with client.sandbox(timeout=60) as one:
        one.run_code("runs = 0")
        proxy.bytes_of_answers = 20_000  # and ever more: each event has to come through whole at some time
        proxy.cut()
        code = "runs += 1\nfor i in range(20_000): print(i, flush=i % 500 == 0)\nruns"
        execution = one.run_code(code, on_stdout=seen.append)
        assert proxy.cuts > 3
        assert execution.value == 1
        assert "".join(seen) == execution.logs.stdout == "".join(f"{i}\n" for i in range(20_000))
        proxy.bytes_of_answers = None
        assert one.run_code("runs").value == 1


def test_a_request_whose_answer_is_lost_is_not_done_twice(serving: Serving, client: Client, proxy: Cutting) -> None:
    def once(marker: bytes) -> None:
        """Cuts the connection when a request with this in it has reached the service."""
        is_due = [True]

        def cut(data: bytes) -> bool:
            if marker in data and is_due[0]:
                is_due[0] = False
                return True
            return False

        proxy.after_request = cut

    once(b"marked-environment")
    with client.sandbox(env={"A": "marked-environment"}) as one:
        assert len(serving.held()) == 1
        once(b"marked_code")
        assert one.run_code("marked_code = globals().get('marked_code', 0) + 1; marked_code").value == 1
        once(b"marked-checkpoint")
        assert one.checkpoint("marked-checkpoint").name == "marked-checkpoint"
        assert [kept.name for kept in one.checkpoints].count("marked-checkpoint") == 1
        once(b"marked-file")
        one.files.write("marked-file", b"content")
        assert one.files.read("marked-file") == b"content"
        once(b"/orchestrator_api.v1.Sandboxes/Fork")
        with one.fork() as branch:
            assert len(serving.held()) == 2
            assert branch.run_code("marked_code").value == 1
    assert serving.held() == []
    assert proxy.cuts >= 4


def test_a_tool_is_called_once_whatever_becomes_of_the_connection(client: Client, proxy: Cutting) -> None:
    calls: list[int] = []

    def tell(i: int) -> int:
        calls.append(i)
        if i % 3 == 0:
            proxy.cut()  # it has the call, and its answer is lost
        return i * i

    with client.sandbox(tools=[tell], timeout=60) as one:
        proxy.bytes_of_answers = 1_500  # and in between, wherever it comes
        execution = one.run_code("[tell(i) for i in range(12)]")
        assert execution.value == [i * i for i in range(12)]
        assert calls == list(range(12))
        assert proxy.cuts > 4


def test_a_call_that_could_not_reach_the_app_reaches_it_later(client: Client, proxy: Cutting) -> None:
    calls: list[int] = []

    def tell(i: int) -> int:
        calls.append(i)
        return i

    def away(_: str) -> None:
        proxy.refuse()
        threading.Timer(1.0, proxy.resume).start()

    with client.sandbox(tools=[tell], timeout=60) as one:
        execution = one.run_code("import time\nprint('go', flush=True)\ntime.sleep(0.3)\ntell(7)", on_stdout=away)
        assert (execution.value, calls) == (7, [7])


def test_a_service_that_stays_away_is_told_after_the_clients_patience(proxy: Cutting) -> None:
    with Client(proxy.address, patience=0.5) as client:
        one = client.sandbox()
        one.start()
        with pytest.raises(ServiceUnavailable, match=r"has answered for 0\.5 s"):
            one.run_code("print('go', flush=True)\nwhile True: pass", on_stdout=lambda _: proxy.refuse())
        proxy.resume()
        client.asynchronous.connection.patience = DEADLINE
        one.close()


def test_an_app_that_is_gone_for_good_has_its_execution_interrupted_and_its_calls_failed(
    config: Config, tmp_path: Path, release: threading.Event
) -> None:
    called = threading.Event()

    def hang() -> None:
        called.set()
        release.wait(DEADLINE)

    serving = Serving(replace(config, grace=10.0), host_seconds=0.5)
    proxy = Cutting(tmp_path / "q.sock", serving.path)
    lost, watching = Client(proxy.address, patience=0.2), Client(serving.address)
    try:
        one = lost.sandbox(tools=[hang], timeout=DEADLINE)
        one.start()
        told: list[BaseException] = []

        def run() -> None:
            code = "told = ''\ntry: hang()\nexcept Exception as e: told = f'{type(e).__name__}: {e}'\nwhile True: pass"
            try:
                one.run_code(code)
            except ServiceUnavailable as error:
                told.append(error)

        running = threading.Thread(target=run)
        running.start()
        assert called.wait(DEADLINE)
        proxy.refuse()
        running.join(DEADLINE)
        assert [type(error) for error in told] == [ServiceUnavailable]
        (held,) = serving.held()
        deadline = time.monotonic() + DEADLINE
        while held.executions.under_way and time.monotonic() < deadline:
            threading.Event().wait(0.05)
        assert not held.executions.under_way, "nobody reads it, and it goes on"
        after = serving.run(held.sandbox.run_code("told"))
        assert "ToolUnavailable: the app that this function is of is gone; whether the call took" in after.value
    finally:
        release.set()
        watching.close()
        lost.close()
        serving.close()


def test_the_sandboxes_of_an_app_that_is_gone_for_good_are_closed(config: Config) -> None:
    serving = Serving(config, abandoned_seconds=0.5)
    app = (
        "import os, sys\nfrom orchestrator import Client\n"
        "one = Client(sys.argv[1]).sandbox()\none.run_code('x = 1')\none.fork()\nos.kill(os.getpid(), 9)"
    )
    try:
        with Client(serving.address) as client, client.sandbox() as mine:
            died = subprocess.run([sys.executable, "-c", app, serving.address], timeout=DEADLINE)
            assert died.returncode == -9
            deadline = time.monotonic() + DEADLINE
            while len(serving.held()) > 1 and time.monotonic() < deadline:
                threading.Event().wait(0.05)
            assert [held.id for held in serving.held()] == [remote(mine).id]
            assert mine.run_code("1").value == 1
    finally:
        serving.close()


def test_a_service_that_was_started_again_has_no_sandboxes_of_before(config: Config, tmp_path: Path) -> None:
    with ExitStack() as stack:
        second = Serving(config)
        stack.callback(second.close)
        with closing(Serving(config)) as first:
            proxy = Cutting(tmp_path / "r.sock", first.path)
            stack.callback(proxy.cut)
            one = stack.enter_context(Client(proxy.address)).sandbox()
            one.run_code("x = 1")
        proxy._target = second.path
        proxy.cut()
        with pytest.raises(SandboxDied, match="does not have this sandbox any more"):
            one.run_code("x")
        one.reset()
        assert one.run_code("'x' in globals()").value is False


# ------------------------------------------------------------------------------------------------- leaving, slow ones


def test_a_stream_that_is_left_early_stops_the_execution_and_keeps_the_state(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executions, "UNREAD_SECONDS", 3600.0)  # it has to be told, and not to find out

    async def leave() -> Any:
        async with AsyncClient(serving.address) as client, client.sandbox(timeout=DEADLINE) as one:
            async with aclosing(one.stream("kept = 1\nprint('go', flush=True)\nwhile True: pass")) as events:
                async for _ in events:
                    break
            return (await one.run_code("kept")).value

    assert asyncio.run(asyncio.wait_for(leave(), DEADLINE)) == 1


def test_a_start_that_is_cancelled_leaves_no_sandbox(serving: Serving) -> None:
    async def cancel() -> None:
        async with AsyncClient(serving.address) as client:
            await client.sandbox().close()
            starting = asyncio.create_task(client.sandbox().start())
            await asyncio.sleep(0.05)  # somewhere in the middle of it
            starting.cancel()
            await asyncio.wait({starting})
            assert starting.cancelled()

    asyncio.run(asyncio.wait_for(cancel(), DEADLINE))
    assert serving.held() == []


def test_the_code_waits_for_a_slow_reader_who_gets_all_of_it(serving: Serving) -> None:
    code = "for i in range(120): print(str(i % 10) * 100_000, flush=True)"

    async def read_slowly() -> tuple[int, str, Any]:
        texts: list[str] = []
        held_back = 0
        settings: dict[str, Any] = {"limits": Limits(output="32m"), "timeout": DEADLINE}
        async with AsyncClient(serving.address) as client, client.sandbox(**settings) as one:
            async for event in one.stream(code):
                if isinstance(event, Output):
                    texts.append(event.text)
                if len(texts) == 1:
                    await asyncio.sleep(1.5)  # long enough for all of it to be printed, if anybody took it
                    (held,) = serving.held()
                    (begun,) = held.executions._begun.values()
                    held_back = begun._unread
            return held_back, "".join(texts), event

    held_back, text, last = asyncio.run(asyncio.wait_for(read_slowly(), DEADLINE))
    assert text == "".join(str(i % 10) * 100_000 + "\n" for i in range(120))
    assert last.execution.logs.stdout == text
    assert held_back <= MAX_UNREAD + (1 << 20)


def test_tools_of_a_hundred_calls_at_once_are_each_answered(client: Client) -> None:
    def square(i: int) -> int:
        return i * i

    with client.sandbox(tools=[square], authorized_imports=["concurrent.*"]) as one:
        code = (
            "from concurrent.futures import ThreadPoolExecutor\n"
            "with ThreadPoolExecutor(16) as pool: done = list(pool.map(square, range(100)))\ndone"
        )
        execution = one.run_code(code)
        assert execution.value == [i * i for i in range(100)], execution.error


# --------------------------------------------------------------------------------------------------- hostile requests


class Raw:
    """The service, below the client."""

    def __init__(self, address: str) -> None:
        channel = grpc.insecure_channel(address)
        self.sandboxes, self.tools = stubs.SandboxesStub(channel), stubs.ToolsStub(channel)
        self.close = channel.close

    def asked(self, method: str, request: Any) -> Any:
        """All that is answered."""
        answer = getattr(self.sandboxes, method)(request, timeout=DEADLINE)
        return list(answer) if hasattr(answer, "__next__") else answer

    def refused(self, method: str, request: Any) -> tuple[grpc.StatusCode, str]:
        """Status and named error of a call that must fail."""
        with pytest.raises(grpc.RpcError) as caught:
            self.asked(method, request)
        error: Any = caught.value
        return error.code(), dict(error.trailing_metadata() or ()).get("cellblock-error", "")


@pytest.fixture
def raw(serving: Serving) -> Iterator[Raw]:
    made = Raw(serving.address)
    yield made
    made.close()


INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "ConfigError")
MISSING = (grpc.StatusCode.NOT_FOUND, "NotFound")


def test_requests_that_are_none_are_refused_and_harm_nobody(raw: Raw, serving: Serving, client: Client) -> None:
    with client.sandbox() as one:
        one.run_code("x = 1")
        id = remote(one).id
        for key in ("", "k" * 65, "with space", "ü", "a\nb"):
            assert raw.refused("Create", pb.CreateSandbox(key=key)) == INVALID, key
            assert raw.refused("Execute", pb.Execution(sandbox=id, key=key, code=b"x = 2")) == INVALID, key
            assert raw.refused("Checkpoint", pb.MakeCheckpoint(sandbox=id, key=key)) == INVALID, key
        execute = [
            pb.Execution(sandbox=id, key="k1", code=b"\xff\xfe"),
            pb.Execution(sandbox=id, key="k2", code=b"x", variables=b"\xff\xff\xff"),
            pb.Execution(sandbox=id, key="k3", code=b"x", timeout_seconds=float("nan")),
            pb.Execution(sandbox=id, key="k4", code=b"x", timeout_seconds=-1),
        ]
        for request in execute:
            assert raw.refused("Execute", request) == INVALID, request.key
        assert raw.refused("Rollback", pb.RollbackTo(sandbox=id, key="r1")) == INVALID
        assert raw.refused("DropCheckpoint", pb.Which(sandbox=id)) == INVALID
        assert raw.refused("Checkpoint", pb.MakeCheckpoint(sandbox=id, key="c", name="n" * 1_000_000))[1] == (
            "CheckpointError"
        )
        assert raw.refused("ReadFile", pb.FilePath(sandbox=id, path=b"p" * 1_000_000)) == INVALID
        assert raw.refused("WriteFile", iter([])) == INVALID
        later = pb.Execution(sandbox=id, key="later", code=b"x", after=7)
        assert raw.refused("Execute", later)[1] == "SandboxError"
        assert one.run_code("x").value == 1


def test_settings_that_cannot_be_are_refused(raw: Raw, serving: Serving) -> None:
    host = "0" * 32
    bad = [
        pb.CreateSandbox(authorized_imports=["os; import x"]),
        pb.CreateSandbox(limits=pb.Limits(memory="a lot")),
        pb.CreateSandbox(limits=pb.Limits(cpus=float("inf"))),
        pb.CreateSandbox(timeout_seconds=0),
        pb.CreateSandbox(env={"A=B": "c"}),
        pb.CreateSandbox(approve=True),
        pb.CreateSandbox(tools=[pb.ToolSpec(name="f")], tool_host="../../etc"),
    ]
    for place, request in enumerate(bad):
        request.key = f"bad{place}"
        assert raw.refused("Create", request) == INVALID, request
    tool = (grpc.StatusCode.INVALID_ARGUMENT, "ToolError")
    positional = pb.Parameter.KIND_POSITIONAL_OR_KEYWORD
    specs = [
        [pb.ToolSpec(name="not a name")],
        [pb.ToolSpec(name="__import__")],
        [pb.ToolSpec(name="n" * 300)],
        [pb.ToolSpec(name="f"), pb.ToolSpec(name="f")],
        [pb.ToolSpec(name=f"f{i}") for i in range(300)],
        [pb.ToolSpec(name="f", parameters=[pb.Parameter(name="a")])],
        [pb.ToolSpec(name="f", parameters=[pb.Parameter(name="a b", kind=positional)])],
        [pb.ToolSpec(name="f", parameters=[pb.Parameter(name="a", kind=positional)] * 2)],
        [pb.ToolSpec(name="f", parameters=[pb.Parameter(name=f"a{i}", kind=positional) for i in range(1000)])],
        [pb.ToolSpec(name="f", timeout_seconds=-1)],
        [pb.ToolSpec(name="f", timeout_seconds=float("nan"))],
    ]
    for place, tools in enumerate(specs):
        request = pb.CreateSandbox(key=f"tools{place}", tools=tools, tool_host=host)
        assert raw.refused("Create", request) == tool, tools[0]
    assert raw.refused("Create", pb.CreateSandbox(key="pool", pool="none")) == MISSING
    assert serving.held() == []


def test_a_sandbox_is_its_owners_alone(raw: Raw, serving: Serving, client: Client) -> None:
    with client.sandbox() as one:
        one.run_code("secret = 1")
        id = remote(one).id
        mine = serving.caller
        serving.caller = somebody("another")
        try:
            requests = {
                "Get": pb.SandboxId(id=id),
                "Close": pb.SandboxId(id=id),
                "Interrupt": pb.SandboxId(id=id),
                "Isolation": pb.SandboxId(id=id),
                "ListFiles": pb.SandboxId(id=id),
                "ListCheckpoints": pb.SandboxId(id=id),
                "Reset": pb.SandboxId(id=id),
                "Execute": pb.Execution(sandbox=id, key="k", code=b"secret"),
                "Checkpoint": pb.MakeCheckpoint(sandbox=id, key="k"),
                "Rollback": pb.RollbackTo(sandbox=id, key="k", before_last=True),
                "DropCheckpoint": pb.Which(sandbox=id, execution=1),
                "Fork": pb.ForkAt(sandbox=id, key="k"),
                "ReadFile": pb.FilePath(sandbox=id, path=b"a"),
                "WriteFile": iter([pb.FilePiece(sandbox=id, path=b"a")]),
            }
            for method, request in requests.items():
                assert raw.refused(method, request) == MISSING, method
            assert list(raw.sandboxes.List(pb.ListSandboxes(), timeout=DEADLINE).sandboxes) == []
        finally:
            serving.caller = mine
        assert one.run_code("secret").value == 1
        shown = raw.sandboxes.Get(pb.SandboxId(id=id), timeout=DEADLINE)
        assert (shown.state, shown.executions, shown.owner) == (pb.Sandbox.STATE_IDLE, 2, "local")
    assert raw.refused("Get", pb.SandboxId(id="0" * 32)) == MISSING
    assert raw.refused("Get", pb.SandboxId(id=id))[1] == SandboxClosed.__name__
    assert raw.sandboxes.Close(pb.SandboxId(id=id), timeout=DEADLINE) == pb.Done()


def test_a_key_stands_for_one_request(raw: Raw, client: Client) -> None:
    with client.sandbox() as one:
        id = remote(one).id
        events = list(raw.sandboxes.Execute(pb.Execution(sandbox=id, key="k", code=b"n = 1"), timeout=DEADLINE))
        again = list(raw.sandboxes.Execute(pb.Execution(sandbox=id, key="k", code=b"n = 1"), timeout=DEADLINE))
        assert events == again
        assert raw.refused("Execute", pb.Execution(sandbox=id, key="k", code=b"n = 2")) == INVALID
        raw.sandboxes.Checkpoint(pb.MakeCheckpoint(sandbox=id, key="k", name="a"), timeout=DEADLINE)
        assert raw.refused("Checkpoint", pb.MakeCheckpoint(sandbox=id, key="k", name="b")) == INVALID
        assert one.run_code("n").value == 1
        over = raw.refused("Execute", pb.Execution(sandbox=id, key="k", code=b"n = 1"))
        assert over == (grpc.StatusCode.FAILED_PRECONDITION, "SandboxError"), "it is over, and not run again"


def test_a_stream_of_tools_that_says_what_it_must_not_is_ended(raw: Raw) -> None:
    for messages in (
        [],
        [pb.FromApp()],
        [pb.FromApp(end=pb.CallEnd(call=1))],
        [pb.FromApp(opening=pb.Opening(host="not hexadecimal"))],
        [pb.FromApp(opening=pb.Opening(host="0" * 32))] * 2,
    ):
        with pytest.raises(grpc.RpcError) as caught:
            list(raw.tools.Serve(iter(messages), timeout=DEADLINE))
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_status_names_how_an_execution_ended(client: Client) -> None:
    with client.sandbox(timeout=0.3) as one:
        assert one.run_code("while True: pass").status is Status.TIMEOUT


# ------------------------------------------------------------------------------------------------- others are served


def test_resets_that_wait_for_a_busy_sandbox_keep_nobody_from_starting_another(config: Config) -> None:
    serving = Serving(config)

    async def resets(client: AsyncClient, id: str) -> list[asyncio.Task[Any]]:
        ask = client.connection.sandboxes
        metadata = [((KEY_METADATA, f"reset-{number}"),) for number in range(MAX_STARTING)]
        return [asyncio.create_task(ask("Reset", pb.SandboxId(id=id), metadata=one)) for one in metadata]

    async def ask() -> None:
        async with AsyncClient(serving.address) as client, AsyncClient(serving.address) as another:
            busy = client.sandbox()
            await busy.start()
            async with aclosing(busy.stream("print('on', flush=True)\nwhile True: pass")) as events:
                assert isinstance(await anext(events), Output)
                waiting = await resets(client, busy.id)
                await asyncio.sleep(0.5)  # for the service to have begun with them: nothing tells when it has
                serving.caller = somebody("another")
                async with asyncio.timeout(DEADLINE / 2), another.sandbox() as sandbox:
                    assert (await sandbox.run_code("1")).status is Status.OK
                serving.caller = somebody("local")
                assert not any(task.done() for task in waiting)
                for task in waiting:
                    task.cancel()
            await busy.close()

    try:
        asyncio.run(ask())
    finally:
        serving.close()
