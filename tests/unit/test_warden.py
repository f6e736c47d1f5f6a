"""The warden: which processes it signals, and which folders it removes. Its sweep runs in pid namespaces of its own."""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executor_image import frames
from executor_image.launcher import warden
from executor_image.launcher.warden import Found
from executor_image.supervisor import proc
from tests.unit.apart import DEADLINE, apart, in_own_namespace, ordinary_folder, wait_until


def state(pid: int) -> str:
    """As /proc says: R, S, T (stopped), Z (zombie), or nothing if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def runs(pid: int) -> bool:
    return state(pid) in ("R", "S")


def wait_for(pid: int, *states: str) -> None:
    wait_until(lambda: state(pid) in states, f"state {states} of process {pid}, which is {state(pid)!r}")


def child(act: Callable[[], object] = signal.pause) -> int:
    """A process that does something, and then nothing."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
            while True:
                signal.pause()
        finally:
            os._exit(1)
    return pid


def gone(pid: int) -> int:
    """Reaps a child; its exit code, or minus the signal that ended it."""
    wait_until(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT), f"the end of {pid}")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def reap_all_but(guard: int) -> None:
    """Lets the zombies go whose parent this process has become."""
    while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        assert found.si_pid != guard, "the warden has ended"
        os.waitpid(found.si_pid, 0)


@contextmanager
def serving() -> Iterator[tuple[socket.socket, int]]:
    """A warden in a child, and the way to it. It ends when that is closed."""
    ours, theirs = socket.socketpair()
    ours.settimeout(DEADLINE)

    def serve() -> None:
        ours.close()
        warden.serve(theirs)

    pid = child(serve)
    theirs.close()
    with ours:
        yield ours, pid
    assert gone(pid) == 0


def answer(channel: socket.socket) -> tuple[int, bytes]:
    reader = frames.FrameReader(frames.FROM_WARDEN)
    while True:
        data = channel.recv(1 << 16)
        assert data, "the warden has ended"
        for frame in reader.feed(data):
            return frame


# ------------------------------------------------------------------------------------------------------ one process


def test_a_process_is_signalled_and_one_that_has_ended_does_not_matter() -> None:
    pid = child()
    warden.send_signal(pid, signal.SIGSTOP)
    wait_for(pid, "T")
    warden.send_signal(pid, signal.SIGCONT)
    wait_for(pid, "R", "S")
    warden.send_signal(pid, signal.SIGKILL)
    wait_for(pid, "Z")
    warden.send_signal(pid, signal.SIGKILL)
    assert gone(pid) == -signal.SIGKILL
    warden.send_signal(pid, signal.SIGKILL)


def test_signals_come_in_frames_cut_anywhere() -> None:
    with serving() as (channel, _):
        pids = [child(), child()]
        for pid in pids:
            for byte in frames.pack(frames.SIGNAL, frames.SIGNAL_BODY.pack(pid, signal.SIGSTOP)):
                channel.sendall(bytes([byte]))
        for pid in pids:
            wait_for(pid, "T")
        kills = [frames.pack(frames.SIGNAL, frames.SIGNAL_BODY.pack(pid, signal.SIGKILL)) for pid in pids]
        channel.sendall(b"".join(kills))
        assert [gone(pid) for pid in pids] == [-signal.SIGKILL] * 2


def test_it_ends_with_the_supervisor() -> None:
    with serving() as (channel, _):
        channel.shutdown(socket.SHUT_WR)
        assert channel.recv(1) == b""


@pytest.mark.parametrize("kind", [frames.SWEPT, frames.EXECUTE, 0, 255])
def test_what_is_no_command_ends_it(kind: int) -> None:
    ours, theirs = socket.socketpair()
    pid = child(lambda: warden.serve(theirs))
    with ours, theirs:
        ours.sendall(frames.pack(kind))
        assert gone(pid) == 1


def test_a_process_is_one_of_this_uid_that_is_no_zombie() -> None:
    pid = child()
    try:
        assert warden._process(pid) == Found(pid, os.getpid())
    finally:
        os.kill(pid, signal.SIGKILL)
    wait_for(pid, "Z")
    assert warden._process(pid) is None
    os.waitpid(pid, 0)
    with pytest.raises(FileNotFoundError):
        warden._process(pid)


