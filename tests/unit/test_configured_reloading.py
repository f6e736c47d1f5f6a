"""The settings as the file has them now; a file that is wrong changes nothing."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from orchestrator.configured import Settings
from orchestrator.errors import ConfigError
from tests.unit.configured_files import written

LOGGER = "orchestrator.configured.reloading"


def steps(settings: Settings) -> int:
    return settings.current().agent("").max_steps


def agent(max_steps: int) -> str:
    return f"[agents.default]\nmax_steps = {max_steps}\n"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_changed_file_counts_for_what_begins(tmp_path: Path) -> None:
    settings = Settings(written(tmp_path, agent(3)), {})
    before = settings.current()
    assert settings.current() is before
    written(tmp_path, agent(4))
    assert steps(settings) == 4
    assert before.agent("").max_steps == 3


def test_a_change_that_leaves_times_and_size_as_they_were_is_seen(tmp_path: Path) -> None:
    file = written(tmp_path, agent(3))
    settings, times = Settings(file, {}), file.stat()
    written(tmp_path, agent(5))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert steps(settings) == 5


def test_a_file_that_is_wrong_changes_nothing_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = written(tmp_path, agent(3))
    settings = Settings(file, {})
    written(tmp_path, "timout = 1\n[agents.default]\nmax_steps = 0\n")
    assert [steps(settings) for _ in range(3)] == [3, 3, 3]
    (told,) = warnings(caplog)
    assert told.startswith(f"the settings stay as they were, as {file} is wrong: unknown setting timout; did you mean ")
    assert "agents.default: max_steps is 0" in told
    written(tmp_path, "[[[")
    assert [steps(settings) for _ in range(3)] == [3, 3, 3]
    assert len(warnings(caplog)) == 2
    written(tmp_path, agent(6))
    assert steps(settings) == 6
    assert len(warnings(caplog)) == 2


def test_a_file_that_has_gone_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = written(tmp_path, agent(3))
    settings = Settings(file, {})
    file.unlink()
    assert [steps(settings) for _ in range(3)] == [3, 3, 3]
    assert len(warnings(caplog)) == 1
    written(tmp_path, agent(4))
    assert steps(settings) == 4


def test_a_file_that_was_not_there_is_found_wherever_the_process_is_by_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings(env={})
    assert (steps(settings), settings.current().file) == (20, None)
    monkeypatch.chdir("/")
    file = written(tmp_path, agent(4))
    assert (steps(settings), settings.current().file) == (4, file)


def test_the_environment_goes_before_the_file_each_time(tmp_path: Path) -> None:
    file = written(tmp_path, "timeout = 3\n")
    settings = Settings(env={"CELLBLOCK_CONFIG": str(file), "CELLBLOCK_GRACE": "2"})
    assert (settings.current().config.timeout, settings.current().config.grace) == (3, 2)
    written(tmp_path, "timeout = 4\ngrace = 9\n")
    assert (settings.current().config.timeout, settings.current().config.grace) == (4, 2)


def test_a_change_of_the_service_is_told_to_need_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(written(tmp_path, "[service]\nmax_runs = 2\n"), {})
    written(tmp_path, "[service]\nmax_runs = 3\n")
    assert settings.current().service.max_runs == 3
    assert "counts after a restart" in warnings(caplog)[0]


@pytest.mark.parametrize(
    ("text", "env"), [("timout = 1", {}), (None, {}), ("", {"CELLBLOCK_TIMOUT": "1"})], ids=["wrong", "none", "env"]
)
def test_it_does_not_begin_with_a_file_that_is_wrong(tmp_path: Path, text: str | None, env: dict[str, str]) -> None:
    file = tmp_path / "nosuch.toml" if text is None else written(tmp_path, text)
    with pytest.raises(ConfigError):
        Settings(file, env)


def test_it_does_not_begin_with_an_environment_that_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="CELLBLOCK_TIMOUT"):
        Settings(env={"CELLBLOCK_TIMOUT": "1"})
