"""Pools of a service: real containers that are there before anybody asks for them, and gone when it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from orchestrator_api.v1 import orchestrator_pb2 as pb

from orchestrator import Client, Config, ConfigError, Limits, NotFound, Status
from orchestrator.config import parse_size
from orchestrator.configured import Settings
from orchestrator.sandbox.engine import engine
from orchestrator.sandbox.leftovers import list_containers
from tests.conftest import mine, none_of_mine
from tests.docker.service_process import service_in
from tests.serving import Serving
from tests.waiting import eventually

pytestmark = pytest.mark.docker
POOL = '[pools.analysis]\nsize = 2\nimports = ["zlib"]\ntimeout = 20.0\nfinal_answer = true\n'


@contextmanager
def serving_of(config: Config, file: Path, text: str) -> Iterator[Serving]:
    """A service whose settings are in that file, and which has what they say."""
    write(file, text)
    made = Serving(config, settings=Settings(file, dict(os.environ) | {"CELLBLOCK_CONFIG": ""}).current)
    try:
        yield made
    finally:
        made.close()
    none_of_mine(config)


def write(file: Path, text: str) -> None:
    """In one piece: what is half written would be wrong settings, which change nothing."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cellblock.toml"


@pytest.fixture
def serving(config: Config, file: Path) -> Iterator[Serving]:
    with serving_of(config, file, POOL) as made:
        until_ready(made, 2)
        yield made


def until_ready(serving: Serving, number: int) -> None:
    eventually(lambda: serving.pools.counts() == {"ready": number, "starting": 0}, lambda: str(serving.pools.counts()))


def sessions(config: Config) -> set[str]:
    return {found.session for found in mine(config)}


def connected(serving: Serving) -> set[str]:
    """Those that are ready, as far as the service knows."""
    ready = [one.sandbox for pool in list(serving.pools._pools.values()) for one in list(pool.ready)]
    return {sandbox.name for sandbox in ready if sandbox.is_connected}


def started(serving: Serving) -> dict[str, float]:
    """How many sandboxes were, by where from."""
    lines = serving.metrics.exposition().decode().splitlines()
    counted = (line.rsplit(" ", 1) for line in lines if line.startswith("cellblock_sandbox_start_seconds_count"))
    return {name.split('"')[1]: float(value) for name, value in counted}


def test_each_client_gets_a_warm_one_of_its_own(serving: Serving, config: Config) -> None:
    warm = sessions(config)
    assert len(warm) == 2
    with Client(serving.address) as one, Client(serving.address) as two:
        with one.sandbox(pool="analysis") as first, two.sandbox(pool="analysis") as second:
            first.run_code("import zlib\nx = 1")
            assert second.run_code("'x' in globals()").value is False
            assert {held.sandbox.name for held in serving.held()} == warm
            assert first.asynchronous.has_final_answer
            assert "zlib" in first.asynchronous.authorized_imports
            assert second.run_code("final_answer(7)").final_answer.value == 7  # type: ignore[union-attr]
            assert started(serving) == {"pool": 2, "cold": 0}
            until_ready(serving, 2)  # others take their places
            assert len(sessions(config) - warm) == 2
        eventually(lambda: not sessions(config) & warm, "what was used is not removed")


def test_more_than_are_ready_are_made_with_the_same_settings(config: Config, file: Path) -> None:
    with serving_of(config, file, POOL.replace("size = 2", "size = 1")) as serving:
        until_ready(serving, 1)
        with Client(serving.address) as client:
            sandboxes = [client.sandbox(pool="analysis", final_answer=True) for _ in range(2)]
            sandboxes[0].start()
            serving.run(serving.pools.close())  # or another one could be ready before it is asked for
            sandboxes[1].start()
            assert started(serving) == {"pool": 1, "cold": 1}
            assert len({held.sandbox.name for held in serving.held()}) == 2
            warm, cold = (held.message() for held in serving.held())
            assert warm.authorized_imports == cold.authorized_imports
            assert warm.has_final_answer
            assert cold.has_final_answer
            assert sandboxes[1].run_code("import zlib\nzlib.crc32(b'')").value == 0


def test_a_branch_and_a_reset_of_one_are_as_of_any_other(serving: Serving) -> None:
    with Client(serving.address) as client, client.sandbox(pool="analysis") as sandbox:
        sandbox.run_code("x = 1")
        with sandbox.fork() as branch:
            assert branch.run_code("x + 1").value == 2
            assert branch.asynchronous.has_final_answer
        sandbox.reset()
        assert sandbox.run_code("import zlib\n'x' in globals()").value is False


