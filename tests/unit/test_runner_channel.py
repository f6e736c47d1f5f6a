"""Waiting for frames: an interrupt ends it at any moment, and whatever ends it leaves the channel as it was."""

from __future__ import annotations

import itertools
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from executor_image import frames
from executor_image.runner import channel as module
from executor_image.runner.channel import Channel
from tests.waiting import eventually

DEADLINE = 30.0  # seconds
RESULT, COMMAND = (
    frames.pack(frames.TOOL_RESULT, frames.TOOL_HEAD.pack(1, 0)),
    frames.pack(frames.WAKE, frames.U32.pack(5)),
)
INTERRUPT = frames.pack(frames.INTERRUPT, frames.U64.pack(7))


class Raised(BaseException):
    """What a signal handler of the code's raises."""


@pytest.fixture
def both() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    theirs.settimeout(DEADLINE)
    with ours, theirs:
        yield Channel(ours), theirs


def interrupted() -> None:
    raise KeyboardInterrupt


def test_the_frame_alone_ends_the_wait_before_its_signal_has_come(both: tuple[Channel, socket.socket]) -> None:
    channel, supervisor = both
    channel.heed = interrupted
    supervisor.sendall(INTERRUPT)
    with pytest.raises(KeyboardInterrupt):
        channel.receive_result(1, lambda: True)
    supervisor.sendall(COMMAND)
    assert channel.receive() == (frames.WAKE, frames.U32.pack(5))


def test_one_that_concerns_nobody_any_more_is_heeded_once(both: tuple[Channel, socket.socket]) -> None:
    channel, supervisor = both
    heeded: list[int] = []
    channel.heed = lambda: heeded.append(channel.interrupted)
    supervisor.sendall(INTERRUPT)
    later = threading.Timer(0.05, supervisor.sendall, [COMMAND])
    later.start()
    assert channel.receive() == (frames.WAKE, frames.U32.pack(5))
    later.join()
    assert heeded == [7]


@pytest.fixture
def signals() -> Iterator[list[int]]:
    """Those that the main thread has been sent."""
    sent: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: sent.append(number))
    yield sent
    signal.signal(signal.SIGINT, before)


def reading(channel: Channel, results: list[bytes | None]) -> threading.Thread:
    """A thread that waits for a result which does not come, and reads for all."""
    thread = threading.Thread(target=lambda: results.append(channel.receive_result(2, lambda: True)))
    thread.start()
    eventually(lambda: channel._who_reads == thread.ident, "the thread reads")
    return thread


def test_one_that_another_thread_has_read_ends_both_waits(
    both: tuple[Channel, socket.socket], signals: list[int]
) -> None:
    """Whether the main thread waits already or comes a moment later; if it computes, it is sent the signal again."""
    channel, supervisor = both
    channel.heed = interrupted
    results: list[bytes | None] = []
    for turn in range(1, 201):
        waiting = reading(channel, results)
        supervisor.sendall(INTERRUPT)
        with pytest.raises(KeyboardInterrupt):
            channel.receive_result(1, lambda: True)
        waiting.join(DEADLINE)
        assert results == [None] * turn
    assert signals == [signal.SIGINT] * 200


def test_a_thread_hears_of_one_that_the_main_thread_has_read(
    both: tuple[Channel, socket.socket], signals: list[int]
) -> None:
    channel, supervisor = both
    results: list[bytes | None] = []
    for _ in range(50):
        waiting = reading(channel, results)
        before = channel._interrupts
        supervisor.sendall(INTERRUPT)
        while channel._interrupts == before:
            channel.look()  # as the handler of the signal does; one of the two gets it
        waiting.join(DEADLINE)
        assert not waiting.is_alive()


def raising_at(nth: int, names: set[str]) -> Callable[[FrameType, str, Any], Any]:
    """A trace function that raises at the nth line of these functions, as a handler may at any."""
    lines = itertools.count()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != module.__file__ or frame.f_code.co_name not in names:
            return None
        if event == "line" and next(lines) == nth:
            raise Raised
        return trace

    return trace


@pytest.mark.parametrize("waits", ["for what is there", "for what comes"])
def test_whatever_a_handler_of_the_codes_raises_wherever_leaves_the_channel_as_it_was(waits: str) -> None:
    """Each line of a wait in turn; then there is one that has no such line."""
    for nth in itertools.count():
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ours, theirs:
            channel = Channel(ours)
            later = threading.Timer(0.0 if waits == "for what is there" else 0.02, theirs.sendall, [RESULT])
            later.start()
            if waits == "for what is there":
                later.join()
            sys.settrace(raising_at(nth, {"_wait_until", "_is_so"}))
            try:
                channel.receive_result(1, lambda: True)
                was_raised = False
            except Raised:
                was_raised = True
            finally:
                sys.settrace(None)
            later.join()
            theirs.sendall(COMMAND)
            assert within_deadline(channel) == (frames.WAKE, frames.U32.pack(5)), nth
            if not was_raised:
                assert nth > 10
                return


def within_deadline(channel: Channel) -> tuple[int, bytes]:
    """The next command; what waits for ever is found by the socket's end."""
    watchdog = threading.Timer(DEADLINE, channel._sock.shutdown, [socket.SHUT_RDWR])
    watchdog.start()
    try:
        return channel.receive()
    finally:
        watchdog.cancel()
