"""An orchestrator that is killed, at any moment: lease and garbage collector leave nothing of its sandbox."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from orchestrator import Config
from orchestrator.sandbox.leftovers import collect_garbage
from tests.faults import moments
from tests.faults.traces import DEADLINE, Made, containers, nothing_left, places, reaped, traces
from tests.waiting import eventually

pytestmark = pytest.mark.docker

SEEDS = range(6)
LONGEST = 2.5  # seconds that a life is let go on before it is killed; one takes about two


@dataclass
class Orchestrator:
    """Another process with sandboxes of its own. Whoever starts it ends it."""

    process: subprocess.Popen[bytes]
    sessions: list[Made] = field(default_factory=list)
    _unread: bytes = b""

    def wait_for(self, moment: str) -> None:
        """Until it says that it is there."""
        deadline = time.monotonic() + DEADLINE
        while not any(said.get("at") == moment for said in self._said(deadline - time.monotonic())):
            assert self.process.poll() is None, "it has ended"

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Ends it, and leaves it a zombie: its parent may never ask how it ended."""
        self.process.send_signal(number)
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        list(self._said(0.0))

    def _said(self, seconds: float) -> Iterator[dict[str, Any]]:
        """What it says within that time, or until there is no more of it for now."""
        assert self.process.stdout
        if not select.select([self.process.stdout], [], [], max(0.0, seconds))[0]:
            return
        *lines, self._unread = (self._unread + os.read(self.process.stdout.fileno(), 1 << 20)).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if made := said.get("made"):
                self.sessions.append(Made(**{**made, "places": tuple(made["places"])}))
            yield said


@contextmanager
def orchestrator(moment: str, config: Config) -> Iterator[Orchestrator]:
    command = [sys.executable, "-m", "tests.faults.orchestrator", moment, json.dumps(settings(config))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        yield Orchestrator(process)
    finally:
        process.kill()
        process.wait(DEADLINE)
        assert process.stdout
        process.stdout.close()


def settings(config: Config) -> dict[str, Any]:
    changed = dataclasses.asdict(config)
    changed.pop("limits")
    return changed


@pytest.mark.parametrize("moment", moments.ALL)
def test_killed_at_this_moment_it_leaves_nothing(moment: str, quick: Config) -> None:
    with orchestrator(moment, quick) as process:
        process.wait_for(moment)
        sessions = [replace(made, places=places(quick, made.session)) for made in process.sessions]
        process.kill()
        reaped(quick, *sessions)


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_any_moment_it_leaves_nothing(seed: int, quick: Config) -> None:
    with orchestrator("-", quick) as process:
        process.wait_for("-")
        with pytest.raises(subprocess.TimeoutExpired):
            process.process.wait(random.Random(seed).uniform(0, LONGEST))
        process.kill()
        reaped(quick, *process.sessions)


@pytest.mark.parametrize("seed", SEEDS[:4])
def test_interrupted_at_any_moment_it_cleans_up_itself(seed: int, quick: Config) -> None:
    """Ctrl-C. No collector comes."""
    with orchestrator("-", quick) as process:
        process.wait_for("-")
        with pytest.raises(subprocess.TimeoutExpired):
            process.process.wait(random.Random(seed).uniform(0, LONGEST))
        process.kill(signal.SIGINT)
        nothing_left(quick, *process.sessions)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_ended_by_another_signal_it_leaves_nothing(number: signal.Signals, quick: Config) -> None:
    with orchestrator("code runs", quick) as process:
        process.wait_for("code runs")
        process.kill(number)
        reaped(quick, *process.sessions)


def test_what_it_began_ends_by_itself_where_nobody_collects_garbage(quick: Config) -> None:
    """The container, that is: by the end of its stream or by the lease. Its folder waits for the next start."""
    for moment in ("the container is started", "hello is sent", "code runs", "a rollback is asked for"):
        with orchestrator(moment, quick) as process:
            process.wait_for(moment)
            (made,) = process.sessions
            process.kill()
            eventually(
                lambda made=made: not containers(quick, made.session), f"killed when {moment}, its container goes on"
            )
            reaped(quick, made)


def test_a_stopped_orchestrator_keeps_its_folder_and_loses_its_container(quick: Config) -> None:
    with orchestrator("idle", quick) as process:
        process.wait_for("idle")
        (made,) = process.sessions
        process.process.send_signal(signal.SIGSTOP)
        eventually(lambda: not containers(quick, made.session), "the container outlived its lease")
        collect_garbage(quick)
        assert traces(quick, made) == [f"folder {quick.runtime_dir}/{made.session}"]
        process.kill()
        reaped(quick, made)
