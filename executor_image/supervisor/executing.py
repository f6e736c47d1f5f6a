"""The execution under way on one branch, from Execute to Finished.

A hostile runner can lie about its own value, error and output. Whether it ended in time, how it ended, what became of
the state, what it used and how many tools it called are this module's own words.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Protocol

from executor_api.v1 import executor_pb2 as pb

from executor_image import frames
from executor_image.supervisor import proc
from executor_image.supervisor.container import Container
from executor_image.supervisor.execution import CappedOutput, Running
from executor_image.supervisor.outbox import Outbox
from executor_image.supervisor.tree import ForkTree, Woken, describe_exit

MAX_CALLS = 1_000_000  # tool calls in one execution; the host refuses far fewer, one by one

_STATUS = {
    frames.OUTCOME_OK: pb.Finished.STATUS_OK,
    frames.OUTCOME_ERROR: pb.Finished.STATUS_ERROR,
    frames.OUTCOME_IMPORT_DENIED: pb.Finished.STATUS_IMPORT_DENIED,
}
_STREAM = {frames.STDOUT: pb.Output.STREAM_STDOUT, frames.STDERR: pb.Output.STREAM_STDERR}


class Owner(Protocol):
    """The branch, as far as its execution needs it."""

    tree: ForkTree
    outbox: Outbox
    spent: bool

    def kill(self) -> None:
        """The head is to be killed; its exit will be told."""

    def fault(self, reason: str) -> None:
        """The head broke the rules."""

    def drain(self) -> None:
        """What C code has written is to be taken in now."""

    def has_threads(self) -> bool:
        """Threads of the code are alive in the head."""

    def on_result(self) -> None:
        """The present state is another than before."""


class Executing:
    """At most one execution at a time; ``running`` is None between two."""

    def __init__(self, container: Container, owner: Owner) -> None:
        self.running: Running | None = None
        self.lost_to: Woken | None = None  # the head died between two executions, and only an older state was left
        self.high_water = 0  # largest memory that the head had before this execution
        self._container = container
        self._opened = container.opened
        self._owner = owner

    # --------------------------------------------------------------------------------------------------- beginning

    def start(self, request: pb.Execute) -> None:
        """Has the head run the code."""
        output = CappedOutput(self._opened.output_bytes, partial(self._owner.outbox.put_output, request.id))
        self.running = running = Running(request.id, output, self._container.cgroup.read())
        if self._owner.spent:
            self._finish(pb.Finished.STATUS_DIED, pb.Finished.STATE_LOST, reason="the interpreter had ended before")
            return
        tree = self._owner.tree
        tree.thaw()
        head = frames.EXECUTE_HEAD.pack(running.nonce, request.id, len(request.variables))
        tree.head.send(frames.EXECUTE, head, request.variables, request.code)
        self.after(request.timeout_seconds, lambda: self._stop(pb.Finished.STATUS_TIMEOUT))
        self._container.watch_memory()

    def answer_call(self, result: pb.ToolResult) -> None:
        """Hands the result of a tool call on."""
        if self.running is None or self.running.killed or self.running.id != result.id:
            return  # it crossed with the end of the execution, or the process that asked is being replaced
        failed = result.WhichOneof("outcome") == "failure"
        failure = json.dumps([result.failure.type_name, result.failure.message]).encode()
        parts = frames.TOOL_HEAD.pack(result.call, failed), failure if failed else result.value
        head = self._owner.tree.head
        head.send(frames.TOOL_RESULT, *parts)
        if head.stuffed:
            self._owner.fault("does not take the results of its tool calls")

    # -------------------------------------------------------------------------------------------- from the runner

    def on_frame(self, kind: int, body: bytes) -> None:
        """Output, a tool call, a final answer, a result; anything else is a fault."""
        running = self.running
        if running is None or running.killed:
            return  # of a thread that outlived its execution, or of a process that is being killed
        if kind in _STREAM:
            self.take_output(_STREAM[kind], body)
        elif kind == frames.TOOL_CALL:
            self._call(running, body)
        elif kind == frames.FINAL and self._opened.final_answer and body[: frames.NONCE_BYTES] == running.nonce:
            running.final_answer = body[frames.NONCE_BYTES :]
        elif kind == frames.RESULT:
            self._result(running, body)
        else:
            self._owner.fault(f"sent an unexpected frame of type {kind}")

    def take_output(self, stream: pb.Output.Stream, text: bytes) -> None:
        """A piece of output, from Python or from C."""
        running = self.running
        if running and not running.killed:
            running.output.add(stream, text)
            if running.output.flooded and not running.stopping:
                running.stopping = pb.Finished.STATUS_OUTPUT_LIMIT
                self._owner.kill()

    def _call(self, running: Running, body: bytes) -> None:
        nonce, call, name_length = frames.CALL_HEAD.unpack_from(body)
        if nonce != running.nonce or name_length > frames.MAX_NAME or not call or call in running.calls:
            self._owner.fault("sent a tool call that is not of this execution, or one twice")
            return
        if len(running.calls) >= MAX_CALLS:
            self._owner.fault(f"made more than {MAX_CALLS:,} tool calls")
            return
        running.calls.add(call)
        name = body[frames.CALL_HEAD.size :][:name_length]
        arguments = body[frames.CALL_HEAD.size + name_length :]
        called = pb.ToolCall(id=running.id, call=call, name=name, arguments=arguments)
        self._owner.outbox.put(pb.ExecutorMessage(tool_call=called))

    def _result(self, running: Running, body: bytes) -> None:
        nonce, outcome = frames.RESULT_HEAD.unpack_from(body)
        if nonce != running.nonce or outcome not in _STATUS:
            self._owner.fault("sent a result that is not of this execution")
            return
        self._owner.tree.advance(running.id)
        self._owner.on_result()
        status = running.stopping or _STATUS[outcome]
        self._finish(status, pb.Finished.STATE_KEPT, outcome=body[frames.RESULT_HEAD.size :])

    # -------------------------------------------------------------------------------------------- stopping, dying

    def interrupt(self, execution: int) -> None:
        """Stops that execution, unless it has ended already."""
        if self.running and self.running.id == execution:
            self._stop(pb.Finished.STATUS_INTERRUPTED)

    def set_deadline(self, execution: int, seconds: float) -> None:
        """Lets that execution go on for so long from now, unless it has ended or is being stopped already."""
        running = self.running
        if running and running.id == execution and not running.stopping and not running.killed:
            self.after(seconds, lambda: self._stop(pb.Finished.STATUS_TIMEOUT))

    def _stop(self, why: pb.Finished.Status) -> None:
        """Softly first: an interrupt, then after the grace a kill."""
        running = self.running
        if running is None or running.stopping or running.killed:
            return
        running.stopping = why
        self._owner.tree.head.send(frames.INTERRUPT, frames.U64.pack(running.id))
        self._owner.tree.signal(signal.SIGINT)
        self.after(self._opened.grace_seconds, self._owner.kill)

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """What happens to the execution then, if it still runs; instead of what was to happen before."""
        if self.running:
            if self.running.timer:
                self.running.timer.cancel()
            self.running.timer = asyncio.get_running_loop().call_later(seconds, call)

    def abandon(self) -> None:
        """Nobody is to be told of it any more."""
        if self.running and self.running.timer:
            self.running.timer.cancel()
        self.running = None

    def give_up(self) -> None:
        """No state of before is left, or nothing can be stopped any more."""
        if self.running:
            status = self.running.stopping or pb.Finished.STATUS_DIED
            self._container.is_watched()  # else the reason is another
            reason = self._container.over or "the process that held the state is gone"
            self._finish(status, pb.Finished.STATE_LOST, reason=reason)

    def finish_dead(self, wait_status: int, newest: bool, woken: Woken) -> None:
        """The head is dead, and ``woken`` is the state now; ``newest`` if it is the one from before the execution."""
        running = self.running
        assert running is not None
        status, reason = running.stopping or pb.Finished.STATUS_DIED, describe_exit(wait_status)
        if os.waitstatus_to_exitcode(wait_status) == -signal.SIGKILL and not running.stopping:
            if self._container.cgroup.read().oom_kills > running.before.oom_kills:
                status, reason = pb.Finished.STATUS_OUT_OF_MEMORY, "the sandbox's memory limit was reached"
            else:
                reason += f" ({running.fault})" if running.fault else ""
        state = pb.Finished.STATE_RESTORED if newest else pb.Finished.STATE_LOST
        self._finish(status, state, reason=reason, woken=woken)

    def _finish(
        self,
        status: pb.Finished.Status,
        state: pb.Finished.State,
        outcome: bytes = b"",
        reason: str = "",
        woken: Woken | None = None,
    ) -> None:
        running = self.running
        assert running is not None
        if self.lost_to:
            state, woken, self.lost_to = pb.Finished.STATE_LOST, self.lost_to, None
        # Without the warden nobody can stop or bring back anything: no state can be vouched for, none is gone on with.
        spent = self._owner.spent or not self._container.is_watched()
        if spent:
            state, woken = pb.Finished.STATE_LOST, None
        self._owner.drain()
        running.output.finish()
        if running.timer:
            running.timer.cancel()
        finished = pb.Finished(
            id=running.id,
            status=status,
            state=state,
            usage=running.usage(self._container.cgroup.read(), self._peak_memory()),
            # Both at their largest do not fit into one message; then the answer counts, as it does for the agent.
            outcome=outcome if len(outcome) + len(running.final_answer) <= frames.MAX_OUTCOME else b"",
            final_answer=running.final_answer,
            reason=reason,
            dropped_bytes=running.output.dropped,
            forkable=not self._owner.has_threads(),
            restored_to=woken.execution if woken else 0,
            files_restored=woken.files_restored if woken else False,
            files_reason=woken.reason if woken else b"",
            spent=spent,
        )
        self.running = None
        self._owner.outbox.put(pb.ExecutorMessage(finished=finished))

    def _peak_memory(self) -> int:
        """A new high of the head is this execution's peak; if there is none, what it holds now is nearest to it."""
        resident, highest = proc.memory(self._owner.tree.head.pid)
        new_high, self.high_water = highest > self.high_water, highest
        return highest if new_high else resident
