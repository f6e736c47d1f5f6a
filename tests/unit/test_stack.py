"""The parts of orchestrator/stack that need no engine: names, archives, messages, and what is said without one."""

import io
import os
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.errors import EngineError, EnginePermission, EngineUnavailable
from orchestrator.stack import commands, context, debian, engine, image, places, wheels

NOWHERE = "unix:///nonexistent/docker.sock"
MACHINE_SECONDS = 60  # for a command that should take a second


def make_sources(folder: Path) -> tuple[Path, Path]:
    sources, api = folder / "executor_image", folder / "executor_api"
    for file in (sources / "Dockerfile", sources / "runner" / "main.py", api / "v1" / "wire_pb2.py", api / "notes.txt"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(file.name)
    return sources, api


# ------------------------------------------------------------------------------------------------- tag and context


def test_the_context_is_all_of_the_image_and_the_stubs_alone(tmp_path: Path) -> None:
    files = context.source_files(*make_sources(tmp_path))
    assert list(files) == ["executor_api/v1/wire_pb2.py", "executor_image/Dockerfile", "executor_image/runner/main.py"]


def test_the_digest_changes_with_content_name_and_recipe(tmp_path: Path) -> None:
    sources, api = make_sources(tmp_path)

    def digest(recipe: str = "") -> str:
        return context.digest(context.source_files(sources, api), recipe)

    seen = [digest(), digest("another base")]
    (sources / "runner" / "main.py").write_text("changed")
    seen.append(digest())
    (sources / "runner" / "main.py").rename(sources / "runner" / "other.py")
    seen.append(digest())
    (sources / "empty.py").touch()
    seen.append(digest())
    assert len(set(seen)) == len(seen)


def test_the_digest_ignores_byte_code_and_time_stamps(tmp_path: Path) -> None:
    sources, api = make_sources(tmp_path)
    before = context.digest(context.source_files(sources, api))
    (sources / "__pycache__").mkdir()
    (sources / "__pycache__" / "main.cpython-313.pyc").write_bytes(b"\0")
    os.utime(sources / "Dockerfile", (1, 1))
    assert context.digest(context.source_files(sources, api)) == before


def test_the_archive_is_the_same_whoever_packs_it(tmp_path: Path) -> None:
    files = context.source_files(*make_sources(tmp_path))
    archives = [io.BytesIO(), io.BytesIO()]
    context.pack(files, archives[0])
    for file in files.values():
        os.utime(file, (1, 1))
        file.chmod(0o600)
    context.pack(files, archives[1])
    assert archives[0].getvalue() == archives[1].getvalue()
    archives[0].seek(0)
    with tarfile.open(fileobj=archives[0]) as tar:
        assert tar.getnames() == list(files)
        assert {(entry.uid, entry.mtime, entry.mode) for entry in tar} == {(0, 0, 0o644)}


def test_the_tag_of_this_checkout() -> None:
    repository, _, digits = context.image_tag().partition(":")
    assert repository == "cellblock-executor"
    assert len(digits) == 12
    int(digits, 16)


def test_every_locked_package_is_pinned_and_hashed() -> None:
    for lock in context.lock_files():
        lines = [line for line in lock.read_text().splitlines() if not line.startswith("#")]
        packages = [line for line in lines if not line.startswith(" ")]
        assert packages
        assert all("==" in line and line.endswith("\\") for line in packages)
        assert all(line.lstrip().startswith("--hash=sha256:") for line in lines if line.startswith(" "))


# ---------------------------------------------------------------------------------------------- what a build says


def test_a_failing_step_is_an_error_with_the_last_lines() -> None:
    events = [
        {"stream": "Step 1/2 : FROM base\n"},
        {"stream": "\x1b[91mno such module\n\x1b[0m"},
        {"error": "returned a code: 1"},
    ]
    with pytest.raises(EngineError, match=r"(?s)\nno such module\nreturned a code: 1$"):
        image._follow(iter(events), [].append)


def test_the_steps_are_reported_and_the_images_of_the_build_are_known() -> None:
    said: list[str] = []
    events = [{"stream": "Step 1/1 : FROM scratch\n"}, {"stream": " ---> 0123456789ab\n"}, {"aux": {"ID": "sha256:0"}}]
    assert image._follow(iter(events), said.append) == {"0123456789ab"}
    assert said == ["  Step 1/1 : FROM scratch"]


# --------------------------------------------------------------------------------------------------- this machine


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nID=debian\n', True),
        ("# a comment\n\nID=ubuntu\nID_LIKE=debian\n", True),
        ('ID="linuxmint"\nID_LIKE="ubuntu debian"\n', True),
        ("ID=fedora\n", False),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', False),
        ("", False),
    ],
)
def test_the_debian_family_is_told_from_os_release(text: str, expected: bool) -> None:
    assert debian.is_family(debian.parse_os_release(text)) is expected


