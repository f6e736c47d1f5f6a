"""The life of containers: they end when they should, nothing is left, and a death is told as one."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator import Config, Limits, Sandbox
from orchestrator.errors import (
    EngineUnavailable,
    ImageMissing,
    ProtocolViolation,
    SandboxDied,
    SandboxStartError,
)
from orchestrator.sandbox.channel import check_socket
from orchestrator.sandbox.container import Container
from orchestrator.sandbox.engine import engine
from orchestrator.sandbox.folders import own_runtime_dir, owner_of
from orchestrator.sandbox.leftovers import collect_garbage, list_containers
from orchestrator.stack.image import image_tag
from tests.conftest import mine
from tests.waiting import eventually

pytestmark = pytest.mark.docker

DEADLINE = 30.0  # seconds
ORCHESTRATOR = """
import sys
from orchestrator import Config, Sandbox
sandbox = Sandbox(config=Config(lease={lease}, runtime_dir={place!r}))
sandbox.run_code("x = 1")
print("up", flush=True)
sys.stdin.read()
"""


def orchestrator(lease: float = 60.0, place: str = "") -> "subprocess.Popen[bytes]":
    """Another process with a sandbox of its own, up and waiting; ``place`` is its runtime folder."""
    command = [sys.executable, "-c", ORCHESTRATOR.format(lease=lease, place=place)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def containers_of(config: Config, pid: int) -> list[str]:
    return [found.id for found in list_containers(config) if found.owner.startswith(f"{pid}:")]


def folders(config: Config, pid: int) -> list[str]:
    """Session folders that the process of that pid made."""
    sessions = own_runtime_dir(config).glob("[0-9a-f]*")
    return [path.name for path in sessions if owner_of(path).startswith(f"{pid}:")]  # some go while they are looked at


# Deaths.


def test_a_container_killed_during_an_execution_is_an_error_to_the_caller(config: Config) -> None:
    sandbox = Sandbox()
    sandbox.run_code("x = 1")
    (container,) = mine(config)
    killer = threading.Thread(target=lambda: engine(config).kill(container.id))
    with pytest.raises(SandboxDied):
        sandbox.run_code("print('running')\nwhile True: pass", on_stdout=lambda _: killer.start())
    with pytest.raises(SandboxDied, match="reset"):
        sandbox.run_code("x")
    sandbox.reset()
    assert sandbox.run_code("'x' in globals()").value is False
    sandbox.close()
    with Sandbox() as another:
        assert another.run_code("1 + 1").value == 2


def test_a_container_killed_between_executions_is_noticed_at_the_next(config: Config) -> None:
    sandbox = Sandbox()
    sandbox.run_code("x = 1")
    engine(config).kill(mine(config)[0].id)
    with pytest.raises(SandboxDied):
        sandbox.run_code("x")
    sandbox.close()


def test_a_paused_container_does_not_hang_the_host(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.sandbox.sandbox.HOST_MARGIN", 1.0)
    sandbox = Sandbox(config=replace(config, grace=0.1))
    sandbox.run_code("x = 1")
    container = mine(config)[0].id
    engine(config).pause(container)
    with pytest.raises(SandboxDied, match="did not answer in time"):
        sandbox.run_code("x", timeout=0.2)
    sandbox.close()


# Nothing outlives its owner.


def test_a_killed_orchestrator_leaves_nothing_running(config: Config, tmp_path: Path) -> None:
    place = str(tmp_path / "run")  # where no other process collects garbage
    process = orchestrator(place=place)
    assert len(containers_of(config, process.pid)) == 1
    process.send_signal(signal.SIGKILL)
    process.wait(DEADLINE)
    eventually(lambda: not containers_of(config, process.pid), "the container outlived its orchestrator")
    assert any(name.startswith("folder ") for name in collect_garbage(replace(config, runtime_dir=place)))


def test_an_orchestrator_that_ends_without_closing_leaves_nothing(config: Config) -> None:
    process = orchestrator()
    assert len(folders(config, process.pid)) == 1
    process.communicate(b"", timeout=DEADLINE)
    eventually(lambda: not containers_of(config, process.pid), "the container outlived its orchestrator")
    assert folders(config, process.pid) == []


def test_a_stopped_orchestrator_loses_its_container_after_the_lease(config: Config) -> None:
    process = orchestrator(lease=5.0)
    process.send_signal(signal.SIGSTOP)
    try:
        eventually(lambda: not containers_of(config, process.pid), "the container outlived its lease")
    finally:
        process.kill()
        process.wait(DEADLINE)


def test_a_container_that_nobody_connects_to_ends_after_the_lease(config: Config) -> None:
    async def start() -> Container:
        return await Container.start(replace(config, lease=5.0), image_tag(), ())

    container = asyncio.run(start())
    eventually(lambda: not mine(config), "the container outlived its lease")
    container.folder.remove()


def test_garbage_of_the_living_is_left_alone(config: Config) -> None:
    with Sandbox() as sandbox:
        sandbox.run_code("x = 1")
        collect_garbage(config)
        assert sandbox.run_code("x").value == 1


def test_an_overdue_container_is_garbage_even_if_its_owner_lives(config: Config) -> None:
    sandbox = Sandbox(config=replace(config, max_lifetime=60.0))
    sandbox.run_code("1")
    assert [found.overdue for found in mine(config)] == [False]
    sandbox.close()


def test_close_leaves_no_folder_and_no_container(config: Config) -> None:
    with Sandbox() as sandbox:
        sandbox.run_code("1")
        assert len(folders(config, os.getpid())) == 1
    assert folders(config, os.getpid()) == []
    assert mine(config) == []


# Starting.


def test_no_engine(tmp_path: Path) -> None:
    config = Config(docker_host=f"unix://{tmp_path}/nothing.sock", image="x")
    with pytest.raises(EngineUnavailable, match="No Docker engine answers"):
        Sandbox(config=config).run_code("1")


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become somebody who may not use the engine")
def test_engine_without_permission() -> None:
    code = (
        "import os\nfrom orchestrator import Sandbox\nfrom orchestrator.sandbox.engine import engine\n"
        "from orchestrator import Config\nfrom orchestrator.errors import EnginePermission\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: engine(Config())\nexcept EnginePermission as error: print('docker' in str(error))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=DEADLINE, check=False)
    assert done.stdout == b"True\n", done.stderr


def test_image_missing_says_how_to_make_it(config: Config) -> None:
    with pytest.raises(ImageMissing, match="make image"):
        Sandbox(config=replace(config, image="cellblock-executor:never-built")).run_code("1")


def test_an_image_that_is_no_executor_fails_to_start(config: Config) -> None:
    client = engine(config)
    body = {"Image": image_tag(), "Entrypoint": ["/opt/py/bin/python3", "-c", "pass"], "Cmd": []}
    made = client.create_container_from_config(body)["Id"]
    try:
        client.commit(made, repository="cellblock-test", tag="no-executor")
        other = replace(config, image="cellblock-test:no-executor", start_timeout=10.0)
        with pytest.raises(SandboxStartError):
            Sandbox(config=other).run_code("1")
    finally:
        client.remove_container(made)
        client.remove_image("cellblock-test:no-executor", force=True)


def test_an_image_of_another_protocol_version_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.sandbox.channel.PROTOCOL_VERSION", 2)
    with pytest.raises(SandboxStartError, match="make image"):
        Sandbox().run_code("1")


def test_a_host_that_does_not_know_the_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    swap_token(monkeypatch)
    with pytest.raises(SandboxStartError, match="does not know this session's token"):
        Sandbox().run_code("1")


def swap_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host uses another token than the one it gave to the container."""
    original = Container.start.__func__  # type: ignore[attr-defined]

    async def start(cls: type[Container], *args: Any, **kwargs: Any) -> Container:
        return replace(await original(cls, *args, **kwargs), token=os.urandom(32))

    monkeypatch.setattr(Container, "start", classmethod(start))


