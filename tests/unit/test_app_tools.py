"""Functions of an app, called by the service over the app's own stream: real ones, on a unix socket."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from orchestrator_api.v1 import orchestrator_pb2 as pb
from orchestrator_api.v1 import orchestrator_pb2_grpc as stubs

from orchestrator import ExecutionRequest, ToolCallRequest, Verdict
from orchestrator.client.connection import AsyncConnection
from orchestrator.client.tools import Served, ToolStream, specs_of
from orchestrator.config import Config
from orchestrator.errors import ToolError, ToolUnavailable
from orchestrator.sandbox.approval import Approver
from orchestrator.sandbox.grants import HostTool, HostTools
from orchestrator.sandbox.grpc_quiet import grpc
from orchestrator.service.app_tools import AppTool, Hosts, Place, Tools, place
from orchestrator.service.failures import Failures
from tests.cutting import Cutting

DEADLINE = 20.0  # seconds for anything that is waited for
whose: contextvars.ContextVar[str] = contextvars.ContextVar("whose", default="nobody's")


@dataclass
class Both:
    """An app's end and the service's."""

    hosts: Hosts
    connection: AsyncConnection
    proxy: Cutting
    stream: ToolStream

    def functions(self, *tools: Callable[..., Any], approve: Any = None) -> dict[str, AppTool]:
        granted = HostTools(tools, Config())
        self.stream.sandboxes["box"] = Served(granted, Approver(approve, DEADLINE))
        made = self.hosts.tools("me", self.stream.host, specs_of(granted))
        return {tool.name: tool for tool in made}


@asynccontextmanager
async def both(tmp_path: Path, host_seconds: float = 15.0) -> AsyncIterator[Both]:
    hosts = Hosts(host_seconds)
    server = grpc.aio.server(interceptors=(Failures(),))
    stubs.add_ToolsServicer_to_server(Tools(hosts, lambda: "me"), server)
    server.add_insecure_port(f"unix:{tmp_path}/s")
    await server.start()
    proxy = Cutting(tmp_path / "p", tmp_path / "s")
    connection = AsyncConnection(proxy.address, patience=DEADLINE)
    place.set(Place(sandbox="box"))
    try:
        stream = await connection.tools.open()
        hosts.host("me", stream.host).users += 1  # as a sandbox has it
        yield Both(hosts, connection, proxy, stream)
    finally:
        await connection.close()
        proxy.cut()
        hosts.close()
        await server.stop(None)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, DEADLINE))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - what is waited for is not the test's own
            await asyncio.sleep(0.01)


def describe(a: int, /, b: list[str], *args: int, c: Any = (1, "x"), client: Any = object(), **kwargs: Any) -> str:  # noqa: B008
    """Says what it was given."""
    return repr((a, b, args, c, sorted(kwargs)))


def test_a_function_looks_and_acts_as_it_does_in_the_app(tmp_path: Path) -> None:
    async def use() -> None:
        async with both(tmp_path) as ends:
            function = ends.functions(describe)["describe"]
            there, here = HostTool.of(describe).spec(), HostTool.of(function).spec()
            assert here == there
            assert [p.default_repr for p in here.parameters if p.has_default] == ["(1, 'x')", "..."]
            assert await function(1, ["b"]) == "(1, ['b'], (), (1, 'x'), [])"
            assert await function(1, ["b"], 2, 3, c=None, d=4) == "(1, ['b'], (2, 3), None, ['d'])"

    run(use())


def test_what_it_raises_is_raised_here_by_name_and_message_alone(tmp_path: Path) -> None:
    class OfTheApp(Exception):
        pass

    class Secretive:
        name, expose_errors = "secretive", False

        def __call__(self) -> None:
            raise RuntimeError("password=hunter2")

    def fail() -> None:
        raise OfTheApp("words")

    def unportable() -> Any:
        return [object()]

    async def use() -> None:
        async with both(tmp_path) as ends:
            functions = ends.functions(fail, Secretive(), unportable)
            for name, kind, words in (
                ("fail", "OfTheApp", "words"),
                ("secretive", "ToolError", "secretive failed"),
                ("unportable", "TypeError", "is of type object"),
            ):
                with pytest.raises(Exception, match=words) as caught:
                    await functions[name]()
                assert (type(caught.value).__name__, type(caught.value) is OfTheApp) == (kind, False)

    run(use())


def test_it_runs_in_the_context_of_whoever_runs_code_and_may_block_or_await(tmp_path: Path) -> None:
    together = threading.Barrier(3)

    def blocks() -> str:
        together.wait(DEADLINE)
        return whose.get()

    async def awaits() -> str:
        await asyncio.sleep(0)
        return whose.get()

    async def use() -> None:
        async with both(tmp_path) as ends:
            functions = ends.functions(blocks, awaits)
            whose.set("the caller's")
            ends.stream.sandboxes["box"].context = contextvars.copy_context()
            whose.set("another's")
            assert await asyncio.gather(*(functions["blocks"]() for _ in range(3))) == ["the caller's"] * 3
            assert await functions["awaits"]() == "the caller's"

    run(use())


def test_a_call_whose_answer_was_lost_is_answered_over_the_next_stream_and_made_once(tmp_path: Path) -> None:
    calls: list[int] = []

    async def use() -> None:
        async with both(tmp_path) as ends:

            def tell(i: int) -> int:
                calls.append(i)
                ends.proxy.cut()
                return 10 * i

            function = ends.functions(tell)["tell"]
            for i in range(5):
                assert await function(i) == 10 * i
            assert calls == list(range(5))
            await until(lambda: not ends.stream._held)  # the service has heard each end

    run(use())


def test_a_call_that_the_app_never_had_reaches_it_when_it_is_back(tmp_path: Path) -> None:
    calls: list[int] = []

    async def use() -> None:
        async with both(tmp_path) as ends:
            function = ends.functions(tell)["tell"]
            ends.proxy.refuse()
            await until(lambda: not ends.hosts.host("me", ends.stream.host).is_connected)
            calling = asyncio.create_task(function(3))
            await asyncio.sleep(0.05)
            assert calls == []
            ends.proxy.resume()
            assert await calling == 30
            assert calls == [3]

    def tell(i: int) -> int:
        calls.append(i)
        return 10 * i

    run(use())


def test_an_app_that_does_not_come_back_fails_its_calls_and_says_what_is_not_known(tmp_path: Path) -> None:
    begun, release = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        release.wait(DEADLINE)

    async def use() -> None:
        async with both(tmp_path, host_seconds=0.3) as ends:
            function = ends.functions(hang)["hang"]
            calling = asyncio.create_task(function())
            await until(begun.is_set)
            ends.proxy.refuse()  # whether the app has said that it has the call makes no difference
            with pytest.raises(ToolUnavailable, match="whether the call took effect is not known"):
                await calling
            with pytest.raises(ToolUnavailable, match="is not connected"):
                await function()
            ends.proxy.resume()
            release.set()
            await until(lambda: ends.hosts.host("me", ends.stream.host).is_connected)
            await until(lambda: not ends.stream._held)  # its late end is heard, and nobody's

    run(use())


def test_a_call_that_nobody_waits_for_is_cancelled_in_the_app_and_counts_until_it_has_ended(tmp_path: Path) -> None:
    begun, release = threading.Event(), threading.Event()
    cancelled: list[bool] = []

    def blocks() -> None:
        begun.set()
        release.wait(DEADLINE)

    async def awaits() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(True)

    async def use() -> None:
        async with both(tmp_path) as ends:
            functions = ends.functions(blocks, awaits)
            calling = asyncio.create_task(functions["awaits"]())
            await until(begun.is_set)
            calling.cancel()
            await asyncio.wait({calling})
            assert cancelled == [True]
            begun.clear()
            calling = asyncio.create_task(functions["blocks"]())
            await until(begun.is_set)
            calling.cancel()
            await asyncio.wait({calling}, timeout=0.2)
            assert not calling.done(), "the thread cannot be stopped, and is waited for"
            release.set()
            await asyncio.wait({calling})
            assert calling.cancelled()

    run(use())


def test_an_approver_in_the_app_is_asked_and_whatever_is_no_answer_counts_as_no(tmp_path: Path) -> None:
    asked: list[Any] = []

    def approve(request: Any) -> Any:
        asked.append(request)
        match request:
            case ExecutionRequest(code):
                return {"yes": True, "no": False, "why": Verdict(False, "because"), "odd": 1}.get(code) or 1 / 0
            case ToolCallRequest():
                return True

    async def use() -> None:
        async with both(tmp_path) as ends:
            ends.functions(describe, approve=approve)
            judge: Any = ends.hosts.approver("me", ends.stream.host)
            assert await judge(ExecutionRequest("yes", 3.0, {"x": [1]})) is True
            assert asked[0] == ExecutionRequest("yes", 3.0, {"x": [1]})
            assert await judge(ExecutionRequest("why", 3.0)) == Verdict(False, "because")
            with pytest.raises(Exception, match="it raised ZeroDivisionError") as caught:
                await judge(ExecutionRequest("no answer at all", 3.0))
            assert type(caught.value).__name__ == "ZeroDivisionError"
            with pytest.raises(Exception, match="int"):
                await judge(ExecutionRequest("odd", 3.0))
            request = ToolCallRequest("describe", {"a": 1, "args": (2,)}, 4)
            assert await judge(request) is True
            assert asked[-1] == request

    run(use())


def test_functions_of_the_same_name_for_different_runs_are_told_apart_over_one_stream(tmp_path: Path) -> None:
    def tells(number: int) -> Callable[[], int]:
        def tell() -> int:
            """Tells."""
            return number

        return tell

    async def use() -> None:
        async with both(tmp_path) as ends:
            answer, answered = asyncio.Event(), list[asyncio.Task[int]]()

            async def ask(specs: Sequence[pb.ToolSpec], host: str) -> pb.Run:
                (there,) = ends.hosts.tools("me", host, specs)
                id = str(len(answered))
                place.set(Place(run=id))
                answered.append(asyncio.ensure_future(there()))  # before the app knows which run that is
                await answer.wait()
                return pb.Run(id=id)

            runs = [asyncio.create_task(ends.connection.tools.begin([tells(n)], ask)) for n in range(300)]
            await until(lambda: len(answered) == 300)
            assert not (await asyncio.wait(answered, timeout=0.2))[0]
            answer.set()
            assert [run.id for run in await asyncio.gather(*runs)] == [str(n) for n in range(300)]
            assert await asyncio.gather(*answered) == list(range(300))
            assert list(ends.hosts._hosts) == [("me", ends.stream.host)]

    run(use())


def test_a_run_that_the_app_has_begun_with_nothing_is_told_so_and_one_that_is_cancelled_ends(tmp_path: Path) -> None:
    async def use() -> None:
        async with both(tmp_path) as ends:
            function = ends.functions(describe)["describe"]
            place.set(Place(run="another's"))
            with pytest.raises(Exception, match="has no function 'describe' for this"):
                await function(1, [])
            ends.stream._beginning = 1  # another run's, whose answer is on its way
            calling = asyncio.create_task(function(1, []))
            await until(lambda: bool(ends.stream._held))
            calling.cancel()
            await asyncio.wait({calling})
            assert calling.cancelled()
            await until(lambda: not ends.stream._held)

    run(use())


POSITIONAL = pb.Parameter.KIND_POSITIONAL_OR_KEYWORD


@pytest.mark.parametrize(
    "spec",
    [
        pb.ToolSpec(),
        pb.ToolSpec(name="import"),
        pb.ToolSpec(name="__builtins__"),
        pb.ToolSpec(name="n" * 1000),
        pb.ToolSpec(name="f", parameters=[pb.Parameter(name="a")]),
        pb.ToolSpec(name="f", parameters=[pb.Parameter(name="a.b", kind=POSITIONAL)]),
        pb.ToolSpec(name="f", parameters=[pb.Parameter(name="class", kind=POSITIONAL)]),
        pb.ToolSpec(
            name="f",
            parameters=[
                pb.Parameter(name="a", kind=pb.Parameter.KIND_KEYWORD_ONLY),
                pb.Parameter(name="b", kind=POSITIONAL),
            ],
        ),
        pb.ToolSpec(name="f", timeout_seconds=float("inf")),
    ],
)
def test_a_specification_that_is_none_is_refused(spec: pb.ToolSpec) -> None:
    async def make() -> None:
        hosts = Hosts()
        try:
            hosts.tools("me", "0" * 32, [spec])
        finally:
            hosts.close()

    with pytest.raises(ToolError):
        asyncio.run(make())
