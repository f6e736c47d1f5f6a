"""The built image, looked at from outside (every file of it) and from inside (what runs there, and what cannot)."""

import io
import stat
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath

import docker
import pytest

from executor_image.bootstrap.layout import EXEC_GID
from orchestrator.stack import engine, image

pytestmark = pytest.mark.docker

SECONDS = 60  # for one container
NOBODY = 1234567  # a uid like a session's: the image does not know it
PY, EXEC = "/opt/py/bin/python3", "/opt/exec/bin/python3"
SITE = "/opt/py/site-packages"
# Mount points, which the engine fills.
MADE_BY_THE_ENGINE = (".dockerenv", "dev", "etc", "proc", "sys")


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    client = engine.connect()
    yield client
    client.close()


@pytest.fixture(scope="module")
def image_id(client: docker.DockerClient) -> str:
    return image.require_image(client)


@pytest.fixture(scope="module")
def files(client: docker.DockerClient, image_id: str) -> dict[str, tarfile.TarInfo]:
    """Every file of the image, by its path without the leading slash."""
    container = client.containers.create(image_id, network_mode="none")
    try:
        archive = io.BytesIO(b"".join(container.export()))
    finally:
        container.remove(force=True)
    with tarfile.open(fileobj=archive) as tar:
        return {entry.name: entry for entry in tar if entry.name.partition("/")[0] not in MADE_BY_THE_ENGINE}


def run(client: docker.DockerClient, image_id: str, program: str, code: str, user: str) -> tuple[int, str]:
    """Runs Python in a container that has no right to anything; its exit code and what it printed."""
    container = client.containers.create(
        image_id,
        entrypoint=[program, "-I", "-S", "-B", "-X", "utf8", "-c", code],
        user=user,
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        tmpfs={"/scratch": "size=16m,mode=1777"},
        environment={"MPLCONFIGDIR": "/scratch"},
    )
    try:
        container.start()
        code_of_exit = container.wait(timeout=SECONDS)["StatusCode"]
        return code_of_exit, container.logs().decode()
    finally:
        container.remove(force=True)


# -------------------------------------------------------------------------------------------------------- outside


def test_everything_is_roots_and_nobody_else_can_write(files: dict[str, tarfile.TarInfo]) -> None:
    assert {entry.uid for entry in files.values()} == {0}
    writable = [name for name, entry in files.items() if entry.mode & 0o022 and not entry.issym()]
    assert writable == []


def test_nothing_is_setuid_and_there_are_no_devices(files: dict[str, tarfile.TarInfo]) -> None:
    assert [name for name, entry in files.items() if entry.mode & (stat.S_ISUID | stat.S_ISGID)] == []
    assert [name for name, entry in files.items() if not (entry.isfile() or entry.isdir())] == []


def test_the_only_programs_are_two_pythons_and_the_linker(files: dict[str, tarfile.TarInfo]) -> None:
    programs = {name for name, entry in files.items() if entry.isfile() and entry.mode & 0o111}
    assert {name for name in programs if "ld-linux" not in name} == {"opt/exec/bin/python3", "opt/py/bin/python3"}
    assert len(programs) == 3


def test_there_is_no_installer_and_nothing_of_the_build(files: dict[str, tarfile.TarInfo]) -> None:
    parts = {part for name in files for part in PurePosixPath(name).parts}
    assert not parts & {"pip", "ensurepip", "setuptools", "bootstrap", "wheels", "Dockerfile", "build", "apt", "dpkg"}
    assert not parts & {"test", "tests", "idlelib", "tkinter", "lib2to3"}


def test_the_places_of_mounts_do_not_exist(files: dict[str, tarfile.TarInfo]) -> None:
    assert {name.partition("/")[0] for name in files} <= {"lib", "lib64", "opt", "usr"}


def test_the_supervisors_prefix_is_closed_to_all_but_its_group(files: dict[str, tarfile.TarInfo]) -> None:
    inside = [entry for name, entry in files.items() if name == "opt/exec" or name.startswith("opt/exec/")]
    assert {entry.gid for entry in inside} == {EXEC_GID}
    assert [entry.name for entry in inside if entry.mode & 0o007] == []
    assert "opt/exec/lib/python3.13/executor_image/supervisor/__init__.py" in files