def test_a_socket_that_is_a_link_or_of_another_user_is_refused(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "elsewhere"))
    (tmp_path / "executor.sock").symlink_to(tmp_path / "elsewhere")
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(ProtocolViolation):
            check_socket(directory, os.getuid())
        (tmp_path / "executor.sock").unlink()
        (tmp_path / "elsewhere").rename(tmp_path / "executor.sock")
        check_socket(directory, os.getuid())
        with pytest.raises(ProtocolViolation):
            check_socket(directory, os.getuid() + 1)
    finally:
        os.close(directory)
        listener.close()


def test_a_runtime_folder_open_to_others_is_refused(config: Config, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(SandboxStartError, match="0700"):
        Sandbox(config=replace(config, runtime_dir=str(tmp_path))).run_code("1")


# Side by side.


def test_many_sandboxes_at_once_do_not_notice_each_other(config: Config) -> None:
    values: dict[int, object] = {}

    def work(i: int) -> None:
        with Sandbox(limits=Limits(memory="128m")) as sandbox:
            sandbox.run_code(f"x = {i}")
            if i == 0:
                sandbox.run_code("sum(range(10**12))", timeout=0.3)
            values[i] = sandbox.run_code("x").value

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * DEADLINE)
    assert values == {i: i for i in range(6)}


def test_executions_of_one_sandbox_wait_for_each_other(config: Config) -> None:
    with Sandbox() as sandbox:
        sandbox.run_code("import time\norder = []")
        code = "order.append('in'); time.sleep(0.05); order.append('out')"
        threads = [threading.Thread(target=sandbox.run_code, args=(code,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert sandbox.run_code("order").value == ["in", "out"] * 3


def test_two_sandboxes_do_not_share_random_numbers_or_hashes(config: Config) -> None:
    code = "import random, uuid\n(random.random(), str(uuid.uuid4()), hash('x'))"
    with Sandbox() as one, Sandbox() as two:
        pairs = zip(one.run_code(code).value, two.run_code(code).value, strict=True)
        assert all(a != b for a, b in pairs)
