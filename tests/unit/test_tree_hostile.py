"""The fork tree with processes that die, lie, or do not as they are told: it costs them their state, and no more.

Each test is process 1 of a pid namespace of its own, as the supervisor is; see ``runners``.
"""

from __future__ import annotations

import os

import pytest

from executor_image import frames
from executor_image.supervisor.peer import PeerGone
from executor_image.supervisor.tree import Checkpoint
from tests.unit.apart import in_own_namespace
from tests.unit.loops import in_loop, until
from tests.unit.peers import settled
from tests.unit.runners import Grove, grove, kill, stop, with_grove


@pytest.mark.parametrize(
    "said", ["frames.STDOUT, b'x'", "frames.FORKED, bytes(9)", "frames.WOKEN, b'\\1'", "0", "frames.FORK, bytes(5)"]
)
@in_own_namespace
def test_a_checkpoint_that_says_what_it_was_not_asked_is_let_go(said: str) -> None:
    async def main() -> None:
        async with grove() as it:
            await it.run(f"self.copied = lambda: self.send({said})")
            it.tree.fork()
            await until(lambda: not it.tree.forking)
            await until(lambda: len(it.tree.checkpoints) == 1)
            await it.only(*it.tree.known())
            assert it.faults == []

    in_loop(main())


@with_grove
async def test_where_no_copy_can_be_made_there_is_one_checkpoint_less(it: Grove) -> None:
    await it.run(
        "def no_copy(number, kind, fds):\n"
        "    if kind == frames.FORK_CHECKPOINT: return type(self).fork(self, number, kind, fds)\n"
        "    [os.close(fd) for fd in fds]\n"
        "    self.send(frames.FORKED, frames.FORKED_BODY.pack(number, -1, 1))\n"
        "self.fork, x = no_copy, 7"
    )
    checkpoint = await it.checkpoint()
    woken = await it.tree.promote(checkpoint)
    assert woken.execution == 1
    assert checkpoint not in it.tree.checkpoints
    assert it.tree.current is None
    assert await it.value() == "7"
    await it.only(*it.tree.known())


@with_grove
async def test_a_checkpoint_whose_process_is_gone_changes_nothing(it: Grove) -> None:
    one, two = await it.grow(2)
    head = it.tree.head
    kill(one.peer.pid)
    with pytest.raises(PeerGone):
        await it.tree.promote(one)
    await settled()
    assert (it.tree.head, it.tree.execution, it.tree.current) == (head, 2, two)
    assert await it.value() == "2"
    assert one not in it.tree.checkpoints
    await it.only(*it.tree.known())


# What a hostile copy does when it is asked to become a head: everything up to here was as it should be.
BETRAYALS = {
    "dies when it is to fork": "self.fork = lambda *_: os._exit(3)",
    "dies when it is to wake": "self.wake = lambda _: os._exit(3)",
    "breaks the rules when it is to wake": "self.wake = lambda _: self.send(0)",
    "breaks the rules while it forks": (
        "fork = self.fork\n"
        "def betray(*arguments):\n"
        "    me, send = os.getpid(), self.send\n"
        "    self.send = lambda kind, *parts: self.sock.sendall(pack(kind, *parts) + pack(0))\n"
        "    fork(*arguments)\n"
        "self.fork = betray"
    ),
    "closes its channel after the fork": (
        "fork = self.fork\ndef betray(*arguments):\n    fork(*arguments)\n    self.sock.close()\nself.fork = betray"
    ),
}


@pytest.mark.parametrize("betrayal", BETRAYALS.values(), ids=BETRAYALS)
@in_own_namespace
def test_a_copy_that_fails_while_it_is_made_the_head_leaves_a_tree_that_can_go_on(betrayal: str) -> None:
    async def main() -> None:
        async with grove() as it:
            await it.run("x = 1")
            await it.checkpoint()
            bad = await betrayed(it, betrayal)
            await it.run("x = 3")
            await it.checkpoint()
            with pytest.raises(PeerGone):
                await it.tree.promote(bad)
            # As a session does that has to go back; see Session._go_back.
            while checkpoint := it.tree.nearest():
                try:
                    await it.tree.promote(checkpoint)
                    break
                except PeerGone:
                    if checkpoint in it.tree.checkpoints:
                        it.tree.drop(checkpoint)
            assert checkpoint
            assert await it.value() == "3"  # the present state is the same still
            await it.only(*it.tree.known())  # nothing is left that the tree knows nothing of

    in_loop(main())


