"""``cellblock doctor``, as a user runs it: what it tells, and when it is not satisfied."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import Config, Sandbox
from orchestrator.doctor import SCHEMA
from orchestrator.errors import ImageChanged, IsolationError
from orchestrator.sandbox.engine import engine
from orchestrator.sandbox.levels import leaves_open
from orchestrator.stack import pins
from orchestrator.stack.image import image_tag
from tests.conftest import mine, none_of_mine
from tests.docker.between import Between, as_asked, between
from tests.docker.terminal import Terminal

pytestmark = pytest.mark.docker

SECONDS = 60  # for one run
START = r"POST /containers/[^/]+/start"


def cellblock(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orchestrator.cli", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, check=False, env={**os.environ, **env}
    )


def data(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def lying() -> Iterator[Between]:
    with between() as engine:
        yield engine


# -------------------------------------------------------------------------------------------------- a good machine


def test_machines_are_told_everything(config: Config) -> None:
    done = cellblock("doctor", "--json")
    found = data(done)
    assert (done.returncode, found["ok"], found["error"], found["schema"]) == (0, True, "", SCHEMA)
    assert found["level"] >= found["min_isolation_level"] == 1
    assert all(layer["in_force"] for layer in found["layers"] if 1 <= layer["level"] <= found["level"])
    assert all(layer["proof"] and layer["name"] for layer in found["layers"])
    assert {part["name"] for part in found["components"]} >= {"Engine", "runc"}
    assert (found["runtime"], found["image"]) == ("runc", image_tag())
    assert found["kernel"] == {"host": os.uname().release, "inside": os.uname().release}
    assert found["not_protected_from"] == list(leaves_open(found["level"]))
    assert (found["landlock_abi"] > 0) == (found["level"] == 2)


def test_people_get_lines_where_it_goes_to_a_pipe(config: Config) -> None:
    found, done = data(cellblock("doctor", "--json")), cellblock("doctor")
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert lines[0].startswith(f"isolation: level {found['level']} (runc ")
    for layer in found["layers"]:
        word = "yes" if layer["in_force"] else "no"
        assert any(line.startswith(word) and f" {layer['name']}: " in line for line in lines)
    for advisory in found["advisories"]:
        assert any(line.startswith(f"WARNING {advisory['id']} ({advisory['component']}): ") for line in lines)
    assert [line[2:] for line in lines if line.startswith("- ")] == found["not_protected_from"]
    assert not set(done.stdout) & set("\x1b│┃")


def test_people_get_a_table_on_a_terminal(config: Config) -> None:
    with Terminal("-m", "orchestrator.cli", "doctor") as terminal:
        for words in ("in force", "no network", "leaves open:"):
            terminal.expect(words)


def test_one_line_says_the_level_and_what_it_stands_on(config: Config) -> None:
    done = cellblock("doctor", "--brief")
    (line,) = done.stdout.splitlines()
    assert done.returncode == 0
    assert line.startswith("isolation: level ")
    assert f"kernel {os.uname().release}, " in line
    assert "layers in force" in line


# ------------------------------------------------------------------------------------------------ not satisfied


def test_below_the_minimum_it_fails_and_says_what_is_missing(config: Config) -> None:
    done = cellblock("doctor", "--json", CELLBLOCK_MIN_ISOLATION_LEVEL="3")
    found = data(done)
    assert (done.returncode, found["ok"], found["min_isolation_level"]) == (1, False, 3)
    brief = cellblock("doctor", "--brief", CELLBLOCK_MIN_ISOLATION_LEVEL="3")
    assert brief.returncode == 1
    assert "level 3 is asked for; missing: a kernel of its own (the host's: " in brief.stdout


def test_below_the_minimum_no_sandbox_starts(config: Config) -> None:
    with (
        pytest.raises(IsolationError, match="min_isolation_level is 3; missing: a kernel of its own"),
        Sandbox(config=Config(min_isolation_level=3)),
    ):
        pass
    none_of_mine(config)


def test_without_landlock_the_second_level_is_not_reached(config: Config) -> None:
    off = Config(landlock="off")
    with Sandbox(config=off) as sandbox:
        assert sandbox.isolation().level == 1
    with pytest.raises(IsolationError, match="level 1, and min_isolation_level is 2; missing: files and packages"):
        Sandbox(config=dataclasses.replace(off, min_isolation_level=2)).start()
    none_of_mine(config)


def test_a_layer_that_is_absent_is_shown_with_the_others(config: Config, lying: Between) -> None:
    lying.make, lying.tell = (lambda body: body["HostConfig"].update(MaskedPaths=[])), as_asked
    done = cellblock("doctor", "--json", CELLBLOCK_DOCKER_HOST=lying.docker_host)
    found = data(done)
    assert (done.returncode, found["ok"], found["level"]) == (1, False, 0)
    missing = {layer["name"]: layer for layer in found["layers"] if layer["level"] == 1 and not layer["in_force"]}
    assert set(missing) == {"masked paths show nothing", "no devices but harmless ones"}  # one path is a device
    absent = missing["masked paths show nothing"]
    assert "/proc/kallsyms" in absent["proof"] or "and " in absent["proof"]
    people = cellblock("doctor", CELLBLOCK_DOCKER_HOST=lying.docker_host)
    assert people.returncode == 1
    assert "NO      masked paths show nothing: shown: " in people.stdout


def test_a_setting_that_the_engine_ignored_is_told_where_nothing_else_can_be(config: Config, lying: Between) -> None:
    lying.make = lambda body: body["HostConfig"].pop("PidsLimit")
    done = cellblock("doctor", "--json", CELLBLOCK_DOCKER_HOST=lying.docker_host)
    found = data(done)
    assert (done.returncode, found["ok"], found["level"], found["layers"]) == (1, False, 0, [])
    assert "HostConfig.PidsLimit: asked for 128, found " in found["error"]
    assert "HostConfig.PidsLimit" in cellblock("doctor", CELLBLOCK_DOCKER_HOST=lying.docker_host).stdout


# ------------------------------------------------------------------------------------------------------- runtimes


@pytest.mark.parametrize("runtime", ["runc", "io.containerd.runc.v2"])
def test_a_runtime_can_be_named(config: Config, runtime: str) -> None:
    with Sandbox(config=Config(runtime=runtime)) as sandbox:
        assert sandbox.run_code("6 * 7").value == 42
        assert sandbox.isolation().runtime == runtime
        assert sandbox.isolation().level < 3


def test_a_runtime_that_the_engine_does_not_have_is_refused_with_those_that_it_has(config: Config) -> None:
    for command in (("exec", "1"), ("doctor",), ("doctor", "--json")):
        done = cellblock(*command, CELLBLOCK_RUNTIME="kata-of-nobody")
        assert (done.returncode, done.stdout) == (3, "")
        assert "the engine has no container runtime 'kata-of-nobody'; it has " in done.stderr
        assert "runc" in done.stderr
    assert mine(config) == []


def test_a_runtime_that_hangs_holds_up_neither_the_error_nor_the_end_of_the_process(
    config: Config, lying: Between
) -> None:
    lying.held = (START,)
    env = {"CELLBLOCK_DOCKER_HOST": lying.docker_host, "CELLBLOCK_START_TIMEOUT": "1", "CELLBLOCK_RUNTIME": "runc"}
    for command in ("doctor", "exec"):
        done = cellblock(command, *(["1"] if command == "exec" else []), **env)
        assert (done.returncode, done.stdout) == (3, "")
        assert "the runtime 'runc' did not bring the container up within 1 s" in done.stderr
        assert not lying.release.is_set()  # it hangs to this moment
    lying.release.set()
    assert cellblock("gc").returncode == 0


# -------------------------------------------------------------------------------------------------- another image


def test_an_image_that_is_not_the_one_that_was_built_here_is_refused(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    other = "sha256:" + "0" * 64
    pins.pin(image_tag(), other)
    with pytest.raises(ImageChanged, match=f"and the image that was built here is {other}; run `make image`"):
        Sandbox(config=Config()).start()
    done = cellblock("exec", "1")
    assert (done.returncode, "ImageChanged" in done.stderr) == (3, True)
    assert mine(config) == []


def test_an_image_of_other_sources_under_our_name_is_refused(config: Config) -> None:
    client = engine(config)
    name = "cellblock-executor:000000000000"
    client.tag(image_tag(), *name.split(":"))
    try:
        with pytest.raises(ImageChanged, match="was not built from these sources"):
            Sandbox(config=Config(image=name)).start()
    finally:
        client.remove_image(name)
    assert mine(config) == []


def test_an_image_can_be_named_by_its_id_and_a_wrong_one_is_missing(config: Config) -> None:
    image_id = engine(config).inspect_image(image_tag())["Id"]
    with Sandbox(config=Config(image=image_id)) as sandbox:
        assert sandbox.run_code("1").value == 1
    done = cellblock("exec", "1", CELLBLOCK_IMAGE="sha256:" + "0" * 64)
    assert (done.returncode, "ImageMissing" in done.stderr) == (3, True)


def test_what_make_up_builds_or_finds_is_kept(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.stack", "up"], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    assert pins.pinned(image_tag()) == engine(config).inspect_image(image_tag())["Id"]
