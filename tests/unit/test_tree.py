"""The fork tree with real processes: copies of states, going back to them, and processes that die, lie or are stopped.

Each test is process 1 of a pid namespace of its own, as the supervisor is; see ``runners``.
"""

from __future__ import annotations

import os
import socket

import pytest

from executor_image import frames
from executor_image.supervisor import tree as module
from executor_image.supervisor.peer import Peer
from executor_image.supervisor.tree import ForkTree, NoCopy, Woken, describe_exit
from tests.unit.apart import in_own_namespace
from tests.unit.loops import in_loop, until
from tests.unit.peers import settled
from tests.unit.runners import Grove, grove, kill, state, stop, with_grove

# ------------------------------------------------------------------------------------------------------ checkpoints


@with_grove
async def test_a_checkpoint_is_a_process_that_holds_the_present_state(it: Grove) -> None:
    (first,) = it.tree.checkpoints
    assert (first.execution, first.origin, first.has_files, it.tree.current) == (0, None, True, first)
    one, two = await it.grow(2)
    assert it.tree.checkpoints == [first, one, two]
    assert [(c.execution, c.origin and c.origin.execution) for c in (one, two)] == [(1, 0), (2, 1)]
    assert two.origin
    assert two.origin.number == one.number
    assert len({first.number, one.number, two.number}) == 3
    assert it.tree.current is two
    await it.only(*it.tree.known())
    assert len(set(it.tree.known())) == 4


@with_grove
async def test_after_an_execution_there_is_no_checkpoint_of_the_present_state_yet(it: Grove) -> None:
    await it.grow(1)
    await it.run("x += 1")
    assert (it.tree.execution, it.tree.current) == (2, None)
    it.tree.fork()
    assert it.tree.forking
    await until(lambda: not it.tree.forking)
    assert it.tree.current


@with_grove
async def test_another_checkpoint_of_the_same_state_takes_the_place_of_the_one_before(it: Grove) -> None:
    (before,) = await it.grow(1)
    after = await it.checkpoint()
    assert before not in it.tree.checkpoints
    assert (after.execution, after.origin) == (before.execution, before.origin)
    after.pinned = True  # one that somebody asked for does not go so
    last = await it.checkpoint()
    assert it.tree.checkpoints[-2:] == [after, last]
    await it.only(*it.tree.known())


@with_grove
async def test_what_is_dropped_ends_and_belongs_to_the_tree_a_moment_more(it: Grove) -> None:
    one, two = await it.grow(2)
    it.tree.drop(one)
    it.tree.drop(two)
    assert it.tree.current is None
    assert {one.peer.pid, two.peer.pid} == set(it.tree.retired)
    assert not {one.peer.pid, two.peer.pid} & set(it.tree.known())
    await it.only(*it.tree.known())
    module.RETIRED_SECONDS = 0.0
    it.tree.known()
    assert it.tree.retired == {}


@with_grove
async def test_the_nearest_state_is_the_present_one_else_its_origin_else_the_newest(it: Grove) -> None:
    first, one, two, three = it.tree.checkpoints[0], *await it.grow(3)
    assert it.tree.nearest() is three
    it.tree.current = None  # the host has written files since
    assert it.tree.nearest() is three
    await it.tree.promote(one)
    assert it.tree.nearest() is one
    await it.run("x += 1")
    assert it.tree.nearest() is one  # and not three, which is newer and was given up
    it.tree.drop(one)
    assert it.tree.nearest() is three
    it.tree.drop(three)
    it.tree.drop(two)
    assert it.tree.nearest() is first
    it.tree.drop(first)
    assert it.tree.nearest() is None


@with_grove
async def test_a_checkpoint_that_is_killed_is_let_go(it: Grove) -> None:
    one, two = await it.grow(2)
    for checkpoint in (one, two):
        kill(checkpoint.peer.pid)
        await until(lambda gone=checkpoint: gone not in it.tree.checkpoints)
    assert it.tree.current is None
    assert it.faults == []
    assert await it.value() == "2"


# --------------------------------------------------------------------------------------------------------- going back


@with_grove
async def test_going_back_is_possible_to_any_state_as_often_as_wanted(it: Grove) -> None:
    checkpoints = [it.tree.checkpoints[0], *await it.grow(3)]
    for wanted in (2, 0, 3, 1, 1, 3):
        checkpoint, old = checkpoints[wanted], it.tree.head.pid
        assert await it.tree.promote(checkpoint) == Woken(wanted, True, b"")
        assert (it.tree.execution, it.tree.origin, it.tree.current) == (wanted, checkpoint.origin, checkpoint)
        assert await it.value() == str(wanted)
        assert it.tree.checkpoints == checkpoints
        assert it.tree.head.pid != checkpoint.peer.pid
        await it.only(*it.tree.known())
        assert state(old) in ("", "Z")
        assert await it.run("x = 'something else'") == "'something else'"