def test_the_runners_prefix_has_no_native_kit_and_no_wire(files: dict[str, tarfile.TarInfo]) -> None:
    folders = ("opt/py/lib/python3.13", "opt/py/lib/python3.13/lib-dynload", SITE.lstrip("/"))
    paths = [PurePosixPath(name) for name in files]
    modules = {path.name.partition(".")[0] for path in paths if str(path.parent) in folders}
    assert not modules & {"ctypes", "_ctypes", "grpc", "grpcio", "google", "protobuf", "executor_api"}
    assert not modules & {"readline", "_multiprocessing", "_interpreters", "_testcapi", "_posixshmem"}
    assert {"numpy", "pandas", "matplotlib"} <= modules
    ours = {path.name for path in paths if str(path.parent) == "opt/py/lib/python3.13/executor_image"}
    assert ours == {"__init__.py", "__pycache__", "frames.py", "runner"}


@pytest.mark.parametrize("package", ["opt/py/lib/python3.13", "opt/exec/lib/python3.13"])
def test_every_source_is_compiled(files: dict[str, tarfile.TarInfo], package: str) -> None:
    sources = [PurePosixPath(name) for name in files if name.startswith(package) and name.endswith(".py")]
    compiled = [str(path.parent / "__pycache__" / f"{path.stem}.cpython-313.pyc") for path in sources]
    assert sources
    assert [name for name in compiled if name not in files] == []


def test_the_images_settings(client: docker.DockerClient, image_id: str) -> None:
    settings = client.images.get(image_id).attrs["Config"]
    assert settings["Entrypoint"][0] == EXEC
    assert settings["Entrypoint"][-1] == "executor_image.launcher"
    assert settings["Healthcheck"] == {"Test": ["NONE"]}
    assert [entry for entry in settings["Env"] or [] if not entry.startswith("PATH=")] == []
    assert sorted(settings["Labels"]) == ["cellblock.base", "cellblock.sources"]
    assert settings["Labels"]["cellblock.sources"] == image.image_tag().partition(":")[2]


# --------------------------------------------------------------------------------------------------------- inside


def test_the_runner_imports_what_the_image_promises(client: docker.DockerClient, image_id: str) -> None:
    code = f"""
import sys; sys.path.append({SITE!r})
import numpy, numpy.testing, pandas, pandas.api.interchange, matplotlib.pyplot as plot, io
import datetime, decimal, hashlib, sqlite3, ssl, subprocess, asyncio, uuid, zoneinfo, pydoc, executor_image.runner
frame = pandas.DataFrame({{"a": numpy.arange(4)}})
plot.plot(frame["a"]); picture = io.BytesIO(); plot.savefig(picture, format="png")
noon = datetime.datetime(2024, 7, 1, 12, tzinfo=zoneinfo.ZoneInfo("Europe/Paris"))
print(sys.prefix, frame["a"].sum(), picture.getvalue()[1:4].decode(), noon.utcoffset())
"""
    assert run(client, image_id, PY, code, f"{NOBODY}:{NOBODY}") == (0, "/opt/py 6 PNG 2:00:00\n")


@pytest.mark.parametrize(
    "module", ["ctypes", "_ctypes", "grpc", "google.protobuf", "readline", "multiprocessing.synchronize"]
)
def test_the_runner_does_not_import_the_rest(client: docker.DockerClient, image_id: str, module: str) -> None:
    status, text = run(client, image_id, PY, f"import sys; sys.path.append({SITE!r}); import {module}", str(NOBODY))
    assert status == 1
    assert "ImportError" in text or "ModuleNotFoundError" in text


def test_the_supervisors_python_works_for_its_group(client: docker.DockerClient, image_id: str) -> None:
    code = "import sys, ctypes, grpc.aio, executor_api.v1.executor_pb2, executor_image.supervisor; print(sys.prefix)"
    assert run(client, image_id, EXEC, code, f"{NOBODY}:{EXEC_GID}") == (0, "/opt/exec\n")


def test_another_user_can_neither_read_nor_run_it(client: docker.DockerClient, image_id: str) -> None:
    code = """
import os
for call in (os.listdir, os.open, os.stat, os.execv):
    try:
        call(*{os.listdir: ("/opt/exec",), os.stat: ("/opt/exec/bin/python3",),
               os.open: ("/opt/exec/lib/python3.13/os.py", os.O_RDONLY),
               os.execv: ("/opt/exec/bin/python3", ["python3"])}[call])
    except PermissionError:
        print("refused")
"""
    assert run(client, image_id, PY, code, f"{NOBODY}:{NOBODY}") == (0, "refused\n" * 4)


def test_the_only_time_zone_is_utc_until_one_is_named(client: docker.DockerClient, image_id: str) -> None:
    code = "import time; print(time.tzname[0])"
    assert run(client, image_id, PY, code, str(NOBODY)) == (0, "UTC\n")
