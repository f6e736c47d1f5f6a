"""One stream: what the host asks of one branch and what its runner does, brought together.

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
from typing import Any

from executor_api.v1 import executor_pb2 as pb
from google.protobuf.message import DecodeError

from executor_image import frames
from executor_image.supervisor import proc
from executor_image.supervisor.container import Container
from executor_image.supervisor.executing import Executing
from executor_image.supervisor.outbox import Outbox
from executor_image.supervisor.peer import Peer, PeerGone
from executor_image.supervisor.pipes import Pipes
from executor_image.supervisor.states import States
from executor_image.supervisor.tree import ForkTree, Woken

FREEZE_AFTER = 0.25  # seconds without a request, after which the branch's processes are stopped
# Seconds for a kill to be done, and as many for the state to be back. It takes milliseconds, a fork bomb more.
KILL_DEADLINE = 8.0
LAST_RESORT = KILL_DEADLINE + 1  # seconds from a death to giving up, should going back stop despite its deadline
FILE_DEADLINE = 20.0  # seconds for one file request of at most 1 MiB
FORK_DEADLINE = 5.0  # seconds for the head to make a checkpoint: it copies page tables, and reads what is new in files


class HostViolation(Exception):
    """The host sent what is not legal now."""


class Session:
    """Serves one branch. ``ready`` is done when its head can take commands."""

    def __init__(self, container: Container, branch: int, head: Peer, pipes: tuple[int, int]) -> None:
        self.branch = branch  # 0 for the container's own
        self.tree = ForkTree(head, self, container.warden, container.numbers)
        self.outbox = Outbox(self._on_pressure)
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.spent = False  # nothing can be run any more
        self.last_execution = 0  # that the host has asked for
        self.grace = container.opened.grace_seconds
        self._container = container
        self._execution = Executing(container, self)
        self._pipes = Pipes(*pipes, self._execution.take_output)
        self._states = States(container, self)
        self._file_timer: asyncio.TimerHandle | None = None
        self._work: asyncio.Task[object] | None = None  # the coroutine under way
        self._waiting: Callable[[], None] | None = None  # what the host asked for meanwhile
        self._interrupted = 0  # an execution that was to be interrupted before it had begun
        self._requesting = False  # a state request has not been answered yet
        self._forked = asyncio.Event()  # the fork that was asked for last has been reported
        self._fork_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._unsettled = False  # the present state has come about since the last checkpoint
        self._died: int | None = None  # wait status of a head that died while a coroutine was under way
        self._closing: asyncio.Task[None] | None = None
        container.branches.append(self)

    # ---------------------------------------------------------------------------------------------- from the host

    def handle(self, message: pb.HostMessage) -> None:
        """Acts on one message.

        Raises:
            HostViolation: it is not legal now.
        """
        match message.WhichOneof("kind"):
            case "execute":
                _check_execute(message.execute)
                self.last_execution = message.execute.id
                self._begin(lambda: self._execution.start(message.execute))
            case "tool_result":
                self._execution.answer_call(message.tool_result)
            case "interrupt":
                self._interrupted = message.interrupt.id if self._waiting else 0  # what waits has not begun
                self._execution.interrupt(message.interrupt.id)
            case "deadline":
                if not message.deadline.seconds >= 0:  # nor is it a number
                    raise HostViolation(f"a deadline in {message.deadline.seconds} s")
                self._execution.set_deadline(message.deadline.id, message.deadline.seconds)
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
            case "end":
                os._exit(0)
            case kind:
                raise HostViolation(f"{kind} is not legal in an open session")

    def _begin(self, operation: Callable[[], None]) -> None:
        """Begins an operation, once what is under way by itself is done."""
        if self.is_busy:
            raise HostViolation("one operation at a time")
        self.settle()
        if self._idle_timer:
            self._idle_timer.cancel()
        self._waiting = operation
        self._go_on()

    def _go_on(self) -> None:
        """Begins what the host asked for, unless something is under way that it has to wait for.

        Nothing is sent to a head that has not made its checkpoint yet: what it is to run then would have its time taken
        by what user code left for that moment, and could not be given to another head.
        """
        operation = self._waiting
        if operation and not self._work and (self.spent or not self.tree.forking):
            self._waiting = None
            operation()
            self._execution.interrupt(self._interrupted)

    def _do(self, work: Coroutine[Any, Any, object]) -> None:
        """Runs a coroutine; what the host asks for meanwhile waits for its end, and so does a death."""
        assert self._work is None
        self._work = asyncio.get_running_loop().create_task(work)
        self._work.add_done_callback(self._on_done)

    def _on_done(self, work: asyncio.Task[object]) -> None:
        self._work = None
        if not work.cancelled() and (error := work.exception()):
            traceback.print_exception(error)  # a fault of this program's: what is not understood is not gone on with
            os._exit(1)
        died, self._died = self._died, None
        if died is not None and not self.spent:
            self.on_head_exit(died)
        else:
            self._go_on()

    # ------------------------------------------------------------------------------------------ files and states

    def _file(self, request: dict[str, object], data: bytes = b"") -> None:
        self._file_timer = asyncio.get_running_loop().call_later(FILE_DEADLINE, self.kill)
        if self.spent:
            self._file_reply(pb.FileReply(error=b"the interpreter has ended"))
            return
        if request["op"] == "write":  # the present state is another now
            self.tree.current, self._unsettled = None, True
        self.tree.thaw()
        self.tree.head.send(frames.FILE, json.dumps(request).encode(), b"\0", data)

    def _file_reply(self, reply: pb.FileReply) -> None:
        """Answers the file request under way, if there is one."""
        if self._file_timer:
            self._file_timer.cancel()
            self._file_timer = None
            self.outbox.put(pb.ExecutorMessage(file_reply=reply))
            self._idle()

    def _file_reply_from_runner(self, body: bytes) -> None:
        try:
            self._file_reply(pb.FileReply.FromString(body))
        except DecodeError:
            self.fault("sent a reply that cannot be read")
            return
        if self.has_threads():  # they have run meanwhile
            self._unsettled = True
            self.settle()

    def _request(self, message: pb.HostMessage) -> None:
        self._requesting = True
        self._do(self._state(message))

    async def _state(self, message: pb.HostMessage) -> None:
        if self.spent:
            reply = pb.StateReply(error="the interpreter has ended")
        else:
            if self.tree.current is None and not self.has_threads() and await self._container.make_room():
                await self.fork_now()
            reply = await self._states.answer(message)
            self._execution.high_water = 0  # it may be another process now
            if message.WhichOneof("kind") == "rollback" and not reply.error:
                self._execution.lost_to = None  # the host has chosen another state since
            self._unsettled = self.tree.current is None and not self.has_threads()
        self._requesting = False
        self.outbox.put(pb.ExecutorMessage(state_reply=reply))
        self._idle()

    def adopt(self, number: int, head: Peer, pipes: tuple[int, int]) -> Session:
        """A new branch of this head, which owns the pipes from now on."""
        return Session(self._container, number, head, pipes)

    # -------------------------------------------------------------------------------------------- from the runner

    def on_head_frame(self, kind: int, body: bytes) -> None:
        """Something of an execution, or a reply."""
        if kind == frames.READY and not self.ready.done():
            self.begin()
        elif kind == frames.FILE_REPLY and self._file_timer:
            self._file_reply_from_runner(body)
        else:
            self._execution.on_frame(kind, body)

    def on_result(self) -> None:
        """An execution has ended by itself: the present state is another than before."""
        self._unsettled = True

    def drain(self) -> None:
        """Takes in what C code has written."""
        self._pipes.drain()

    def _on_pressure(self, pressed: bool) -> None:
        """The host reads slower than the runner writes: the runner has to wait."""
        self.tree.head.pause(pressed)
        self._pipes.pause(pressed)

    @property
    def executing(self) -> bool:
        """User code is running."""
        return self._execution.running is not None

    @property
    def is_busy(self) -> bool:
        """Something that the host asked for has not ended."""
        return bool(self.executing or self._file_timer or self._waiting or self._requesting)

    def as_resumed(self) -> pb.Resumed:
        """What a host that goes on with it has to know."""
        return pb.Resumed(last_execution=self.last_execution, forkable=not self.has_threads())

    def begin(self) -> None:
        """The first head is there; it makes its first checkpoint."""
        self._unsettled = True
        self.settle()

    # --------------------------------------------------------------------------------------------------- settling

    def settle(self) -> None:
        """Off the critical path, when the reply has been sent and the model thinks: the next checkpoint is made."""
        if self.executing or self._work or self.spent:
            return
        self._idle()
        if not self._unsettled:
            return
        self._unsettled = False
        if self.has_threads():
            self._do(self._stop())
        elif self._container.has_strays(self):
            self._do(self._clean())
        else:
            self._checkpoint()

    async def _clean(self) -> None:
        if await self._container.clean(self):
            self._checkpoint()

    async def _stop(self) -> None:
        """Threads do not survive a fork: with some alive the head is stopped at once until it is needed again."""
        if await self._container.stop(self) and not self.has_threads():
            self._checkpoint()  # the last ended just before

    def _checkpoint(self) -> None:
        if proc.is_inspectable(self.tree.head.pid):
            self.fault("has opened its memory to others")  # and its copies' would be open, too
            return
        self._forked.clear()
        self.tree.fork()
        if self._fork_timer:
            self._fork_timer.cancel()  # of a head that died before it had answered
        self._fork_timer = asyncio.get_running_loop().call_later(FORK_DEADLINE, self._on_no_fork)

    def _on_no_fork(self) -> None:
        if self.tree.forking:
            self.fault("does not make checkpoints")

    def has_threads(self) -> bool:
        """Threads of the code are alive in the head."""
        return proc.thread_count(self.tree.head.pid) > 1

    def on_forked(self) -> None:
        """There is a checkpoint of the present state, or none could be made."""
        if self._fork_timer:
            self._fork_timer.cancel()
        self._forked.set()
        self._container.trim(self.tree)
        if not self.ready.done():
            self.ready.set_result(None)
        self._go_on()

    def _idle(self) -> None:
        """What is not asked for anything is stopped soon; at once would cost each of many steps in a row."""
        if self._idle_timer:
            self._idle_timer.cancel()
        self._idle_timer = asyncio.get_running_loop().call_later(FREEZE_AFTER, self._on_idle)

    def _on_idle(self) -> None:
        if self._work or self.tree.forking:
            self._idle()  # it ends by itself, and soon
        elif not self.executing and not self._file_timer and not self.spent:
            self._do(self._container.stop(self))  # whatever runs there: the code may have taken the Python over

    async def fork_now(self) -> None:
        """Another checkpoint of the present state, if one can be made."""
        if not self.has_threads():
            self._checkpoint()
        if self.tree.forking:
            await self._forked.wait()

    # ------------------------------------------------------------------------------------------- stopping, dying

    def stop(self) -> None:
        """What runs is interrupted, and killed after the grace; a file request, which hears of nothing, at once."""
        self.settle()
        self.handle(pb.HostMessage(interrupt=pb.Interrupt(id=self.last_execution)))
        if self._file_timer:
            self.kill()

    def kill(self) -> None:
        """The head is killed; its exit brings the state of before back."""
        if self._execution.running:
            self._execution.running.killed = True
        self.tree.signal(signal.SIGKILL)
        asyncio.get_running_loop().call_later(KILL_DEADLINE, self._on_not_dead, self.tree.head)

    def _on_not_dead(self, head: Peer) -> None:
        if self.tree.head is head and not self._work and not self.spent:
            self._container.give_up()

    def fault(self, reason: str) -> None:
        """The head closed its channel (as it does when it dies) or broke the rules: what is left of it is killed."""
        running = self._execution.running
        if running and running.killed:
            return
        if running:
            running.fault = f"the process {reason}"
        self.kill()

    def give_up(self) -> None:
        """No way back to a known state: the host has to replace the container."""
        self.spent = True
        self._execution.give_up()
        self._file_reply(pb.FileReply(error=b"the interpreter has ended"))
        if not self.ready.done():
            self.ready.set_exception(HostViolation("the interpreter ended while it started"))
        self._go_on()

    def on_head_exit(self, wait_status: int) -> None:
        """The head is dead; a checkpoint holds the state from before."""
        self._forked.set()  # it makes none any more
        if self._work:
            self._died = wait_status
            return
        self.tree.head.read_rest()
        if not self.spent:
            self._do(self._recover(wait_status))

    async def _recover(self, wait_status: int) -> None:
        """What the head left behind is killed, and the nearest state from before becomes the present one."""
        running = self._execution.running
        if running:
            running.killed = True
            self._execution.after(LAST_RESORT, self.give_up)
        try:
            async with asyncio.timeout(KILL_DEADLINE):
                if not await self._container.clean(self):
                    return
                woken, newest = await self._go_back()
        except (TimeoutError, PeerGone):
            self.give_up()
            return
        self._execution.high_water = 0
        self._unsettled = self.tree.current is None
        self._file_reply(pb.FileReply(error=b"the interpreter ended during the request"))
        if running and running is self._execution.running:
            self._execution.finish_dead(wait_status, newest, woken)
        elif not newest:
            self._execution.lost_to = woken
        self._idle()

    async def _go_back(self) -> tuple[Woken, bool]:
        """What is the present state now, and whether it is the one that the head had begun with."""
        present = self.tree.current  # its process may have died with the head, and nobody has heard of it yet
        while checkpoint := self.tree.nearest():
            try:
                return await self.tree.promote(checkpoint), checkpoint is present
            except PeerGone:
                if checkpoint in self.tree.checkpoints:
                    self.tree.drop(checkpoint)
        raise PeerGone("no process holds a state any more")

    def close(self) -> None:
        """Ends a branch: its processes, its workspace."""
        if self._closing:
            return
        self.spent = True
        if self._work and self._work is not asyncio.current_task():
            self._work.cancel()
        for timer in (self._file_timer, self._fork_timer, self._idle_timer):
            if timer:
                timer.cancel()
        self._execution.abandon()
        self._pipes.close()
        self._closing = asyncio.get_running_loop().create_task(self._container.forget(self, self.branch))


def _check_execute(execute: pb.Execute) -> None:
    if len(execute.code) > frames.MAX_CODE:
        raise HostViolation(f"{len(execute.code)} bytes of code")
    if len(execute.variables) > frames.MAX_VALUE:
        raise HostViolation(f"{len(execute.variables)} bytes of variables")


def _path(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
