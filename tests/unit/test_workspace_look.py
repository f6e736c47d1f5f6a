"""What the runner takes in of its workspace: only what has changed, never too much, and never by raising."""

from __future__ import annotations

import os
import resource
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from executor_image.runner import workspace as module
from executor_image.runner.workspace import Workspace
from tests.unit.apart import DEADLINE, apart, in_own_namespace, mount, ordinary_folder
from tests.unit.trees import age, change_times, touched, tree

CAP = 1 << 20


@pytest.fixture
def root() -> Iterator[Path]:
    """An empty workspace."""
    with ordinary_folder() as folder:
        yield folder


def workspace_at(root: Path, cap: int = CAP) -> Workspace:
    sys.modules.pop("mmap", None)  # that a library of another test has imported: see the test of mapped files
    workspace = Workspace(cap)
    workspace.root = str(root)
    return workspace


def looked_at(root: Path, cap: int = CAP) -> Workspace:
    workspace = workspace_at(root, cap)
    assert workspace.look(), workspace.reason
    return workspace


# ---------------------------------------------------------------------------------------------------- what is read


@apart
def test_what_has_not_changed_is_not_read_again_and_is_one_object_for_all(root: Path) -> None:
    (root / "a").mkdir()
    for name in ("old", "a/old", "changed", "replaced", "touched"):
        (root / name).write_bytes(b"content of " + name.encode())
    age(root)
    workspace = looked_at(root)
    before = {path: entry.content for path, entry in workspace._entries.items()}
    (root / "changed").write_bytes(b"else")
    shutil.copy(root / "replaced", root / "a copy")
    (root / "a copy").rename(root / "replaced")
    (root / "touched").touch()
    assert touched(root, workspace.look).read == {"changed", "replaced", "touched"}
    after = {path: entry.content for path, entry in workspace._entries.items()}
    assert {path for path in after if after[path] is not before[path]} == {"changed"}
    assert after["changed"] == b"else"


@apart
def test_what_has_changed_within_the_same_tick_is_noticed(root: Path) -> None:
    file = root / "file"
    for round_ in range(200):
        file.write_bytes(b"%08d before" % round_)
        workspace = looked_at(root)
        file.write_bytes(b"%08d behind" % round_)  # as long as before, and perhaps in the same moment
        workspace.look()
        file.write_bytes(b"%08d anothr" % round_)
        assert workspace.restore() == ""
        assert file.read_bytes() == b"%08d behind" % round_


