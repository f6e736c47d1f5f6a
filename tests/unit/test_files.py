"""Files of the workspace as the runner reads and writes them: inside it, through no link, within bounds."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from executor_api.v1 import executor_pb2 as pb

from executor_image.frames import MAX_FILE_PIECE, MAX_FILES, MAX_OUTCOME
from executor_image.runner import files


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace, with something outside it that must not be reached."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    monkeypatch.chdir(folder)  # where ask() looks
    return folder


def ask(data: bytes = b"", **request: Any) -> pb.FileReply:
    return pb.FileReply.FromString(files.handle(os.getcwd(), json.dumps(request).encode() + b"\0" + data))


def read(path: str, offset: int = 0, length: int = 100) -> pb.FileReply:
    return ask(op="read", path=path, offset=offset, length=length)


def write(path: str, data: bytes = b"x", append: bool = False) -> pb.FileReply:
    return ask(data, op="write", path=path, append=append)


def listed() -> list[tuple[bytes, int]]:
    reply = ask(op="list")
    assert not reply.error
    return [(entry.path, entry.size) for entry in reply.entries]


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize("data", [b"", b"text", b"\0\n\xff" * 1000, b'{"op": "list"}\0more'])
def test_what_is_written_is_read(data: bytes) -> None:
    assert not write("a.bin", data).error
    assert read("a.bin", 0, MAX_FILE_PIECE).data == data
    assert listed() == [(b"a.bin", len(data))]


@pytest.mark.usefixtures("workspace")
def test_writing_replaces_and_appending_appends() -> None:
    write("a", b"long text")
    write("a", b"ab")
    write("a", b"cd", append=True)
    write("new", b"first", append=True)
    assert (read("a").data, read("new").data) == (b"abcd", b"first")


@pytest.mark.usefixtures("workspace")
def test_a_piece_is_read_from_its_offset_and_never_more_than_the_bound() -> None:
    write("a", bytes(MAX_FILE_PIECE))
    write("a", b"end", append=True)
    assert read("a", MAX_FILE_PIECE - 1, 100).data == b"\0end"
    assert read("a", MAX_FILE_PIECE + 3, 100).data == b""
    assert len(read("a", 0, 1 << 31).data) == MAX_FILE_PIECE


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize("offset", [-1, 1 << 63, (1 << 64) - 1])
def test_an_offset_that_cannot_be_is_an_error(offset: int) -> None:
    write("a")
    assert read("a", offset).error


def test_folders_on_the_way_are_made_for_their_owner_alone(workspace: Path) -> None:
    assert not write("a/b/c.txt").error
    assert not write("./a//b/./d.txt").error
    assert listed() == [(b"a/b/c.txt", 1), (b"a/b/d.txt", 1)]
    assert (workspace / "a").stat().st_mode & 0o777 == 0o700
    assert (workspace / "a/b/c.txt").stat().st_mode & 0o077 == 0


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(
    "path", ["", ".", "/", "//", "..", "../secret", "a/../../secret", "/etc/passwd", "a\0b", "./..", "a/.."]
)
def test_a_path_that_is_not_inside_the_workspace_is_refused(path: str) -> None:
    for reply in (read(path), write(path)):
        assert b"inside the workspace" in reply.error


def test_links_are_never_followed(workspace: Path) -> None:
    (workspace / "folder").mkdir()
    links = {
        "file": "../secret",
        "away": "..",
        "absolute": "/etc",
        "inner": "folder",
        "loop": "loop",
        "dangling": "../made",
    }
    for name, target in links.items():
        (workspace / name).symlink_to(target)
    for path in ("file", "away/secret", "absolute/passwd", "inner/x", "loop", "loop/x", "dangling"):
        assert read(path).error, path
        assert write(path).error, path
        assert write(path, append=True).error, path
    assert (workspace.parent / "secret").read_bytes() == b"secret"
    assert not (workspace.parent / "made").exists()
    assert list((workspace / "folder").iterdir()) == []
    assert listed() == []


def test_a_request_is_about_the_root_it_is_given_wherever_the_process_is(workspace: Path) -> None:
    branch = workspace.parent / "branch"
    branch.mkdir()
    write("shared", b"first")
    assert files.handle(str(branch), b'{"op": "write", "path": "mine", "append": false}\0x') == b""
    assert os.listdir(branch) == ["mine"]
    assert listed() == [(b"shared", 5)]
    gone = pb.FileReply.FromString(files.handle(str(workspace / "nothing"), b'{"op": "list"}'))
    assert gone.error == b"No such file or directory"


def test_what_is_no_regular_file_is_refused_without_waiting(workspace: Path) -> None:
    os.mkfifo(workspace / "fifo")
    (workspace / "folder").mkdir()
    for path in ("fifo", "folder"):
        assert read(path).error
        assert write(path).error
    reader = os.open(workspace / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    assert write("fifo").error == b"not a regular file"
    os.close(reader)
    assert write("fifo/x").error
    assert listed() == []


@pytest.mark.usefixtures("workspace")
def test_the_error_is_the_systems_words_without_a_path_of_the_container() -> None:
    assert read("nothing").error == b"No such file or directory"
    write("file")
    assert read("file/below").error == b"Not a directory"
    assert b"too long" in write("x" * 300).error


def test_names_that_are_no_unicode_cross_as_bytes(workspace: Path) -> None:
    (workspace / os.fsdecode(b"\xff\xfe")).write_bytes(b"1")
    assert listed() == [(b"\xff\xfe", 1)]
    assert read(os.fsdecode(b"\xff\xfe")).data == b"1"


def test_a_list_is_sorted_whole_and_of_regular_files_alone(workspace: Path) -> None:
    for name in ("b", "a/z", "a/y", "c/d/e"):
        write(name, b"12")
    (workspace / "empty").mkdir()
    assert listed() == [(b"a/y", 2), (b"a/z", 2), (b"b", 2), (b"c/d/e", 2)]


def test_a_list_ends_at_its_bound(workspace: Path) -> None:
    for i in range(MAX_FILES + 50):
        (workspace / f"{i:05}").touch()
    assert len(listed()) == MAX_FILES


def test_a_list_of_long_names_still_fits_into_its_frame(workspace: Path) -> None:
    folder = workspace / ("x" * 250) / ("y" * 250) / ("z" * 250)
    folder.mkdir(parents=True)
    for i in range(3500):
        (folder / (f"{i:05}" + "n" * 245)).touch()
    assert len(files.handle(str(workspace), b'{"op": "list"}')) <= MAX_OUTCOME


def test_a_deep_tree_is_listed_without_a_deep_recursion(workspace: Path) -> None:
    folder = os.open(workspace, os.O_RDONLY)
    for _ in range(100):
        os.mkdir("d", dir_fd=folder)
        below = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    write("top")
    assert (b"top", 1) in listed()


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(
    "path", ["x", "nothing/x", "x" * 300, "x" * 300 + "/y", "a/" + "x" * 300 + "/y", "../x", "folder"]
)
def test_no_descriptor_is_left_open_whatever_happened(path: str) -> None:
    os.mkdir("folder")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        read(path)
        write(path)
    assert len(os.listdir("/proc/self/fd")) == before
