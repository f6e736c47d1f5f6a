"""Session folders: whole or not at all, of a living owner or gone, and in no place where others could exchange them."""

from __future__ import annotations

import dataclasses
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator import Config
from orchestrator.errors import SandboxStartError, TooManySandboxes
from orchestrator.sandbox import folders
from orchestrator.sandbox.folders import SessionFolder, own_runtime_dir, remove_leftover_folders
from orchestrator.sandbox.lockdown import Owner, owner_is_alive
from tests.unit.apart import ORDINARY, in_own_namespace, mount

SESSION = "0123456789abcdef"
TOKEN = bytes(32)
MOST = 5


@pytest.fixture(autouse=True)
def no_session_left() -> Iterator[None]:
    yield
    assert not folders._sessions


@pytest.fixture
def dead() -> str:
    """The label of an owner that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = str(Owner.of(ended.pid))
    ended.communicate(b"\n", timeout=30)
    return owner


def make(base: Path, session: str = SESSION) -> SessionFolder:
    return SessionFolder.make(base, session, os.getuid(), TOKEN, MOST)


def refused(path: Path, says: str) -> None:
    with pytest.raises(SandboxStartError, match=says):
        own_runtime_dir(Config(runtime_dir=str(path)))


@contextmanager
def no_descriptors() -> Iterator[None]:
    """As in a program that has used up its own."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_without_descriptors_nobody_is_taken_for_dead(tmp_path: Path) -> None:
    mine, theirs = make(tmp_path), tmp_path / "fedcba9876543210"
    theirs.mkdir()
    (theirs / "owner").write_text(str(Owner.of(os.getppid())))
    me = str(Owner.me())
    with no_descriptors():
        with pytest.raises(OSError, match="Too many open files"):
            owner_is_alive(me)
        assert remove_leftover_folders(tmp_path) == []
    assert mine.path.exists()
    assert theirs.exists()
    mine.remove()


def test_without_descriptors_no_place_is_taken_by_a_sandbox_that_never_was(tmp_path: Path) -> None:
    with no_descriptors(), pytest.raises(SandboxStartError, match="Too many open files"):
        make(tmp_path)


# ------------------------------------------------------------------------------------------------------------ making


def test_a_folder_is_for_nobody_else_and_names_its_owner(tmp_path: Path) -> None:
    folder = make(tmp_path)
    for path, mode in ((folder.path, 0o700), (folder.sockets, 0o700), (folder.sockets / "token", 0o600)):
        assert stat.S_IMODE(path.stat().st_mode) == mode
    assert (folder.path / "owner").read_text() == str(Owner.me())
    assert os.listdir(tmp_path) == [SESSION]
    assert folders.is_session_of_this_process(SESSION)
    folder.remove()
    folder.remove()
    assert os.listdir(tmp_path) == []
    assert not folders.is_session_of_this_process(SESSION)


@pytest.mark.parametrize("inside", ["owner", "anything"])
def test_a_folder_that_is_there_already_is_not_used(tmp_path: Path, inside: str) -> None:
    """Its name is drawn at random, and nobody but this user could make it; still it is not taken for ours."""
    (tmp_path / SESSION).mkdir()
    (tmp_path / SESSION / inside).touch()
    with pytest.raises(SandboxStartError, match="not empty"):
        make(tmp_path)
    assert os.listdir(tmp_path) == [SESSION]
    assert os.listdir(tmp_path / SESSION) == [inside]


def test_one_more_than_there_may_be_is_refused_until_one_is_gone(tmp_path: Path) -> None:
    made = [make(tmp_path, f"{number:016x}") for number in range(MOST)]
    with pytest.raises(TooManySandboxes, match=r"5 sandboxes.*max_sandboxes"):
        make(tmp_path)
    made.pop().remove()
    made.append(make(tmp_path))
    for folder in made:
        folder.remove()


@in_own_namespace
def test_on_a_full_disk_there_is_no_folder_and_the_reason_is_told() -> None:
    for inodes in range(1, 6):  # the tmpfs itself takes one; a folder takes four
        mount("none", "/mnt", "tmpfs", f"nr_inodes={inodes},size=64k,mode=0700")
        if inodes < 5:
            with pytest.raises(SandboxStartError, match="No space left on device"):
                make(Path("/mnt"))
            assert os.listdir("/mnt") == []
        else:
            make(Path("/mnt")).remove()
        subprocess.run(["umount", "/mnt"], check=True, timeout=30)


@in_own_namespace
def test_where_no_block_is_free_the_token_cannot_be_written_and_nothing_stays() -> None:
    mount("none", "/mnt", "tmpfs", "size=4k,mode=0700")
    Path("/mnt/full").write_bytes(bytes(4096))
    with pytest.raises(SandboxStartError, match="No space left on device"):
        make(Path("/mnt"))
    assert os.listdir("/mnt") == ["full"]


# ------------------------------------------------------------------------------------------------- the runtime folder


def test_the_runtime_folder_is_made_for_nobody_else(tmp_path: Path) -> None:
    path = own_runtime_dir(Config(runtime_dir=str(tmp_path / "a" / "b")))
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert own_runtime_dir(Config(runtime_dir=str(path))) == path