@apart
def test_a_time_that_was_set_back_hides_no_change(root: Path) -> None:
    file = root / "file"
    file.write_bytes(b"one")
    age(root)
    workspace, before = looked_at(root), file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    age(root)
    now = file.stat()
    assert (now.st_size, now.st_mtime_ns, now.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert workspace.look()
    file.write_bytes(b"new")
    assert workspace.restore() == ""
    assert file.read_bytes() == b"two"
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    file.write_bytes(b"new")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert workspace.restore() == ""
    assert file.read_bytes() == b"two"


@in_own_namespace
def test_what_was_written_through_a_mapping_is_noticed(root: Path) -> None:
    mount("tmpfs", str(root), "tmpfs")  # as in a container: it knows nothing of pages that were read before
    (root / "mapped").write_bytes(b"old" * 2000)
    age(root)
    workspace = looked_at(root)
    import mmap  # only now, as user code does

    with open(root / "mapped", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        assert mapping[:3] == b"old"
        for content in (b"new", b"two"):
            before = change_times(root)
            mapping[:3] = content
            assert change_times(root) == before  # else this test would be of no use
            assert workspace.look()
            mapping[:3] = b"bad"
            assert workspace.restore() == ""
            assert mapping[:4] == content + b"o"
            age(root)
            workspace.look()


@apart
def test_a_file_that_grows_meanwhile_is_taken_in_as_far_as_it_has_got(root: Path) -> None:
    workspace, ended = workspace_at(root), threading.Event()
    with open(root / "growing", "ab", buffering=0) as file:

        def grow() -> None:
            while not ended.is_set():
                file.write(bytes(10_000))
                if file.tell() > CAP // 2:
                    file.truncate(0)

        thread = threading.Thread(target=grow)
        thread.start()
        try:
            for _ in range(50):
                assert workspace.look(), workspace.reason
        finally:
            ended.set()
            thread.join(DEADLINE)
    assert workspace.look()
    before = tree(root)
    (root / "growing").write_bytes(b"")
    assert workspace.restore() == ""
    assert tree(root) == before


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("sizes", "covered"),
    [
        ([CAP], True),
        ([CAP + 1], False),
        ([CAP // 2, CAP // 2], True),
        ([CAP // 2, CAP // 2, 1], False),
        ([0] * 9, True),
    ],
    ids=str,
)
@apart
def test_a_workspace_is_covered_up_to_its_cap(root: Path, sizes: list[int], covered: bool) -> None:
    for number, size in enumerate(sizes):
        with open(root / str(number), "wb") as file:
            file.truncate(size)
    workspace = workspace_at(root)
    assert workspace.look() is covered
    assert workspace.reason == ("" if covered else f"the workspace holds more than {CAP:,} bytes")


@apart
def test_a_cap_of_nothing_covers_what_holds_nothing(root: Path) -> None:
    (root / "folder").mkdir()
    (root / "folder/empty").touch()
    assert workspace_at(root, 0).look()
    (root / "folder/file").write_bytes(b"x")
    assert not workspace_at(root, 0).look()


@apart
def test_too_many_files_are_not_covered(root: Path) -> None:
    module._MAX_ENTRIES = 2000  # in this child; making more takes seconds
    for number in range(module._MAX_ENTRIES):
        os.mknod(root / str(number))
    workspace = looked_at(root)
    (root / "one more").mkdir()
    assert not workspace.look()
    assert workspace.reason == "the workspace has more than 2,000 files"


@apart
def test_folders_that_are_too_deep_are_not_covered(root: Path) -> None:
    folder = root
    for _ in range(module._MAX_DEPTH):
        folder /= "d"
        folder.mkdir()
    (folder / "file").touch()
    workspace = looked_at(root)
    (folder / "d").mkdir()
    assert not workspace.look()
    assert workspace.reason == "the workspace has folders more than 32 deep"


@apart
def test_paths_that_are_too_long_for_the_system_are_not_covered(root: Path) -> None:
    here = os.open(root, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=here)
        here = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
    workspace = workspace_at(root)
    assert not workspace.look()
    assert workspace.reason == "a file cannot be read: File name too long"


@pytest.mark.parametrize("mode", [0, 0o300])
@pytest.mark.parametrize("name", ["file", "folder"])
@apart
def test_what_cannot_be_read_is_not_covered(root: Path, name: str, mode: int) -> None:
    (root / "file").write_bytes(b"x")
    (root / "folder").mkdir()
    workspace = looked_at(root)
    (root / name).chmod(mode)
    assert not workspace.look()
    assert workspace.reason == "a file cannot be read: Permission denied"
    assert workspace.restore() == workspace.reason
    (root / name).chmod(0o700)
    assert workspace.look()
    assert workspace.restore() == ""


@apart
def test_a_workspace_that_is_gone_is_not_covered(root: Path) -> None:
    workspace = workspace_at(root / "nothing")
    assert not workspace.look()
    assert workspace.reason == "a file cannot be read: No such file or directory"


@apart
def test_too_little_memory_is_told_as_the_reason(root: Path) -> None:
    with open(root / "large", "wb") as file:
        file.truncate(1 << 30)
    (root / "small").write_bytes(b"x")
    workspace = workspace_at(root, 1 << 40)
    with open("/proc/self/statm") as statm:
        size = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20), resource.RLIM_INFINITY))
    assert not workspace.look()
    assert workspace.reason == "there is too little memory for a copy of the files"
    (root / "large").unlink()
    assert workspace.look()


@apart
def test_where_nothing_was_covered_nothing_is_changed(root: Path) -> None:
    workspace = workspace_at(root, 10)
    (root / "file").write_bytes(b"1")
    assert workspace.restore() == "it has not been looked at"
    workspace.look()
    (root / "file").write_bytes(bytes(11))
    workspace.look()
    before = tree(root)
    assert workspace.restore() == workspace.reason == "the workspace holds more than 10 bytes"
    assert tree(root) == before
    assert workspace._entries == {}  # nothing of it takes up memory


# -------------------------------------------------------------------------------------------- what user code breaks


class Told(Exception):
    """Raised by what user code put in the place of a function."""


# Builtins are put back at the end of each execution, before this is called; see Interpreter.put_back.
BROKEN = [(os, name) for name in ("scandir", "getcwd", "readlink", "open", "fsencode", "lstat")] + [(os.path, "join")]


@pytest.mark.parametrize("error", [Told, OSError, MemoryError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize(("owner", "name"), BROKEN, ids=lambda value: getattr(value, "__name__", value))
@apart
def test_what_user_code_has_replaced_never_makes_it_raise(
    root: Path, owner: object, name: str, error: type[BaseException]
) -> None:
    (root / "folder").mkdir()
    (root / "folder/file").write_bytes(b"x")
    (root / "link").symlink_to("folder")
    workspace, original = looked_at(root), getattr(owner, name)

    def broken(*_: object, **__: object) -> NoReturn:
        raise error

    raised: BaseException | None = None
    setattr(owner, name, broken)
    try:
        workspace.look()
        workspace.restore()
    except BaseException as caught:  # noqa: BLE001 - nothing may come out
        raised = caught
    finally:
        setattr(owner, name, original)
    assert raised is None
    assert workspace.look()  # no harm was done for good
    assert workspace.restore() == ""
