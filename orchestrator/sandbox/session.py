"""The protocol as the host holds it: which message is legal when, and within which bounds. Two tables; no I/O.

HELLO ──Challenge──> OPENING ──Ready──> IDLE ──(execute)──> EXECUTING ──Finished──> IDLE
        RESUMING ───────────Resumed─────┤ ├──(file request)──> FILES ──FileReply──> IDLE
        ATTACHING ──────────Attached────┘ └─(state request)──> STATES ──StateReply──> IDLE
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from executor_api.v1 import executor_pb2 as pb
from google.protobuf.message import DecodeError

from orchestrator.errors import ProtocolViolation
from orchestrator.sandbox import wire

MAX_OUTPUT_TEXT = 256 << 10  # bytes in one Output
MAX_TOOL_NAME = 256
MAX_OUTCOME = 3 << 20
MAX_ARGUMENTS = 2 << 20
SECRET_BYTES = 32  # of a branch
MAX_FILE_ENTRIES = 4096
MAX_CHECKPOINTS = 256  # listed in one reply; the executor has processes for fewer
MAX_REASON = 1000  # bytes, or characters
MAX_ERROR = 500  # characters
MAX_PATH = 4096  # bytes, as the kernel has it
GAP_CHARGE = 64  # bytes that a gap in the output counts for: the host writes a line where it is
OUTPUT_SLACK = 64 << 10  # over the cap: pieces are cut at line ends and UTF-8 boundaries by nobody
MAX_EXECUTIONS = 1 << 53  # that a session can have had; the number that is told is counted on from
MAX_CALLS = 1_000_000  # tool calls in one execution, the refused ones included


class Phase(Enum):
    """Where a session stands."""

    HELLO = "hello"
    OPENING = "opening"
    IDLE = "idle"
    EXECUTING = "executing"
    FILES = "files"
    STATES = "states"
    ATTACHING = "attaching"  # how the stream of a branch begins
    RESUMING = "resuming"  # where another host goes on: after a Challenge


# What the executor may send in each phase, and the phase that follows.
LEGAL: dict[tuple[Phase, str], Phase] = {
    (Phase.HELLO, "challenge"): Phase.OPENING,
    (Phase.OPENING, "ready"): Phase.IDLE,
    (Phase.EXECUTING, "output"): Phase.EXECUTING,
    (Phase.EXECUTING, "tool_call"): Phase.EXECUTING,
    (Phase.EXECUTING, "finished"): Phase.IDLE,
    (Phase.FILES, "file_reply"): Phase.IDLE,
    (Phase.STATES, "state_reply"): Phase.IDLE,
    (Phase.ATTACHING, "attached"): Phase.IDLE,
    (Phase.RESUMING, "resumed"): Phase.IDLE,
}

# Bytes of each kind, as it comes. Looked at before it is parsed: many small parts become fifty times as much memory.
ENVELOPE = 4 << 10  # tags, lengths, numbers, a reason
MAX_SIZES = {
    "challenge": ENVELOPE,
    "ready": 64 << 10,  # a few processes and a page of mounts
    "output": MAX_OUTPUT_TEXT + ENVELOPE,
    "tool_call": MAX_ARGUMENTS + ENVELOPE,
    "finished": MAX_OUTCOME + ENVELOPE,  # a final answer takes its room from the outcome
    "file_reply": MAX_OUTCOME + ENVELOPE,
    "state_reply": 128 << 10,  # as many checkpoints as there may be, each with the longest name
    "attached": ENVELOPE,
    "resumed": ENVELOPE,
}
_OTHER_FIELDS = 2  # of a FileReply besides its entries
_KINDS = {field.number: name for name, field in pb.ExecutorMessage.DESCRIPTOR.fields_by_name.items()}


@dataclass(slots=True)
class Session:
    """One session's state, and the budgets of the execution under way."""

    output_cap: int
    phase: Phase = Phase.HELLO
    execution: int = 0
    _output_bytes: int = 0
    _calls: set[int] = field(default_factory=set)

    def begin_execution(self) -> int:
        """The host is about to send Execute; gives its id."""
        self._begin(Phase.EXECUTING)
        self.execution += 1
        self._output_bytes = 0
        self._calls = set()
        return self.execution

    def resume(self) -> None:
        """The host is about to send Resume in place of Open."""
        if self.phase is not Phase.OPENING:
            raise RuntimeError(f"the host may not resume a session while {self.phase.value}")
        self.phase = Phase.RESUMING

    def begin_file_request(self) -> None:
        """The host is about to send a file request."""
        self._begin(Phase.FILES)

    def begin_state_request(self) -> None:
        """The host is about to send a state request."""
        self._begin(Phase.STATES)

    def _begin(self, phase: Phase) -> None:
        if self.phase is not Phase.IDLE:
            raise RuntimeError(f"the host may not begin {phase.value} while {self.phase.value}")
        self.phase = phase

    def read(self, data: bytes) -> pb.ExecutorMessage:
        """The message in ``data``, if it is legal now; moves on.

        Raises:
            ProtocolViolation: it is not, or it cannot be read, or it is over a bound.
        """
        try:
            number, content = wire.only_field(data)
            kind = _KINDS.get(number, "nothing")
            self._require_legal(kind)
            if len(data) > MAX_SIZES[kind]:
                raise ProtocolViolation(f"the executor sent {kind} of {len(data):,} bytes")
            if kind == "file_reply" and not wire.has_at_most(MAX_FILE_ENTRIES + _OTHER_FIELDS, content):
                raise ProtocolViolation("the executor listed more files than there can be")
            message = pb.ExecutorMessage.FromString(data)
        except (wire.Malformed, DecodeError) as error:
            raise ProtocolViolation(f"the executor sent a message that cannot be read: {error}") from None
        self.receive(message)
        return message

    def _require_legal(self, kind: str) -> Phase:
        following = LEGAL.get((self.phase, kind))
        if following is None:
            raise ProtocolViolation(f"the executor sent {kind} while {self.phase.value}")
        return following

    def receive(self, message: pb.ExecutorMessage) -> str:
        """Checks one parsed message and moves on; gives its kind.

        Raises:
            ProtocolViolation: it is not legal now, or over a bound.
        """
        kind = message.WhichOneof("kind") or "nothing"
        following = self._require_legal(kind)
        match kind:
            case "output":
                self._check_output(message.output)
            case "tool_call":
                self._check_call(message.tool_call)
            case "finished":
                self._check_finished(message.finished)
            case "file_reply":
                self._check_files(message.file_reply)
            case "state_reply":
                self._check_state(message.state_reply)
            case "resumed":
                self._count_on(message.resumed.last_execution)
        self.phase = following
        return kind

    def _count_on(self, last_execution: int) -> None:
        if last_execution > MAX_EXECUTIONS:
            raise ProtocolViolation("the executor told of more executions than there can have been")
        self.execution = last_execution

    def _check_files(self, reply: pb.FileReply) -> None:
        if len(reply.entries) > MAX_FILE_ENTRIES:
            raise ProtocolViolation("the executor listed more files than there can be")
        if not all(_is_below(entry.path) for entry in reply.entries):
            raise ProtocolViolation("the executor listed a file that is not below the workspace")

    def _check_state(self, reply: pb.StateReply) -> None:
        too_long = len(reply.files_reason) > MAX_REASON or len(reply.error) > MAX_ERROR
        if too_long or len(reply.checkpoints) > MAX_CHECKPOINTS:
            raise ProtocolViolation("an illegal answer about states")
        if not all(info.execution <= self.execution and _is_amount(info.age_seconds) for info in reply.checkpoints):
            raise ProtocolViolation("an illegal answer about states: of an execution or an age that cannot be")
        if reply.HasField("forked"):
            self._check_forked(reply.forked)

    def _check_forked(self, forked: pb.Forked) -> None:
        if len(forked.secret) != SECRET_BYTES or forked.execution > self.execution:
            raise ProtocolViolation("an illegal answer about a branch")

    def _check_id(self, received: int) -> None:
        if received != self.execution:
            raise ProtocolViolation(f"the executor spoke of execution {received}, not {self.execution}")

    def _check_output(self, output: pb.Output) -> None:
        self._check_id(output.id)
        size = len(output.text)
        self._output_bytes += size + (GAP_CHARGE if output.dropped_before else 0)
        if not 1 <= size <= MAX_OUTPUT_TEXT or output.stream not in (1, 2):  # empty pieces could go on for ever
            raise ProtocolViolation("an illegal piece of output")
        if self._output_bytes > self.output_cap + OUTPUT_SLACK:
            raise ProtocolViolation("the executor sent more output than its cap")

    def _check_call(self, call: pb.ToolCall) -> None:
        self._check_id(call.id)
        if not call.call or call.call in self._calls or len(call.name) > MAX_TOOL_NAME or len(self._calls) >= MAX_CALLS:
            raise ProtocolViolation("an illegal tool call")
        self._calls.add(call.call)

    def _check_finished(self, finished: pb.Finished) -> None:
        self._check_id(finished.id)
        if not 1 <= finished.status <= 8 or not 1 <= finished.state <= 3 or len(finished.outcome) > MAX_OUTCOME:
            raise ProtocolViolation("an illegal end of an execution")
        if finished.spent and finished.state != pb.Finished.STATE_LOST:  # nothing is left there that could hold a state
            raise ProtocolViolation("an illegal end of an execution: its state is there, and nothing that holds it")
        reasons = max(len(finished.reason), len(finished.files_reason))
        if reasons > MAX_REASON or finished.restored_to > self.execution:
            raise ProtocolViolation("an illegal end of an execution")
        if not (_is_amount(finished.usage.wall_seconds) and _is_amount(finished.usage.cpu_seconds)):
            raise ProtocolViolation("an illegal end of an execution: it used an amount of time that cannot be")


def _is_amount(seconds: float) -> bool:
    return 0 <= seconds < math.inf


def _is_below(path: bytes) -> bool:
    """A relative path that goes nowhere else: whoever saves files by the names in a list must be able to rely on it."""
    return 0 < len(path) <= MAX_PATH and b"\0" not in path and not {b"", b".", b".."} & set(path.split(b"/"))
