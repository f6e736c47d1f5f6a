"""One session: what the host asks for and what the runner does, brought together. Callbacks only, no waiting.

A hostile runner can lie about its own value, error and output. Whether it ended in time, how it ended, what became of
the state, what it used and how many tools it called are this module's own words.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from executor_api.v1 import executor_pb2 as pb
from google.protobuf.message import DecodeError

from executor_image import frames
from executor_image.supervisor import proc
from executor_image.supervisor.execution import CappedOutput, Running
from executor_image.supervisor.outbox import Outbox
from executor_image.supervisor.setup import setup_body
from executor_image.supervisor.tree import ForkTree, Runner, describe_exit

KILL_DEADLINE = 5.0  # seconds for a kill to be done and reported; it takes milliseconds
MAX_CALLS = 1_000_000  # tool calls in one execution; the host refuses far fewer, one by one
STRAY_RETRY = 0.02  # seconds between two looks whether everything that was killed is gone
FILE_DEADLINE = 20.0  # seconds for one file request of at most 1 MiB
_PIPE_READS = 8  # reads of a pipe at the end of an execution: more than it can hold

_STATUS = {
    frames.OUTCOME_OK: pb.Finished.STATUS_OK,
    frames.OUTCOME_ERROR: pb.Finished.STATUS_ERROR,
    frames.OUTCOME_IMPORT_DENIED: pb.Finished.STATUS_IMPORT_DENIED,
}
_STREAM = {frames.STDOUT: pb.Output.STREAM_STDOUT, frames.STDERR: pb.Output.STREAM_STDERR}


class HostViolation(Exception):
    """The host sent what is not legal now."""


class Session:
    """Serves one opened session on a fork tree. ``ready`` is done when the first head has taken its setup in."""

    def __init__(self, runner: Runner, opened: pb.Open) -> None:
        self._tree = ForkTree(runner, self)
        self._pipes = dict(zip(runner.pipes, (pb.Output.STREAM_STDOUT, pb.Output.STREAM_STDERR), strict=True))
        self._runner_uid = runner.uid
        self._opened = opened
        self._cgroup = proc.Cgroup()
        self._running: Running | None = None
        self._file_timer: asyncio.TimerHandle | None = None
        self._stale = True  # the checkpoint, if there is one, is older than the end of the last execution
        self._unsettled = False  # an execution has ended well, and the head has not been asked to fork since
        self._state_lost = False  # the head died between two executions, and only an older state was left
        self._ended: int | None = None  # wait status of the head that the running execution ended with
        self._high_water = 0  # largest memory that the head had before this execution
        self._spent = False  # nothing can be run any more
        self.outbox = Outbox(self._on_pressure)
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watch_pipes()
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)
        self._tree.head.send(frames.SETUP, setup_body(opened))

    # ---------------------------------------------------------------------------------------------- from the host

    def handle(self, message: pb.HostMessage) -> None:
        """Acts on one message.

        Raises:
            HostViolation: it is not legal now.
        """
        match message.WhichOneof("kind"):
            case "execute":
                self._execute(message.execute)
            case "tool_result":
                self._tool_result(message.tool_result)
            case "interrupt":
                if self._running and self._running.id == message.interrupt.id:
                    self._stop(pb.Finished.STATUS_INTERRUPTED)
            case "file_read":
                read = message.file_read
                self._file({"op": "read", "path": _path(read.path), "offset": read.offset, "length": read.length})
            case "file_write":
                write = message.file_write
                self._file({"op": "write", "path": _path(write.path), "append": write.append}, write.data)
            case "file_list":
                self._file({"op": "list"})
            case kind:
                raise HostViolation(f"{kind} is not legal in an open session")

    def _execute(self, request: pb.Execute) -> None:
        self._require_idle()
        if len(request.code) > frames.MAX_CODE:
            raise HostViolation(f"{len(request.code)} bytes of code")
        output = CappedOutput(self._opened.output_bytes, partial(self.outbox.put_output, request.id))
        running = Running(request.id, output, self._cgroup.read())
        self._running = running
        if self._spent:
            self._finish(pb.Finished.STATUS_DIED, pb.Finished.STATE_LOST, reason="the interpreter had ended before")
            return
        self._tree.head.send(frames.EXECUTE, frames.EXECUTE_HEAD.pack(running.nonce, request.id), request.code)
        self._after(request.timeout_seconds, lambda: self._stop(pb.Finished.STATUS_TIMEOUT))

    def _tool_result(self, result: pb.ToolResult) -> None:
        if self._running is None or self._running.id != result.id:
            return  # it crossed with the end of the execution
        failed = result.WhichOneof("outcome") == "failure"
        failure = json.dumps([result.failure.type_name, result.failure.message]).encode()
        head = frames.TOOL_HEAD.pack(result.call, failed)
        self._tree.head.send(frames.TOOL_RESULT, head, failure if failed else result.value)
        if self._tree.head.stuffed:
            self.on_head_fault("does not take the results of its tool calls")

    def _file(self, request: dict[str, object], data: bytes = b"") -> None:
        self._require_idle()
        if len(data) > frames.MAX_FILE_PIECE:
            raise HostViolation(f"{len(data)} bytes in one file request")
        self._file_timer = asyncio.get_running_loop().call_later(FILE_DEADLINE, self._kill)
        if self._spent:
            self._file_reply(pb.FileReply(error=b"the interpreter has ended"))
        else:
            self._tree.head.send(frames.FILE, json.dumps(request).encode(), b"\0", data)

    def _require_idle(self) -> None:
        self.settle()
        if self._running or self._file_timer:
            raise HostViolation("one operation at a time")

    # -------------------------------------------------------------------------------------------- from the runner

    def on_ready(self) -> None:
        """The first head is there; it makes its first checkpoint."""
        if not self.ready.done():
            self._unsettled = True
            self.settle()

    def on_forked(self, forked: bool) -> None:
        """There is a checkpoint of the newest state, or, where none could be made, still the one before."""
        running = self._running
        if running and self._ended is not None:  # the answer of a checkpoint that took a dead head's place: it lives
            self._finish_dead(running, self._ended)
        elif running and running.killed:
            self._kill()  # could not be told to anybody while the old checkpoint was gone and the new one not there
        elif running and running.stopping:
            self._tree.signal(frames.SIGNAL_INTERRUPT)
        self._stale = not forked
        if not self.ready.done():
            self.ready.set_result(None)

    def on_head_frame(self, kind: int, body: bytes) -> None:
        """Output, a tool call, a final answer, a result, a reply."""
        running = self._running
        if kind == frames.FILE_REPLY and self._file_timer:
            self._file_reply_from_runner(body)
        elif running is None or running.killed:
            return  # of a thread that outlived its execution, or of a process that is being killed
        elif kind in _STREAM:
            self._output(running, _STREAM[kind], body)
        elif kind == frames.TOOL_CALL:
            self._tool_call(running, body)
        elif kind == frames.FINAL and self._opened.final_answer and body[: frames.NONCE_BYTES] == running.nonce:
            running.final_answer = body[frames.NONCE_BYTES :]
        elif kind == frames.RESULT:
            self._result(running, body)
        else:
            self.on_head_fault(f"sent an unexpected frame of type {kind}")

    def _output(self, running: Running, stream: pb.Output.Stream, text: bytes) -> None:
        running.output.add(stream, text)
        if running.output.flooded and not running.stopping:
            running.stopping = pb.Finished.STATUS_OUTPUT_LIMIT
            self._kill()

    def _tool_call(self, running: Running, body: bytes) -> None:
        nonce, call, name_length = frames.CALL_HEAD.unpack_from(body)
        if nonce != running.nonce or name_length > frames.MAX_NAME or not call or call in running.calls:
            self.on_head_fault("sent a tool call that is not of this execution, or one twice")
            return
        if len(running.calls) >= MAX_CALLS:
            self.on_head_fault(f"made more than {MAX_CALLS:,} tool calls")
            return
        running.calls.add(call)
        name = body[frames.CALL_HEAD.size :][:name_length]
        arguments = body[frames.CALL_HEAD.size + name_length :]
        called = pb.ToolCall(id=running.id, call=call, name=name, arguments=arguments)
        self.outbox.put(pb.ExecutorMessage(tool_call=called))

    def _result(self, running: Running, body: bytes) -> None:
        nonce, outcome = frames.RESULT_HEAD.unpack_from(body)
        if nonce != running.nonce or outcome not in _STATUS:
            self.on_head_fault("sent a result that is not of this execution")
            return
        status = running.stopping or _STATUS[outcome]
        self._unsettled = self._stale = True
        self._finish(status, pb.Finished.STATE_KEPT, outcome=body[frames.RESULT_HEAD.size :])

    def settle(self) -> None:
        """Off the critical path, when the reply has been sent and the model thinks: the next checkpoint is made."""
        if not self._unsettled:
            return
        self._unsettled, head = False, self._tree.head
        if proc.thread_count(head.pid) > 1:
            return  # threads do not survive a fork: the head goes on with an older checkpoint behind it
        if self._strays():
            head.send(frames.SIGNAL, frames.SIGNAL_BODY.pack(frames.SIGNAL_KILL, 0))  # the old checkpoint among them
        self._tree.fork()

    # ------------------------------------------------------------------------------------------- stopping, dying

    def _stop(self, why: pb.Finished.Status) -> None:
        """Softly first: an interrupt, then after the grace a kill."""
        running = self._running
        if running is None or running.stopping:
            return
        running.stopping = why
        self._tree.head.send(frames.INTERRUPT, frames.U64.pack(running.id))
        if self._tree.signal(frames.SIGNAL_INTERRUPT) or self._tree.forking:
            self._after(self._opened.grace_seconds, self._kill)
        else:
            self._give_up()

    def _kill(self) -> None:
        if self._running:
            self._running.killed = True
        if self._tree.signal(frames.SIGNAL_KILL) or self._tree.forking:
            self._after(KILL_DEADLINE, self._give_up)
        else:
            self._give_up()

    def _give_up(self) -> None:
        """No way back to a known state: the host has to replace the container."""
        self._spent = True
        if running := self._running:
            status = running.stopping or pb.Finished.STATUS_DIED
            self._finish(status, pb.Finished.STATE_LOST, reason="the process that held the state is gone")
        self._file_reply(pb.FileReply(error=b"the interpreter has ended"))

    def _reap(self) -> None:
        """This process is PID 1: it is told of the head's end, and of every orphan's, by the kernel itself."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self._tree.head.pid:
                    self._on_head_exit(ended[1])

    def _on_head_exit(self, wait_status: int) -> None:
        """The head is dead; the checkpoint holds the state from before."""
        self._tree.take_what_is_left()
        running = self._running
        if self._tree.checkpoint is None:
            self._give_up()
        elif running and self._strays_but_checkpoint():
            if not running.killed:
                self._kill()
            self._tree.signal(frames.SIGNAL_KILL)
            asyncio.get_running_loop().call_later(STRAY_RETRY, self._look_again, running, wait_status)
        else:
            self._restore(wait_status)

    def _look_again(self, running: Running, wait_status: int) -> None:
        if self._running is running:  # else KILL_DEADLINE has passed
            self._on_head_exit(wait_status)

    def _restore(self, wait_status: int) -> None:
        """The checkpoint takes the head's place. What it is worth is said when it has answered, in ``on_forked``."""
        self._unsettled = False
        self._high_water = 0
        if self._running:
            self._running.killed = True
            self._ended = wait_status
            self._after(KILL_DEADLINE, self._give_up)
        else:
            self._state_lost |= self._stale
        self._file_reply(pb.FileReply(error=b"the interpreter ended during the request"))
        if not self._tree.restore():
            self._give_up()

    def _finish_dead(self, running: Running, wait_status: int) -> None:
        status, reason = running.stopping or pb.Finished.STATUS_DIED, describe_exit(wait_status)
        if os.waitstatus_to_exitcode(wait_status) == -signal.SIGKILL and not running.stopping:
            if self._cgroup.read().oom_kills > running.before.oom_kills:
                status, reason = pb.Finished.STATUS_OUT_OF_MEMORY, "the sandbox's memory limit was reached"
            else:
                reason += f" ({running.fault})" if running.fault else ""
        state = pb.Finished.STATE_LOST if self._stale else pb.Finished.STATE_RESTORED
        self._finish(status, state, reason=reason)

    def on_head_fault(self, reason: str) -> None:
        """The head closed its channel (as it does when it dies) or broke the rules: what is left of it is killed."""
        running = self._running
        if running and running.killed:
            return
        if running:
            running.fault = f"the process {reason}"
        self._kill()

    def _strays(self) -> bool:
        """True if anything of the runner's uid is alive besides the head, its checkpoint, and one on its way out."""
        tree = self._tree
        known = {tree.head.pid} | ({tree.checkpoint.pid} if tree.checkpoint else set())
        if self._cgroup.tasks() - proc.thread_count(os.getpid()) == len(known):
            tree.retired.clear()
            return False
        alive = proc.alive_of(self._runner_uid)
        tree.retired &= alive
        return bool(alive - known - tree.retired)

    def _strays_but_checkpoint(self) -> bool:
        checkpoint = self._tree.checkpoint
        return bool(proc.alive_of(self._runner_uid) - {checkpoint.pid if checkpoint else 0})

    # ------------------------------------------------------------------------------------------------ the ending

    def _finish(
        self, status: pb.Finished.Status, state: pb.Finished.State, outcome: bytes = b"", reason: str = ""
    ) -> None:
        running = self._running
        assert running is not None
        if self._state_lost:
            state = pb.Finished.STATE_LOST
        self._state_lost, self._ended = False, None
        for pipe in self._pipes:
            for _ in range(_PIPE_READS):
                if not self._read_pipe(pipe):
                    break
        running.output.finish()
        if running.timer:
            running.timer.cancel()
        finished = pb.Finished(
            id=running.id,
            status=status,
            state=state,
            usage=running.usage(self._cgroup.read(), self._peak_memory()),
            # Both at their largest do not fit into one message; then the answer counts, as it does for the agent.
            outcome=outcome if len(outcome) + len(running.final_answer) <= frames.MAX_OUTCOME else b"",
            final_answer=running.final_answer,
            reason=reason,
            dropped_bytes=running.output.dropped,
        )
        self._running = None
        self.outbox.put(pb.ExecutorMessage(finished=finished))

    def _peak_memory(self) -> int:
        """A new high of the head is this execution's peak; if there is none, what it holds now is nearest to it."""
        resident, highest = proc.memory(self._tree.head.pid)
        new_high, self._high_water = highest > self._high_water, highest
        return highest if new_high else resident

    def _file_reply(self, reply: pb.FileReply) -> None:
        """Answers the file request under way, if there is one."""
        if self._file_timer:
            self._file_timer.cancel()
            self._file_timer = None
            self.outbox.put(pb.ExecutorMessage(file_reply=reply))

    def _file_reply_from_runner(self, body: bytes) -> None:
        try:
            self._file_reply(pb.FileReply.FromString(body))
        except DecodeError:
            self.on_head_fault("sent a reply that cannot be read")

    def _after(self, seconds: float, call: Callable[[], None]) -> None:
        if self._running:
            if self._running.timer:
                self._running.timer.cancel()
            self._running.timer = asyncio.get_running_loop().call_later(seconds, call)

    # ------------------------------------------------------------- what C code writes to descriptors 1 and 2

    def _watch_pipes(self) -> None:
        for pipe in self._pipes:
            os.set_blocking(pipe, False)
            asyncio.get_running_loop().add_reader(pipe, self._read_pipe, pipe)

    def _read_pipe(self, pipe: int) -> bool:
        try:
            data = os.read(pipe, frames.MAX_PIECE)
        except BlockingIOError:
            return False
        if not data:  # every writer is gone, and with them the last runner
            asyncio.get_running_loop().remove_reader(pipe)
        elif self._running and not self._running.killed:
            self._output(self._running, self._pipes[pipe], data)
        return bool(data)

    def _on_pressure(self, pressed: bool) -> None:
        """The host reads slower than the runner writes: the runner has to wait."""
        self._tree.pause(pressed)
        if pressed:
            for pipe in self._pipes:
                asyncio.get_running_loop().remove_reader(pipe)
        else:
            self._watch_pipes()


def _path(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
