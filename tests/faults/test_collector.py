"""What the collector takes for garbage, and when: clocks that are set, labels of others, containers that stay."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator import Config, Sandbox, Status
from orchestrator.errors import EngineError, SandboxDied
from orchestrator.sandbox import leftovers, lockdown
from orchestrator.sandbox.container import Container
from orchestrator.sandbox.engine import engine, remove_container
from orchestrator.sandbox.leftovers import collect_garbage, list_containers
from orchestrator.stack.engine import discard
from orchestrator.stack.image import image_tag
from tests.conftest import mine
from tests.faults.traces import DEADLINE, Made, nothing_left

pytestmark = pytest.mark.docker

YEAR = 365 * 86400.0


def set_clock(monkeypatch: pytest.MonkeyPatch, ahead: float) -> None:
    """What this process takes for the time of day."""
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + ahead)


def pass_time(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """For the collector alone, on the clock that nobody can set."""
    later = SimpleNamespace(monotonic=lambda: time.monotonic() + seconds)
    monkeypatch.setattr(leftovers, "time", later)


@pytest.mark.parametrize("ahead", [-10 * YEAR, -3600.0, 3600.0, 10 * YEAR])
def test_a_clock_that_is_set_makes_no_container_overdue(
    ahead: float, quick: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sandbox(config=replace(quick, max_lifetime=60.0)) as sandbox:
        sandbox.run_code("x = 1")
        set_clock(monkeypatch, ahead)
        collect_garbage(quick)
        (found,) = mine(quick)
        assert not found.overdue
        assert 0 <= found.age_seconds < 60
        assert sandbox.run_code("x", timeout=5).value == 1


@pytest.mark.parametrize("ahead", [-10 * YEAR, 10 * YEAR])
def test_one_that_was_made_under_another_time_of_day_is_removed_when_it_is_overdue(
    ahead: float, quick: Config, monkeypatch: pytest.MonkeyPatch, sessions: list[Made]
) -> None:
    """Its owner lives; an owner in another pid namespace could not even be looked for."""
    set_clock(monkeypatch, ahead)
    sandbox = Sandbox(config=replace(quick, max_lifetime=60.0))
    sandbox.run_code("x = 1")
    monkeypatch.undo()
    pass_time(monkeypatch, 30.0)
    collect_garbage(quick)
    assert len(mine(quick)) == 1
    pass_time(monkeypatch, 61.0)
    collect_garbage(quick)
    assert mine(quick) == []
    sandbox.close()
    nothing_left(quick, *sessions)


def test_the_time_of_day_decides_no_timeout(quick: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def jump(_: str) -> None:
        set_clock(monkeypatch, YEAR)

    with Sandbox(config=quick) as sandbox:
        execution = sandbox.run_code("print('go')\nwhile True: pass", timeout=0.3, on_stdout=jump)
        assert execution.status is Status.TIMEOUT
        assert 0 < execution.usage.wall_seconds < 60


def test_code_cannot_set_the_clock(quick: Config) -> None:
    with Sandbox(config=quick) as sandbox:
        execution = sandbox.run_code("import time\ntime.clock_settime(time.CLOCK_REALTIME, 0)")
        assert execution.error
        assert execution.error.name == "PermissionError"


# Labels that nobody of ours has written. Whoever may make containers may write them.


def labelled(config: Config, change: Callable[[dict[str, str]], object]) -> str:
    """A container that never runs, with labels as a sandbox's and then changed."""
    labels = {
        lockdown.LABEL_OWNER: str(lockdown.Owner.me()),
        lockdown.LABEL_SESSION: "0" * 16,
        lockdown.LABEL_CREATED: "0",
        lockdown.LABEL_DEADLINE: "60",
    }
    change(labels)
    body = {"Image": image_tag(), "Labels": labels}
    return str(engine(config).create_container_from_config(body)["Id"])


def of_another_namespace(labels: dict[str, str]) -> None:
    labels[lockdown.LABEL_OWNER] = str(replace(lockdown.Owner.me(), namespace="1"))


def long_overdue(labels: dict[str, str]) -> None:
    of_another_namespace(labels)
    labels[lockdown.LABEL_DEADLINE] = "0"


