"""The workspace as part of a state: whatever becomes of it, going back makes it what it was. Real files, no root."""

from __future__ import annotations

import os
import resource
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from executor_image.runner.workspace import Workspace
from tests.unit.apart import apart, ordinary_folder
from tests.unit.trees import age, touched, tree

CAP = 1 << 20
ODD = os.fsdecode(b"\xff\xfe no utf-8 \n")


@pytest.fixture
def root() -> Iterator[Path]:
    """An empty workspace, with something outside it."""
    with ordinary_folder() as folder:
        (folder / "workspace").mkdir()
        (folder / "secret").write_bytes(b"secret")
        (folder / "outside").mkdir()
        for made in (folder / "workspace", folder / "secret", folder / "outside"):
            os.chown(made, folder.stat().st_uid, -1)
        yield folder / "workspace"


def workspace_at(root: Path, cap: int = CAP) -> Workspace:
    workspace = Workspace(cap)
    workspace.root = str(root)
    return workspace


def looked_at(root: Path, cap: int = CAP) -> Workspace:
    workspace = workspace_at(root, cap)
    assert workspace.look(), workspace.reason
    return workspace


def fill(root: Path) -> None:
    """One of each kind that a state covers."""
    (root / "file").write_bytes(b"content")
    (root / "empty file").touch()
    (root / "tool").write_bytes(b"#!/bin/sh\n")
    (root / "tool").chmod(0o755)
    (root / "fixed").write_bytes(b"fixed")
    (root / "fixed").chmod(0o400)
    (root / "empty").mkdir()
    (root / "a/b/c").mkdir(parents=True)
    (root / "a/b/c/deep").write_bytes(b"deep" * 1000)
    (root / "a/x").write_bytes(b"x")
    (root / "a.txt").write_bytes(b"sorts between a and a/b")
    (root / "locked").mkdir()
    (root / "locked/kept").write_bytes(b"kept")
    (root / "locked").chmod(0o500)
    (root / ODD).write_bytes(b"odd")
    (root / "link").symlink_to("file")
    (root / "to folder").symlink_to("a")
    (root / "dangling").symlink_to("nothing/there")
    (root / "to secret").symlink_to("../secret")
    (root / "to outside").symlink_to("../outside")
    (root / "loop").symlink_to("loop")
    os.utime(root / "file", ns=(1, 1_000_000_000_000_000_001))
    os.utime(root / "a", ns=(1, 2_000_000_000_000_000_002))


def bind(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)  # the name of a socket has 108 bytes at the most
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)


def deep(path: Path, levels: int) -> None:
    for _ in range(levels):
        path.mkdir()
        path /= "d"


def swap(one: Path, other: Path) -> None:
    one.rename(one.parent / "aside")
    other.rename(one)
    (one.parent / "aside").rename(other)


def instead(path: Path, make: Callable[[Path], object]) -> None:
    """Puts something else in the place of what is there."""
    (shutil.rmtree if path.is_dir() and not path.is_symlink() else os.unlink)(path)
    make(path)


def folder_with_more(path: Path) -> None:
    path.mkdir()
    (path / "inner").mkdir()
    (path / "inner/new").write_bytes(b"new")
    (path / "link").symlink_to("inner")


def opened(path: Path, change: Callable[[], object]) -> None:
    """In a folder that may not be written to."""
    path.chmod(0o700)
    change()
    path.chmod(0o500)