@apart
def test_a_process_of_another_uid_is_none_of_its() -> None:
    assert warden._process(1) is None


@in_own_namespace
def test_all_processes_but_its_own_are_found_with_their_parents() -> None:
    read, write = os.pipe()
    first = child(lambda: os.write(write, b"%d\n" % child()))
    second = int(os.read(read, 100))
    zombie = child(lambda: os._exit(0))
    wait_for(zombie, "Z")
    assert set(warden.processes()) == {Found(first, 1), Found(second, first)}


processes = st.integers(1, 8).flatmap(
    lambda number: st.tuples(*(st.builds(Found, st.just(pid), st.integers(0, number)) for pid in range(1, number + 1)))
)


@settings(max_examples=50)
@given(processes, st.sets(st.integers(0, 9), max_size=3))
def test_a_descendant_is_whose_line_of_parents_has_a_root(found: tuple[Found, ...], roots: set[int]) -> None:
    parents = {process.pid: process.parent for process in found}

    def descends(pid: int) -> bool:
        seen: set[int] = set()
        while pid in parents and pid not in seen:  # parents may form a ring: numbers are used again
            seen.add(pid)
            pid = parents[pid]
            if pid in roots:
                return True
        return False

    assert warden._descendants(found, roots) == {pid for pid in parents if descends(pid)}


# ---------------------------------------------------------------------------------------------------------- sweeping


def sweep(channel: socket.socket, **which: list[int]) -> tuple[int, int]:
    body = {"keep": [], "stopped": [], "spare": []} | which
    channel.sendall(frames.pack(frames.SWEEP, json.dumps(body).encode()))
    kind, said = answer(channel)
    assert kind == frames.SWEPT
    return frames.SWEPT_BODY.unpack(said)


def family() -> tuple[int, int]:
    """A process, and a child of it in a session of its own."""
    read, write = os.pipe()
    parent = child(lambda: os.write(write, b"%d\n" % child(os.setsid)))
    return parent, int(os.read(read, 100))


def stray() -> int:
    """A process that left its session, and whose parent is gone."""
    read, write = os.pipe()

    def leave() -> None:
        os.setsid()
        os.write(write, b"%d\n" % child())
        os._exit(0)

    parent = child(leave)
    found = int(os.read(read, 100))
    assert gone(parent) == 0
    return found


@in_own_namespace
def test_a_sweep_kills_all_but_what_it_is_told_to_leave() -> None:
    with serving() as (channel, _):
        kept, frozen, (branch, of_branch) = child(), child(), family()
        strays = [stray(), child(), *family()]
        os.kill(frozen, signal.SIGSTOP)
        os.kill(kept, signal.SIGSTOP)  # as user code may have done
        wait_for(frozen, "T")
        wait_for(kept, "T")
        assert sweep(channel, keep=[1, kept, branch], stopped=[frozen], spare=[branch]) == (4, 0)
        assert [state(pid) for pid in strays] == ["Z"] * 4  # this process, which is now their parent, reaps none
        assert state(frozen) == "T"
        for pid in (kept, branch, of_branch):
            wait_for(pid, "R", "S")
        assert sweep(channel, keep=[1, kept, branch], stopped=[frozen], spare=[branch]) == (0, 0)
        assert sweep(channel, keep=[1]) == (4, 0)
        assert sweep(channel, keep=[1]) == (0, 0)


@in_own_namespace
def test_processes_that_fork_for_ever_are_swept_with_all_their_children() -> None:
    read, write = os.pipe()

    def run_away() -> None:
        os.write(write, b"x")
        while os.fork() == 0:  # each leaves its parent behind, so that no number is that of the one before
            pass
        os._exit(0)

    with serving() as (channel, guard):
        for _ in range(20):  # a sweep may come at any moment of a fork
            for _ in range(3):
                child(run_away)
                assert os.read(read, 1) == b"x"
            _, left = sweep(channel, keep=[1])
            assert left == 0
            assert [process for process in warden.processes() if process.pid != guard] == []
            reap_all_but(guard)


