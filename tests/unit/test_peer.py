"""The supervisor's end of a channel: a process may say anything, at any pace, and is known by the kernel's word."""

from __future__ import annotations

import array
import asyncio
import os
import select
import signal
import socket
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executor_image import frames
from executor_image.frames import READY, STDERR, STDOUT, U32, WAKE, WOKEN, pack
from executor_image.supervisor import peer as module
from executor_image.supervisor.peer import PeerGone
from tests.unit.apart import wait_until
from tests.unit.loops import in_loop, until
from tests.unit.peers import Pair, Told, pair, settled


def forked(it: Pair, data: bytes) -> int:
    """A process that says this, and waits for the end of its channel."""
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            it.peer.sock.close()
            it.process.sendall(data)
            while it.process.recv(1 << 16):
                pass
        os._exit(0)
    return pid


def ended(pid: int) -> None:
    """Reaps one that has been told to end."""
    wait_until(lambda: os.waitpid(pid, os.WNOHANG)[0], f"the end of {pid}")


# --------------------------------------------------------------------------------------------------- who is speaking


@pytest.mark.parametrize("claimed", [0, 1, "this process"])
def test_its_pid_is_the_kernels_word_as_soon_as_it_has_said_something(claimed: int | str) -> None:
    async def main() -> None:
        told = os.getpid() if claimed == "this process" else claimed
        with pair(told) as it:  # type: ignore[arg-type]
            await settled()
            assert it.peer.pid == told
            pid = forked(it, pack(READY))
            try:
                assert await it.until_told(1) == [(READY, b"")]
                assert it.peer.pid == pid
            finally:
                it.close()
                ended(pid)

    in_loop(main())


def test_who_has_spoken_first_is_who_it_is() -> None:
    async def main() -> None:
        with pair() as it:
            pid = forked(it, pack(READY))
            await it.until_told(1)
            it.process.sendall(pack(STDOUT, b"by another process, which has the descriptor too"))
            await it.until_told(2)
            assert it.peer.pid == pid
            it.close()
            ended(pid)

    in_loop(main())


def test_descriptors_that_a_process_sends_are_not_kept() -> None:
    async def main() -> None:
        with pair() as it:
            before = set(os.listdir("/proc/self/fd"))
            read, write = os.pipe()
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [write] * 50))]
            for _ in range(3):
                it.process.sendmsg([pack(READY)], rights)
            os.close(write)
            await it.until_told(3)
            assert os.read(read, 1) == b""  # nobody has the other end
            os.close(read)
            assert set(os.listdir("/proc/self/fd")) == before

    in_loop(main())


# ---------------------------------------------------------------------------------------------------------- reading

some_frames = st.lists(
    st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(min_size=1, max_size=60)), min_size=1, max_size=6
)


@settings(max_examples=40)
@given(some_frames, st.lists(st.integers(0, 400), max_size=8))
def test_frames_arrive_whole_wherever_they_were_cut(sent: list[tuple[int, bytes]], cuts: list[int]) -> None:
    stream = b"".join(pack(kind, body) for kind, body in sent)
    edges = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})

    async def main() -> None:
        with pair() as it:
            for start, end in pairwise(edges):
                it.process.sendall(stream[start:end])
                await settled(2)
            assert await it.until_told(len(sent)) == sent

    in_loop(main())


@pytest.mark.parametrize(
    "illegal",
    [pack(frames.EXECUTE), pack(0), pack(STDOUT), frames.HEADER.pack(1 << 31, STDOUT), pack(READY, b"x"), b"\xff" * 9],
    ids=["a command", "type 0", "empty", "endless", "too long", "noise"],
)
def test_a_violation_is_told_as_the_end_and_only_once(illegal: bytes) -> None:
    async def main() -> None:
        with pair() as it:
            asked = it.peer.expect(WOKEN)
            it.process.sendall(pack(STDOUT, b"before") + illegal + pack(STDOUT, b"after"))
            told = await it.until_told(2)
            assert told[0] == (STDOUT, b"before")
            assert told[1][0] == "closed"
            assert told[1][1].startswith("sent an illegal frame of type ")
            with pytest.raises(PeerGone, match="sent an illegal frame"):
                await asked
            it.process.sendall(pack(READY))
            it.process.close()
            await settled()
            it.peer.read_rest()
            await settled()
            assert len(it.told) == 2

    in_loop(main())


def test_the_end_of_the_channel_is_told_once_after_what_came_before() -> None:
    async def main() -> None:
        with pair() as it:
            it.process.sendall(pack(STDOUT, b"last") + pack(STDOUT, b"cut")[:6])
            it.process.close()
            assert await it.until_told(2) == [(STDOUT, b"last"), ("closed", "closed its channel")]
            it.peer.read_rest()
            await settled()
            assert len(it.told) == 2

    in_loop(main())


def test_what_the_dead_wrote_before_is_read_at_once() -> None:
    async def main() -> None:
        with pair() as it:
            it.peer.pause(True)
            pid = forked(it, pack(STDOUT, b"last words"))
            it.process.close()
            wait_until(lambda: select.select([it.peer.sock], [], [], 0)[0], "what it says")
            os.kill(pid, signal.SIGKILL)
            ended(pid)
            it.peer.read_rest()
            assert it.told == [(STDOUT, b"last words"), ("closed", "closed its channel")]

    in_loop(main())


def test_what_is_paused_is_not_read_and_nothing_of_it_is_lost() -> None:
    async def main() -> None:
        with pair() as it:
            it.peer.pause(True)
            it.process.sendall(pack(STDOUT, b"1") + pack(STDOUT, b"2"))
            await settled()
            assert it.told == []
            it.peer.pause(False)
            assert await it.until_told(2) == [(STDOUT, b"1"), (STDOUT, b"2")]

    in_loop(main())