CHANGES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda root: None,
    "other content": lambda root: (root / "file").write_bytes(b"another"),
    "longer": lambda root: (root / "file").write_bytes(b"content and more"),
    "shorter": lambda root: (root / "a/b/c/deep").write_bytes(b""),
    "removed": lambda root: (root / "file").unlink(),
    "made": lambda root: (root / "new").write_bytes(b"new"),
    "made odd": lambda root: (root / (ODD + "2")).write_bytes(b"new"),
    "odd changed": lambda root: (root / ODD).write_bytes(b"odder"),
    "odd removed": lambda root: (root / ODD).unlink(),
    "folder made": lambda root: folder_with_more(root / "new"),
    "deep folders made": lambda root: deep(root / "new", 30),
    "deeper folders made": lambda root: deep(root / "new", 60),
    "folder removed": lambda root: shutil.rmtree(root / "a"),
    "empty folder removed": lambda root: (root / "empty").rmdir(),
    "empty folder filled": lambda root: (root / "empty/new").write_bytes(b"new"),
    "everything removed": lambda root: [instead(p, lambda _: 0) for p in root.iterdir() if p.name != "locked"],
    "renamed": lambda root: (root / "a").rename(root / "z"),
    "moved over another": lambda root: (root / "file").rename(root / "a/x"),
    "files swapped": lambda root: swap(root / "file", root / "tool"),
    "folders swapped": lambda root: swap(root / "a", root / "empty"),
    "mode": lambda root: (root / "file").chmod(0o755),
    "file closed": lambda root: [(root / name).chmod(0) for name in ("file", "fixed", "empty file")],
    "set-id bits": lambda root: (root / "file").chmod(0o6700),
    "fixed file written": lambda root: [(root / "fixed").chmod(0o600), (root / "fixed").write_bytes(b"not fixed")],
    "time": lambda root: os.utime(root / "file", (5, 5)),
    "time of a folder": lambda root: os.utime(root / "a", (5, 5)),
    "time after content": lambda root: [(root / "file").write_bytes(b"another"), os.utime(root / "file", (1, 1))],
    "file to folder": lambda root: instead(root / "file", folder_with_more),
    "file to link": lambda root: instead(root / "file", lambda path: path.symlink_to("../secret")),
    "file to dangling link": lambda root: instead(root / "file", lambda path: path.symlink_to("../made")),
    "file to pipe": lambda root: instead(root / "file", os.mkfifo),
    "file to socket": lambda root: instead(root / "file", bind),
    "folder to file": lambda root: instead(root / "a", lambda path: path.write_bytes(b"file")),
    "folder to link": lambda root: instead(root / "a", lambda path: path.symlink_to("../outside")),
    "folder to pipe": lambda root: instead(root / "a", os.mkfifo),
    "inner folder to link": lambda root: instead(root / "a/b", lambda path: path.symlink_to("../../outside")),
    "link to file": lambda root: instead(root / "link", lambda path: path.write_bytes(b"file")),
    "link to folder": lambda root: instead(root / "to folder", folder_with_more),
    "link to another place": lambda root: instead(root / "link", lambda path: path.symlink_to("../secret")),
    "link to bytes": lambda root: instead(root / "link", lambda path: path.symlink_to(ODD)),
    "link removed": lambda root: (root / "dangling").unlink(),
    "pipe and socket made": lambda root: [os.mkfifo(root / "a/pipe"), bind(root / "a/socket")],
    "pipe in a new folder": lambda root: [(root / "new").mkdir(), os.mkfifo(root / "new/pipe")],
    "one file by another's name too": lambda root: instead(root / "a/x", lambda path: os.link(root / "file", path)),
    "name added": lambda root: os.link(root / "file", root / "other name"),
    "name added and written": lambda root: [
        os.link(root / "file", root / "other"),
        (root / "other").write_bytes(b"by the other name"),
    ],
    "written in a locked folder": lambda root: (root / "locked/kept").write_bytes(b"written"),
    "made in a locked folder": lambda root: opened(root / "locked", (root / "locked/new").touch),
    "removed from a locked folder": lambda root: opened(root / "locked", (root / "locked/kept").unlink),
    "locked folder opened and emptied": lambda root: [(root / "locked").chmod(0o700), (root / "locked/kept").unlink()],
    "locked folder removed": lambda root: [(root / "locked").chmod(0o700), shutil.rmtree(root / "locked")],
    "folder locked": lambda root: [(root / "a/new").touch(), (root / "a").chmod(0o500)],
    "folder closed": lambda root: (root / "a").chmod(0),
    "new folder closed": lambda root: [folder_with_more(root / "new"), (root / "new").chmod(0)],
}