async def betrayed(it: Grove, betrayal: str) -> Checkpoint:
    """A checkpoint whose process will betray; the head will not."""
    await it.run(f"x = 2\nself.copied = lambda: exec({betrayal!r}, self.space)")
    bad = await it.checkpoint()
    await it.run("del self.copied")
    return bad


# -------------------------------------------------------------------------------------------------- forks that fail


@with_grove
async def test_a_fork_that_cannot_be_made_is_told_and_leaves_no_checkpoint(it: Grove) -> None:
    await it.run(
        "self.fork = lambda number, kind, fds: ("
        "[os.close(fd) for fd in fds], self.send(frames.FORKED, frames.FORKED_BODY.pack(number, -1, 0)))"
    )
    forks = it.forks
    it.tree.fork()
    await until(lambda: it.forks > forks)
    assert it.tree.current is None
    assert len(it.tree.checkpoints) == 1
    assert not it.tree.forking


@with_grove
async def test_a_fork_that_was_not_asked_for_is_a_fault(it: Grove) -> None:
    code = b"self.send(frames.FORKED, frames.FORKED_BODY.pack(99, 1, 1))"
    it.tree.head.send(frames.EXECUTE, frames.EXECUTE_HEAD.pack(bytes(16), 1, 0), code)
    await until(lambda: it.faults)
    assert "not asked for" in it.faults[0]
    assert len(it.tree.checkpoints) == 1


@with_grove
async def test_a_number_that_was_not_asked_for_is_a_fault(it: Grove) -> None:
    await it.run("fork = self.fork\nself.fork = lambda number, kind, fds: fork(number + 1, kind, fds)")
    it.tree.fork()
    await until(lambda: it.faults)
    assert len(it.tree.checkpoints) == 1
    kill(it.tree.head.pid)
    await it.tree.promote(it.tree.checkpoints[0])
    await it.only(*it.tree.known())


@with_grove
async def test_a_head_that_dies_while_it_forks_is_replaced(it: Grove) -> None:
    (one,) = await it.grow(1)
    await it.run("self.fork = lambda *_: os._exit(3)")
    it.tree.fork()
    await until(lambda: it.faults)
    assert it.faults == ["closed its channel"]
    await it.tree.promote(one)
    assert not it.tree.forking
    assert await it.value() == "1"
    assert await it.checkpoint() is it.tree.current
    await it.only(*it.tree.known())


@with_grove
async def test_a_head_that_takes_no_commands_is_asked_for_no_fork(it: Grove) -> None:
    stop(it.tree.head.pid)
    while not it.tree.head.stuffed:
        it.tree.head.send(frames.EXECUTE, bytes(1 << 20))
    it.tree.fork()
    assert not it.tree.forking


@with_grove
async def test_a_pid_that_is_a_lie_is_corrected_as_soon_as_the_copy_speaks(it: Grove) -> None:
    await it.run(
        "send = self.send\n"
        "def lie(kind, *parts):\n"
        "    number = frames.FORKED_BODY.unpack(*parts)[0] if kind == frames.FORKED else 0\n"
        "    send(kind, *([frames.FORKED_BODY.pack(number, 1, 1)] if number else parts))\n"
        "self.send = lie\n"
        "self.copied = lambda: setattr(self, 'send', send)"
    )
    checkpoint = await it.checkpoint()
    assert checkpoint.peer.pid == 1
    await it.tree.promote(checkpoint)
    assert it.tree.head.pid in it.alive()
    assert os.getpid() == 1