def test_who_listens_may_change_and_hears_what_comes_from_then_on() -> None:
    async def main() -> None:
        with pair(listening=False) as it:
            it.process.sendall(pack(STDOUT, b"nobody listens yet"))
            await settled()
            first: Told = []
            it.peer.listen(lambda *frame: first.append(frame[1:]), lambda *_: None)
            await until(lambda: first)
            it.listen()
            it.process.sendall(pack(STDOUT, b"second"))
            assert await it.until_told(1) == [(STDOUT, b"second")]
            assert first == [(STDOUT, b"nobody listens yet")]

    in_loop(main())


# ----------------------------------------------------------------------------------------------------------- asking


def test_an_answer_goes_to_who_asked_and_the_rest_to_who_listens() -> None:
    async def main() -> None:
        with pair() as it:
            asked = asyncio.ensure_future(it.peer.ask(WAKE, U32.pack(0), WOKEN))
            await settled()
            assert it.process.recv(100) == pack(WAKE, U32.pack(0))
            it.process.sendall(pack(STDOUT, b"1") + pack(WOKEN, b"\x07") + pack(WOKEN, b"\x08"))
            assert await asked == b"\x07"
            assert await it.until_told(2) == [(STDOUT, b"1"), (WOKEN, b"\x08")]

    in_loop(main())


def test_an_answer_that_nobody_waits_for_any_more_is_told_to_nobody() -> None:
    async def main() -> None:
        with pair() as it:
            asked = asyncio.ensure_future(it.peer.ask(WAKE, U32.pack(0), WOKEN))
            await settled()
            asked.cancel()
            it.process.sendall(pack(WOKEN, b"\x01") + pack(STDOUT, b"1"))
            assert await it.until_told(1) == [(STDOUT, b"1")]
            again = asyncio.ensure_future(it.peer.ask(WAKE, U32.pack(0), WOKEN))
            await settled()
            it.process.sendall(pack(WOKEN, b"\x02"))
            assert await again == b"\x02"

    in_loop(main())


@pytest.mark.parametrize("how", ["closes its channel", "is closed", "is closed before"])
def test_who_asks_is_told_when_there_will_be_no_answer(how: str) -> None:
    async def main() -> None:
        with pair() as it:
            if how == "is closed before":
                it.peer.close()
            asked = asyncio.ensure_future(it.peer.ask(WAKE, U32.pack(0), WOKEN))
            await settled()
            if how == "closes its channel":
                it.process.close()
            it.peer.close() if how == "is closed" else None
            with pytest.raises(PeerGone):
                await asked
            assert len(it.told) == (how == "closes its channel")  # closing it oneself is no news

    in_loop(main())


def test_asking_one_that_has_broken_the_rules_is_refused_and_does_not_wait() -> None:
    async def main() -> None:
        with pair() as it:
            it.process.sendall(pack(0))
            await it.until_told(1)
            with pytest.raises(PeerGone):
                await asyncio.wait_for(it.peer.ask(WAKE, U32.pack(0), WOKEN), 1)

    in_loop(main())


# ---------------------------------------------------------------------------------------------------------- sending


def test_sending_never_waits_and_what_did_not_fit_goes_when_there_is_room() -> None:
    async def main() -> None:
        with pair() as it:
            body = os.urandom(200_000)
            for number in range(40):
                it.peer.send(STDOUT, bytes([number]), body)
            received = bytearray()
            expected = b"".join(pack(STDOUT, bytes([number]), body) for number in range(40))
            it.process.setblocking(False)
            while len(received) < len(expected):
                with suppress(BlockingIOError):
                    received += it.process.recv(1 << 16)
                await asyncio.sleep(0)
            assert received == expected
            assert not it.peer.stuffed
            it.peer.send(READY)
            await settled()
            assert it.process.recv(100) == pack(READY)

    in_loop(main())


def test_one_that_takes_nothing_is_stuffed_and_takes_no_descriptors() -> None:
    async def main() -> None:
        with pair() as it:
            assert not it.peer.stuffed
            while not it.peer.stuffed:
                it.peer.send(STDOUT, bytes(1 << 20))
            assert len(it.peer._unsent) < module.MAX_UNSENT + (2 << 20)
            read, write = os.pipe()
            assert it.peer.send_fds(frames.FORK, bytes(5), [write]) is False
            os.close(write)
            assert os.read(read, 1) == b""
            os.close(read)

    in_loop(main())


def test_sending_to_one_that_is_gone_raises_nothing_and_keeps_nothing() -> None:
    async def main() -> None:
        with pair() as it:
            it.process.close()
            for _ in range(3):
                it.peer.send(STDOUT, bytes(1 << 20))
            assert not it.peer._unsent
            assert it.peer.send_fds(frames.FORK, bytes(5), [0]) is False
            assert await it.until_told(1) == [("closed", "closed its channel")]
            it.peer.close()
            it.peer.close()
            it.peer.send(READY)
            assert it.peer.send_fds(frames.FORK, bytes(5), [0]) is False

    in_loop(main())


def test_descriptors_arrive_with_their_frame() -> None:
    async def main() -> None:
        with pair() as it:
            read, write = os.pipe()
            assert it.peer.send_fds(frames.FORK, frames.FORK_BODY.pack(3, 2), [write, write])
            data, fds, _, _ = socket.recv_fds(it.process, 100, 5)
            assert (data, len(fds)) == (pack(frames.FORK, frames.FORK_BODY.pack(3, 2)), 2)
            os.write(fds[1], b"x")
            assert os.read(read, 1) == b"x"
            for fd in (read, write, *fds):
                os.close(fd)

    in_loop(main())
