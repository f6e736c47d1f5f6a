"""Named moments in the life of a sandbox, at which a test kills or cancels it, and the life that comes by all of them.

The product knows nothing of them: each is one of its functions, wrapped for the time of a test.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker.api.client import APIClient
from executor_api.v1 import executor_pb2 as pb
from grpc.aio import _call as grpc_call

from orchestrator import AsyncSandbox, Config
from orchestrator.sandbox import link
from orchestrator.sandbox.channel import Channel
from orchestrator.sandbox.container import Container
from orchestrator.sandbox.folders import SessionFolder

Then = Callable[[], object]


@dataclass(frozen=True)
class Moment:
    """Before or after a function is called for the ``nth`` time with arguments that are ``meant``."""

    owner: Any
    name: str
    after: bool = False
    nth: int = 1
    meant: Callable[..., bool] = lambda *_, **__: True


def sent(kind: str, nth: int = 1) -> Moment:
    """gRPC has taken a message of that kind; nobody has answered yet."""

    def meant(_: object, data: bytes) -> bool:
        return pb.HostMessage.FromString(data).HasField(kind)  # type: ignore[arg-type]

    return Moment(grpc_call._StreamRequestMixin, "write", True, nth, meant)


def before(owner: Any, name: str) -> Moment:
    return Moment(owner, name)


def after(owner: Any, name: str) -> Moment:
    return Moment(owner, name, after=True)


STARTING = {
    "the folder is half made": before(Path, "rename"),
    "before the container is created": before(APIClient, "create_container_from_config"),
    "the container is created": after(APIClient, "create_container_from_config"),
    "the container is started": after(APIClient, "start"),
    "the socket is there": before(Channel, "connect"),
    "hello is sent": sent("hello"),
    "open is sent": sent("open"),
    "ready": before(link, "examine"),
}
RUNNING = {
    "code is sent": sent("execute"),
    "code is sent for the second time": sent("execute", nth=2),
    "a tool's result is sent": sent("tool_result"),
    "a piece of a file is sent": sent("file_write", nth=2),
    "a piece of a file is asked for": sent("file_read", nth=2),
    "a checkpoint is asked for": sent("checkpoint"),
    "a branch is asked for": sent("fork"),
    "a branch is attached to": sent("attach"),
    "a rollback is asked for": sent("rollback"),
}
CLOSING = {
    "before the stream is closed": Moment(Channel, "close", meant=lambda channel: channel._owner is None),
    "the stream is closed": Moment(Channel, "close", after=True, meant=lambda channel: channel._owner is None),
    "before the container is removed": before(Container, "remove"),
    "the container is removed": before(SessionFolder, "remove"),
    "the folder is removed": after(SessionFolder, "remove"),
}
# Where nothing of the product is called: ``live`` says when they are reached.
SAID = ("idle", "code runs", "a tool runs")
ALL = (*STARTING, *RUNNING, *CLOSING, *SAID)
_MOMENTS = STARTING | RUNNING | CLOSING


@contextmanager
def at(name: str, then: Then) -> Iterator[Callable[[str], None]]:
    """Calls ``then`` when the moment is reached. Gives what ``live`` calls at those that are only said."""
    if name in SAID:
        yield lambda reached: then() if reached == name else None
        return
    moment = _MOMENTS[name]
    original = inspect.getattr_static(moment.owner, moment.name)
    setattr(moment.owner, moment.name, _wrapped(moment, original, then))
    try:
        yield lambda _: None
    finally:
        setattr(moment.owner, moment.name, original)


def _wrapped(moment: Moment, original: Any, then: Then) -> Any:
    function = getattr(original, "__func__", original)  # of a class method
    seen = 0

    def reached(*args: Any, **kwargs: Any) -> None:
        nonlocal seen
        seen += moment.meant(*args, **kwargs)
        if seen == moment.nth and moment.meant(*args, **kwargs):
            then()

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not moment.after:
            reached(*args, **kwargs)
        result = function(*args, **kwargs)
        if inspect.iscoroutine(result):
            return finish(result, *args, **kwargs)
        if moment.after:
            reached(*args, **kwargs)
        return result

    async def finish(result: Any, *args: Any, **kwargs: Any) -> Any:
        value = await result
        if moment.after:
            reached(*args, **kwargs)
        return value

    return classmethod(call) if isinstance(original, classmethod) else call


async def live(config: Config, reached: Callable[[str], object]) -> None:
    """The life of a sandbox, by every moment there is."""

    async def tool() -> int:
        reached("a tool runs")
        return 1

    async with AsyncSandbox(config=config, tools=[tool]) as sandbox:
        await sandbox.run_code("x = 1")
        reached("idle")
        await sandbox.run_code("print('go')\nx += tool()", on_stdout=lambda _: reached("code runs"))
        await sandbox.files.write("file", bytes(3 << 20))
        await sandbox.files.read("file")
        await sandbox.checkpoint("here")
        async with await sandbox.fork() as branch:
            await branch.run_code("x += 1")
        await sandbox.rollback("here")
        await sandbox.run_code("while True: pass", timeout=0.05)
