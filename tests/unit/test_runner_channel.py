"""Waiting for frames: an interrupt ends it at any moment, and whatever ends it leaves the channel as it was."""

from __future__ import annotations

import itertools
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


def test_one_that_another_thread_has_read_ends_the_wait_of_the_main_thread(
    both: tuple[Channel, socket.socket],
) -> None:
    """Whether that waits already or comes a moment later."""
    channel, supervisor = both
    channel.heed = interrupted
    for _ in range(200):
        thread = threading.Thread(target=channel.receive_result, args=(2, lambda: channel.interrupted != 8))
        thread.start()
        supervisor.sendall(INTERRUPT)
        with pytest.raises(KeyboardInterrupt):
            channel.receive_result(1, lambda: True)
        supervisor.sendall(frames.pack(frames.INTERRUPT, frames.U64.pack(8)))  # ends the thread's wait, too
        thread.join(DEADLINE)
        assert not thread.is_alive()
        with pytest.raises(KeyboardInterrupt):
            channel.receive_result(1, lambda: True)


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
