"""One process of the fork tree: waits for commands, runs executions, forks a checkpoint of itself.

The *head* holds the Python state and runs the executions. After each one that it lived through it forks: the copy is
the *checkpoint*, which only waits. If the head has to be killed or dies, the checkpoint kills what is left of it, is
the head from then on, and forks a checkpoint in its turn: the variables are those from before the execution. Both are
the same program in the same loop; which is which, the supervisor knows.

The head forks when its result has been sent, while nobody waits. That the copy waits and the original goes on, and not
the other way round, keeps what a fresh copy costs (page tables, faults, its first turn on a processor) off the path of
the next execution, and keeps the pid and the threads of user code what they were.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

from executor_image import frames
from executor_image.runner import files
from executor_image.runner.channel import Channel, ChannelClosed
from executor_image.runner.interpreter import Interpreter, end_with
from executor_image.runner.output import FrameWriter
from executor_image.runner.tools import Calls, make_function
from executor_image.runner.values import encode_result

T = TypeVar("T")

_FULL_COLLECTION_EVERY = 64  # generations; between them what older generations hold is not looked at


class Generation:
    """This process. Forking makes another; everything here is per process."""

    def __init__(self, channel: Channel, setup: dict[str, Any]) -> None:
        self._channel = channel
        self._interpreter = Interpreter(setup["import_rules"])
        self._calls = Calls(channel)
        self._checkpoint = 0  # pid of the copy made last
        self._number = 0  # of the execution under way, or of the last
        self._interruptible = False
        self._prepare_namespace(setup)

    def _prepare_namespace(self, setup: dict[str, Any]) -> None:
        sys.stdout = FrameWriter(frames.STDOUT, 1, "<stdout>", self._send)
        sys.stderr = FrameWriter(frames.STDERR, 2, "<stderr>", self._send)
        os.environ.update(setup["env"])
        for spec in setup["tools"]:
            self._interpreter.namespace[spec["name"]] = make_function(spec, lambda: self._calls)
        if setup["final_answer"]:
            self._interpreter.namespace["final_answer"] = self._final_answer

    def _send(self, kind: int, data: bytes) -> None:
        self._channel.send(kind, data)

    def _final_answer(self, answer: object = None) -> NoReturn:
        """Give the answer to the task and end. Nothing after this call runs."""
        end_with(encode_result(answer), lambda value: self._channel.send(frames.FINAL, self._calls.nonce, value))

    # ------------------------------------------------------------------------------------------------- commands

    def serve(self) -> NoReturn:
        """Obeys the supervisor until it is gone."""
        signal.signal(signal.SIGINT, self._on_interrupt)
        commands: dict[int, Callable[[bytes], None]] = {
            frames.FORK: self._fork,
            frames.EXECUTE: self._execute,
            frames.SIGNAL: _signal_head,
            frames.FILE: lambda body: self._channel.send(frames.FILE_REPLY, files.handle(body)),
        }
        try:
            while True:
                kind, body = self._channel.receive()
                commands[kind](body)
        except ChannelClosed:
            os._exit(0)

    # ----------------------------------------------------------------------------------------------------- forking

    def _fork(self, body: bytes) -> None:
        (number,) = frames.U32.unpack(body)
        ours, theirs = self._channel.fileno(), socket.socket(fileno=self._channel.take_fd())
        _reap()
        _collect(number)
        try:
            pid = os.fork()
        except OSError:  # the pids or the memory limit
            pid = -1
        if pid == 0:
            os.close(ours)
            theirs.recv(1, socket.MSG_PEEK)  # waits here: each further line would copy pages of a copy never needed
            self._wake_up(theirs)
            return
        theirs.close()
        self._channel.send(frames.FORKED, frames.FORKED_BODY.pack(number, pid))
        if pid > 0:
            self._drop_checkpoint()
            self._checkpoint = pid
        if not self._channel.readable():  # else somebody waits already
            self._interpreter.rehearse()

    def _wake_up(self, sock: socket.socket) -> None:
        """This copy is needed after all."""
        self._channel.forget()
        self._channel = Channel(sock)
        self._calls = Calls(self._channel)
        self._checkpoint = 0

    def _drop_checkpoint(self) -> None:
        if self._checkpoint:
            with suppress(OSError):  # it was killed among strays, and its number may be somebody else's by now
                os.kill(self._checkpoint, signal.SIGKILL)

    # --------------------------------------------------------------------------------------------------- executing

    def _execute(self, body: bytes) -> None:
        nonce, self._number = frames.EXECUTE_HEAD.unpack_from(body)
        self._calls.nonce = nonce
        me = os.getpid()
        outcome, data = self._interpreter.run(self._number, body[frames.EXECUTE_HEAD.size :], self._armed)
        self._interruptible = False
        if os.getpid() != me:  # a copy that user code made with os.fork() has come out at the end of the action
            os._exit(0)
        self._channel.shield.forget()
        self._calls.end()
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)
        self._channel.send(frames.RESULT, frames.RESULT_HEAD.pack(nonce, outcome), data)

    def _armed(self, call: Callable[[], T]) -> T:
        """Calls what is the user's: it may be interrupted, and gets less memory than what runs after it."""
        signal.signal(signal.SIGINT, self._on_interrupt)  # an earlier action may have put another in its place
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (hard * 8 // 9, hard))
        self._interruptible = True
        try:
            self._heed_interrupt()  # it may have come before the code had got so far
            return call()
        finally:
            self._interruptible = False
            resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))

    def _on_interrupt(self, *_: object) -> None:
        if self._interruptible:
            self._channel.shield.interrupt(self._heed_interrupt)

    def _heed_interrupt(self) -> None:
        """A signal says neither whom it is for nor from when it is: the frame that came before it does."""
        self._channel.look()
        if self._channel.interrupted == self._number:
            self._channel.interrupted = 0
            raise KeyboardInterrupt


def _collect(number: int) -> None:
    """Puts what is alive out of the collector's sight, so that it does not touch (and so copy) shared pages."""
    if number % _FULL_COLLECTION_EVERY == 0:
        gc.unfreeze()
    gc.collect()
    gc.freeze()


def _reap() -> None:
    """Old checkpoints, and what user code forked and was killed: no zombie may use up the pids limit."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _signal_head(body: bytes) -> None:
    what, pid = frames.SIGNAL_BODY.unpack(body)
    with suppress(ProcessLookupError):  # it has ended by itself
        if what == frames.SIGNAL_KILL:
            # Everything of this uid but this process, in one pass that a forking process cannot outrun: strays that
            # left the process group or were forked twice are found too.
            os.kill(-1, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGINT)


def _flush(stream: Any) -> None:
    with suppress(Exception):  # user code may have put anything into sys.stdout
        stream.flush()