@pytest.mark.parametrize("text", ["", "soon", "nan", "1e999", "-1e999", "\N{SUPERSCRIPT TWO}"])
def test_a_deadline_that_is_no_number_of_seconds_stops_nobody(text: str, quick: Config) -> None:
    """Neither the collector, which removes what is overdue all the same, nor the container: only a number is past."""

    def change(labels: dict[str, str]) -> None:
        of_another_namespace(labels)
        labels[lockdown.LABEL_DEADLINE] = labels[lockdown.LABEL_CREATED] = text

    made = [labelled(quick, change), labelled(quick, long_overdue)]
    stays = [] if text == "-1e999" else made[:1]
    try:
        # What is overdue may be gone by now: whoever starts a sandbox on this engine collects garbage, too.
        assert {found.id for found in list_containers(quick)} >= set(stays)
        collect_garbage(quick)
        assert [found.id for found in list_containers(quick) if found.id in made] == stays
    finally:
        for one in made:
            remove_container(quick, one)


def test_one_of_an_owner_that_cannot_be_looked_for_goes_at_its_deadline(
    quick: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_a_minute(labels: dict[str, str]) -> None:
        of_another_namespace(labels)
        labels[lockdown.LABEL_DEADLINE] = str(int(time.monotonic() + 60))

    made = labelled(quick, in_a_minute)
    try:
        collect_garbage(quick)
        assert made in [found.id for found in list_containers(quick)]
        pass_time(monkeypatch, 61.0)
        collect_garbage(quick)
        assert made not in [found.id for found in list_containers(quick)]
    finally:
        remove_container(quick, made)


# What is not wanted any more, and what cannot be removed.


def started(config: Config) -> Container:
    """Nobody connects to it, and it is still there at the end of a test that takes long."""

    async def start() -> Container:
        return await Container.start(replace(config, lease=60.0), image_tag(), ())

    return asyncio.run(start())


def test_what_this_process_has_lost_is_garbage_although_it_lives(quick: Config, sessions: list[Made]) -> None:
    """As after a removal that the engine failed to do: nobody but its owner can know that it is not wanted."""
    lost = started(quick)
    collect_garbage(quick)
    assert len(mine(quick)) == 1
    lost.folder.remove()
    collect_garbage(quick)
    assert mine(quick) == []
    nothing_left(quick, *sessions)


def test_one_that_cannot_be_removed_is_in_nobodys_way(
    quick: Config, sessions: list[Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = [started(quick) for _ in range(3)]
    for one in lost:
        one.folder.remove()
    stays = next(found.id for found in list_containers(quick) if found.id in [one.id for one in lost])
    remove = remove_container

    def fail_for_one(config: Config, found: str) -> None:
        if found == stays:
            raise EngineError("device or resource busy")
        remove(config, found)

    monkeypatch.setattr(leftovers, "remove_container", fail_for_one)
    folder = Path(quick.runtime_dir) / "0123456789abcdef"
    folder.mkdir()
    with pytest.raises(EngineError, match="busy"):
        collect_garbage(quick)
    assert [found.id for found in mine(quick)] == [stays]
    assert not folder.exists()
    with Sandbox(config=quick) as sandbox:  # whose start collects garbage too
        assert sandbox.run_code("1 + 1").value == 2
    monkeypatch.undo()
    collect_garbage(quick)
    assert mine(quick) == []
    nothing_left(quick, *sessions)


def test_several_may_remove_the_same_container(quick: Config, sessions: list[Made]) -> None:
    one = started(quick)
    api = engine(quick)
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda _: discard(api, one.id), range(4)))
    assert mine(quick) == []
    one.folder.remove()
    nothing_left(quick, *sessions)


def test_a_container_ends_at_its_lifetime_although_its_owner_lives(
    quick: Config, sessions: list[Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = lockdown.create_body

    def brief(session: lockdown.Session, *args: Any) -> dict[str, Any]:
        return original(replace(session, lifetime=10.0), *args)  # less than the setting may say

    monkeypatch.setattr(lockdown, "create_body", brief)
    sandbox = Sandbox(config=quick)
    with pytest.raises(SandboxDied):
        sandbox.run_code("print('go')\nwhile True: pass", timeout=DEADLINE)
    nothing_left(quick, *sessions)
    sandbox.close()
