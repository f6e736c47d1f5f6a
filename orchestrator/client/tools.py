"""The app's own functions, served to the service over a stream of the app's: each call is made once.

Plain functions run in threads, coroutines on the loop. What came of a call is kept until the service has heard it: if
the stream breaks in between, it is said again over the next one.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from executor_api.v1 import executor_pb2
from google.protobuf.message import DecodeError
from orchestrator_api.v1 import orchestrator_pb2 as pb

from orchestrator.client.failures import error_of, is_loss
from orchestrator.config import Config
from orchestrator.errors import ApprovalFailed, ProtocolViolation
from orchestrator.events import ToolCall
from orchestrator.policy import ExecutionRequest, Request, ToolCallRequest, Verdict
from orchestrator.sandbox.approval import Approver
from orchestrator.sandbox.foreign import Foreign
from orchestrator.sandbox.grants import HostTool, HostTools
from orchestrator.sandbox.grpc_quiet import grpc
from orchestrator.sandbox.invocation import Answer, failure, invoke
from orchestrator.sandbox.values import decode_call, decode_variables, encode

if TYPE_CHECKING:
    from orchestrator.client.connection import AsyncConnection

STREAM_SECONDS = 6 * 3600.0  # after which the stream is opened again
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0  # seconds until the stream is opened again, doubled each time
MAX_SCHEMA = 64 << 10  # bytes of the schema of one function's arguments; a model is shown it in each request
MAX_RUNS = 10_000  # whose functions are remembered: nobody says when a run has ended, so the oldest are forgotten

Ask = Callable[[Sequence[pb.ToolSpec], str], Awaitable[pb.Run]]


@dataclass(eq=False, slots=True)
class Served:
    """What the app has for one sandbox.

    Attributes:
        context: that its functions run in: of whoever runs code there.
    """

    tools: HostTools
    approver: Approver
    context: contextvars.Context = field(default_factory=contextvars.copy_context)


class AppTools:
    """All of one connection's, over one stream: the app's sandboxes and runs are told apart by their ids."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._stream = ToolStream(connection)

    async def open(self) -> ToolStream:
        """The stream, which serves functions and approvers of sandboxes.

        Raises:
            CellblockError: it cannot be opened.
        """
        await self._stream.ready()
        return self._stream

    async def begin(self, tools: Sequence[Callable[..., Any]], ask: Ask, run: str = "") -> pb.Run:
        """Has a run begin that may call these functions, which are served to it from now on.

        Args:
            tools: the functions.
            ask: asks the service for it; is given what the service is told of them, and the host that serves them.
            run: the id of the run, if it is known already.

        Raises:
            ToolError: one cannot be used as a tool.
            CellblockError: the stream cannot be opened, or the service refuses the run.
        """
        granted = HostTools(tools, Config())
        if not tools:
            return await ask([], "")
        stream = await self.open()
        if run:
            stream.lend(run, granted)
        return await stream.begin(granted, lambda: ask(specs_of(granted), stream.host))

    async def close(self) -> None:
        """Ends the stream, and what runs for it."""
        await self._stream.close()


def specs_of(tools: HostTools) -> list[pb.ToolSpec]:
    """What the service is told of them."""
    return [_spec(tools[spec.name], spec) for spec in tools.specs()]


def _spec(tool: HostTool, spec: executor_pb2.ToolSpec) -> pb.ToolSpec:
    inputs, output_type = getattr(tool.call, "inputs", None), getattr(tool.call, "output_type", None)
    parameters = [
        pb.Parameter(
            name=p.name,
            kind=pb.Parameter.Kind.Name(p.kind),
            annotation=p.annotation,
            has_default=p.has_default,
            default_repr=p.default_repr,
        )
        for p in spec.parameters
    ]
    return pb.ToolSpec(
        name=spec.name,
        description=spec.doc,
        parameters=parameters,
        returns=spec.returns,
        awaitable=spec.awaitable,
        timeout_seconds=tool.timeout,
        stops_clock=tool.stops_clock,
        inputs=_schema(inputs) if isinstance(inputs, Mapping) else b"",
        output_type=output_type if isinstance(output_type, str) else "",
    )


def _schema(inputs: Mapping[str, Any]) -> bytes:
    """As JSON, if it is; else it is made of the parameters."""
    with suppress(TypeError, ValueError):
        data = json.dumps(dict(inputs)).encode()
        return data if len(data) <= MAX_SCHEMA else b""
    return b""


