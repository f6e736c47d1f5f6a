"""Settings from defaults, file and environment; a wrong one is an error that says what is right."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config import Config, Limits, parse_size
from orchestrator.errors import ConfigError


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "settings.toml"


def load(file: Path, text: str, **env: str) -> Config:
    file.write_text(text, "utf-8")
    return Config.load(file, env)


@pytest.mark.parametrize(
    ("text", "size"),
    [("512m", 512 << 20), ("1g", 1 << 30), ("64k", 64 << 10), ("7b", 7), ("7", 7), (7, 7), (" 1G ", 1 << 30), ("0", 0)],
)
def test_a_size_is_a_number_with_a_unit(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "m", "1.5g", "-1m", "1mb", "1 m", "1t", "1_000", "0x10", "9" * 16, "nan"])
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a size"):
        parse_size(text)


@settings(max_examples=60)
@given(st.text(max_size=12))
def test_any_text_is_a_size_or_an_error(text: str) -> None:
    with suppress(ConfigError):
        assert parse_size(text) >= 0


def test_the_defaults_are_legal_and_frozen() -> None:
    config = Config.load(None, {})
    assert config == Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.timeout = 1.0  # type: ignore[misc]


def test_the_environment_goes_before_the_file_and_the_file_before_the_defaults(toml: Path) -> None:
    text = 'timeout = 5\nmodel = "m"\n[limits]\nmemory = "256m"\npids = 50\n'
    config = load(toml, text, CELLBLOCK_TIMEOUT="7.5", CELLBLOCK_LIMITS_PIDS="60", HOME="/x", CELLBLOCKED="1")
    assert (config.timeout, config.model, config.grace) == (7.5, "m", Config().grace)
    assert (config.limits.memory, config.limits.pids, config.limits.disk) == ("256m", 60, Limits().disk)


def test_the_environment_names_the_file(toml: Path) -> None:
    toml.write_text("timeout = 5\n")
    assert Config.load(env={"CELLBLOCK_CONFIG": str(toml)}).timeout == 5
    toml.unlink()
    with pytest.raises(ConfigError, match="settings file"):
        Config.load(env={"CELLBLOCK_CONFIG": str(toml)})


def test_the_file_of_the_working_directory_is_read_if_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Config.load(env={}) == Config()
    (tmp_path / "cellblock.toml").write_text("timeout = 9\n")
    assert Config.load(env={}).timeout == 9


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Config) if f.name != "limits"])
def test_every_setting_can_come_from_the_environment(field: str) -> None:
    value = "100" if isinstance(getattr(Config(), field), int | float) else "some text"
    value = {"grace": "50", "min_isolation_level": "2", "landlock": "off"}.get(field, value)
    assert getattr(Config.load(None, {f"CELLBLOCK_{field.upper()}": value}), field) == type(getattr(Config(), field))(
        value
    )


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Limits)])
def test_every_limit_can_come_from_the_environment(field: str) -> None:
    default = getattr(Limits(), field)
    value = {"memory": "128m", "disk": "128m", "output": "2m", "checkpoints": "16", "checkpoint_memory": "0.25"}.get(
        field, "64"
    )
    config = Config.load(None, {f"CELLBLOCK_LIMITS_{field.upper()}": value})
    assert getattr(config.limits, field) == type(default)(value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("timout = 5", r"unknown setting timout; did you mean timeout\? Known: .*limits, service, models, mcp"),
        ("[limits]\nram = 5", r"unknown setting limits\.ram; known: .*memory"),
        ("Landlock = 'off'", r"unknown setting Landlock; did you mean landlock\?"),
        ("[limits]\nmemorry = 5", r"unknown setting limits\.memorry; did you mean limits\.memory\?"),
        ("[agent.x]", r"unknown setting agent; did you mean agents\?"),
        ("limits = 5", "limits must be a table"),
        ("timeout = '5x'", "timeout must be a number, not '5x'"),
        ("timeout = true", "timeout must be a number"),
        ("timeout = []", "timeout must be a number"),
        ("timeout = 2024-01-01", "timeout must be a number"),
        ("timeout = nan", "timeout is nan"),
        ("timeout = inf", "timeout is inf"),
        ("timeout = 0", "timeout is 0; it must be between 0.01 and 86400"),
        ("lease = 1", "lease is 1"),
        ("grace = -1", "grace is -1"),
        ("min_isolation_level = 0", "min_isolation_level is 0; it must be between 1 and 3"),
        ("min_isolation_level = 4", "min_isolation_level is 4"),
        ("min_isolation_level = 1.5", "min_isolation_level must be a number, whole"),
        ("runtime = true", "runtime must be text"),
        ("model = []", "model must be text"),
        ("model = true", "model must be text"),
        ("[limits]\nmemory = '1m'", r"limits\.memory is"),
        ("[limits]\nmemory = '1.5g'", "is not a size"),
        ("[limits]\ncpus = 0", r"limits\.cpus is 0"),
        ("[limits]\npids = 1", r"limits\.pids is 1"),
        ("[limits]\npids = 1e9", r"limits\.pids is 1e\+09"),
        ("[limits]\npids = nan", r"limits\.pids"),
        ("[limits]\npids = inf", r"limits\.pids"),
        ("[limits]\npids = 64.9", r"limits\.pids"),
        ("[limits]\ncheckpoints = 0", r"limits\.checkpoints is 0; it must be between 1 and 32"),
        ("[limits]\ncheckpoints = 33", r"limits\.checkpoints is 33"),
        ("[limits]\ncheckpoints = 1.5", r"limits\.checkpoints must be a number, whole"),
        ("[limits]\ncheckpoints = true", r"limits\.checkpoints must be a number"),
        ("[limits]\ncheckpoint_memory = -0.1", r"limits\.checkpoint_memory is -0\.1; it must be between 0 and 1"),
        ("[limits]\ncheckpoint_memory = 1.01", r"limits\.checkpoint_memory is 1\.01"),
        ("[limits]\ncheckpoint_memory = nan", r"limits\.checkpoint_memory is nan"),
        ("[limits]\ncheckpoint_memory = '1g'", r"limits\.checkpoint_memory must be a number"),
        ("[limits]\ncheckpoint_files = '1025g'", r"limits\.checkpoint_files is"),
        ("[limits]\ncheckpoint_files = '-1'", "is not a size"),
        ("[limits]\ncheckpoint_files = 0.5", r"limits\.checkpoint_files must be text"),
        ("timeout = 1" + "0" * 400, "timeout"),
        ("timeout = ", "settings file"),
    ],
    ids=lambda text: text[:24].replace("\n", " "),
)
def test_a_wrong_setting_is_an_error_that_says_what_is_right(toml: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(toml, text)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        (
            "CELLBLOCK_TIMOUT",
            "5",
            r"CELLBLOCK_TIMOUT is no setting; did you mean CELLBLOCK_TIMEOUT\? Known: CELLBLOCK_IMAGE, ",
        ),
        ("CELLBLOCK_LIMITS", "5", "CELLBLOCK_LIMITS is no setting"),
        ("CELLBLOCK_LIMITS_RAM", "5", r"unknown setting limits\.ram"),
        ("CELLBLOCK_TIMEOUT", "", "timeout must be a number"),
        ("CELLBLOCK_LIMITS_PIDS", "64.0", r"limits\.pids must be a number"),
        ("CELLBLOCK_", "5", "CELLBLOCK_ is no setting"),
    ],
)
def test_a_wrong_variable_is_an_error_that_names_it(name: str, value: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Config.load(None, {name: value})


def test_a_table_in_the_environment_does_not_hide_a_wrong_one_in_the_file(toml: Path) -> None:
    with pytest.raises(ConfigError, match="limits must be a table"):
        load(toml, "limits = 5", CELLBLOCK_LIMITS_PIDS="64")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"timeout = 5\0", b"[[["], ids=["no UTF-8", "NUL", "no TOML"])
def test_a_file_that_cannot_be_read_is_named(toml: Path, content: bytes) -> None:
    toml.write_bytes(content)
    with pytest.raises(ConfigError, match=r"settings\.toml"):
        Config.load(toml, {})
    with pytest.raises(ConfigError, match="settings file"):
        Config.load(toml.parent, {})


@pytest.mark.parametrize(
    "limits",
    [
        *({"memory": "64m"}, {"cpus": 0.01}, {"pids": 24}, {"output": "1k"}, {"output": "64m"}, {"inodes": 16}),
        *({"checkpoints": 1}, {"checkpoints": 32}, {"checkpoint_memory": 0}, {"checkpoint_memory": 1}),
        *({"checkpoint_files": "0"}, {"checkpoint_files": "1024g"}),
    ],
    ids=str,
)
def test_limits_at_their_edges_are_legal(limits: dict[str, Any]) -> None:
    assert Config(limits=Limits(**limits))
