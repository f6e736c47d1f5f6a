"""Workspaces of branches, and of states that come one after another: any change, any number of times."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from executor_image.runner.workspace import Workspace
from tests.unit.apart import apart, in_own_namespace, mount, ordinary_folder
from tests.unit.trees import age, tree

CAP = 1 << 20
ODD = os.fsdecode(b"\xff odd")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where workspaces are made."""
    with ordinary_folder() as folder:
        yield folder


def looked_at(root: Path) -> Workspace:
    workspace = Workspace(CAP)
    workspace.root = str(root)
    assert workspace.look(), workspace.reason
    return workspace


def filled(root: Path) -> Path:
    (root / "a/b").mkdir(parents=True)
    (root / "file").write_bytes(b"content")
    (root / "a/b" / ODD).write_bytes(b"odd")
    (root / "a/b" / ODD).chmod(0o751)
    (root / "a/link").symlink_to("../file")
    os.utime(root / "a/b" / ODD, ns=(1, 1_000_000_000_000_000_001))
    os.utime(root / "a", ns=(1, 2_000_000_000_000_000_002))
    return root


# --------------------------------------------------------------------------------------------------------- moving


@apart
def test_a_branch_gets_a_copy_and_its_parent_keeps_its_own(folder: Path) -> None:
    first, branch = filled(folder / "first"), folder / "branches/1"
    workspace, before = looked_at(first), tree(first)
    assert workspace.move(str(branch)) == ""
    assert workspace.root == str(branch)
    assert tree(branch) == tree(first) == before
    assert branch.stat().st_mode & 0o777 == 0o700
    (branch / "file").write_bytes(b"of the branch")
    shutil.rmtree(branch / "a")
    assert tree(first) == before
    (first / "file").unlink()
    assert workspace.restore() == ""
    assert tree(branch) == before
    assert not (first / "file").exists()


@apart
def test_a_branch_of_a_branch_is_a_copy_of_what_was_looked_at_last(folder: Path) -> None:
    workspace = looked_at(filled(folder / "first"))
    assert workspace.move(str(folder / "2")) == ""
    (folder / "2/new").write_bytes(b"new")
    assert workspace.look()
    second = tree(folder / "2")
    (folder / "2/new").write_bytes(b"newer")
    assert workspace.move(str(folder / "3")) == ""
    assert tree(folder / "3") == second
    assert (folder / "2/new").read_bytes() == b"newer"


@apart
def test_what_a_branch_has_not_changed_is_one_object_with_its_parents(folder: Path) -> None:
    workspace = looked_at(filled(folder / "first"))
    before = {path: entry.content for path, entry in workspace._entries.items()}
    assert workspace.move(str(folder / "branch")) == ""
    assert workspace.look()
    assert all(entry.content is before[path] for path, entry in workspace._entries.items())


@apart
def test_a_copy_of_more_than_is_covered_is_refused(folder: Path) -> None:
    root = filled(folder / "first")
    workspace = looked_at(root)
    (root / "large").write_bytes(bytes(CAP + 1))
    workspace.look()
    assert workspace.move(str(folder / "branch")) == f"the workspace holds more than {CAP:,} bytes"


@apart
def test_what_is_in_the_place_of_a_branch_goes(folder: Path) -> None:
    workspace, before = looked_at(filled(folder / "first")), tree(folder / "first")
    (folder / "taken/closed").mkdir(parents=True)
    (folder / "taken/file").write_bytes(b"of another")
    (folder / "taken/closed").chmod(0)
    assert workspace.move(str(folder / "taken")) == ""
    assert tree(folder / "taken") == before
    (folder / "link").symlink_to("first")
    assert workspace.move(str(folder / "link")) == ""
    assert not (folder / "link").is_symlink()
    assert tree(folder / "first") == before


@apart
def test_a_place_that_cannot_be_made_is_refused(folder: Path) -> None:
    workspace = looked_at(filled(folder / "first"))
    (folder / "locked").mkdir(mode=0o500)
    assert workspace.move(str(folder / "locked/1")) == "its folder cannot be made: Permission denied"


@apart
def test_what_is_open_of_the_workspace_is_open_of_the_copy(folder: Path) -> None:
    root, branch = filled(folder / "first"), folder / "branch"
    (root / "log").write_bytes(b"one\n")
    (folder / "outside").write_bytes(b"outside")
    with open(root / "log", "r+b", buffering=0) as log, open(folder / "outside", "r+b", buffering=0) as outside:
        log.seek(0, os.SEEK_END)
        workspace = looked_at(root)
        assert workspace.move(str(branch)) == ""
        log.write(b"two\n")
        outside.write(b"OUT")
        assert not os.get_inheritable(log.fileno())
    assert (root / "log").read_bytes() == b"one\n"
    assert (branch / "log").read_bytes() == b"one\ntwo\n"
    assert (folder / "outside").read_bytes() == b"OUTside"


