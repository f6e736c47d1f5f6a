"""One execution as the host sees it: messages in, events out, and the Execution at the end."""

from __future__ import annotations

import asyncio
import codecs
import contextvars
from collections.abc import AsyncGenerator

from executor_api.v1 import executor_pb2 as pb
from google.protobuf.message import DecodeError

from orchestrator.errors import ProtocolViolation
from orchestrator.events import (
    Execution,
    ExecutionError,
    ExecutionEvent,
    Files,
    FinalAnswer,
    Finished,
    Logs,
    Output,
    State,
    Status,
    Stream,
    ToolCall,
    ToolOutcome,
    Usage,
)
from orchestrator.sandbox.calls import HostTools
from orchestrator.sandbox.channel import Channel
from orchestrator.sandbox.values import decode, decode_arguments, decode_message

MAX_CODE = 1 << 20  # bytes of one code action; a model's reply is far smaller
MAX_BUNDLES = 16
MAX_REASON_SHOWN = 200  # characters
_STREAMS: dict[int, Stream] = {pb.Output.STREAM_STDOUT: "stdout", pb.Output.STREAM_STDERR: "stderr"}
_STATUS = {
    pb.Finished.STATUS_OK: Status.OK,
    pb.Finished.STATUS_ERROR: Status.ERROR,
    pb.Finished.STATUS_IMPORT_DENIED: Status.IMPORT_DENIED,
    pb.Finished.STATUS_TIMEOUT: Status.TIMEOUT,
    pb.Finished.STATUS_INTERRUPTED: Status.INTERRUPTED,
    pb.Finished.STATUS_OUT_OF_MEMORY: Status.OUT_OF_MEMORY,
    pb.Finished.STATUS_DIED: Status.DIED,
    pb.Finished.STATUS_OUTPUT_LIMIT: Status.OUTPUT_LIMIT,
}
_STATE = {
    pb.Finished.STATE_KEPT: State.KEPT,
    pb.Finished.STATE_RESTORED: State.RESTORED,
    pb.Finished.STATE_LOST: State.LOST,
}
# What an execution that was stopped or died is told as, where the code itself left no exception.
_ERROR_NAMES = {
    Status.TIMEOUT: "TimeoutError",
    Status.INTERRUPTED: "KeyboardInterrupt",
    Status.OUT_OF_MEMORY: "MemoryError",
    Status.DIED: "ProcessDied",
    Status.OUTPUT_LIMIT: "OutputLimitExceeded",
}
_ERROR_TEXTS = {
    Status.TIMEOUT: "the code ran longer than {timeout:g} s and was stopped",
    Status.INTERRUPTED: "the code was interrupted",
    Status.OUTPUT_LIMIT: "the code wrote far more output than allowed and was stopped",
}


# The channels whose executions wait for the tool that runs in this context.
serving: contextvars.ContextVar[tuple[Channel, ...]] = contextvars.ContextVar("serving", default=())


