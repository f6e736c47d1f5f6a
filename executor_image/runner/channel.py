"""One generation's end of its socketpair: blocking, shared by the threads of user code."""

from __future__ import annotations

import _thread
import array
import select
import socket
import threading
from collections import deque
from collections.abc import Callable

from executor_image.frames import INTERRUPT, TO_RUNNER, TOOL_RESULT, U32, U64, FrameReader, pack

MAX_FDS = 3  # that come with one frame
_LOOK_AGAIN_MS = 100  # for threads: what the main thread has read at an interrupt wakes no other
_READ_SIZE = 64 << 10  # memory may be nearly used up when the next command is read


class ChannelClosed(Exception):
    """The supervisor is gone, or has closed this generation's channel."""


class Shield:
    """Holds what SIGINT does back in the main thread (the only one that Python runs signal handlers in)."""

    def __init__(self) -> None:
        self._depth = 0
        self._late: Callable[[], None] | None = None
        self._main = threading.main_thread().ident

    @property
    def is_mine(self) -> bool:
        """This is the main thread."""
        return threading.get_ident() == self._main

    def __enter__(self) -> None:
        if self.is_mine:
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        if self.is_mine:
            self._depth -= 1
            if self._late and not self._depth:
                act, self._late = self._late, None
                act()

    def interrupt(self, act: Callable[[], None]) -> None:
        """What the signal handler calls: acts now, or when the shield is lowered."""
        if self._depth:
            self._late = act
        else:
            act()

    def forget(self) -> None:
        """Drops an interrupt that came too late to reach user code, and what a handler of the code's left raised."""
        self._depth, self._late = 0, None


class Channel:
    """Sends and receives frames. An interrupt may arrive at any moment and never tears a frame.

    Any thread may wait: the main thread for commands, others for results of their tool calls. One of them at a time
    reads the socket, for all; so a lone call, the usual case, costs no thread switch.

    All of it is shielded from the interrupt's signal, waiting too: the interrupt's frame, which comes before it, wakes
    whoever reads, who wakes the others, and the main thread calls ``heed`` where everything is in order. The others get
    no result any more: the main thread may wait for their end. What a signal handler of the code's raises may come out
    of any wait; who was reading then takes over from itself.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.heed: Callable[[], None] = lambda: None  # acts on an interrupt that has arrived
        self._sock = sock
        self._reader = FrameReader(TO_RUNNER)
        self._commands: deque[tuple[int, bytes]] = deque()
        self._results: dict[int, bytes] = {}
        self._fds: deque[int] = deque()
        self._send_lock = threading.Lock()
        self._lock = threading.RLock()  # entered and left in C: no handler of the code's comes between
        self._changed = threading.Condition(self._lock)
        self._who_reads: int | None = None  # a thread
        self._read_lock = threading.Lock()
        self.shield = Shield()
        self.orphaned = False  # this process is a copy that user code has made: the channel is its original's
        self.interrupted = 0  # id of the execution that was to be interrupted last
        self._interrupts = 0  # how many have come
        self._is_unheeded = False  # one has arrived, and the main thread has not looked

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._sock.fileno()

    def forget(self) -> None:
        """Lets go of a descriptor that has been closed already."""
        self._sock.detach()

    def orphan(self) -> None:
        """Lets go of the channel in a copy made by user code: two that send would tear each other's frames."""
        self.orphaned = True
        self._sock.close()

    def send(self, kind: int, *parts: bytes) -> None:
        """Sends one frame whole; blocks while the supervisor is busy.

        Raises:
            OSError: this process has no channel.
        """
        if self.orphaned:
            raise OSError("a process that the code has forked can neither call tools nor answer")
        frame = pack(kind, *parts)
        with self.shield, self._send_lock:
            self._sock.sendall(frame)

    def receive(self) -> tuple[int, bytes]:
        """The next command.

        Raises:
            ChannelClosed: there will be none.
        """
        self._wait_until(lambda: bool(self._commands))
        return self._commands.popleft()

    def receive_result(self, number: int, wanted: Callable[[], bool]) -> bytes | None:
        """The result of the tool call of that number, or None as soon as it is not ``wanted`` any more.

        In another thread than the main one an interrupt ends the wait like that, too.
        """
        before = self._interrupts

        def is_given_up() -> bool:
            return not wanted() or (self._interrupts != before and not self.shield.is_mine)

        self._wait_until(lambda: number in self._results or is_given_up())
        return self._results.pop(number, None)

    def wake(self) -> None:
        """Has those who wait look again whether they still want to."""
        with self._lock:
            self._results.clear()
            self._changed.notify_all()

    def readable(self) -> bool:
        """True if ``receive`` would not wait."""
        if self._commands:
            return True
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(0))

    def take_fds(self) -> list[int]:
        """The descriptors that came with the frame just received; fewer than were sent if there is no room for them."""
        fds = list(self._fds)
        self._fds.clear()
        return fds

    def _wait_until(self, true: Callable[[], bool]) -> None:
        while True:
            with self.shield:
                if self._is_so(true):
                    return
            if self._is_unheeded and self.shield.is_mine:
                self._is_unheeded = False
                self.heed()

    def _is_so(self, true: Callable[[], bool]) -> bool:
        """At once, or after something has changed, which may be another thing."""
        me = threading.get_ident()
        with self._lock:
            if true():
                return True
            if self._is_unheeded and self.shield.is_mine:  # another thread has read it
                return False
            if self._who_reads not in (None, me):
                self._changed.wait()
                return False
            self._who_reads = me
        try:
            poll = select.poll()
            poll.register(self._sock, select.POLLIN)
            poll.poll(None if self.shield.is_mine else _LOOK_AGAIN_MS)
            self.look()
        finally:
            with self._lock:
                self._who_reads = None
                self._changed.notify_all()
        return False

    def look(self) -> None:
        """Takes in what has arrived, without waiting.

        Raises:
            ChannelClosed: nothing more will.
        """
        with self.shield, self._read_lock:
            try:
                data, ancillary, _, _ = self._sock.recvmsg(
                    _READ_SIZE, socket.CMSG_SPACE(4 * MAX_FDS), socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                return
            except OSError as error:  # user code may have closed or replaced the descriptor
                raise ChannelClosed from error
            if not data:
                raise ChannelClosed
            for _level, _kind, payload in ancillary:
                self._fds.extend(array.array("i", payload))
            for kind, body in self._reader.feed(data):
                if kind == TOOL_RESULT:
                    self._results[U32.unpack_from(body)[0]] = body
                elif kind == INTERRUPT:
                    (self.interrupted,) = U64.unpack(body)
                    self._interrupts += 1
                    self._is_unheeded = True
                    if not self.shield.is_mine:  # whose signal may have come before it, and found nothing
                        _thread.interrupt_main()
                else:
                    self._commands.append((kind, body))