@dataclass(eq=False, slots=True)
class _Held:
    """A call that has reached the app: it runs, or its end is kept until the service has heard it."""

    task: asyncio.Task[None] | None = None
    end: pb.CallEnd | None = None


class ToolStream:
    """The stream of one host, opened again whenever it breaks."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self.host = secrets.token_hex(16)
        self.sandboxes: dict[str, Served] = {}
        self._runs: OrderedDict[str, HostTools] = OrderedDict()  # the functions of each, by its id
        self._beginning = 0  # runs whose ids are not known yet, and may call already
        self._begun = asyncio.Event()  # set when one is; another one after that
        self._held: dict[int, _Held] = {}
        self._outgoing: asyncio.Queue[pb.FromApp] = asyncio.Queue()
        self._opened = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        self._is_closed = False

    def lend(self, run: str, tools: HostTools) -> None:
        """Serves these to that run."""
        self._runs[run] = tools
        self._runs.move_to_end(run)
        if len(self._runs) > MAX_RUNS:
            self._runs.popitem(last=False)

    async def begin(self, tools: HostTools, ask: Callable[[], Awaitable[pb.Run]]) -> pb.Run:
        """Serves these to the run that is asked for. Its calls wait until it is known to be that."""
        self._beginning += 1
        try:
            run = await ask()
            self.lend(run.id, tools)
        finally:
            self._beginning -= 1
            self._begun.set()
            self._begun = asyncio.Event()
        return run

    async def ready(self) -> None:
        """Opens the stream, if it is not yet, and waits until the service has it.

        Raises:
            CellblockError: the service refuses it, or is gone.
        """
        if self._serving is None or self._serving.done():
            self._opened.clear()
            self._serving = asyncio.create_task(self._serve())
        opened = asyncio.create_task(self._opened.wait())
        try:
            await asyncio.wait({opened, self._serving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            opened.cancel()
        if self._serving.done():
            self._serving.result()

    async def close(self) -> None:
        """Ends the stream; the functions that run are given up."""
        self._is_closed = True
        tasks = [held.task for held in self._held.values() if held.task]
        if self._serving:
            tasks.append(self._serving)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=LONGEST_PAUSE)

    # ---------------------------------------------------------------------------------------------------- the stream

    async def _serve(self) -> None:
        """Until it is cancelled, or the service refuses.

        Raises:
            CellblockError: it refuses, or has not been there for longer than the client is patient.
        """
        pause, since = FIRST_PAUSE, _now()
        while True:
            try:
                await self._serve_once()
            except grpc.aio.AioRpcError as error:
                if not is_loss(error) and error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    told = error_of(error)
                    raise told from told.__cause__
                if not self._held and not self._opened.is_set() and _now() - since > self._connection.patience:
                    raise error_of(error) from None
            if self._opened.is_set():
                pause, since = FIRST_PAUSE, _now()
                self._opened.clear()
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _serve_once(self) -> None:
        call = self._connection.stub("Tools", "Serve")(**self._connection.how(STREAM_SECONDS))
        sending: asyncio.Task[None] | None = None
        try:
            with suppress(asyncio.InvalidStateError):  # it is over already; reading tells why
                await call.write(pb.FromApp(opening=pb.Opening(host=self.host, holds=list(self._held))))
            while (message := await call.read()) is not grpc.aio.EOF:
                if message.WhichOneof("kind") == "opened":
                    self._say_again()
                    sending = asyncio.create_task(self._send(call))
                    self._opened.set()
                else:
                    self._hear(message)
        finally:
            if sending:
                sending.cancel()
            call.cancel()

    def _say_again(self) -> None:
        """The ends that the service may not have heard. Nothing else that waited to be said is needed any more."""
        self._outgoing = asyncio.Queue()
        for held in self._held.values():
            if held.end:
                self._outgoing.put_nowait(pb.FromApp(end=held.end))

    async def _send(self, call: Any) -> None:
        outgoing = self._outgoing
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # it has broken, which the reader hears, too
            while True:
                await call.write(await outgoing.get())

    def _hear(self, message: pb.ToApp) -> None:
        match message.WhichOneof("kind"):
            case "call":
                self._begin(message.call.call, message.call.sandbox, lambda: self._called(message.call))
            case "ask":
                self._begin(message.ask.call, message.ask.sandbox, lambda: self._asked(message.ask))
            case "cancel":
                self._cancel(message.cancel.call)

    def _begin(self, number: int, sandbox: str, work: Callable[[], Any]) -> None:
        if number in self._held:
            return
        held = self._held[number] = _Held()
        served = self.sandboxes.get(sandbox)
        context = served.context.copy() if served else contextvars.copy_context()
        self._outgoing.put_nowait(pb.FromApp(accepted=pb.Accepted(call=number)))
        held.task = asyncio.create_task(self._run(number, held, work), context=context)

    async def _run(self, number: int, held: _Held, work: Callable[[], Any]) -> None:
        end: pb.CallEnd = await work()
        end.call, held.task, held.end = number, None, end
        self._outgoing.put_nowait(pb.FromApp(end=end))

    def _cancel(self, number: int) -> None:
        held = self._held.get(number)
        if held and held.end:  # it has been heard
            del self._held[number]
        elif held and held.task:
            held.task.cancel()

    # ------------------------------------------------------------------------------------------------------ the calls

    async def _called(self, call: pb.Call) -> pb.CallEnd:
        foreign = Foreign()
        try:
            tools = await self._tools(call)
            if tools is None or call.tool not in tools.names:
                return _failed("ToolUnavailable", f"the app has no function {call.tool[:100]!r} for this")
            args, kwargs, _ = decode_call(_arguments(call))
            made = ToolCall(call.call, call.tool, args, kwargs)
            return _end(await invoke(tools[call.tool], made, None, 1, foreign))
        except (ProtocolViolation, DecodeError) as error:
            return _failed("TypeError", f"the arguments cannot be read: {error}")
        except asyncio.CancelledError:
            if self._is_closed:
                raise
            return await _given_up(foreign)

    async def _tools(self, call: pb.Call) -> HostTools | None:
        """Of the run or the sandbox that calls."""
        if not call.run:
            served = self.sandboxes.get(call.sandbox)
            return served.tools if served else None
        while call.run not in self._runs and self._beginning:
            await self._begun.wait()
        return self._runs.get(call.run)

    async def _asked(self, ask: pb.Ask) -> pb.CallEnd:
        served = self.sandboxes.get(ask.sandbox)
        if served is None or not served.approver.asks:
            return _failed("ApprovalFailed", "the app has nobody who could be asked")
        try:
            request = _request(ask)
            return _judged(await served.approver.answer(request))
        except ApprovalFailed as error:
            return _failed(type(error.__cause__ or error).__name__, str(error))
        except (ProtocolViolation, RuntimeError, UnicodeDecodeError) as error:
            return _failed(type(error).__name__, str(error))
        except asyncio.CancelledError:
            return _failed("Cancelled", "nobody waits for the answer")


async def _given_up(foreign: Foreign) -> pb.CallEnd:
    """Nobody waits any more; a function that cannot be stopped counts until it has ended."""
    task = asyncio.current_task()
    if task:
        task.uncancel()
    await foreign.settled()
    return _failed("Cancelled", "nobody waits for the result")


def _arguments(call: pb.Call) -> bytes:
    positional = executor_pb2.ValueList.FromString(call.positional)
    keyword = executor_pb2.Pairs.FromString(call.keyword)
    return executor_pb2.Arguments(positional=positional, keyword=keyword).SerializeToString()


def _request(ask: pb.Ask) -> Request:
    arguments = decode_variables(ask.arguments)
    if ask.tool:
        return ToolCallRequest(ask.tool, arguments, ask.execution)
    return ExecutionRequest(ask.code.decode("utf-8", "surrogatepass"), ask.timeout_seconds, arguments)


def _judged(answer: object) -> pb.CallEnd:
    match answer:
        case bool():
            return pb.CallEnd(value=encode(answer, "the answer"))
        case Verdict(allowed=True):
            return pb.CallEnd(value=encode(True, "the answer"))
        case Verdict(allowed=False, reason=str() as reason):
            return _failed(Verdict.__name__, reason)
    return _failed("TypeError", f"the approver gave {type(answer).__name__}")


def _end(answer: Answer) -> pb.CallEnd:
    if answer.failure:
        return _failed(answer.failure.type_name, answer.failure.message)
    return pb.CallEnd(value=answer.value)


def _failed(type_name: str, message: str) -> pb.CallEnd:
    told = failure(type_name, message)
    return pb.CallEnd(failure=pb.ToolFailure(type_name=told.type_name, message=told.message))


def _now() -> float:
    return asyncio.get_running_loop().time()
