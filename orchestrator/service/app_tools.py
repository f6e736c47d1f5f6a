"""Functions of apps, called back over the app's own stream: each call reaches the app once, or nobody.

A call is sent and kept. The app says that it has it (``Accepted``), later what came of it (``CallEnd``); a ``Cancel``
says that its end has been heard, or that nobody waits for it. When the stream breaks, the app opens another and names
the calls that it holds: those are not sent again, those that never reached it are. An app that does not come back in
time fails its calls; of one that it had, nobody can tell whether it took effect.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from orchestrator_api.v1 import orchestrator_pb2 as pb
from orchestrator_api.v1 import orchestrator_pb2_grpc

from orchestrator.errors import ConfigError, Overloaded, ProtocolViolation, ToolError, ToolUnavailable
from orchestrator.policy import Answer, Approve, ExecutionRequest, Request, Verdict
from orchestrator.sandbox.grants import MAX_TOOLS, Elsewhere, HostTool
from orchestrator.sandbox.values import decode, encode_arguments, encode_variables

HOST_SECONDS = 15.0  # that an app may be gone until its calls fail
MAX_HOSTS = 256  # of one owner: an app has one, or a few
MAX_HELD = 10_000  # calls that an app can name as its own: more than can be under way in all its sandboxes
MAX_QUEUED = 10_000  # messages that wait for an app: its calls are fewer, and each is answered once
MAX_PARAMETERS = 256  # of one function
MAX_TYPE_NAME = 200  # characters of what an app's function raised
_HOST = re.compile(r"[0-9a-f]{32}")
_KINDS = {
    pb.Parameter.KIND_POSITIONAL_ONLY: inspect.Parameter.POSITIONAL_ONLY,
    pb.Parameter.KIND_POSITIONAL_OR_KEYWORD: inspect.Parameter.POSITIONAL_OR_KEYWORD,
    pb.Parameter.KIND_VAR_POSITIONAL: inspect.Parameter.VAR_POSITIONAL,
    pb.Parameter.KIND_KEYWORD_ONLY: inspect.Parameter.KEYWORD_ONLY,
    pb.Parameter.KIND_VAR_KEYWORD: inspect.Parameter.VAR_KEYWORD,
}
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a call comes from: a sandbox, a run, or both: a sandbox that a run's agent works in, or a branch of it."""

    sandbox: str = ""
    run: str = ""

    @property
    def app_sandbox(self) -> str:
        """The sandbox that an app knows: functions of a run are the run's, wherever it works."""
        return "" if self.run else self.sandbox


_NOWHERE = Place()
place: ContextVar[Place] = ContextVar("place", default=_NOWHERE)
"""Of the execution or run under way; its tools and questions are called in its context."""


# ------------------------------------------------------------------------------------------------------------- hosts


@dataclass(eq=False, slots=True)
class _Pending:
    """A call that has not ended."""

    message: pb.ToApp
    end: asyncio.Future[pb.CallEnd]
    sent: bool = False  # over a stream, which may have broken before the app had it
    accepted: bool = False  # the app has it


@dataclass(eq=False, slots=True)
class Outgoing:
    """What is to be sent over one stream; None ends it, and so does what the app has done wrong.

    A number is a call to cancel: an app can have thousands of them wait here, of which a message each is too much.
    """

    queue: asyncio.Queue[pb.ToApp | int | ConfigError | None] = field(default_factory=asyncio.Queue)

    def end(self) -> None:
        """Another one has taken its place, over which what waits is sent: an app that takes nothing keeps nothing."""
        while not self.queue.empty():
            self.queue.get_nowait()
        self.queue.put_nowait(None)