NO_COPY = """
def fork(number, kind, fds):
    if kind == frames.FORK_COPY:
        self.send(frames.FORKED, frames.FORKED_BODY.pack(number, -1, True))
    else:
        type(self).fork(self, number, kind, fds)
self.fork = fork
"""


@with_grove
async def test_going_back_without_a_copy_spends_the_checkpoint_or_changes_nothing(it: Grove) -> None:
    await it.run(NO_COPY)
    first, second = await it.grow(2)
    before = it.tree.head, second, list(it.tree.checkpoints)
    with pytest.raises(NoCopy):
        await it.tree.promote(first, spend=False)
    assert (it.tree.head, it.tree.current, it.tree.checkpoints) == before
    assert await it.value() == "2"
    await it.tree.promote(first)
    assert (it.tree.head, it.tree.current) == (first.peer, None)
    assert first not in it.tree.checkpoints
    assert await it.value() == "1"
    await it.only(*it.tree.known())


@with_grove
async def test_a_frozen_tree_does_nothing_until_it_is_needed(it: Grove) -> None:
    one, two = await it.grow(2)
    pids = it.tree.known()
    it.tree.freeze()
    it.tree.freeze()
    assert sorted(it.tree.stopped) == sorted(pids)
    await until(lambda: {state(pid) for pid in pids} == {"T"})
    it.frames.clear()
    it.tree.head.send(frames.EXECUTE, frames.EXECUTE_HEAD.pack(bytes(16), 1, 0), b"x = 5")
    await settled(50)
    assert it.frames == []
    it.tree.thaw()
    await until(lambda: it.frames)
    assert it.frames[0][1] == b"5"
    assert {state(checkpoint.peer.pid) for checkpoint in (one, two)} == {"T"}
    it.tree.thaw(one.peer)
    await until(lambda: state(one.peer.pid) != "T")
    assert sorted(it.tree.stopped) == sorted({*pids} - {it.tree.head.pid, one.peer.pid})


@with_grove
async def test_going_back_and_letting_go_reach_what_is_stopped_too(it: Grove) -> None:
    one, two, three = await it.grow(3)
    it.tree.freeze()
    await until(lambda: state(three.peer.pid) == "T")
    it.tree.drop(two)
    await it.only(*it.tree.known())
    await it.tree.promote(one)
    assert await it.value() == "1"
    stop(three.peer.pid)  # as user code may do, of which nobody is told
    stop(it.tree.head.pid)
    await it.tree.promote(three)
    assert await it.value() == "3"
    await it.only(*it.tree.known())


# ------------------------------------------------------------------------------------------------------------ branches


@pytest.mark.parametrize("of", ["the present state", "a checkpoint"])
@in_own_namespace
def test_a_branch_begins_in_the_state_it_was_made_of_and_is_on_its_own(of: str) -> None:
    async def main() -> None:
        async with grove() as it:
            one, _ = await it.grow(2)
            ours, theirs = socket.socketpair()
            with theirs:
                head, out = Peer(ours), os.pipe()
                source = one if of == "a checkpoint" else None
                assert await it.tree.fork_branch(source, theirs, (out[1], out[1]))
            assert head.pid == 0
            told = Grove.__new__(Grove)
            told.frames, told.faults, told.forks = [], [], 0
            branch = ForkTree(head, told, it.warden, module.Numbers())
            assert await branch.wake(7, 5) == Woken(5, False, b"a branch 7")
            assert head.pid in it.alive()
            assert head.pid not in it.tree.known()
            assert await it.run("x += 10", branch, told) == ("11" if source else "12")
            assert await it.value() == "2"
            assert len(it.tree.checkpoints) == 3
            branch.close()
            await it.only(*it.tree.known())
            for fd in out:
                os.close(fd)

    in_loop(main())


# ---------------------------------------------------------------------------------------------------- other questions


MEGABYTES = 1 << 20


@with_grove
async def test_what_a_checkpoint_alone_holds_is_what_was_written_to_since(it: Grove) -> None:
    await it.run("self.block = bytearray(b'1') * (40 << 20)")
    whole = await it.checkpoint()
    assert it.tree.held(whole) < 5 * MEGABYTES
    await it.run("for page in range(0, 40 << 20, 4096): self.block[page] = 50")
    assert 39 * MEGABYTES < it.tree.held(whole) < 50 * MEGABYTES
    smaller = await it.checkpoint()
    await it.run("self.other = bytearray(b'3') * (50 << 20)")  # which is nobody's loss
    assert it.tree.held(smaller) < 5 * MEGABYTES
    before = it.tree.held(whole)
    await it.tree.promote(smaller)  # whose head is another process
    assert it.tree.held(whole) == before
    kill(whole.peer.pid)
    assert it.tree.held(whole) == 0


@pytest.mark.parametrize(
    ("status", "text"), [(0, "exited with code 0"), (3 << 8, "exited with code 3"), (9, "killed by signal 9")]
)
def test_how_a_process_ended_is_told_in_words(status: int, text: str) -> None:
    assert describe_exit(status) == text