@pytest.mark.parametrize("old", [False, True], ids=["young", "old"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@apart
def test_going_back_makes_it_what_it_was(root: Path, change: Callable[[Path], object], old: bool) -> None:
    fill(root)
    if old:  # what is younger than a tick is compared by its content
        age(root)
    workspace, before = looked_at(root), tree(root)
    change(root)
    assert workspace.restore() == ""
    assert tree(root) == before
    change(root)  # and again, from what was put back
    assert workspace.restore() == ""
    assert tree(root) == before
    assert (root.parent / "secret").read_bytes() == b"secret"
    assert os.listdir(root.parent / "outside") == []
    assert not (root.parent / "made").exists()


@apart
def test_the_newest_look_counts(root: Path) -> None:
    fill(root)
    workspace = looked_at(root)
    for change in ("other content", "folder to link", "link to folder", "mode", "odd removed"):
        CHANGES[change](root)
        assert workspace.look()
        before = tree(root)
        (root / "file").unlink()
        assert workspace.restore() == ""
        assert tree(root) == before


@apart
def test_pipes_are_part_of_a_state_and_sockets_are_left_as_they_are(root: Path) -> None:
    fill(root)
    os.mkfifo(root / "a/pipe", 0o640)
    bind(root / "socket")
    bind(root / "socket that goes")
    workspace, before = looked_at(root), tree(root)
    assert workspace.restore() == ""
    assert tree(root) == before
    for name in ("a/pipe", "socket that goes"):
        (root / name).unlink()
    assert workspace.restore() == ""
    assert tree(root) == {path: found for path, found in before.items() if path != b"socket that goes"}
    assert workspace.restore() == ""


@apart
def test_two_names_of_one_file_are_two_files_afterwards(root: Path) -> None:
    (root / "one").write_bytes(b"one file")
    os.link(root / "one", root / "two")
    workspace = looked_at(root)
    (root / "one").unlink()
    (root / "two").write_bytes(b"changed!")
    assert workspace.restore() == ""
    assert (root / "one").read_bytes() == (root / "two").read_bytes() == b"one file"


@apart
def test_whoever_has_a_file_open_reads_the_old_content_again(root: Path) -> None:
    (root / "log").write_bytes(b"first\n")
    workspace = looked_at(root)
    with open(root / "log", "rb") as reader, open(root / "log", "ab") as writer:
        inode = os.fstat(reader.fileno()).st_ino
        writer.write(b"second\n")
        writer.flush()
        (root / "log").chmod(0)
        assert workspace.restore() == ""
        assert reader.read() == b"first\n"
        assert (root / "log").stat().st_ino == inode
        writer.write(b"third\n")
        writer.flush()
        assert (root / "log").read_bytes() == b"first\nthird\n"


@apart
def test_going_back_where_nothing_has_changed_writes_nothing(root: Path) -> None:
    fill(root)
    age(root)
    workspace, before = looked_at(root), tree(root)
    opened = touched(root, lambda: workspace.restore())
    assert (opened.written, opened.timed) == (set(), set())
    assert tree(root) == before
    (root / "a/x").write_bytes(b"changed")
    assert touched(root, workspace.restore).written == {"a/x"}


@pytest.mark.parametrize("folder", ["", "a", "a/b", ODD + "folder"], ids=["root", "a", "a/b", "odd"])
@apart
def test_the_current_folder_is_what_it_was(root: Path, folder: str) -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    os.chdir(root / folder)
    workspace = looked_at(root)
    os.chdir("/")
    assert workspace.restore() == ""
    assert os.getcwd() == str(root / folder)
    if folder:
        shutil.rmtree(root / Path(folder).parts[0])
        (root / "elsewhere").mkdir()
        os.chdir(root / "elsewhere")
        assert workspace.restore() == ""
        assert os.getcwd() == str(root / folder)
        os.rename(root / folder, root / "moved")  # this process is still in it
        assert workspace.restore() == ""
        Path("here").touch()
        assert (root / folder / "here").exists()


@apart
def test_a_current_folder_elsewhere_is_left_alone(root: Path) -> None:
    beside = root.parent / "workspace beside it"
    beside.mkdir()
    for folder in (beside, Path("/")):
        os.chdir(folder)
        workspace = looked_at(root)
        (root / "new").touch()
        assert workspace.restore() == ""
        assert os.getcwd() == str(folder)


@apart
def test_a_full_disk_or_a_limit_is_told_as_the_reason(root: Path) -> None:
    (root / "large").write_bytes(bytes(100_000))
    workspace = looked_at(root)
    (root / "large").write_bytes(b"")
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    assert workspace.restore() == "not every file could be written back: File too large"
