"""One stream: what the host asks of one branch and what its runner does, brought together.

A hostile runner can lie about its own value, error and output. Whether it ended in time, how it ended, what became of
the state, what it used and how many tools it called are this module's own words.

Executions are callbacks, without a task or a wait of their own. What takes several turns (killing strays, going back,
branching) is one coroutine at a time, and what the host asks meanwhile waits for it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import traceback
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from executor_api.v1 import executor_pb2 as pb
from google.protobuf.message import DecodeError

from executor_image import frames
from executor_image.supervisor import proc
from executor_image.supervisor.container import Container
from executor_image.supervisor.execution import CappedOutput, Running
from executor_image.supervisor.outbox import Outbox
from executor_image.supervisor.peer import Peer, PeerGone
from executor_image.supervisor.pipes import Pipes
from executor_image.supervisor.states import States
from executor_image.supervisor.tree import ForkTree, Woken, describe_exit

KILL_DEADLINE = 5.0  # seconds for a kill to be done and the state to be back; it takes milliseconds
MAX_CALLS = 1_000_000  # tool calls in one execution; the host refuses far fewer, one by one
FILE_DEADLINE = 20.0  # seconds for one file request of at most 1 MiB
FORK_DEADLINE = 15.0  # seconds for the head to make a checkpoint, a large workspace read included

_STATUS = {
    frames.OUTCOME_OK: pb.Finished.STATUS_OK,
    frames.OUTCOME_ERROR: pb.Finished.STATUS_ERROR,
    frames.OUTCOME_IMPORT_DENIED: pb.Finished.STATUS_IMPORT_DENIED,
}
_STREAM = {frames.STDOUT: pb.Output.STREAM_STDOUT, frames.STDERR: pb.Output.STREAM_STDERR}


class HostViolation(Exception):
    """The host sent what is not legal now."""


class Session:
    """Serves one branch. ``ready`` is done when its head can take commands."""

    def __init__(self, container: Container, branch: int, head: Peer, pipes: tuple[int, int]) -> None:
        self.branch = branch  # 0 for the container's own
        self.tree = ForkTree(head, self, container.warden, container.numbers)
        self.outbox = Outbox(self._on_pressure)
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._container = container
        self._opened = container.opened
        self._pipes = Pipes(*pipes, self._on_pipe)
        self._states = States(container, self)
        self._running: Running | None = None
        self._file_timer: asyncio.TimerHandle | None = None
        self._work: asyncio.Task[None] | None = None  # the coroutine under way
        self._waiting: Callable[[], None] | None = None  # what the host asked for meanwhile
        self._requesting = False  # a state request has not been answered yet
        self._forked = asyncio.Event()  # the fork that was asked for last has been reported
        self._unsettled = False  # the present state has come about since the last checkpoint
        self._lost_to: Woken | None = None  # the head died between two executions, and only an older state was left
        self._died: int | None = None  # wait status of a head that died while a coroutine was under way
        self._high_water = 0  # largest memory that the head had before this execution
        self._spent = False  # nothing can be run any more
        container.branches.append(self)

    # ---------------------------------------------------------------------------------------------- from the host

    def handle(self, message: pb.HostMessage) -> None:
        """Acts on one message.

        Raises:
            HostViolation: it is not legal now.
        """
        match message.WhichOneof("kind"):
            case "execute":
                if len(message.execute.code) > frames.MAX_CODE:
                    raise HostViolation(f"{len(message.execute.code)} bytes of code")
                self._begin(lambda: self._execute(message.execute))
            case "tool_result":
                self._tool_result(message.tool_result)
            case "interrupt":
                if self._running and self._running.id == message.interrupt.id:
                    self._stop(pb.Finished.STATUS_INTERRUPTED)
            case "file_read":
                read = message.file_read
                request = {"op": "read", "path": _path(read.path), "offset": read.offset, "length": read.length}
                self._begin(lambda: self._file(request))
            case "file_write":
                write = message.file_write
                if len(write.data) > frames.MAX_FILE_PIECE:
                    raise HostViolation(f"{len(write.data)} bytes in one file request")
                request = {"op": "write", "path": _path(write.path), "append": write.append}
                self._begin(lambda: self._file(request, write.data))
            case "file_list":
                self._begin(lambda: self._file({"op": "list"}))
            case "checkpoint" | "rollback" | "fork" | "list_checkpoints" | "drop_checkpoint":
                self._begin(lambda: self._request(message))
            case kind:
                raise HostViolation(f"{kind} is not legal in an open session")

    def _begin(self, operation: Callable[[], None]) -> None:
        """Begins an operation, once what is under way by itself is done."""
        if self._running or self._file_timer or self._waiting or self._requesting:
            raise HostViolation("one operation at a time")
        self.settle()
        if self._work:
            self._waiting = operation
        else:
            operation()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine; what the host asks for meanwhile waits for its end, and so does a death."""
        assert self._work is None
        self._work = asyncio.get_running_loop().create_task(work)
        self._work.add_done_callback(self._on_done)

    def _on_done(self, work: asyncio.Task[None]) -> None:
        self._work = None
        if not work.cancelled() and (error := work.exception()):
            traceback.print_exception(error)  # a fault of this program's: what is not understood is not gone on with
            os._exit(1)
        died, self._died = self._died, None
        if died is not None and not self._spent:
            self.on_head_exit(died)
        elif self._waiting:
            operation, self._waiting = self._waiting, None
            operation()

    # ----------------------------------------------------------------------------------------------- operations

    def _execute(self, request: pb.Execute) -> None:
        output = CappedOutput(self._opened.output_bytes, partial(self.outbox.put_output, request.id))
        running = Running(request.id, output, self._container.cgroup.read())
        self._running = running
        if self._spent:
            self._finish(pb.Finished.STATUS_DIED, pb.Finished.STATE_LOST, reason="the interpreter had ended before")
            return
        self.tree.thaw()
        self.tree.head.send(frames.EXECUTE, frames.EXECUTE_HEAD.pack(running.nonce, request.id), request.code)
        self._after(request.timeout_seconds, lambda: self._stop(pb.Finished.STATUS_TIMEOUT))
        self._container.watch_memory()

    def _tool_result(self, result: pb.ToolResult) -> None:
        if self._running is None or self._running.id != result.id:
            return  # it crossed with the end of the execution
        failed = result.WhichOneof("outcome") == "failure"
        failure = json.dumps([result.failure.type_name, result.failure.message]).encode()
        head = frames.TOOL_HEAD.pack(result.call, failed)
        self.tree.head.send(frames.TOOL_RESULT, head, failure if failed else result.value)
        if self.tree.head.stuffed:
            self.on_head_fault("does not take the results of its tool calls")

    def _file(self, request: dict[str, object], data: bytes = b"") -> None:
        self._file_timer = asyncio.get_running_loop().call_later(FILE_DEADLINE, self._kill)
        if self._spent:
            self._file_reply(pb.FileReply(error=b"the interpreter has ended"))
            return
        if request["op"] == "write":  # the present state is another now
            self.tree.current, self._unsettled = None, True
        self.tree.thaw()
        self.tree.head.send(frames.FILE, json.dumps(request).encode(), b"\0", data)

    def _request(self, message: pb.HostMessage) -> None:
        self._requesting = True
        self._do(self._state(message))

    async def _state(self, message: pb.HostMessage) -> None:
        if self._spent:
            reply = pb.StateReply(error="the interpreter has ended")
        else:
            await self._wait_for_fork()
            if self.tree.current is None and not self.has_threads() and await self._container.make_room():
                await self.fork_now()
            reply = await self._states.answer(message)
            self._high_water = 0  # it may be another process now
        self._requesting = False
        self.outbox.put(pb.ExecutorMessage(state_reply=reply))

    # -------------------------------------------------------------------------------------------- from the runner

    def on_head_frame(self, kind: int, body: bytes) -> None:
        """Output, a tool call, a final answer, a result, a reply."""
        running = self._running
        if kind == frames.READY and not self.ready.done():
            self.begin()
        elif kind == frames.FILE_REPLY and self._file_timer:
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

    def begin(self) -> None:
        """The first head is there; it makes its first checkpoint."""
        self._unsettled = True
        self.settle()

    def _output(self, running: Running, stream: pb.Output.Stream, text: bytes) -> None:
        running.output.add(stream, text)
        if running.output.flooded and not running.stopping:
            running.stopping = pb.Finished.STATUS_OUTPUT_LIMIT
            self._kill()

    def _on_pipe(self, stream: pb.Output.Stream, data: bytes) -> None:
        if self._running and not self._running.killed:
            self._output(self._running, stream, data)

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
        self.tree.advance(running.id)
        self._unsettled = True
        status = running.stopping or _STATUS[outcome]
        self._finish(status, pb.Finished.STATE_KEPT, outcome=body[frames.RESULT_HEAD.size :])

    # --------------------------------------------------------------------------------------------------- settling

    def settle(self) -> None:
        """Off the critical path, when the reply has been sent and the model thinks: the next checkpoint is made."""
        if not self._unsettled or self._running or self._work or self._spent:
            return
        self._unsettled = False
        if self._container.has_strays(self):
            self._do(self._clean())
        else:
            self._checkpoint()

    async def _clean(self) -> None:
        try:
            async with self._container.lock:
                swept = await self._container.sweep(self)
        except PeerGone:
            return
        if swept:
            self._checkpoint()
        else:
            self._give_up()

    def _checkpoint(self) -> None:
        """Threads do not survive a fork: with some alive the head is stopped until it is needed again."""
        if self.has_threads():
            self.tree.freeze()
        else:
            self._forked.clear()
            self.tree.fork()

    def has_threads(self) -> bool:
        """Threads of the code are alive in the head."""
        return proc.thread_count(self.tree.head.pid) > 1

    def on_forked(self) -> None:
        """There is a checkpoint of the present state, or none could be made."""
        self._forked.set()
        self._container.trim(self.tree)
        if not self.ready.done():
            self.ready.set_result(None)

    async def fork_now(self) -> None:
        """Another checkpoint of the present state, if one can be made."""
        self._checkpoint()
        await self._wait_for_fork()

    async def _wait_for_fork(self) -> None:
        try:
            async with asyncio.timeout(FORK_DEADLINE):
                if self.tree.forking:
                    await self._forked.wait()
        except TimeoutError:
            self.on_head_fault("does not make checkpoints")

    def adopt(self, number: int, head: Peer, pipes: tuple[int, int]) -> Session:
        """A new branch of this head, which owns the pipes from now on."""
        return Session(self._container, number, head, pipes)

    # ------------------------------------------------------------------------------------------- stopping, dying

    def _stop(self, why: pb.Finished.Status) -> None:
        """Softly first: an interrupt, then after the grace a kill."""
        running = self._running
        if running is None or running.stopping or running.killed:
            return
        running.stopping = why
        self.tree.head.send(frames.INTERRUPT, frames.U64.pack(running.id))
        self.tree.signal(signal.SIGINT)
        self._after(self._opened.grace_seconds, self._kill)

    def _kill(self) -> None:
        if self._running:
            self._running.killed = True
        self.tree.signal(signal.SIGKILL)
        self._after(KILL_DEADLINE, self._give_up)

    def on_head_fault(self, reason: str) -> None:
        """The head closed its channel (as it does when it dies) or broke the rules: what is left of it is killed."""
        running = self._running
        if running and running.killed:
            return
        if running:
            running.fault = f"the process {reason}"
        self._kill()

    def on_warden_gone(self) -> None:
        """Nothing can be stopped or brought back any more."""
        self._give_up()

    def _give_up(self) -> None:
        """No way back to a known state: the host has to replace the container."""
        self._spent = True
        if running := self._running:
            status = running.stopping or pb.Finished.STATUS_DIED
            self._finish(status, pb.Finished.STATE_LOST, reason="the process that held the state is gone")
        self._file_reply(pb.FileReply(error=b"the interpreter has ended"))
        if not self.ready.done():
            self.ready.set_exception(HostViolation("the interpreter ended while it started"))

    def on_head_exit(self, wait_status: int) -> None:
        """The head is dead; a checkpoint holds the state from before."""
        if self._work:
            self._died = wait_status
            return
        self.tree.head.read_rest()
        if not self._spent and not self._work:
            self._do(self._recover(wait_status))

    async def _recover(self, wait_status: int) -> None:
        """What the head left behind is killed, and the nearest state from before becomes the present one."""
        running = self._running
        if running:
            running.killed = True
            self._after(2 * KILL_DEADLINE, self._give_up)
        try:
            async with asyncio.timeout(KILL_DEADLINE), self._container.lock:
                if self._container.has_strays(self) and not await self._container.sweep(self):
                    raise PeerGone("what the code left behind cannot be ended")
                newest = self.tree.current is not None
                woken = await self._go_back()
        except (TimeoutError, PeerGone):
            self._give_up()
            return
        self._high_water = 0
        self._unsettled = self.tree.current is None
        self._file_reply(pb.FileReply(error=b"the interpreter ended during the request"))
        if running and running is self._running:
            self._finish_dead(running, wait_status, newest, woken)
        elif not newest:
            self._lost_to = woken

    async def _go_back(self) -> Woken:
        while checkpoint := self.tree.nearest():
            try:
                return await self.tree.promote(checkpoint)
            except PeerGone:
                if checkpoint in self.tree.checkpoints:
                    self.tree.drop(checkpoint)
        raise PeerGone("no process holds a state any more")

    def _finish_dead(self, running: Running, wait_status: int, newest: bool, woken: Woken) -> None:
        status, reason = running.stopping or pb.Finished.STATUS_DIED, describe_exit(wait_status)
        if os.waitstatus_to_exitcode(wait_status) == -signal.SIGKILL and not running.stopping:
            if self._container.cgroup.read().oom_kills > running.before.oom_kills:
                status, reason = pb.Finished.STATUS_OUT_OF_MEMORY, "the sandbox's memory limit was reached"
            else:
                reason += f" ({running.fault})" if running.fault else ""
        state = pb.Finished.STATE_RESTORED if newest else pb.Finished.STATE_LOST
        self._finish(status, state, reason=reason, woken=woken)

    # ------------------------------------------------------------------------------------------------ the ending

    def _finish(
        self,
        status: pb.Finished.Status,
        state: pb.Finished.State,
        outcome: bytes = b"",
        reason: str = "",
        woken: Woken | None = None,
    ) -> None:
        running = self._running
        assert running is not None
        if self._lost_to:
            state, woken, self._lost_to = pb.Finished.STATE_LOST, self._lost_to, None
        self._pipes.drain()
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
            forkable=not self.has_threads(),
            restored_to=woken.execution if woken else 0,
            files_restored=woken.files_restored if woken else False,
            files_reason=woken.reason if woken else b"",
            spent=self._spent,
        )
        self._running = None
        self.outbox.put(pb.ExecutorMessage(finished=finished))

    def _peak_memory(self) -> int:
        """A new high of the head is this execution's peak; if there is none, what it holds now is nearest to it."""
        resident, highest = proc.memory(self.tree.head.pid)
        new_high, self._high_water = highest > self._high_water, highest
        return highest if new_high else resident

    def _file_reply(self, reply: pb.FileReply) -> None:
        """Answers the file request under way, if there is one."""
        if self._file_timer:
            self._file_timer.cancel()
            self._file_timer = None
            self.outbox.put(pb.ExecutorMessage(file_reply=reply))
            if not self._spent and self.has_threads():
                self.tree.freeze()

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

    def _on_pressure(self, pressed: bool) -> None:
        """The host reads slower than the runner writes: the runner has to wait."""
        self.tree.head.pause(pressed)
        self._pipes.pause(pressed)

    @property
    def executing(self) -> bool:
        """User code is running."""
        return self._running is not None

    def close(self) -> None:
        """Ends a branch: its processes, its workspace."""
        self._spent = True
        if self._work and self._work is not asyncio.current_task():
            self._work.cancel()
        for timer in (self._file_timer, self._running and self._running.timer):
            if timer:
                timer.cancel()
        self._running = None
        self._pipes.close()
        self._closing = asyncio.get_running_loop().create_task(self._container.forget(self, self.branch))


def _path(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