def test_a_change_of_the_file_renews(serving: Serving, config: Config, file: Path) -> None:
    before = sessions(config)
    write(file, POOL.replace("20.0", "0.5") + '[[policy]]\naction = "refuse"\nexecution = true\nreason = "not now"\n')
    with Client(serving.address) as client:
        with client.sandbox(pool="analysis") as sandbox:  # which may be faster than the renewal
            assert sandbox.run_code("1").status is Status.REFUSED
            assert serving.held()[0].sandbox.name not in before
        eventually(lambda: not sessions(config) & before, "the old ones are kept")
        until_ready(serving, 2)
        write(file, POOL.replace("20.0", "0.5"))
        with client.sandbox(pool="analysis") as sandbox:
            assert sandbox.run_code("while True: pass").status is Status.TIMEOUT
        write(file, "")
        eventually(lambda: not sessions(config), "they are kept without their table")
        with pytest.raises(NotFound, match="no pool 'analysis'"):
            client.sandbox(pool="analysis").start()


def test_general_settings_that_change_count_for_the_next_sandbox_of_an_app(config: Config, file: Path) -> None:
    with serving_of(config, file, "timeout = 20.0\n") as serving, Client(serving.address) as client:
        first = client.sandbox()
        assert first.run_code("1 + 1").value == 2
        write(file, 'timeout = 0.3\n[limits]\ndisk = "2m"\n')
        with client.sandbox() as sandbox:
            assert sandbox.run_code("while True: pass").status is Status.TIMEOUT
            assert [held.disk for held in serving.held()] == [parse_size(config.limits.disk), 2 << 20]
        assert first.run_code("import time\ntime.sleep(0.4)\n3").value == 3


def test_one_whose_container_has_ended_is_not_handed_out(serving: Serving, config: Config) -> None:
    before = mine(config)
    for found in before:
        engine(config).kill(found.id)
    dead = {found.session for found in before}
    eventually(lambda: not dead & connected(serving), "nothing tells that they have ended")
    with Client(serving.address) as client, client.sandbox(pool="analysis") as sandbox:
        assert sandbox.run_code("1 + 1").value == 2
    until_ready(serving, 2)
    eventually(lambda: not sessions(config) & dead, "the dead are kept")


def test_settings_beside_a_pool_are_refused_by_the_service_too(serving: Serving, config: Config, file: Path) -> None:
    with Client(serving.address) as client:
        sandbox = client.sandbox(pool="analysis")
        sandbox.asynchronous._request.MergeFrom(pb.CreateSandbox(env={"A": "b"}, approve=True))  # type: ignore[attr-defined]
        with pytest.raises(ConfigError, match="leave out env, approve"):
            sandbox.start()
        with pytest.raises(NotFound, match="did you mean analysis"):
            client.sandbox(pool="analysys").start()
        write(file, POOL.replace("final_answer = true", ""))
        with pytest.raises(ConfigError, match="leave out final_answer"):
            client.sandbox(pool="analysis", final_answer=True).start()
        assert serving.held() == []


def test_limits_of_a_pool_hold(config: Config, file: Path) -> None:
    with serving_of(config, file, POOL + 'limits = { disk = "2m" }\n') as serving, Client(serving.address) as client:
        with client.sandbox(pool="analysis") as sandbox:
            assert serving.held()[0].disk == 2 << 20
            written = sandbox.run_code("open('f', 'wb').write(b'0' * (3 << 20))")
            assert written.error
            assert "too large" in written.error.value
        with pytest.raises(ConfigError, match="leave out limits"):
            client.sandbox(pool="analysis", limits=Limits())


def test_what_is_ready_keeps_nobody_out(config: Config, file: Path) -> None:
    most = "max_sandboxes = 3\n"
    with serving_of(replace(config, max_sandboxes=3), file, most + POOL) as serving:
        until_ready(serving, 2)
        with Client(serving.address) as client:
            for number in range(3):
                assert client.sandbox().run_code("1 + 1").value == 2, number
            assert len(sessions(config)) == 3
            assert serving.pools.counts() == {"ready": 0, "starting": 0}


def test_a_service_has_them_ready_and_leaves_none(config: Config, tmp_path: Path) -> None:
    def owned() -> list[str]:
        return [found.session for found in list_containers(config) if int(found.owner.partition(":")[0]) in pids]

    with service_in(tmp_path) as service:
        pids = service.pids
        file = tmp_path / "cellblock.toml"
        write(file, file.read_text() + POOL)
        eventually(lambda: len(owned()) == 2, "they do not come")
        with service.client() as client, client.sandbox(pool="analysis") as sandbox:
            assert sandbox.run_code("final_answer(3)").final_answer.value == 3  # type: ignore[union-attr]
    assert owned() == []