class OutputLog:
    """Decodes output piece by piece and keeps it. Characters may be cut between pieces."""

    def __init__(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {name: decoder("replace") for name in _STREAMS.values()}
        self._texts: dict[Stream, list[str]] = {name: [] for name in _STREAMS.values()}

    def add(self, output: pb.Output) -> Output | None:
        """The piece as text; None while a character is incomplete."""
        name = _STREAMS[output.stream]
        text = self._decoders[name].decode(output.text)
        if output.dropped_before:
            text = f"\n… [{output.dropped_before:,} bytes of output dropped] …\n{text}"
        if not text:
            return None
        self._texts[name].append(text)
        return Output(name, text)

    def logs(self, dropped: int) -> Logs:
        """Everything so far."""
        return Logs("".join(self._texts["stdout"]), "".join(self._texts["stderr"]), dropped)


class Conversation:
    """The messages of one execution, from Execute to Finished."""

    def __init__(self, channel: Channel, tools: HostTools, timeout: float, deadline: float) -> None:
        self._channel = channel
        self._context = contextvars.copy_context()  # of the caller; its tools run in it
        self._context.run(serving.set, (*serving.get(), channel))
        self._tools = tools
        self._timeout = timeout
        self._deadline = deadline  # of the host's own clock: the executor must have answered by then
        self._log = OutputLog()
        self._calls = 0
        self._running: set[asyncio.Task[ToolOutcome]] = set()
        self.id = 0
        self.finished = False
        self.forkable = True  # as the executor says at the end
        self.spent = False  # nothing can be run there any more

    async def events(self, code: bytes) -> AsyncGenerator[ExecutionEvent, None]:
        """Sends the code and yields what happens; the last event is Finished.

        Raises:
            SandboxDied, ProtocolViolation: the executor failed.
            TimeoutError: it did not answer in time.
        """
        self.id = self._channel.session.begin_execution()
        execute = pb.Execute(id=self.id, code=code, timeout_seconds=self._timeout)
        self._channel.write(pb.HostMessage(execute=execute))
        try:
            while not self.finished:
                for event in await self._next():
                    yield event
        finally:
            for task in self._running:
                task.cancel()  # a tool's work ends with the execution that asked for it

    async def _next(self) -> list[ExecutionEvent]:
        async with asyncio.timeout_at(self._deadline):
            if not self._running:  # the usual case, without a task of its own
                return await self._on_message(await self._channel.read())
            return await self._message_or_outcome()

    async def _message_or_outcome(self) -> list[ExecutionEvent]:
        reading = asyncio.create_task(self._channel.read())
        try:
            done, _ = await asyncio.wait({reading, *self._running}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not reading.done():
                reading.cancel()
        self._running -= done
        events: list[ExecutionEvent] = [task.result() for task in done if task is not reading]  # type: ignore[misc]
        return events + await self._on_message(reading.result()) if reading in done else events

    async def _on_message(self, message: pb.ExecutorMessage) -> list[ExecutionEvent]:
        match message.WhichOneof("kind"):
            case "output":
                event = self._log.add(message.output)
                return [event] if event else []
            case "tool_call":
                return self._begin_call(message.tool_call)
            case "finished":
                self.finished = True
                self.forkable, self.spent = message.finished.forkable, message.finished.spent
                return [Finished(self._execution(message.finished))]
            case kind:
                raise ProtocolViolation(f"the executor sent {kind} during an execution")

    def _begin_call(self, message: pb.ToolCall) -> list[ExecutionEvent]:
        name = message.name.decode("utf-8", "replace")
        refusal = self._tools.refusal(name, self._calls, len(self._running))
        self._calls += 1
        if refusal:  # before anything of its arguments is looked at
            failure = pb.ToolFailure(type_name="PermissionError", message=refusal)
            result = pb.ToolResult(id=self.id, call=message.call, failure=failure)
            self._channel.write(pb.HostMessage(tool_result=result))
            return [ToolOutcome(message.call, name, f"PermissionError: {refusal}", 0.0)]
        call = ToolCall(message.call, name, *decode_arguments(message.arguments))
        self._running.add(asyncio.create_task(self._answer(call), context=self._context.copy()))
        return [call]

    async def _answer(self, call: ToolCall) -> ToolOutcome:
        result, outcome = await self._tools.run(call, self.id)
        if not self.finished:
            self._channel.write(pb.HostMessage(tool_result=result))
        return outcome

    def _execution(self, finished: pb.Finished) -> Execution:
        outcome = _parse_outcome(finished.outcome)
        status, state = _STATUS[finished.status], _STATE[finished.state]
        has_value = outcome.HasField("value")
        return Execution(
            status=status,
            state=state,
            execution_count=self.id,
            value=decode_message(outcome.value) if has_value else None,
            text=_text(outcome.text) if has_value else None,
            logs=self._log.logs(finished.dropped_bytes),
            results=tuple(_bundle(bundle) for bundle in outcome.results[:MAX_BUNDLES]),
            error=self._error(status, _told(state, finished), finished.reason, outcome),
            usage=_usage(finished.usage),
            final_answer=FinalAnswer(decode(finished.final_answer)) if finished.final_answer else None,
            restored_to=None if state is State.KEPT else finished.restored_to,
            files=Files.RESTORED if finished.files_restored else Files.KEPT,
            files_reason=clean(_text(finished.files_reason)),
        )

    def _error(self, status: Status, told: str, reason: str, outcome: pb.Outcome) -> ExecutionError | None:
        failure = outcome.error if outcome.HasField("error") else None
        if status in _ERROR_NAMES:
            text = _ERROR_TEXTS.get(status, "the code's process ended: {reason}").format(
                timeout=self._timeout, reason=clean(reason)
            )
            trace = _text(failure.traceback) if failure else ""
            return ExecutionError(_ERROR_NAMES[status], text + told, trace)
        if failure is None:
            return None
        return ExecutionError(_text(failure.type_name), _text(failure.message), _text(failure.traceback))


def _parse_outcome(data: bytes) -> pb.Outcome:
    try:
        return pb.Outcome.FromString(data)
    except DecodeError as error:
        raise ProtocolViolation(f"an outcome that cannot be read: {error}") from None


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def clean(reason: str) -> str:
    """A reason in the executor's words, as one line that may be shown."""
    return "".join(c for c in reason[:MAX_REASON_SHOWN] if c.isprintable())


def _told(state: State, finished: pb.Finished) -> str:
    """What became of the state, for the end of a message."""
    if state is State.KEPT:
        return ""
    if state is State.RESTORED:
        return f"; all variables{' and files' if finished.files_restored else ''} are as they were before it"
    if finished.restored_to:
        return f"; the state from before it is lost, and it is as after execution {finished.restored_to} again"
    return "; the variables from before it are lost"


def _bundle(bundle: pb.Bundle) -> dict[str, str | bytes]:
    shown: dict[str, str | bytes] = {}
    for part in bundle.data[:MAX_BUNDLES]:
        mime = _text(part.mime)[:100]
        binary = mime.startswith("image/") and mime != "image/svg+xml"
        shown[mime] = part.data if binary else _text(part.data)
    return shown


def _usage(usage: pb.Usage) -> Usage:
    return Usage(
        wall_seconds=usage.wall_seconds,
        cpu_seconds=usage.cpu_seconds,
        peak_memory_bytes=usage.peak_memory_bytes,
        output_bytes=usage.output_bytes,
        tool_calls=usage.tool_calls,
    )


def encoded(code: str) -> bytes | Execution:
    """The code's bytes, or, if it is too long to be sent, what the model is told."""
    if not isinstance(code, str):
        raise TypeError(f"code must be a str, not {type(code).__name__}")
    source = code.encode("utf-8", "surrogatepass")
    if len(source) <= MAX_CODE:
        return source
    text = f"the code is {len(source):,} bytes long; at most {MAX_CODE:,} can be run at once. Nothing was run."
    return Execution(Status.ERROR, State.KEPT, 0, error=ExecutionError("CodeTooLong", text))
