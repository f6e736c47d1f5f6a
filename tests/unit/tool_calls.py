"""The tool calls of one execution without a container: calls come in as from a runner, answers are kept."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from executor_api.v1 import executor_pb2 as pb

from executor_image.runner.values import decode, encode_arguments
from orchestrator.audit.records import Happening
from orchestrator.config import Config
from orchestrator.errors import AuditError
from orchestrator.events import ToolOutcome
from orchestrator.policy import Approve
from orchestrator.sandbox.approval import Approver
from orchestrator.sandbox.calls import ToolCalls, ToolHost
from orchestrator.sandbox.clock import Clock
from orchestrator.sandbox.foreign import Foreign
from orchestrator.sandbox.grants import HostTools
from tests.unit import loops

DEADLINE = 5.0  # seconds for anything that is waited for
EXECUTION = 3


def in_loop(case: Coroutine[Any, Any, Any]) -> Any:
    """``loops.in_loop`` with the deadline of these tests."""
    return loops.in_loop(case, DEADLINE)


class Calls:
    """An execution's calls, the messages that answered them, and what was recorded. To be made inside a loop."""

    def __init__(
        self,
        tools: Iterable[Callable[..., Any]],
        config: Config | None = None,
        *,
        approve: Approve | None = None,
        foreign: Foreign | None = None,
    ) -> None:
        config = config or Config()
        self.answers: dict[int, pb.ToolResult] = {}
        self.recorded: list[Happening] = []
        self.fails_to_record: type[Happening] | tuple[()] = ()
        host = ToolHost(
            HostTools(tools, config), Approver(approve, config.approval_timeout), foreign or Foreign(), self._record
        )
        self.left: list[float] = []  # what the executor was told of the time
        self.clock = Clock(30.0, config.approval_timeout, 0.0, self.left.append)
        self.calls = ToolCalls(host, EXECUTION, contextvars.copy_context(), self._keep, self.clock)
        self._next = 1

    async def _record(self, happening: Happening) -> None:
        if isinstance(happening, self.fails_to_record):
            raise AuditError("the disk is full")
        self.recorded.append(happening)

    def _keep(self, result: pb.ToolResult) -> None:
        assert result.id == EXECUTION
        assert result.call not in self.answers, "a call is answered once"
        self.answers[result.call] = result

    async def begin(self, name: str, *args: Any, **kwargs: Any) -> int:
        """Code calls ``name``; gives the call's number."""
        number, self._next = self._next, self._next + 1
        arguments = encode_arguments(args, kwargs)
        await self.calls.begin(pb.ToolCall(id=EXECUTION, call=number, name=name.encode(), arguments=arguments))
        return number

    async def settled(self) -> tuple[ToolOutcome, ...]:
        """Waits for the end of every call; gives the ledger."""
        if self.calls.running:
            await asyncio.wait(self.calls.running)
            self.calls.take(self.calls.running)
        return self.calls.ledger.ended

    async def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Calls and waits: the value, or the failure as ``TypeName: message``."""
        number = await self.begin(name, *args, **kwargs)
        await self.settled()
        answer = self.answers[number]
        if answer.WhichOneof("outcome") == "failure":
            return f"{answer.failure.type_name}: {answer.failure.message}"
        return decode(memoryview(answer.value))


def run(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, ToolOutcome]:
    """One call: what the code gets (a failure as ``TypeName: message``), and its line in the ledger."""

    async def case() -> tuple[Any, ToolOutcome]:
        calls = Calls([function])
        got = await calls.call(getattr(function, "name", None) or function.__name__, *args, **kwargs)
        (outcome,) = calls.calls.ledger.ended
        return got, outcome

    return in_loop(case())  # type: ignore[no-any-return]


def add(a: int, b: int = 2) -> int:
    """Adds."""
    return a + b


async def later(a: int) -> int:
    """Adds one, later."""
    await asyncio.sleep(0)
    return a + 1


def hanging(release: threading.Event, is_async: bool, ended: threading.Event | None = None) -> Callable[..., Any]:
    """Hangs until it is released; the async one does not hear that it is cancelled."""

    def hangs() -> str:
        release.wait(DEADLINE)
        if ended:
            ended.set()
        return "late"

    async def hangs_deaf() -> str:
        while not release.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue
        if ended:
            ended.set()
        return "late"

    return hangs_deaf if is_async else hangs