@pytest.mark.parametrize(
    ("home", "moved"), [("{first}", "{branch}"), ("{first}/a", "{first}/a"), ("/elsewhere", "/elsewhere"), (None, None)]
)
@apart
def test_home_moves_along_unless_it_is_elsewhere(folder: Path, home: str | None, moved: str | None) -> None:
    places = {"first": str(folder / "first"), "branch": str(folder / "branch")}
    os.environ.pop("HOME", None)
    if home:
        os.environ["HOME"] = home.format(**places)
    workspace = looked_at(filled(folder / "first"))
    assert workspace.move(places["branch"]) == ""
    assert os.environ.get("HOME") == (moved and moved.format(**places))


@pytest.mark.parametrize("where", ["", "a/b"])
@apart
def test_the_current_folder_moves_along(folder: Path, where: str) -> None:
    os.chdir(filled(folder / "first") / where)
    workspace = looked_at(folder / "first")
    assert workspace.move(str(folder / "branch")) == ""
    assert os.getcwd() == str(folder / "branch" / where).rstrip("/")


@in_own_namespace
def test_going_back_needs_no_more_room_than_the_files_had(folder: Path) -> None:
    mount("tmpfs", str(folder), "tmpfs", "size=1m")
    (folder / "a").write_bytes(bytes(700_000))
    (folder / "b").touch()
    workspace, before = looked_at(folder), tree(folder)
    (folder / "a").write_bytes(b"")
    (folder / "b").write_bytes(bytes(700_000))
    assert workspace.restore() == ""
    assert tree(folder) == before


# ------------------------------------------------------------------------------------------------- whatever is done

Operation = tuple[Any, ...]
names = st.sampled_from(["a", "b", ODD])
paths = st.lists(names, min_size=1, max_size=2).map("/".join)
contents = st.sampled_from([b"", b"1", b"2", b"longer content", b"other  content"])
targets = st.sampled_from(["a", "..", "b/a", "/etc/passwd", "nothing", "../../outside"])
READABLE, ANY = [0o500, 0o700, 0o755], [0, 0o100, 0o200, 0o400, 0o500, 0o600, 0o700, 0o4711]


def operations(modes: list[int]) -> st.SearchStrategy[list[Operation]]:
    """What user code does to files, one after the other."""
    one = st.one_of(
        st.tuples(st.sampled_from(["write", "append"]), paths, contents),
        st.tuples(st.sampled_from(["mkdir", "remove", "mkfifo"]), paths),
        st.tuples(st.just("symlink"), paths, targets),
        st.tuples(st.sampled_from(["rename", "link", "link over"]), paths, paths),
        st.tuples(st.just("chmod"), paths, st.sampled_from(modes)),
        st.tuples(st.just("utime"), paths, st.integers(0, 3)),
    )
    return st.lists(one, max_size=12)


def do(wanted: list[Operation], root: Path) -> None:
    """Does them; what cannot be done is not."""
    for operation in wanted:
        with suppress(OSError):
            do_one(root, *operation)


def do_one(root: Path, what: str, name: str, argument: Any = None) -> None:
    path = root / name
    match what:
        case "write" | "append":
            fd = os.open(
                path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | (os.O_APPEND if what == "append" else os.O_TRUNC)
            )
            with os.fdopen(fd, "wb") as file:
                file.write(argument)
        case "mkdir":
            path.mkdir(parents=True)
        case "remove":
            (shutil.rmtree if path.is_dir() and not path.is_symlink() else os.unlink)(path)
        case "mkfifo":
            os.mkfifo(path)
        case "symlink":
            path.symlink_to(argument)
        case "rename":
            path.rename(root / argument)
        case "link over":
            os.link(path, root / "new name", follow_symlinks=False)
            (root / "new name").rename(root / argument)
        case "link":
            os.link(path, root / argument, follow_symlinks=False)
        case "chmod" if not path.is_symlink():  # else it may close the folder that the workspace is in
            os.chmod(path, argument)
        case "utime":
            os.utime(path, (argument, argument))


rounds = st.lists(st.tuples(operations(READABLE), st.booleans(), operations(ANY), operations(ANY)), max_size=3)


@apart
def test_whatever_is_done_going_back_undoes_it(folder: Path) -> None:
    numbers = count()

    def place() -> Path:
        above = folder / str(next(numbers))  # what leads out of a workspace leads here
        above.mkdir()
        return above / "workspace"

    # Without shrinking, which takes longer than a child may; what a failing example did is short, and printed.
    @settings(max_examples=40, database=None, phases=[Phase.generate])
    @given(rounds, st.booleans())
    def check(rounds: list[tuple[list[Operation], bool, list[Operation], list[Operation]]], moved: bool) -> None:
        root = place()
        root.mkdir()
        workspace = looked_at(root)
        for make, old, change, change_again in rounds:
            do(make, root)
            if old:
                age(root)
            assert workspace.look(), workspace.reason
            before = tree(root)
            if moved:
                root = place()
                assert workspace.move(str(root)) == ""
                assert tree(root) == before
            for changes in (change, change_again):
                do(changes, root)
                assert workspace.restore() == ""
                assert tree(root) == before

    check()
