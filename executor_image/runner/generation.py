"""One process of the fork tree: waits for commands, runs executions, forks copies of itself.

The *head* holds the Python state and runs the executions. After each one that it lived through it forks: the copy is a
*checkpoint*, which only waits. If the head has to be killed or dies, or if the host wants an older state, a checkpoint
becomes the head, after it has forked a copy in its own place. A branch is a copy with a workspace of its own. All are
the same program in the same loop; which is which, the supervisor knows.

The head forks when its result has been sent, while nobody waits. That the copy waits and the original goes on, and not
the other way round, keeps what a fresh copy costs (page tables, faults, its first turn on a processor) off the path of
the next execution, and keeps the pid and the threads of user code what they were.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # as signal has it, without making an enum of each number
import gc
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

from executor_image import frames
from executor_image.runner import files
from executor_image.runner.channel import Channel, ChannelClosed
from executor_image.runner.interpreter import Interpreter, end_with
from executor_image.runner.output import FrameWriter
from executor_image.runner.randomness import Randomness
from executor_image.runner.tools import Calls, make_function
from executor_image.runner.values import encode_result
from executor_image.runner.workspace import BRANCHES, Workspace

T = TypeVar("T")

_settrace, _setprofile, _getsid, _sleep = sys.settrace, sys.setprofile, os.getsid, time.sleep  # before any user code
_ALL_SIGNALS = frozenset(range(1, signal.NSIG)) - {32, 33}  # those two are the C library's own
# Between two executions these come from checkpoints that were let go, and from timers that have been stopped.
_STALE = frozenset({signal.SIGCHLD, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF})
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
# Turns that a copy is waited for. Not a time: a machine that pauses has none. One that is stopped before may be lost to
# a kill(0, ...) of the code's, which is told then.
_TURNS = 2000
_TURN = 50e-6  # seconds
_FULL_COLLECTION_EVERY = 64  # copies; between them what was alive at an earlier one is not looked at


class Generation:
    """This process. Forking makes another; everything here is per process."""

    def __init__(self, channel: Channel, setup: dict[str, Any]) -> None:
        self._channel = channel
        channel.heed = self._on_interrupt
        self._randomness = Randomness()
        self._interpreter = Interpreter(setup["import_rules"], self._randomness.listen)
        self._workspace = Workspace(setup["checkpoint_files"])
        self._calls = Calls(channel)
        self._number = 0  # of the execution under way, or of the last
        self._interruptible = False
        self._armed_now = False  # what holds during an execution has not been put back yet
        self._mask: set[int] = set()  # signals that user code has blocked
        self._copies = 0
        self._fresh: list[int] = []  # pids of those that may not be apart yet
        self._copying = False  # a fork of ours is under way, not one of user code
        self._prepare_namespace(setup)

    def _prepare_namespace(self, setup: dict[str, Any]) -> None:
        self._streams = (
            FrameWriter(frames.STDOUT, 1, "<stdout>", self._send),
            FrameWriter(frames.STDERR, 2, "<stderr>", self._send),
        )
        sys.stdout, sys.stderr = self._streams
        os.environ.update(setup["env"])
        for spec in setup["tools"]:
            self._interpreter.functions[spec["name"]] = make_function(spec, lambda: self._calls)
        if setup["final_answer"]:
            self._interpreter.functions["final_answer"] = self._final_answer

    def _send(self, kind: int, data: bytes) -> None:
        if self._channel.orphaned:
            os.write(1 if kind == frames.STDOUT else 2, data)
        else:
            self._channel.send(kind, data)

    def _final_answer(self, answer: object = None) -> NoReturn:
        """Give the answer to the task and end. Nothing after this call runs."""
        end_with(encode_result(answer), lambda value: self._channel.send(frames.FINAL, self._calls.nonce, value))

    # ------------------------------------------------------------------------------------------------- commands

    def serve(self) -> NoReturn:
        """Obeys the supervisor until it is gone."""
        signal.signal(signal.SIGINT, self._on_interrupt)
        self._guard_fork_hooks()
        self._randomness.begin()
        commands: dict[int, Callable[[bytes], None]] = {
            frames.FORK: self._fork,
            frames.EXECUTE: self._execute,
            frames.WAKE: self._wake,
            frames.FILE: lambda body: self._channel.send(frames.FILE_REPLY, files.handle(self._workspace.root, body)),
        }
        try:
            while True:
                kind, body = self._channel.receive()
                commands[kind](body)
        except ChannelClosed:
            os._exit(0)

    # ----------------------------------------------------------------------------------------------------- forking

    def _guard_fork_hooks(self) -> None:
        """What user code, or a library of its, wants done at a fork is for its own forks.

        In ours it would be user code between two executions, and change the copy: ``random`` seeds itself anew.
        """
        register = os.register_at_fork
        register(after_in_child=self._after_fork)

        def guarded(**hooks: Callable[[], object]) -> None:
            register(**{when: self._guarded(hook) for when, hook in hooks.items()})

        for module in (os, sys.modules["posix"]):
            module.register_at_fork = guarded  # type: ignore[attr-defined]

    def _guarded(self, hook: Callable[[], object]) -> Callable[[], object]:
        if not callable(hook):
            raise TypeError(f"expected a callable object, not {type(hook).__name__}")
        return lambda: None if self._copying else hook()

    def _after_fork(self) -> None:
        """In every copy. One that user code has made writes below Python from now on, and has no channel."""
        if not self._copying:
            self._channel.orphan()
            for stream in self._streams:
                stream.after_fork()

    def _fork(self, body: bytes) -> None:
        number, kind = frames.FORK_BODY.unpack(body)
        is_branch = kind in (frames.FORK_BRANCH, frames.FORK_PRESENT_BRANCH)
        fds = self._channel.take_fds()
        if len(fds) < (3 if is_branch else 1):  # the code has used up the descriptors that a process may have
            for fd in fds:
                os.close(fd)
            self._channel.send(frames.FORKED, frames.FORKED_BODY.pack(number, -1, False))
            return
        ours, theirs = self._channel.fileno(), socket.socket(fileno=fds[0])
        theirs.set_inheritable(False)
        if kind in (frames.FORK_CHECKPOINT, frames.FORK_PRESENT_BRANCH):
            self._workspace.look()
        _reap()
        self._copies += 1
        _freeze(self._copies)
        self._copying = True
        pid = _fork_orphan() if is_branch else _fork_child()
        self._copying = False
        if pid is None:
            os.close(ours)
            # kill(0, ...) of user code is for what it has started. A session, not a group alone: a stopped group gets
            # a SIGHUP when its parent dies (setpgid(2), "orphaned process group").
            os.setsid()
            if is_branch:
                theirs.sendall(frames.pack(frames.BORN))
            # Waits here: each further line would copy pages of a copy that may never be needed.
            if not theirs.recv(1, socket.MSG_PEEK):
                os._exit(0)
            self._take_over(theirs, fds[1:])
            return
        if pid > 0:
            self._fresh.append(pid)
        theirs.close()
        for fd in fds[1:]:
            os.close(fd)
        covered = not self._workspace.reason
        self._channel.send(frames.FORKED, frames.FORKED_BODY.pack(number, pid, covered))
        if not self._channel.readable():  # else somebody waits already
            self._interpreter.rehearse()

    def _await_copies(self) -> None:
        """Before code runs each is in a session of its own, though it may have had no turn on a processor yet."""
        while self._fresh:
            copy = self._fresh.pop()
            with suppress(OSError):  # it has ended, and has been waited for
                for _ in range(_TURNS):
                    if _getsid(copy) == copy:
                        break
                    _sleep(_TURN)

    def _take_over(self, sock: socket.socket, pipes: list[int]) -> None:
        """This copy is needed: it gets commands of its own from now on."""
        self._channel.forget()
        self._channel = Channel(sock)
        self._channel.heed = self._on_interrupt
        self._fresh = []  # they are the original's
        self._calls = Calls(self._channel)
        for target, pipe in enumerate(pipes, start=1):
            os.dup2(pipe, target)
            os.close(pipe)

    def _wake(self, body: bytes) -> None:
        """This copy becomes a head: of its own workspace as it was, or of a copy in another place."""
        (branch,) = frames.U32.unpack(body)
        while signal.sigtimedwait(_ALL_SIGNALS, 0):  # sent while this was a copy: they are not for the state it holds
            pass
        self._randomness.renew()
        reason = self._workspace.move(f"{BRANCHES}/{branch}") if branch else self._workspace.restore()
        told = reason.encode("utf-8", "replace")[: frames.MAX_REASON]
        self._channel.send(frames.WOKEN, bytes([not reason]), told)

    # --------------------------------------------------------------------------------------------------- executing

    def _execute(self, body: bytes) -> None:
        self._await_copies()
        _reap()  # checkpoints that were let go: their numbers count as processes until then
        while signal.sigtimedwait(_STALE, 0):
            pass
        nonce, self._number, size = frames.EXECUTE_HEAD.unpack_from(body)
        start = frames.EXECUTE_HEAD.size
        variables, code = body[start : start + size], body[start + size :]
        self._calls.nonce = nonce
        me = os.getpid()
        outcome, data = self._interpreter.run(self._number, code, self._armed, variables)
        if self._armed_now:  # a handler of the code's got in the way of that
            self._put_back()
        for stream in (*self._streams, getattr(sys, "stdout", None), getattr(sys, "stderr", None)):
            _flush(stream)
        sys.stdout, sys.stderr = self._streams
        if os.getpid() != me:  # a copy that user code made with os.fork() has come out at the end of the action
            os._exit(0)
        self._channel.shield.forget()
        self._calls.end()
        self._channel.send(frames.RESULT, frames.RESULT_HEAD.pack(nonce, outcome), data)

    def _armed(self, call: Callable[[], T]) -> T:
        """Calls what is the user's: it may be interrupted, and gets less memory than what runs after it."""
        signal.signal(signal.SIGINT, self._on_interrupt)  # an earlier action may have put another in its place
        with suppress(ValueError, OSError):  # the code has lowered its own limits
            hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
            resource.setrlimit(resource.RLIMIT_DATA, (hard * 8 // 9, hard))
        self._armed_now = self._interruptible = True
        try:
            _signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)  # may call a handler of the code's at once
            self._heed_interrupt()  # it may have come before the code had got so far
            return call()
        finally:
            # Here and first: a handler of the code's could raise at the entry of any function, but not before this
            # one's work is done. The code's handlers hear of nothing between two executions.
            try:  # noqa: SIM105
                self._mask = _signal.pthread_sigmask(signal.SIG_BLOCK, _ALL_SIGNALS)
            except BaseException:  # noqa: BLE001, S110
                pass
            self._interruptible = False
            self._put_back()

    def _put_back(self) -> None:
        """What would go on by itself, or break what runs next, ends with the execution."""
        _settrace(None)
        _setprofile(None)
        self._interpreter.put_back()
        self._randomness.listen()  # what importlib.import_module has brought in
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
        with suppress(ValueError, OSError):
            hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
            resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        self._armed_now = False

    def _on_interrupt(self, *_: object) -> None:
        if self._interruptible:
            self._channel.shield.interrupt(self._heed_interrupt)

    def _heed_interrupt(self) -> None:
        """A signal says neither whom it is for nor from when it is: the frame that came before it does."""
        self._channel.look()
        if self._channel.interrupted == self._number:
            self._channel.interrupted = 0
            raise KeyboardInterrupt


def _freeze(copies: int) -> None:
    """Puts what is alive out of the collector's sight, so that it does not touch (and so copy) shared pages.

    What is garbage has been collected at the end of the execution: no finalizer of the user's runs here. Now and then
    the next one looks at everything, unless the copies that it would cause could use up the memory.
    """
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if copies % _FULL_COLLECTION_EVERY == 0 and largest < resource.getrlimit(resource.RLIMIT_DATA)[1] // 4:
        gc.unfreeze()
    else:
        gc.freeze()


def _reap() -> None:
    """Old checkpoints, and what user code forked and was killed: no zombie may use up the pids limit."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _fork_child() -> int | None:
    """The child's pid, -1 if there can be none; None in the child."""
    try:
        return os.fork() or None
    except OSError:  # the pids or the memory limit
        return -1


def _fork_orphan() -> int | None:
    """As ``_fork_child``, with PID 1 as the child's parent at once, which hears of its end from the kernel.

    The pid is not known here: 0. The process in between is waited for: it must not be taken for one of user code's.
    """
    heard = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored there would be no status to wait for
    try:
        return _fork_twice()
    finally:
        signal.signal(signal.SIGCHLD, heard)


def _fork_twice() -> int | None:
    middle = _fork_child()
    if middle is None:
        made = _fork_child()
        if made is not None:
            os._exit(made == -1)
        return None
    if middle == -1:
        return -1
    return -1 if os.waitpid(middle, 0)[1] else 0


def _flush(stream: Any) -> None:
    with suppress(Exception):  # user code may have put anything into sys.stdout
        stream.flush()