class Host:
    """One app. Its stream comes and goes; ``on_gone`` is called when there has been none for ``seconds``."""

    def __init__(self, seconds: float, on_gone: Callable[[], None]) -> None:
        self._seconds = seconds
        self._on_gone = on_gone
        self._pending: dict[int, _Pending] = {}
        self._count = 0
        self._stream: Outgoing | None = None
        self._giving_up: asyncio.TimerHandle | None = None
        self.users = 0  # sandboxes and runs that have functions of it
        self._wait()

    @property
    def is_connected(self) -> bool:
        """The app has a stream open."""
        return self._stream is not None

    @property
    def gone_for(self) -> float:
        """Seconds since it had one, or was first named."""
        return 0.0 if self.is_connected else asyncio.get_running_loop().time() - self._since

    @property
    def is_gone(self) -> bool:
        """It has none, and is not waited for any more."""
        return not self.is_connected and self._giving_up is None

    async def call(self, **kind: Any) -> pb.CallEnd:
        """Asks the app something, and waits for its answer. ``kind`` is the message, by its name in ``ToApp``.

        If nobody waits any more, the app is told, and what it does is waited for all the same: it counts that long.

        Raises:
            ToolUnavailable: the app is gone.
        """
        if self.is_gone:
            raise ToolUnavailable("the app that this function is of is not connected")
        self._count += 1
        number = self._count
        (message,) = kind.values()
        message.call = number
        pending = _Pending(pb.ToApp(**kind), asyncio.get_running_loop().create_future())
        self._pending[number] = pending
        self._offer(pending)
        try:
            return await asyncio.shield(pending.end)
        except asyncio.CancelledError:
            if not pending.end.done():
                self._send(number)
                if self.is_connected or pending.accepted:
                    with suppress(ToolUnavailable):
                        await pending.end
            raise
        finally:
            del self._pending[number]

    def _send(self, message: pb.ToApp | int) -> None:
        if self._stream:
            self._stream.queue.put_nowait(message)

    def _offer(self, pending: _Pending) -> None:
        pending.sent = pending.sent or self.is_connected
        self._send(pending.message)

    def connect(self, holds: Iterable[int]) -> Outgoing:
        """The app has opened a stream, over which it is sent what it has not been; an older one ends."""
        held = set(holds)
        if self._stream:
            self._stream.end()
        if self._giving_up:
            self._giving_up.cancel()
            self._giving_up = None
        self._stream = Outgoing()
        self._send(pb.ToApp(opened=pb.Opened()))
        for number, pending in self._pending.items():
            if number in held:
                pending.accepted = True
            elif pending.accepted:  # it had it, and does not know of it any more
                self._fail(pending)
            else:
                self._offer(pending)
        for number in held - self._pending.keys():
            self._send(number)
        return self._stream

    def disconnect(self, stream: Outgoing) -> None:
        """That stream has ended."""
        if self._stream is stream:
            self._stream = None
            self._wait()

    def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        self._since = loop.time()
        self._giving_up = loop.call_later(self._seconds, self._give_up)

    def _give_up(self) -> None:
        self.close()
        self._on_gone()

    def _fail(self, pending: _Pending) -> None:
        known = "whether the call took effect is not known" if pending.sent else "it has not had this call"
        if not pending.end.done():
            pending.end.set_exception(ToolUnavailable(f"the app that this function is of is gone; {known}"))

    def hear(self, message: pb.FromApp) -> None:
        """What the app says.

        Raises:
            ConfigError: it must not say that.
        """
        match message.WhichOneof("kind"):
            case "accepted":
                if pending := self._pending.get(message.accepted.call):
                    pending.accepted = True
            case "end":
                self._end(message.end)
            case _:
                raise ConfigError("a stream of an app's is opened once, and then says what becomes of calls")

    def _end(self, end: pb.CallEnd) -> None:
        pending = self._pending.get(end.call)
        if pending and not pending.end.done():
            pending.end.set_result(end)
        if self._stream and self._stream.queue.qsize() > MAX_QUEUED:
            raise ConfigError("the app says much and takes nothing of what it is told")
        self._send(end.call)  # it has been heard

    def close(self) -> None:
        """Nothing is waited for any more."""
        if self._giving_up:
            self._giving_up.cancel()
            self._giving_up = None
        for pending in self._pending.values():
            self._fail(pending)


class Hosts:
    """Every app that has functions here, by its owner and the name that it has chosen."""

    def __init__(self, seconds: float = HOST_SECONDS) -> None:
        self._seconds = seconds
        self._hosts: dict[tuple[str, str], Host] = {}

    def host(self, owner: str, name: str) -> Host:
        """The app, which may not have come yet.

        Raises:
            ConfigError: that is no name of one.
            Overloaded: this owner has too many.
        """
        if not _HOST.fullmatch(name):
            raise ConfigError("a tool host is named by 16 random bytes in hexadecimal")
        if (owner, name) not in self._hosts:
            if sum(key[0] == owner for key in self._hosts) >= MAX_HOSTS:
                raise Overloaded(f"{MAX_HOSTS} apps of this owner serve functions already", HOST_SECONDS)
            self._hosts[owner, name] = Host(self._seconds, lambda: self.forget_unused(owner, name))
        return self._hosts[owner, name]

    def use(self, owner: str, name: str) -> Callable[[], None]:
        """The app is not forgotten until what is given is called. Raises as ``host``."""
        host = self.host(owner, name)
        host.users += 1

        def let_go() -> None:
            host.users -= 1
            self.forget_unused(owner, name)

        return let_go

    def forget_unused(self, owner: str, name: str) -> None:
        """Lets the app go, if it is gone and nobody has functions of it."""
        host = self._hosts.get((owner, name))
        if host and not host.users and host.is_gone:
            del self._hosts[owner, name]

    def tools(self, owner: str, name: str, specs: Sequence[pb.ToolSpec]) -> list[AppTool]:
        """That app's functions, for ``AsyncSandbox(tools=...)``.

        Raises:
            ToolError: a specification is none.
            ConfigError, Overloaded: as of ``host``.
        """
        if len(specs) > MAX_TOOLS:
            raise ToolError(f"{len(specs)} tools; at most {MAX_TOOLS}")
        return [AppTool(spec, self.host(owner, name)) for spec in specs]

    def approver(self, owner: str, name: str) -> Approve:
        """Asks that app. Raises as ``host``."""
        host = self.host(owner, name)

        async def approve(request: Request) -> Answer:
            return _verdict(await host.call(ask=_question(request)))

        return approve

    def close(self) -> None:
        """Fails whatever waits."""
        for host in self._hosts.values():
            host.close()


