"""Full disks: of the runtime folder, of the workspace, of the engine. A clear error, and nothing left."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import Config, Files, Limits, Sandbox, State, Status
from orchestrator.errors import EngineError, SandboxFileError, SandboxStartError
from orchestrator.stack import dockerd
from tests.conftest import mine
from tests.faults import moments
from tests.faults.own_engine import own_engine
from tests.faults.traces import Made, nothing_left, reaped
from tests.waiting import eventually

pytestmark = pytest.mark.docker

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to mount a small file system")
NO_SPACE = "No space left on device"
FOLDER_INODES = 5  # of a session folder, and the file system's own


@contextmanager
def small(folder: Path, options: str) -> Iterator[Path]:
    """A tmpfs of a size of its own."""
    folder.mkdir(mode=0o700, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=0700,{options}", "none", folder], check=True, timeout=30)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True, timeout=30)
        folder.rmdir()


def fill(folder: Path) -> Path:
    """Takes every block that is left."""
    path = folder / "full"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1024))
        except OSError:
            return path


# ------------------------------------------------------------------------------------------------ the runtime folder


@needs_root
def test_no_room_for_the_session_folder(quick: Config, place: Path, sessions: list[Made]) -> None:
    with small(place / "small", f"nr_inodes={FOLDER_INODES - 1}") as folder:
        with pytest.raises(SandboxStartError, match=f"{folder}: {NO_SPACE}"):
            Sandbox(config=replace(quick, runtime_dir=str(folder))).run_code("1")
        assert os.listdir(folder) == []
    assert mine(quick) == []


@needs_root
def test_no_room_for_the_token(quick: Config, place: Path, sessions: list[Made]) -> None:
    with small(place / "small", "size=64k") as folder:
        full = fill(folder)
        config = replace(quick, runtime_dir=str(folder))
        with pytest.raises(SandboxStartError, match=f"{folder}: {NO_SPACE}"):
            Sandbox(config=config).run_code("1")
        assert os.listdir(folder) == ["full"]
        full.unlink()
        with Sandbox(config=config) as sandbox:  # as soon as there is room again
            assert sandbox.run_code("1 + 1").value == 2
        assert os.listdir(folder) == []
        nothing_left(config, *sessions)


@needs_root
def test_no_room_for_the_socket(quick: Config, place: Path, sessions: list[Made]) -> None:
    with small(place / "small", "size=64k") as folder:
        config = replace(quick, runtime_dir=str(folder))

        def in_the_way() -> None:
            (folder / sessions[0].session / "s" / "starting.sock").mkdir()
            fill(folder)

        sandbox = Sandbox(config=config)
        with (
            moments.at("the container is created", in_the_way),
            pytest.raises(SandboxStartError, match=f"ended while it started.*the file system of {folder} is full"),
        ):
            sandbox.run_code("1")
        eventually(lambda: os.listdir(folder) == ["full"], lambda: f"left behind: {os.listdir(folder)}")
        nothing_left(config, *sessions)


# ---------------------------------------------------------------------------------------------------- the workspace


@pytest.fixture
def cramped(quick: Config) -> Iterator[Sandbox]:
    limits = Limits(memory="256m", disk="1m", inodes=64)
    with Sandbox(config=quick, limits=limits, authorized_imports=["os"]) as sandbox:
        yield sandbox


FILL = "import os\nwith open('full', 'wb', buffering=0) as f:\n    while True: f.write(bytes(65536))"


def test_code_that_fills_its_workspace_is_told_and_nobody_else_notices(cramped: Sandbox) -> None:
    execution = cramped.run_code(FILL)
    assert (execution.status, execution.state) == (Status.ERROR, State.KEPT)
    assert execution.error
    assert execution.error.name == "OSError"
    more = cramped.run_code("open('other', 'wb', buffering=0).write(b'x' * 5000)")
    assert NO_SPACE in str(more.error)
    assert cramped.run_code("os.remove('full'); open('other', 'wb', buffering=0).write(b'x' * 5000)").value == 5000


def test_the_host_is_told_that_the_workspace_is_full(cramped: Sandbox) -> None:
    cramped.run_code(FILL)
    with pytest.raises(SandboxFileError, match=NO_SPACE):
        cramped.files.write("small", b"does not fit")
    cramped.run_code("os.remove('full')")
    cramped.files.write("small", b"fits")
    assert cramped.files.read("small") == b"fits"


def test_a_full_workspace_is_brought_back_after_a_kill_and_branched(cramped: Sandbox) -> None:
    cramped.run_code(FILL)
    size = cramped.run_code("os.path.getsize('full')").value
    execution = cramped.run_code("os.remove('full'); open('new', 'w').write('x'); sum(range(10**12))", timeout=3)
    assert (execution.status, execution.state, execution.files) == (Status.TIMEOUT, State.RESTORED, Files.RESTORED)
    assert cramped.run_code("os.listdir('.'), os.path.getsize('full')").value == (["full"], size)
    with cramped.fork() as branch:
        assert branch.run_code("os.path.getsize('full')").value == size


# -------------------------------------------------------------------------------------------------------- the engine


@needs_root
@pytest.mark.skipif(dockerd.find() is None, reason="needs dockerd on this machine, to start an engine of its own")
def test_an_engine_without_room_says_so_and_keeps_nothing(quick: Config, sessions: list[Made]) -> None:
    with (
        small(Path(tempfile.mkdtemp(prefix="cellblock-data-", dir="/var/tmp")), "size=3g") as data,
        own_engine(quick, data) as engine,
    ):
        config = replace(quick, docker_host=engine.address)
        resize(data, used(data) + (4 << 10))
        with pytest.raises(EngineError, match=r"(?i)no space left on device"):
            Sandbox(config=config).run_code("1")
        nothing_left(config, *sessions)
        resize(data, 3 << 30)
        with Sandbox(config=config) as sandbox:
            assert sandbox.run_code("1 + 1").value == 2
        reaped(config, *sessions)


def used(folder: Path) -> int:
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def resize(folder: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True, timeout=30)