@in_own_namespace
def test_a_process_whose_first_thread_has_ended_is_stopped_and_killed_like_others() -> None:
    read, write = os.pipe()

    def live_on() -> None:
        threading.Thread(target=lambda: [os.write(write, b"x") for _ in iter(lambda: time.sleep(0.001), 0)]).start()
        ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)  # exit(), of this thread alone

    with serving() as (channel, _):
        pid = child(live_on)
        assert os.read(read, 1) == b"x"
        wait_for(pid, "Z")
        assert [process.stopped for process in warden.processes() if process.pid == pid] == [False]
        assert pid in proc.alive_of(os.getuid())
        assert sweep(channel, keep=[1, pid]) == (0, 0)
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: Found(pid, os.getpid(), stopped=True) in warden.processes(), "its thread's stop")
        assert sweep(channel, keep=[1]) == (1, 0)
        assert pid not in {process.pid for process in warden.processes()}
        assert pid not in proc.alive_of(os.getuid())


@in_own_namespace
def test_a_branch_that_forks_all_the_time_does_not_notice_a_sweep() -> None:
    read, write = os.pipe()

    def work() -> None:
        while True:
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)  # for ever, if that one was stopped and forgotten
            os.write(write, b"x")

    with serving() as (channel, guard):
        branches = [child(work), child(work)]
        for _ in range(50):
            assert sweep(channel, keep=[1, *branches], spare=branches) == (0, 0)
            assert select.select([read], [], [], 5)[0], {p: state(p.pid) for p in warden.processes() if p.pid != guard}
            os.read(read, 1 << 16)
        assert sweep(channel, keep=[1])[1] == 0


@in_own_namespace
def test_what_cannot_be_killed_is_counted_as_left() -> None:
    warden._GONE_SECONDS = 1.0
    with serving() as (channel, guard):
        pid = child()
        before = processor_seconds(guard)
        assert sweep(channel) == (2, 1)  # this process is number 1: no signal of the namespace's ends it
        assert not runs(pid)
        assert processor_seconds(guard) - before < 0.5, "waiting for a second is no work for a processor"


def processor_seconds(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@in_own_namespace
def test_a_sweep_of_numbers_that_nobody_has_any_more_harms_nothing() -> None:
    with serving() as (channel, _):
        assert sweep(channel, keep=[1, 30_000], stopped=[30_001], spare=[30_002]) == (0, 0)


# ---------------------------------------------------------------------------------------------------------- removing


@pytest.fixture
def branches(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the workspaces of branches are."""
    with ordinary_folder() as folder:
        monkeypatch.setattr(warden, "BRANCHES", str(folder))
        yield folder


@apart
def test_a_branch_is_removed_and_its_neighbours_are_not(branches: Path) -> None:
    for number in (1, 2, 12):
        (branches / str(number) / "a/b").mkdir(parents=True)
        (branches / str(number) / "a/b/file").touch()
    (branches / "1/fixed").touch(0o400)
    os.mkfifo(branches / "1/pipe")
    (branches / "1/out").symlink_to("../2")
    (branches / "1/a/out").symlink_to("/")
    with serving() as (channel, _):
        for number in (1, 1, 99):  # also what is gone, or never was
            channel.sendall(frames.pack(frames.REMOVE, frames.U32.pack(number)))
            assert answer(channel) == (frames.REMOVED, b"")
    assert sorted(os.listdir(branches)) == ["12", "2"]
    assert (branches / "2/a/b/file").exists()


@apart
def test_a_folder_that_user_code_has_closed_is_removed_too(branches: Path) -> None:
    (branches / "1/closed/inner").mkdir(parents=True)
    (branches / "1/closed/inner/file").write_bytes(bytes(1000))
    (branches / "1/closed/inner").chmod(0o500)
    (branches / "1/closed").chmod(0)
    warden.remove(1)
    assert os.listdir(branches) == []


@apart
def test_a_link_in_the_place_of_a_branch_is_not_followed(branches: Path) -> None:
    (branches / "2").mkdir()
    (branches / "2/file").touch()
    (branches / "1").symlink_to("2")
    warden.remove(1)
    assert (branches / "2/file").exists()


@apart
def test_a_process_cannot_choose_by_its_name_what_is_read_of_its_memory() -> None:
    before = proc.memory(os.getpid())
    assert ctypes.CDLL(None).prctl(15, b"VmHWM:99999999", 0, 0, 0) == 0  # PR_SET_NAME
    resident, highest = proc.memory(os.getpid())
    assert resident < before[0] * 2
    assert highest < before[1] * 2
