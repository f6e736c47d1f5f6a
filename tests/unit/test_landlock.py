"""Landlock as the kernel carries it out, in a child of an ordinary user's."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor_image.launcher import landlock, privileges, visible
from executor_image.launcher.landlock import EXECUTE, OWN, READ, READ_DIR, READ_FILE, Grant
from tests.unit.apart import apart, ordinary_folder
from tests.unit.test_seccomp import fails

ABI = landlock.version()
needs_landlock = pytest.mark.skipif(not ABI, reason="this kernel has no Landlock, or has it switched off")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with files in it that an ordinary user may do anything with."""
    with ordinary_folder() as made:
        for name in ("granted/file", "hidden/file", "own/file"):
            path = made / name
            path.parent.mkdir()
            path.write_text("x")
        for path in (made, *made.rglob("*")):
            os.chmod(path, 0o777)
        yield made


def confined(*grants: Grant, abi: int = ABI) -> None:
    privileges.forbid_new_privileges()
    landlock.restrict(grants, abi)


@needs_landlock
@apart
def test_only_what_is_granted_can_be_opened_also_by_children(folder: Path) -> None:
    confined(Grant(str(folder / "granted"), READ), Grant(str(folder / "own"), OWN))

    def expect() -> None:
        assert (folder / "granted/file").read_text() == "x"
        assert os.listdir(folder / "granted") == ["file"]
        for forbidden in (folder / "hidden/file", Path("/etc/passwd"), Path("/proc/self/status")):
            with pytest.raises(PermissionError):
                forbidden.read_text()
        for path in (folder, folder / "hidden", "/"):
            with pytest.raises(PermissionError):
                os.listdir(path)
        with pytest.raises(PermissionError):
            (folder / "granted/file").write_text("y")
        with pytest.raises(PermissionError):
            (folder / "granted/new").touch()

    expect()
    child = os.fork()
    if child == 0:
        expect()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


@needs_landlock
@apart
def test_in_a_folder_of_its_own_everything_is_possible_but_programs_and_devices(folder: Path) -> None:
    confined(Grant(str(folder / "own"), OWN))
    own = folder / "own"
    (own / "a").mkdir()
    (own / "file").rename(own / "a/moved")
    (own / "a/moved").write_text("yy")
    os.truncate(own / "a/moved", 1)
    os.symlink("a/moved", own / "link")
    os.mkfifo(own / "fifo")
    os.link(own / "a/moved", own / "hard")
    assert (own / "link").read_text() == "y"
    (own / "program").write_text("#!/bin/sh\n")
    os.chmod(own / "program", 0o700)
    with pytest.raises(PermissionError):
        os.execv(own / "program", ["program"])
    with pytest.raises(PermissionError):
        os.symlink(folder / "hidden/file", own / "way_out") or (own / "way_out").read_text()


@needs_landlock
@apart
def test_a_program_runs_only_where_that_is_granted(folder: Path) -> None:
    true = os.path.realpath("/bin/true")
    places = ("/lib", "/lib64", "/usr/lib", "/etc/ld.so.cache")
    libraries = [Grant(path, READ | EXECUTE) for path in places if os.path.exists(path)]
    confined(Grant(true, EXECUTE | READ_FILE), *libraries)

    def status_of(program: str) -> int:
        child = os.fork()
        if child == 0:
            try:
                os.execv(program, [program])
            except PermissionError:
                os._exit(13)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert (status_of(true), status_of(os.path.realpath("/bin/ls"))) == (0, 13)


@pytest.mark.skipif(ABI < 6, reason="signals and abstract sockets are scoped since version 6")
@apart
def test_nobody_outside_can_be_signalled_and_what_it_started_can() -> None:
    parent = os.getppid()
    name = f"\0cellblock-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as outside, socket.socket(socket.AF_UNIX) as inside:
        outside.bind(name)
        outside.listen()
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
            return
        confined()
        assert fails(lambda: os.kill(parent, 0)) == 1
        assert fails(lambda: os.kill(os.getppid(), 0)) == 1
        assert fails(lambda: inside.connect(name)) == 1
        mine = os.fork()
        if mine == 0:
            signal.pause()
        os.kill(mine, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(mine, 0)[1]) == -signal.SIGKILL
        os._exit(0)


@needs_landlock
@apart
def test_an_older_kernel_is_given_what_it_knows(folder: Path) -> None:
    for abi in range(1, ABI + 1):
        child = os.fork()
        if child == 0:
            confined(Grant(str(folder / "granted"), READ), abi=abi)
            with pytest.raises(PermissionError):
                (folder / "hidden/file").read_text()
            assert (folder / "granted/file").read_text() == "x"
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


@needs_landlock
@apart
def test_the_trial_finds_what_is_not_as_it_should_be(folder: Path) -> None:
    granted, hidden = str(folder / "granted/file"), str(folder / "hidden/file")
    with pytest.raises(OSError, match="can be opened all the same"):
        landlock.check(forbidden=hidden, granted=granted)
    confined(Grant(granted, READ))
    landlock.check(forbidden=hidden, granted=granted)
    with pytest.raises(PermissionError):
        landlock.check(forbidden=hidden, granted=hidden)


@needs_landlock
@apart
def test_a_place_that_is_not_there_or_a_kernel_that_refuses_is_an_error(folder: Path) -> None:
    privileges.forbid_new_privileges()
    with pytest.raises(FileNotFoundError):
        landlock.restrict([Grant(str(folder / "nowhere"), READ)], ABI)
    with pytest.raises(OSError, match="landlock: "):
        landlock.restrict([Grant(str(folder), 1 << 60)], 0)


# ----------------------------------------------------------------------------------------------------------- packages

NEEDS = {"numpy": ["numpy", "numpy.libs"], "pandas": ["dateutil", "numpy", "numpy.libs", "pandas"], "six": ["six.py"]}


def entries(*names: str) -> set[str]:
    granted = visible._packages(frozenset(names), NEEDS)
    return {grant.path.removeprefix(f"{visible.PACKAGES}/") for grant in granted}


def test_a_package_is_granted_with_what_it_needs_and_no_other() -> None:
    assert entries("numpy", "json", "nonsense") == {"numpy", "numpy.libs"}
    assert entries("pandas") == {"dateutil", "numpy", "numpy.libs", "pandas"}
    assert entries("six") == {"six.py"}
    assert entries("math", "../exec", "/etc") == set()
    assert entries("six", "*") == {visible.PACKAGES}


def test_nothing_is_granted_of_the_supervisors_of_proc_or_of_the_accounts() -> None:
    for grant in visible._FIXED:
        assert not grant.path.startswith(("/opt/exec", "/proc", "/sys", "/etc", "/run", "/root", "/home"))
        assert grant.path not in ("/", "/opt", "/opt/py", "/usr", "/dev")
    writable = {
        grant.path for grant in visible._FIXED if grant.rights & ~(READ | EXECUTE) and "/dev/" not in grant.path
    }
    assert writable == {"/workspace", "/branches", "/tmp"}
    assert {grant.path for grant in visible._FIXED if grant.rights & EXECUTE} == {"/opt/py/bin/python3"}
    (packages,) = [grant.rights for grant in visible._FIXED if grant.path == visible.PACKAGES]
    assert packages == READ_DIR
