"""What the branches of a container share: which checkpoints go first, who may attach, whose process has ended."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
from executor_api.v1 import executor_pb2 as pb

from executor_image import frames
from executor_image.launcher import warden
from executor_image.supervisor import container as module
from executor_image.supervisor.container import SECRET_BYTES, Container
from executor_image.supervisor.peer import Peer
from executor_image.supervisor.staged import Staged
from executor_image.supervisor.tree import Checkpoint, ForkTree
from executor_image.supervisor.warden import Staying
from tests.unit.apart import in_own_namespace
from tests.unit.loops import in_loop, until
from tests.unit.peers import settled
from tests.unit.runners import Runner, process, state


class Twig:
    """A branch: its tree of real processes, and what it has been told."""

    def __init__(self, container: Container, number: int = 0) -> None:
        self.branch, self.executing = number, False
        ours, theirs = socket.socketpair()
        self.pid = process(lambda: [ours.close(), Runner(theirs).serve()])
        theirs.close()
        self.told: list[object] = []
        self._container = container
        self.tree = ForkTree(Peer(ours, self.pid), self, container.warden, container.numbers)
        container.branches.append(self)

    def on_head_frame(self, kind: int, body: bytes) -> None:
        self.told.append(kind)

    def fault(self, reason: str) -> None:
        self.told.append(reason)

    def on_forked(self) -> None:
        self._container.trim(self.tree)

    def on_head_exit(self, wait_status: int) -> None:
        self.told.append(os.waitstatus_to_exitcode(wait_status))

    def give_up(self) -> None:
        self.told.append("given up")

    def close(self) -> None:
        self.told.append("closed")

    async def grow(self, number: int, pinned: bool = False) -> list[Checkpoint]:
        """Checkpoints of so many states that follow one another."""
        made = []
        for _ in range(number):
            self.tree.advance(self.tree.execution + 1)
            self.tree.fork()
            await until(lambda: not self.tree.forking)
            assert self.tree.current
            self.tree.current.pinned = pinned
            made.append(self.tree.current)
        return made


@contextmanager
def container(checkpoints: int = 8, states: int = 64) -> Iterator[Container]:
    """A container with a real warden. Its memory is never scarce."""
    ours, theirs = socket.socketpair()
    guard = process(lambda: [ours.close(), warden.serve(theirs)])
    theirs.close()
    unused = socket.socketpair()
    staged = Staged(os.getuid(), 0, unused[0], (0, 0), guard, ours, states)
    opened = pb.Open(memory_bytes=1 << 60, checkpoint_share=1, checkpoints=checkpoints)
    made = Container(staged, opened)
    yield made
    for branch in list(made.branches):
        branch.tree.close()
    for end in unused:
        end.close()


def alone(main: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """The test is process 1 of a pid namespace of its own, and has a loop."""

    def run() -> None:
        in_loop(main())

    run.__name__, run.__doc__ = main.__name__, main.__doc__
    return in_own_namespace(run)


# -------------------------------------------------------------------------------------------------------- retention


@pytest.mark.parametrize(("kept", "expected"), [(1, [6]), (3, [4, 5, 6]), (0, [6]), (32, [1, 2, 3, 4, 5, 6])])
@in_own_namespace
def test_a_branch_keeps_the_newest_of_its_own_making(kept: int, expected: list[int]) -> None:
    async def main() -> None:
        with container(checkpoints=kept) as it:
            branch = Twig(it)
            made = await branch.grow(6)
            assert [c.execution for c in branch.tree.checkpoints] == expected
            assert branch.tree.current is made[-1]
            gone = {c.peer.pid for c in made if c.execution not in expected}
            await until(lambda: not gone & {found.pid for found in warden.processes()})

    in_loop(main())


@alone
async def test_what_was_asked_for_stays_and_does_not_count() -> None:
    with container(checkpoints=2) as it:
        branch = Twig(it)
        await branch.grow(3, pinned=True)
        await branch.grow(4)
        assert [c.execution for c in branch.tree.checkpoints] == [1, 2, 3, 6, 7]
        assert it.pinned == 3


@alone
async def test_the_present_state_stays_however_old_it_is() -> None:
    with container(checkpoints=1) as it:
        branch = Twig(it)
        (first,) = await branch.grow(1, pinned=True)
        await branch.grow(2)
        await branch.tree.promote(first)
        first.pinned = False
        it.trim(branch.tree)
        assert first in branch.tree.checkpoints
        assert branch.tree.current is first


@alone
async def test_over_the_number_of_processes_the_oldest_of_all_branches_go() -> None:
    with container(checkpoints=8, states=7) as it:
        one, two = Twig(it), Twig(it, 1)
        olds = await one.grow(2), await two.grow(2)
        assert len(one.tree.checkpoints + two.tree.checkpoints) == 4  # and two heads: one more may come
        await one.grow(1)
        assert olds[0][0] in one.tree.checkpoints
        await two.grow(1)
        assert olds[0][0] not in one.tree.checkpoints
        await two.grow(1)
        assert olds[0][1] not in one.tree.checkpoints
        await two.grow(1)  # what is the present state of another branch is never let go
        assert [c.execution for c in one.tree.checkpoints] == [3]
        assert [c.execution for c in two.tree.checkpoints] == [2, 3, 4, 5]
        assert one.tree.current


@alone
async def test_room_is_made_by_the_oldest_that_may_go() -> None:
    with container() as it:
        one, two = Twig(it), Twig(it, 1)
        (pinned,) = await one.grow(1, pinned=True)
        first, second = await two.grow(1), await one.grow(2)
        assert await it.make_room()  # the first of `two` is its present state
        assert one.tree.checkpoints == [pinned, second[1]]
        assert two.tree.checkpoints == first
        assert not await it.make_room()
        assert one.tree.checkpoints == [pinned, second[1]]


@alone
async def test_room_is_not_made_by_what_it_is_needed_for() -> None:
    with container() as it:
        branch = Twig(it)
        first, _, third = await branch.grow(3)
        assert await it.make_room(needed=first)
        assert branch.tree.checkpoints == [first, third]
        assert not await it.make_room(needed=first)
        assert branch.tree.checkpoints == [first, third]


# -------------------------------------------------------------------------------------------------------- attaching


@alone
async def test_who_knows_its_secret_may_attach_to_a_branch_once() -> None:
    with container() as it:
        (number, secret), (other, _) = it.new_secret(), it.new_secret()
        assert len(secret) == SECRET_BYTES
        branch = Twig(it, number)
        Twig(it, other)
        for wrong in (bytes(SECRET_BYTES), b"", secret[:-1], secret + b"\0"):
            assert it.attach(number, wrong) is None
        assert it.attach(other, secret) is None
        assert it.attach(99, secret) is None
        assert it.attach(number, secret) is branch
        assert it.attach(number, secret) is None
        assert it.attach(0, b"") is None


@alone
async def test_a_branch_that_nobody_attaches_to_is_closed() -> None:
    module.ATTACH_DEADLINE = 0.02
    with container() as it:
        (number, secret), (attached, its_secret) = it.new_secret(), it.new_secret()
        branch, other = Twig(it, number), Twig(it, attached)
        assert it.attach(attached, its_secret) is other
        await until(lambda: branch.told)
        assert branch.told == ["closed"]
        assert it.attach(number, secret) is None
        late, late_secret = it.new_secret()  # by now the other's time is over too
        await until(lambda: late not in it.secrets)
        assert other.told == []
        assert it.attach(late, late_secret) is None


# -------------------------------------------------------------------------------------------------------- who ended


@alone
async def test_the_kernel_says_whose_head_has_ended() -> None:
    with container() as it:
        one, two = Twig(it), Twig(it, 1)
        await one.grow(2)
        os.kill(one.pid, signal.SIGSEGV)
        await until(lambda: -signal.SIGSEGV in one.told)
        code = b"os._exit(7)"
        two.tree.head.send(frames.EXECUTE, frames.EXECUTE_HEAD.pack(bytes(16), 1, 0), code)
        await until(lambda: 7 in two.told)
        assert (one.told.count(-signal.SIGSEGV), two.told.count(7)) == (1, 1)
        assert not it.branches[0].tree.checkpoints[-1].peer.closed


@alone
async def test_the_end_of_others_is_nobodys_news_and_leaves_no_zombie() -> None:
    with container() as it:
        branch = Twig(it)
        read, write = os.pipe()

        def leave_an_orphan() -> None:
            if os.fork() == 0:
                os.write(write, b"%d" % os.getpid())
            os._exit(0)

        child = process(leave_an_orphan)
        orphan = int(os.read(read, 100))
        await until(lambda: not os.path.exists(f"/proc/{child}") and not os.path.exists(f"/proc/{orphan}"))
        assert branch.told == []
        assert it.is_watched()


@alone
async def test_without_its_warden_every_branch_is_told_once() -> None:
    module.LAST_WORDS = 1000.0  # then this process would end
    with container() as it:
        one, two = Twig(it), Twig(it, 1)
        assert it.is_watched()
        os.kill(it.warden.pid, signal.SIGKILL)
        await until(lambda: "given up" in one.told and "given up" in two.told)
        assert not it.is_watched()
        assert it.over == module.UNWATCHED
        assert not await it.stop(one)
        await settled()
        assert (one.told.count("given up"), two.told.count("given up")) == (1, 1)
        for branch in (one, two):
            os.kill(branch.pid, signal.SIGKILL)


@alone
async def test_a_branch_that_is_stopped_has_nobody_left_who_runs() -> None:
    with container() as it:
        spare_this_process(it)
        branch = Twig(it)
        await branch.grow(3)
        pids = branch.tree.known()
        leave = b"self.stray = os.fork()\nif not self.stray:\n    while True: os.getpid()"
        branch.tree.head.send(frames.EXECUTE, frames.EXECUTE_HEAD.pack(bytes(16), 1, 0), leave)
        await until(lambda: frames.STDOUT in branch.told)
        assert await it.stop(branch)
        assert {state(pid) for pid in pids} == {"T"}
        assert {found.pid for found in warden.processes()} == {it.warden.pid, *pids}
        branch.tree.thaw()


@alone
async def test_what_cannot_be_killed_is_the_end_and_every_branch_is_told_why() -> None:
    module.LAST_WORDS = 1000.0  # then this process would end
    warden._GONE_SECONDS = 0.05
    with container() as it:  # this process is number 1, has the runner's uid here, and no signal ends it
        branch = Twig(it)
        assert not await it.clean(branch)
        assert branch.told == ["given up"]
        assert it.over == module.UNENDING


@alone
async def test_who_stays_is_asked_when_the_sweep_is_sent_not_while_it_waits_for_its_turn() -> None:
    with container() as it:
        branch = Twig(it)
        os.kill(branch.pid, signal.SIGSTOP)
        stopped = [branch.pid]
        os.kill(it.warden.pid, signal.SIGSTOP)  # it takes its time
        checking = asyncio.create_task(it.warden.check())
        sweeping = asyncio.create_task(it.warden.sweep(lambda: Staying([1, *branch.tree.known()], stopped, [])))
        await settled()
        stopped.clear()  # somebody needs it meanwhile
        os.kill(it.warden.pid, signal.SIGCONT)
        assert await sweeping == 0
        await checking
        await until(lambda: state(branch.pid) in ("R", "S"))


def spare_this_process(it: Container) -> None:
    """In a container, process 1 has another uid than the runner."""
    known = it._known
    it._known = lambda: known() | {os.getpid()}  # type: ignore[method-assign]


@alone
async def test_numbers_are_never_used_twice() -> None:
    with container() as it:
        branch = Twig(it)
        made = await branch.grow(3)
        for checkpoint in made[:2]:
            branch.tree.drop(checkpoint)
        more = await branch.grow(2)
        assert len({c.number for c in made + more}) == 5
        secrets = [it.new_secret() for _ in range(20)]
        assert len({number for number, _ in secrets} | {0}) == 21  # 0 is the container's own branch
        assert len({secret for _, secret in secrets}) == 20
