"""An engine that ignores a setting, and one that also says otherwise: no sandbox starts, and no container stays."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest

from orchestrator import AsyncSandbox, Config, Sandbox
from orchestrator.errors import IsolationError, RuntimeUnavailable, SandboxDied, SandboxStartError, SettingIgnored
from orchestrator.sandbox import engine as seam
from orchestrator.sandbox.engine import remove_container
from tests.conftest import mine
from tests.docker.between import Between, as_asked, between
from tests.waiting import eventually

pytestmark = pytest.mark.docker

Change = Callable[[dict[str, Any]], object]
START = r"POST /containers/[^/]+/start"
REMOVE = r"DELETE /containers/[^/]+"
SECONDS = 60.0  # until something that happens in the background must have happened


@pytest.fixture
def engine() -> Iterator[Between]:
    with between() as engine:
        yield engine


@pytest.fixture
def through(engine: Between, config: Config) -> Config:
    """Settings by which everything goes through the engine between."""
    return dataclasses.replace(config, docker_host=engine.docker_host)


def host(**settings: Any) -> Change:
    return lambda body: body["HostConfig"].update(settings)


def without(name: str) -> Change:
    return lambda body: body["HostConfig"].pop(name)


def start(config: Config) -> None:
    with Sandbox(config=config):
        pass


def goes_on(engine: Between) -> None:
    """It does what it was asked for, and what that leads to in the background has been done after this."""
    engine.release.set()
    assert not wait(list(seam._removals), timeout=SECONDS).not_done


def wait_until_gone(config: Config) -> None:
    deadline = time.monotonic() + SECONDS
    while mine(config):
        assert time.monotonic() < deadline, "containers left behind"


def test_through_an_engine_that_does_as_it_is_asked_a_sandbox_starts(engine: Between, through: Config) -> None:
    with Sandbox(config=through) as sandbox:
        assert sandbox.run_code("1 + 1").value == 2
        assert sandbox.isolation().complete
    assert engine.saw(START)


# ------------------------------------------------------------------------------------------- it says what it has done

IGNORED: dict[str, Change] = {
    "HostConfig.PidsLimit": without("PidsLimit"),
    "HostConfig.Memory": host(Memory=1 << 30, MemorySwap=1 << 30),
    "HostConfig.MemorySwap": host(MemorySwap=-1),
    "HostConfig.NanoCpus": without("NanoCpus"),
    "HostConfig.CpuShares": without("CpuShares"),
    "HostConfig.OomScoreAdj": host(OomScoreAdj=0),
    "HostConfig.SecurityOpt": lambda body: body["HostConfig"]["SecurityOpt"].pop(),
    "HostConfig.CapAdd": lambda body: body["HostConfig"]["CapAdd"].append("SYS_ADMIN"),
    "HostConfig.CapDrop": host(CapDrop=[]),
    "HostConfig.Privileged": host(Privileged=True),
    "HostConfig.ReadonlyRootfs": host(ReadonlyRootfs=False),
    "HostConfig.MaskedPaths": host(MaskedPaths=[]),
    "HostConfig.ReadonlyPaths": host(ReadonlyPaths=[]),
    "HostConfig.Tmpfs": lambda body: body["HostConfig"]["Tmpfs"].update({"/workspace": "rw"}),
    "HostConfig.Mounts": lambda body: body["HostConfig"]["Mounts"].append(
        {"Type": "tmpfs", "Target": "/more", "ReadOnly": False}
    ),
    "HostConfig.Ulimits": host(Ulimits=[]),
    "HostConfig.NetworkMode": host(NetworkMode="host"),
    "HostConfig.IpcMode": host(IpcMode="host"),
    "HostConfig.PidMode": host(PidMode="host"),
    "HostConfig.CgroupnsMode": host(CgroupnsMode="host"),
    "HostConfig.AutoRemove": host(AutoRemove=False),
    "HostConfig.Init": host(Init=True),
    "HostConfig.LogConfig": host(LogConfig={"Type": "json-file"}),
    "HostConfig.Devices": host(Devices=[{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x"}]),
    "HostConfig.GroupAdd": host(GroupAdd=["0"]),
    "HostConfig.Sysctls": host(Sysctls={"kernel.msgmax": "1"}),
    "Config.User": lambda body: body.update(User="1:1"),
    "Config.Env": lambda body: body.update(Env=["HTTP_PROXY=http://127.0.0.1:9"]),
    "Config.Cmd": lambda body: body["Cmd"].append("--more"),
    "Config.Labels": lambda body: body["Labels"].update({"cellblock.deadline-monotonic": "0"}),
    "Config.Volumes": lambda body: body.update(Volumes={"/data": {}}),
}


@pytest.mark.parametrize(("setting", "change"), IGNORED.items(), ids=list(IGNORED))
def test_a_setting_that_the_engine_ignores_is_named_and_nothing_is_started(
    engine: Between, through: Config, config: Config, setting: str, change: Change
) -> None:
    engine.make = change
    with pytest.raises(SettingIgnored, match=re.escape(f"{setting}: asked for")):
        start(through)
    assert not engine.saw(START)
    assert mine(config) == []


def test_another_image_under_the_same_id_is_refused(engine: Between, through: Config, config: Config) -> None:
    engine.tell = lambda answer, asked: answer.update(Image="sha256:" + "0" * 64)
    with pytest.raises(SettingIgnored, match=r"Image: asked for 'sha256:[0-9a-f]{64}', found 'sha256:0{64}'"):
        start(through)
    assert not engine.saw(START)
    assert mine(config) == []


def test_a_default_runtime_that_is_not_like_runc_is_refused(engine: Between, through: Config, config: Config) -> None:
    engine.tell = lambda answer, asked: answer["HostConfig"].update(Runtime="runsc")
    with pytest.raises(RuntimeUnavailable, match="default runtime is 'runsc'"):
        start(through)
    assert not engine.saw(START)
    assert mine(config) == []


def test_another_runtime_than_the_one_that_was_named_is_refused(
    engine: Between, through: Config, config: Config
) -> None:
    engine.tell = lambda answer, asked: answer["HostConfig"].update(Runtime="io.containerd.runc.v2")
    with pytest.raises(SettingIgnored, match=r"HostConfig\.Runtime: asked for 'runc', found 'io"):
        start(dataclasses.replace(through, runtime="runc"))
    assert mine(config) == []


# ------------------------------------------------------------------------------------------------------ and it lies

LIES: list[tuple[str, Change]] = [
    ("limit of processes", without("PidsLimit")),
    ("limit of processes", host(PidsLimit=100_000)),
    ("memory limit, without swap", host(Memory=1 << 30, MemorySwap=1 << 30)),
    ("memory limit, without swap", host(Memory=0, MemorySwap=0)),
    ("limit of processor time", without("NanoCpus")),
    ("system call filter", lambda body: body["HostConfig"].update(SecurityOpt=["seccomp=unconfined"])),
    (
        "system call filter (socket(AF_INET) works, socket(AF_NETLINK) works",  # the engine's default profile
        lambda body: body["HostConfig"].update(SecurityOpt=["no-new-privileges:true"]),
    ),
    ("masked paths show nothing", host(MaskedPaths=[])),
    ("masked paths show nothing", lambda body: body["HostConfig"]["MaskedPaths"].remove("/proc/kallsyms")),
    ("masked paths show nothing", lambda body: body["HostConfig"]["MaskedPaths"].remove("/sys/class")),
    ("kernel settings are read-only", host(ReadonlyPaths=[])),
    ("read-only root", host(ReadonlyRootfs=False)),
    ("limits of each process", host(Ulimits=[{"Name": "nofile", "Soft": 512, "Hard": 512}])),
    ("the runner goes first when memory is short", host(OomScoreAdj=1000)),
    (
        "folders are private and capped",
        lambda body: body["HostConfig"]["Tmpfs"].update(
            {"/tmp": body["HostConfig"]["Tmpfs"]["/tmp"].replace("mode=0700", "mode=0755")}
        ),
    ),
    (
        "folders are private and capped",
        lambda body: body["HostConfig"]["Tmpfs"].update(
            {"/workspace": re.sub("size=[0-9]+", "size=1g", body["HostConfig"]["Tmpfs"]["/workspace"])}
        ),
    ),
    (
        "writable places are few and run nothing",
        lambda body: body["HostConfig"]["Tmpfs"].update(
            {"/branches": body["HostConfig"]["Tmpfs"]["/branches"].replace("noexec", "exec")}
        ),
    ),
    ("writable places are few and run nothing", host(IpcMode="private")),
    (
        "no devices but harmless ones",
        host(Devices=[{"PathOnHost": "/dev/null", "PathInContainer": "/dev/more", "CgroupPermissions": "r"}]),
    ),
]


@pytest.mark.parametrize(("layer", "change"), LIES, ids=[f"{n}-{layer[:20]}" for n, (layer, _) in enumerate(LIES)])
def test_an_engine_that_ignores_a_setting_and_says_otherwise_is_found_out_from_inside(
    engine: Between, through: Config, config: Config, layer: str, change: Change
) -> None:
    engine.make, engine.tell = change, as_asked
    with pytest.raises(IsolationError, match=re.escape(layer)) as caught:
        start(through)
    assert not isinstance(caught.value, SettingIgnored)
    assert engine.saw(START)
    wait_until_gone(config)


# ------------------------------------------------------------------------------------------------ it does not answer


@pytest.mark.parametrize("runtime", ["", "runc"])
def test_a_start_that_hangs_is_given_up_at_the_deadline_and_nothing_stays(
    engine: Between, through: Config, config: Config, runtime: str
) -> None:
    engine.held = (START,)
    by = "the runtime 'runc' did not bring the container" if runtime else "the container did not come"
    with pytest.raises(SandboxStartError, match=f"{by} up within 2 s"):
        start(dataclasses.replace(through, start_timeout=2.0, runtime=runtime))
    wait_until_gone(config)


def test_what_can_be_removed_only_when_the_engine_goes_on_is_removed_then(
    engine: Between, through: Config, config: Config
) -> None:
    engine.held = (START, REMOVE)
    with pytest.raises(SandboxStartError, match="removed in the background"):
        start(dataclasses.replace(through, start_timeout=2.0))
    eventually(lambda: len(mine(config)) == 1, "nothing is made that could be left")
    goes_on(engine)
    wait_until_gone(config)


def test_a_container_that_runs_while_the_engine_says_nothing_is_removed(
    engine: Between, through: Config, config: Config
) -> None:
    engine.silent = (START,)
    with pytest.raises(SandboxStartError, match="removed in the background"):
        start(dataclasses.replace(through, start_timeout=6.0, lease=600.0))  # it comes up, and would live so long
    wait_until_gone(config)
    assert [call for call in engine.holding if re.fullmatch(START, call)]


@pytest.mark.parametrize("call", [r"GET /images/.+", r"POST /containers/create", r"GET /containers/[^/]+/json"])
def test_whatever_call_hangs_there_is_a_deadline(engine: Between, through: Config, config: Config, call: str) -> None:
    engine.held = (call,)
    with pytest.raises(SandboxStartError, match="up within 2 s"):
        start(dataclasses.replace(through, start_timeout=2.0))
    goes_on(engine)
    wait_until_gone(config)


def test_an_engine_that_does_not_list_its_containers_holds_up_no_start(engine: Between, through: Config) -> None:
    engine.held = ("GET /containers/json",)
    with Sandbox(config=through) as sandbox:
        assert sandbox.run_code("1 + 1").value == 2
        assert engine.holding == ["GET /containers/json"]


def test_a_close_that_is_cancelled_does_not_wait_for_an_engine_that_hangs(
    engine: Between, through: Config, config: Config
) -> None:
    async def case() -> None:
        sandbox = AsyncSandbox(config=through)
        await sandbox.start()
        engine.held = (REMOVE,)
        closing = asyncio.create_task(sandbox.close())
        async with asyncio.timeout(SECONDS):
            while not engine.holding:  # noqa: ASYNC110 - a server in another thread tells nobody
                await asyncio.sleep(0.01)
        closing.cancel()
        await asyncio.wait({closing}, timeout=SECONDS)
        assert closing.cancelled()
        assert engine.holding

    asyncio.run(case())
    engine.release.set()
    wait_until_gone(config)


HANGS_AT_THE_END = """
import os, signal, sys, threading
from orchestrator import Config, Sandbox
with Sandbox(config=Config(docker_host=sys.argv[1], runtime_dir=sys.argv[2])) as sandbox:
    print("up", flush=True)
    input()
"""


def test_a_process_that_is_interrupted_does_not_wait_for_an_engine_that_hangs(
    engine: Between, config: Config, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", HANGS_AT_THE_END, engine.docker_host, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdin
            assert process.stdout.readline() == "up\n"
            engine.held = (REMOVE,)
            process.stdin.write("\n")
            process.stdin.flush()
            deadline = time.monotonic() + SECONDS
            while not engine.holding:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            process.wait(SECONDS / 2)  # less than the engine's client waits for an answer
            assert engine.holding
        finally:
            process.kill()
            engine.release.set()


def test_a_sandbox_that_is_lost_is_told_so_while_the_engine_hangs(
    engine: Between, through: Config, config: Config
) -> None:
    with Sandbox(config=through) as sandbox:
        sandbox.run_code("1")
        engine.held = (REMOVE,)
        link = sandbox.asynchronous._link
        assert link
        remove_container(config, link.container.id)
        with pytest.raises(SandboxDied):
            sandbox.run_code("2")
        assert engine.holding
        engine.release.set()
