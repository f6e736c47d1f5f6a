"""Whether a service runs, told by the lock that it holds; ending it, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.config import Config
from orchestrator.errors import ServiceError, ServiceUnavailable
from orchestrator.service.process import ServicePlaces, held, running, start, stop

WAIT = 30.0  # seconds for another program
HOLDING = """
import signal, sys
from pathlib import Path
from orchestrator.service.process import held
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with held(Path(sys.argv[1])):
    print("held", flush=True)
    signal.pause()
"""


@contextmanager
def holder(lock: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another program that is the service."""
    command = [sys.executable, "-c", HOLDING, str(lock), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "held\n"
            yield program
        finally:
            program.kill()


def test_one_is_the_service_at_a_time(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert running(lock) is None
    with held(lock):
        assert running(lock) == os.getpid()
        with pytest.raises(ServiceError, match=str(os.getpid())), held(lock):
            pass
        assert running(lock) == os.getpid()
    assert running(lock) is None
    assert not lock.exists()
    with held(lock):
        assert running(lock) == os.getpid()


def test_one_that_was_killed_runs_no_more(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with holder(lock) as program:
        assert running(lock) == program.pid
        program.kill()
        program.wait(WAIT)
        assert running(lock) is None
        assert stop(lock) is None
        with held(lock):
            assert running(lock) == os.getpid()


@pytest.mark.parametrize(("arguments", "number"), [((), signal.SIGTERM), (("stubborn",), signal.SIGKILL)])
def test_it_is_told_to_end_and_ended_if_it_does_not(
    tmp_path: Path, arguments: tuple[str, ...], number: signal.Signals
) -> None:
    lock = tmp_path / "lock"
    with holder(lock, *arguments) as program:
        assert stop(lock, 0.5 if arguments else WAIT) == program.pid
        assert program.wait(WAIT) == -number
    assert running(lock) is None


def test_a_number_in_a_file_that_nobody_holds_is_nobody(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text(str(os.getppid()))
    assert running(lock) is None
    assert stop(lock) is None


def test_a_service_that_cannot_begin_is_told_with_what_it_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLBLOCK_TIMEOUT", "never")
    where = ServicePlaces.of(Config(runtime_dir=str(tmp_path / "run")), tmp_path / "state" / "store.db")
    with pytest.raises(ServiceUnavailable, match=r"(?s)the service ended.*timeout must be a number"):
        start(where, lambda socket: False, WAIT)


def test_a_path_that_no_socket_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="runtime_dir"):
        ServicePlaces.of(Config(runtime_dir=str(tmp_path / ("long" * 40))))
