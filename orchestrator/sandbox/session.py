"""The protocol as the host holds it: which message is legal when, and within which bounds. A table; no I/O.

HELLO ──Challenge──> OPENING ──Ready──> IDLE ──(execute)──> EXECUTING ──Finished──> IDLE
        ATTACHING ──────────Attached────┘ ├──(file request)──> FILES ──FileReply──> IDLE
                                          └─(state request)──> STATES ──StateReply──> IDLE
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from executor_api.v1 import executor_pb2 as pb

from orchestrator.errors import ProtocolViolation

MAX_OUTPUT_TEXT = 256 << 10  # bytes in one Output
MAX_TOOL_NAME = 256
MAX_OUTCOME = 3 << 20
MAX_FILE_ENTRIES = 4096
MAX_CHECKPOINTS = 256  # listed in one reply; the executor has processes for fewer
MAX_REASON = 1000  # bytes
MAX_ERROR = 500  # characters
OUTPUT_SLACK = 64 << 10  # over the cap: pieces are cut at line ends and UTF-8 boundaries by nobody
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
}


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

    def receive(self, message: pb.ExecutorMessage) -> str:
        """Checks one message and moves on; gives its kind.

        Raises:
            ProtocolViolation: it is not legal now, or over a bound.
        """
        kind = message.WhichOneof("kind") or "nothing"
        following = LEGAL.get((self.phase, kind))
        if following is None:
            raise ProtocolViolation(f"the executor sent {kind} while {self.phase.value}")
        match kind:
            case "output":
                self._check_output(message.output)
            case "tool_call":
                self._check_call(message.tool_call)
            case "finished":
                self._check_finished(message.finished)
            case "file_reply" if len(message.file_reply.entries) > MAX_FILE_ENTRIES:
                raise ProtocolViolation("the executor listed more files than there can be")
            case "state_reply":
                self._check_state(message.state_reply)
        self.phase = following
        return kind

    def _check_state(self, reply: pb.StateReply) -> None:
        too_long = len(reply.files_reason) > MAX_REASON or len(reply.error) > MAX_ERROR
        if too_long or len(reply.checkpoints) > MAX_CHECKPOINTS:
            raise ProtocolViolation("an illegal answer about states")

    def _check_id(self, received: int) -> None:
        if received != self.execution:
            raise ProtocolViolation(f"the executor spoke of execution {received}, not {self.execution}")

    def _check_output(self, output: pb.Output) -> None:
        self._check_id(output.id)
        size = len(output.text)
        self._output_bytes += size
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
        if len(finished.files_reason) > MAX_REASON or finished.restored_to > self.execution:
            raise ProtocolViolation("an illegal end of an execution")
