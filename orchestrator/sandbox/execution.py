"""One execution as the host sees it: messages in, events out, and the Execution at the end."""

from __future__ import annotations

import asyncio
import codecs
import contextvars
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from itertools import pairwise, zip_longest

from executor_api.v1 import executor_pb2 as pb
from google.protobuf.message import DecodeError

from orchestrator.audit.records import ExecutionBegun, ExecutionFinished, ExecutionUnfinished
from orchestrator.config import Config
from orchestrator.errors import AuditError, OutcomeUnknown, ProtocolViolation, SandboxDied, SandboxError
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
    Usage,
)
from orchestrator.sandbox.calls import ToolCalls, ToolHost
from orchestrator.sandbox.channel import Channel
from orchestrator.sandbox.clock import Clock
from orchestrator.sandbox.values import decode, decode_message
from orchestrator.sanitise import one_line

MAX_CODE = 1 << 20  # bytes of one code action; a model's reply is far smaller
MAX_BUNDLES = 16
MAX_REASON_SHOWN = 200  # characters
MAX_MIME = 100
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


MAX_NESTED = 8  # tools that wait for each other's sandboxes: each has a container of its own
# The channels, or sandboxes of a service, whose executions wait for the tool that runs in this context.
serving: contextvars.ContextVar[tuple[object, ...]] = contextvars.ContextVar("serving", default=())


class OutputLog:
    """Keeps output as it came, and decodes it piece by piece. Characters may be cut between pieces."""

    def __init__(self) -> None:
        self._written = {name: _Written() for name in _STREAMS.values()}

    def add(self, output: pb.Output) -> Output | None:
        """The piece as text; None while a character is incomplete."""
        name = _STREAMS[output.stream]
        text = self._written[name].add(output.text, output.dropped_before)
        return Output(name, text) if text else None

    def logs(self, dropped: int) -> Logs:
        """Everything so far."""
        out, err = self._written["stdout"], self._written["stderr"]
        raw = {name: bytes(written.raw) for name, written in self._written.items() if written.text_says_less}
        return Logs(out.text(), err.text(), dropped, raw or None)


class _Written:
    """What one stream has been given: bytes, as a million small texts would take fifty times their size."""

    def __init__(self) -> None:
        self.raw = bytearray()
        self._gaps: list[tuple[int, int]] = []  # where bytes were left out, and how many
        self._decode = _decoder()

    @property
    def text_says_less(self) -> bool:
        """The bytes cannot be had from the text."""
        return bool(self._gaps) or not _is_utf8(self.raw)

    def add(self, piece: bytes, dropped_before: int) -> str:
        """The piece as text, as far as it is complete."""
        before = ""
        if dropped_before:
            before = self._decode(b"", True) + _gap(dropped_before)
            self._gaps.append((len(self.raw), dropped_before))
            self._decode = _decoder()
        self.raw += piece
        return before + self._decode(piece)

    def text(self) -> str:
        """All of it."""
        edges = [0, *(place for place, _ in self._gaps), len(self.raw)]
        texts = [self.raw[start:end].decode("utf-8", "replace") for start, end in pairwise(edges)]
        marks = [_gap(dropped) for _, dropped in self._gaps]
        return "".join(part for pair in zip_longest(texts, marks, fillvalue="") for part in pair)


def _decoder() -> Callable[..., str]:
    return codecs.getincrementaldecoder("utf-8")("replace").decode


def _gap(dropped: int) -> str:
    return f"\n… [{dropped:,} bytes of output dropped] …\n"


def _is_utf8(data: bytearray) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