def test_a_failing_program_is_quoted_by_its_last_lines() -> None:
    script = "import sys; print('one\\n' * 50 + 'the reason'); sys.exit(3)"
    with pytest.raises(EngineError, match=r"(?s)exit 3.*the reason$"):
        commands.run([sys.executable, "-c", script], seconds=MACHINE_SECONDS)


def test_a_program_that_hangs_is_ended() -> None:
    with pytest.raises(EngineError, match=r"took longer than 0\.2 s"):
        commands.run([sys.executable, "-c", "import signal; signal.pause()"], seconds=0.2)


def test_a_program_that_is_missing_is_named() -> None:
    with pytest.raises(EngineError, match="/nonexistent/program"):
        commands.run(["/nonexistent/program"], seconds=MACHINE_SECONDS)


def test_clean_up_removes_session_folders_and_nothing_else(tmp_path: Path) -> None:
    for name in ("0123456789abcdef", "fedcba9876543210", "somebody-elses"):
        (tmp_path / name / "s").mkdir(parents=True)
    assert places.remove_session_folders(tmp_path) == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["somebody-elses"]
    (tmp_path / "somebody-elses" / "s").rmdir()
    (tmp_path / "somebody-elses").rmdir()
    assert places.remove_session_folders(tmp_path) == 0
    assert not tmp_path.exists()
    assert places.remove_session_folders(tmp_path) == 0


# --------------------------------------------------------------------------------------------------------- wheels


def test_wheels_that_are_there_are_not_downloaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lock = tmp_path / "some.lock"
    lock.write_text("nothing==1")
    folder = tmp_path / "cellblock" / "wheels" / f"{wheels._key([lock])}-aarch64"
    folder.mkdir(parents=True)
    said: list[str] = []
    assert wheels.ensure_wheels([lock], "arm64", said.append) == folder
    assert said == []


def test_a_failed_download_leaves_nothing_that_looks_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lock = tmp_path / "some.lock"
    lock.write_text("this is no requirement ==")
    with pytest.raises(EngineError, match="pip"):
        wheels.ensure_wheels([lock], "amd64", [].append)
    assert list((tmp_path / "cellblock" / "wheels").iterdir()) == []


def test_an_engine_on_another_architecture_is_refused() -> None:
    with pytest.raises(EngineError, match="riscv64"):
        wheels.ensure_wheels([], "riscv64", [].append)


# ----------------------------------------------------------------------------------------------------- no engine


def test_no_engine_says_what_to_install() -> None:
    with pytest.raises(EngineUnavailable, match=r"/nonexistent/docker\.sock.*\n.*apt-get install docker\.io"):
        engine.connect(NOWHERE)


def test_an_address_that_somebody_chose_is_never_brought_up() -> None:
    said: list[str] = []
    with pytest.raises(EngineUnavailable):
        engine.ensure_engine(said.append, NOWHERE)
    assert said == []


@contextmanager
def listener(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        yield server


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Root may open everything, so it becomes somebody else for a moment."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    "environment",
    [
        {"DOCKER_HOST": "tcp://127.0.0.1:noport"},
        {"DOCKER_HOST": "tcp://127.0.0.1:1", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/nonexistent"},
        {"DOCKER_HOST": "nonsense"},
    ],
)
def test_settings_of_an_engine_that_cannot_be_are_an_engine_that_does_not_answer(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(EngineUnavailable):
        engine.connect()


def test_an_engine_without_permission_is_not_called_missing(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with listener(path):
        path.chmod(0)
        with ordinary_user(), pytest.raises(EnginePermission, match="usermod -aG docker"):
            engine.connect(f"unix://{path}")


def test_something_that_is_no_engine_is_no_engine(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with listener(path) as server:

        def hang_up() -> None:
            for _ in range(2):  # the probe, then the request
                server.accept()[0].close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        with pytest.raises(EngineUnavailable):
            engine.connect(f"unix://{path}")
        thread.join(MACHINE_SECONDS)


def stack(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "DOCKER_HOST": NOWHERE, **environment}
    return subprocess.run(
        [sys.executable, "-m", "orchestrator.stack", command],
        env=env, capture_output=True, text=True, timeout=MACHINE_SECONDS, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("command", ["up", "image"])
def test_the_command_fails_with_one_message(command: str) -> None:
    done = stack(command)
    assert done.returncode == 1
    assert done.stderr.startswith("cellblock: No Docker engine answers at unix:///nonexistent/docker.sock")
    assert "Traceback" not in done.stderr


def test_a_wrong_setting_is_one_message_too() -> None:
    done = stack("up", CELLBLOCK_NO_SUCH_SETTING="1")
    assert done.returncode == 1
    assert "CELLBLOCK_NO_SUCH_SETTING" in done.stderr
    assert "Traceback" not in done.stderr


def test_down_without_an_engine_still_removes_the_folders(tmp_path: Path) -> None:
    (tmp_path / "0123456789abcdef" / "s").mkdir(parents=True)
    done = stack("down", CELLBLOCK_RUNTIME_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert not tmp_path.exists()