def test_who_only_looks_for_leftovers_makes_no_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    assert own_runtime_dir(Config(runtime_dir=str(path)), make=False) == path
    assert remove_leftover_folders(path) == []
    assert not path.parent.exists()
    path.mkdir(parents=True)
    path.chmod(0o755)
    with pytest.raises(SandboxStartError, match="0700"):
        own_runtime_dir(Config(runtime_dir=str(path)), make=False)


def test_a_relative_one_is_told_to_the_engine_as_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert own_runtime_dir(Config(runtime_dir="run")) == tmp_path / "run"


def test_one_that_is_open_to_others_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o710)
    refused(tmp_path, "mode 0700")


def test_one_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    refused(tmp_path / "link", "mode 0700")


def test_one_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch(mode=0o600)
    refused(tmp_path / "file", "File exists")
    refused(tmp_path / "file" / "below", "Not a directory")


needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to give something to another user")


@needs_root
def test_one_that_somebody_else_has_made_before_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    os.chown(tmp_path / "run", ORDINARY, ORDINARY)
    refused(tmp_path / "run", "mode 0700")


def others_folder(path: Path) -> None:
    os.chown(path, ORDINARY, ORDINARY)


def open_to_all(path: Path) -> None:
    path.chmod(0o777)


def open_to_a_group(path: Path) -> None:
    path.chmod(0o770)
    os.chown(path, -1, ORDINARY)


@needs_root
@pytest.mark.parametrize("spoil", [others_folder, open_to_all, open_to_a_group])
def test_one_in_a_place_where_others_could_exchange_it_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    between = tmp_path / "between"
    (between / "run").mkdir(parents=True)
    (between / "run").chmod(0o700)
    assert own_runtime_dir(Config(runtime_dir=str(between / "run")))
    spoil(between)
    refused(between / "run", f"others may change {between}")
    refused(between / "another" / "run", f"others may change {between}")
    assert os.listdir(between) == ["run"]


@needs_root
def test_a_link_on_the_way_that_somebody_else_has_made_is_refused(tmp_path: Path) -> None:
    """As in /tmp: nobody may exchange the folder, but whoever has made the link may make another."""
    tmp_path.chmod(0o1777)
    (tmp_path / "mine" / "run").mkdir(parents=True)
    (tmp_path / "mine" / "run").chmod(0o700)
    (tmp_path / "link").symlink_to("mine")
    assert own_runtime_dir(Config(runtime_dir=str(tmp_path / "link" / "run")))
    os.chown(tmp_path / "link", ORDINARY, ORDINARY, follow_symlinks=False)
    refused(tmp_path / "link" / "run", f"others may change {tmp_path / 'link'}")


# -------------------------------------------------------------------------------------------------------- leftovers


def test_what_a_dead_owner_left_is_removed_finished_or_not(tmp_path: Path, dead: str) -> None:
    finished = make(tmp_path)
    (finished.path / "owner").write_text(dead)
    unfinished = tmp_path / f".{dead}.fedcba9876543210"
    unfinished.mkdir()
    assert sorted(remove_leftover_folders(tmp_path)) == sorted([SESSION, unfinished.name])
    assert os.listdir(tmp_path) == []
    finished.remove()


def test_what_this_process_uses_stays_and_what_it_lost_goes(tmp_path: Path) -> None:
    used = make(tmp_path)
    (tmp_path / "fedcba9876543210").mkdir()
    (tmp_path / "fedcba9876543210" / "owner").write_text(str(Owner.me()))
    assert remove_leftover_folders(tmp_path) == ["fedcba9876543210"]
    assert os.listdir(tmp_path) == [SESSION]
    used.remove()


def test_what_another_living_process_is_making_stays_however_old_it_looks(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        path = tmp_path / f".{Owner.of(other.pid)}.{SESSION}"
        path.mkdir()
        for moment in (0, 1 << 40):  # by a clock that was set since
            os.utime(path, (moment, moment))
            assert remove_leftover_folders(tmp_path) == []
    finally:
        other.communicate(b"\n", timeout=30)
    assert remove_leftover_folders(tmp_path) == [path.name]


@pytest.mark.parametrize("owner", ["", "nonsense", "\N{SUPERSCRIPT TWO}:1:b:1"])
def test_a_folder_that_names_no_owner_is_nobodys(tmp_path: Path, owner: str) -> None:
    (tmp_path / SESSION).mkdir()
    (tmp_path / SESSION / "owner").write_text(owner, "utf-8")
    assert remove_leftover_folders(tmp_path) == [SESSION]


def test_what_is_no_session_folder_is_left_alone(tmp_path: Path) -> None:
    names = ["keep", "0123456789ABCDEF", SESSION + "0", f".{SESSION}", "..x", f"x.{Owner.me()}.{SESSION}"]
    for name in names:
        (tmp_path / name).mkdir()
    assert remove_leftover_folders(tmp_path) == []
    assert sorted(os.listdir(tmp_path)) == sorted(names)


@pytest.mark.parametrize("changed", [{"boot": "11111111-2222-3333-4444-555555555555"}, {"started": "1"}])
def test_a_folder_of_a_process_that_only_looks_like_a_living_one_goes(tmp_path: Path, changed: dict[str, str]) -> None:
    (tmp_path / SESSION).mkdir()
    (tmp_path / SESSION / "owner").write_text(str(dataclasses.replace(Owner.me(), **changed)))
    assert remove_leftover_folders(tmp_path) == [SESSION]