class Conversation:
    """The messages of one execution, from Execute to Finished."""

    def __init__(self, channel: Channel, host: ToolHost, config: Config, margin: float) -> None:
        self._channel = channel
        context = contextvars.copy_context()  # of the caller; its tools run in it
        context.run(serving.set, (*serving.get(), channel))
        self._host = host
        self._timeout = config.timeout
        self._log = OutputLog()
        self.id = number = channel.session.execution + 1

        # Neither holds this object: it would be garbage only when the collector comes, and the channel with it.
        def tell(seconds: float) -> None:
            channel.write(pb.HostMessage(deadline=pb.Deadline(id=number, seconds=seconds)))

        def send(result: pb.ToolResult) -> None:
            channel.write(pb.HostMessage(tool_result=result))

        self._clock = Clock(config.timeout, config.approval_timeout, config.grace + margin, tell)
        self.calls = ToolCalls(host, number, context, send, self._clock)
        self._sent = False
        self._interrupted = False
        self.finished = False
        self.forkable = True  # as the executor says at the end
        self.spent = False  # nothing can be run there any more

    async def events(self, code: bytes, variables: bytes = b"") -> AsyncGenerator[ExecutionEvent, None]:
        """Sends the code and yields what happens; the last event is Finished. ``variables`` is a serialised Pairs.

        Raises:
            AuditError: something could not be recorded. If that was the beginning, the code has not been sent.
            SandboxDied, ProtocolViolation: the executor failed.
            TimeoutError: it did not answer in time.
        """
        self._channel.require_silence()
        try:
            await self._begin(code, variables)
            while not self.finished:
                for event in await self._next():
                    yield event
        except AuditError:
            with suppress(AuditError):  # which has been told
                await self._end_early("AuditError")
            raise
        except BaseException as error:
            gone = isinstance(error, GeneratorExit | asyncio.CancelledError)
            await self._end_early("abandoned" if gone else type(error).__name__)
            raise

    async def _begin(self, code: bytes, variables: bytes) -> None:
        await self._host.record(ExecutionBegun.of(self.id, code, self._timeout, variables))
        self._channel.session.begin_execution()
        execute = pb.Execute(id=self.id, code=code, timeout_seconds=self._timeout, variables=variables)
        self._channel.write(pb.HostMessage(execute=execute))
        self._clock.start()
        self._sent = True
        if self._interrupted:
            self.interrupt()

    async def _end_early(self, reason: str) -> None:
        """Nobody waits any more, or the executor has failed: a tool's work ends with what asked for it."""
        await self.calls.end()
        if not self.finished:
            await self._host.record(ExecutionUnfinished(self.id, reason))

    def interrupt(self) -> None:
        """Has it stopped; as soon as it has begun, if it has not."""
        self._interrupted = True
        if self._sent and not self.finished:
            self._channel.write(pb.HostMessage(interrupt=pb.Interrupt(id=self.id)))

    async def _next(self) -> Sequence[ExecutionEvent]:
        async with self._clock.limit():
            if not self.calls.running:  # the usual case, without a task of its own
                return await self._on_message(await self._channel.read())
            return await self._message_or_outcome()

    async def _message_or_outcome(self) -> Sequence[ExecutionEvent]:
        reading = asyncio.create_task(self._channel.read())
        running = self.calls.running
        try:
            await asyncio.wait({reading, *running}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not reading.done():
                reading.cancel()
        outcomes = self.calls.take({task for task in running if task.done()})
        return [*outcomes, *await self._on_message(reading.result())] if reading.done() else outcomes

    async def _on_message(self, message: pb.ExecutorMessage) -> Sequence[ExecutionEvent]:
        match message.WhichOneof("kind"):
            case "output":
                event = self._log.add(message.output)
                return [event] if event else []
            case "tool_call":
                return await self.calls.begin(message.tool_call)
            case "finished":
                return await self._on_finished(message.finished)
            case kind:
                raise ProtocolViolation(f"the executor sent {kind} during an execution")

    async def _on_finished(self, finished: pb.Finished) -> Sequence[ExecutionEvent]:
        self.forkable, self.spent = finished.forkable, finished.spent
        outcomes = await self.calls.end()
        execution = self._execution(finished)
        await self._host.record(ExecutionFinished.of(execution))
        self.finished = True
        return [*outcomes, Finished(execution)]

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
            files_reason=one_line(_text(finished.files_reason), MAX_REASON_SHOWN),
            tool_calls=self.calls.ledger.ended,
        )

    def _error(self, status: Status, told: str, reason: str, outcome: pb.Outcome) -> ExecutionError | None:
        failure = outcome.error if outcome.HasField("error") else None
        if status in _ERROR_NAMES:
            text = _ERROR_TEXTS.get(status, "the code's process ended: {reason}").format(
                timeout=self._timeout, reason=one_line(reason, MAX_REASON_SHOWN)
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
        mime = one_line(_text(part.mime), MAX_MIME)
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


def with_ledger(error: SandboxError | AuditError, calls: ToolCalls) -> SandboxError | AuditError:
    """The error, as it is told: with the tool calls of the execution that it ended.

    What the executor did wrong is the cause where effects are unknown, and not told instead: it could choose that.
    """
    told = error
    gone = isinstance(error, SandboxDied | ProtocolViolation)
    if gone and any(call.effect_unknown for call in calls.ledger.ended):
        told = OutcomeUnknown(f"{error}; tools ran for it, and whether they took effect is not known")
        told.__cause__ = error
    told.tool_calls = calls.ledger.ended
    return told


def not_run(status: Status, name: str, text: str) -> Execution:
    """Of code that was never sent: what the model is told."""
    return Execution(status, State.KEPT, 0, error=ExecutionError(name, f"{text} Nothing was run."))


def encoded(code: str) -> bytes | Execution:
    """The code's bytes, or, if it is too long to be sent, what the model is told."""
    if not isinstance(code, str):
        raise TypeError(f"code must be a str, not {type(code).__name__}")
    source = code.encode("utf-8", "surrogatepass")
    if len(source) <= MAX_CODE:
        return source
    text = f"the code is {len(source):,} bytes long; at most {MAX_CODE:,} can be run at once."
    return not_run(Status.ERROR, "CodeTooLong", text)