# --------------------------------------------------------------------------------------------------------- functions


class AppTool:
    """A function of an app, as a tool of a sandbox.

    Raises:
        ToolError: the specification is none.
    """

    def __init__(self, spec: pb.ToolSpec, host: Host) -> None:
        self.name = spec.name
        self.description = spec.description
        self.is_async = spec.awaitable
        self.stops_clock = spec.stops_clock
        self.expose_errors = True  # what is to be hidden, the app has hidden
        self.timeout = spec.timeout_seconds if spec.HasField("timeout_seconds") else None
        self.__signature__ = _signature(spec)
        self._host = host
        HostTool.of(self)  # its name can be one

    def __call__(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """What has to be awaited for its result."""
        return self._result(args, kwargs)

    async def _result(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        positional, keyword = encode_arguments(args, kwargs)
        here = place.get()
        call = pb.Call(sandbox=here.app_sandbox, run=here.run, tool=self.name, positional=positional, keyword=keyword)
        end = await self._host.call(call=call)
        if end.WhichOneof("outcome") != "value":
            raise _raised(end.failure)
        try:
            return decode(end.value)
        except ProtocolViolation as error:
            raise ValueError(f"the app answered with {error}") from None


def _signature(spec: pb.ToolSpec) -> inspect.Signature:
    if len(spec.parameters) > MAX_PARAMETERS:
        raise ToolError(f"tool {spec.name[:40]!r}: at most {MAX_PARAMETERS} parameters")
    returns = spec.returns or inspect.Signature.empty
    try:
        return inspect.Signature([_parameter(given) for given in spec.parameters], return_annotation=returns)
    except (ValueError, KeyError, TypeError) as error:  # no identifier, no kind, or an order that no function has
        raise ToolError(f"tool {spec.name[:40]!r}: its parameters are none ({str(error)[:100]})") from None


def _parameter(given: pb.Parameter) -> inspect.Parameter:
    kind = _KINDS[given.kind]
    default = Elsewhere(given.default_repr) if given.has_default and kind not in _VARIADIC else inspect.Parameter.empty
    return inspect.Parameter(given.name, kind, default=default, annotation=given.annotation or inspect.Parameter.empty)


def _raised(failure: pb.ToolFailure) -> Exception:
    """An exception of the same name and message as the one in the app. Nothing is looked up by that name."""
    name = failure.type_name[:MAX_TYPE_NAME].replace("\0", "") or "ToolError"
    kind: Callable[[str], Exception] = type(name, (Exception,), {})
    return kind(failure.message)


def _question(request: Request) -> pb.Ask:
    here = place.get()
    if isinstance(request, ExecutionRequest):
        return pb.Ask(
            sandbox=here.app_sandbox,
            code=request.code.encode("utf-8", "surrogatepass"),
            arguments=encode_variables(request.variables),
            timeout_seconds=request.timeout,
        )
    arguments = encode_variables(request.arguments)
    return pb.Ask(sandbox=here.app_sandbox, tool=request.tool, arguments=arguments, execution=request.execution)


def _verdict(end: pb.CallEnd) -> Answer:
    if end.WhichOneof("outcome") == "value":
        answer: Answer = decode(end.value)  # whatever else it is than a boolean counts as no
        return answer
    if end.failure.type_name == Verdict.__name__:
        return Verdict(False, end.failure.message)
    raise _raised(end.failure)


# ------------------------------------------------------------------------------------------------------------ stream


class Tools(orchestrator_pb2_grpc.ToolsServicer):
    """The API's ``Tools``.

    Args:
        hosts: the apps.
        owner: the name of whoever calls.
    """

    def __init__(self, hosts: Hosts, owner: Callable[[], str]) -> None:
        self._hosts = hosts
        self._owner = owner

    async def Serve(self, requests: AsyncIterator[pb.FromApp], context: Any) -> AsyncIterator[pb.ToApp]:
        """One stream of an app."""
        owner, opening = self._owner(), await _opening(requests)
        host = self._hosts.host(owner, opening.host)
        stream = host.connect(opening.holds)
        hearing = asyncio.create_task(_hear(requests, host, stream))
        try:
            while (message := await stream.queue.get()) is not None:
                if isinstance(message, ConfigError):
                    raise message
                yield pb.ToApp(cancel=pb.Cancel(call=message)) if isinstance(message, int) else message
        finally:
            hearing.cancel()
            host.disconnect(stream)


async def _opening(requests: AsyncIterator[pb.FromApp]) -> pb.Opening:
    async for message in requests:
        if message.WhichOneof("kind") != "opening" or len(message.opening.holds) > MAX_HELD:
            break
        return message.opening
    raise ConfigError("a stream of an app's begins with an Opening")


async def _hear(requests: AsyncIterator[pb.FromApp], host: Host, stream: Outgoing) -> None:
    wrong: ConfigError | None = None
    try:
        async for message in requests:
            host.hear(message)
    except ConfigError as error:
        wrong = error
    finally:
        stream.queue.put_nowait(wrong)
