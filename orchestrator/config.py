"""One frozen tree of settings. Defaults < ``cellblock.toml`` < environment < arguments.

``Config.load()`` reads the file named by ``CELLBLOCK_CONFIG`` (else ``./cellblock.toml`` if it is there) and then the
environment: ``CELLBLOCK_TIMEOUT=10`` sets ``timeout``, ``CELLBLOCK_LIMITS_MEMORY=1g`` sets ``limits.memory``.
An unknown key, in either, is an error that names the nearest right one, and lists them all. The tables of the service
that the file may have besides (``TABLES``) are read by ``orchestrator.configured``.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.typed_tables import build, in_range, instead, one_of

# Of the same file, for the service: see docs/configuration.md.
TABLES = ("service", "models", "mcp", "agents", "pools", "policy")
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_ENV_PREFIX = "CELLBLOCK_"
# Which file to load: it cannot be a setting in that file.
_ENV_ELSEWHERE = frozenset({"CELLBLOCK_CONFIG"})


def parse_size(text: str | int) -> int:
    """Bytes in ``"512m"``, ``"1g"``, ``"64k"`` or a plain number.

    Raises:
        ConfigError: not a size.
    """
    match = re.fullmatch(r"(\d{1,15})([bkmg]?)", str(text).strip().lower())
    if not match:
        raise ConfigError(f"{text!r} is not a size; write a number with b, k, m or g, such as '512m'")
    return int(match[1]) * _UNITS[match[2]]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one sandbox may use. Sizes are text with b, k, m, g (powers of 1024)."""

    memory: str = "512m"  # all processes of the container together, no swap
    cpus: float = 1.0  # cores
    pids: int = 64  # processes and threads of the container together; those that hold states come on top
    disk: str = "64m"  # the workspace, held in memory (counts towards `memory` too)
    inodes: int = 4096  # files and folders in the workspace
    nofile: int = 256  # open files of one process
    output: str = "1m"  # text kept of one execution, head and tail; 64 times as much ends the execution
    checkpoints: int = 8  # states kept by themselves, the present one included; each is a process
    checkpoint_memory: float = 0.5  # share of `memory` that may be in use before the oldest of them go
    checkpoint_files: str = "64m"  # a workspace that holds more is no part of a state, and is kept as it is
    tool_calls: int = 10_000  # of one execution, enough for a loop over a table; further ones are refused
    tool_bytes: str = "64m"  # of their arguments and results together

    def __post_init__(self) -> None:
        in_range("limits.memory", parse_size(self.memory), 64 << 20, 1 << 42)
        in_range("limits.cpus", self.cpus, 0.01, 1024)
        in_range("limits.pids", self.pids, 24, 32768)  # the supervisor's own threads need about 16
        in_range("limits.disk", parse_size(self.disk), 64 << 10, 1 << 40)
        in_range("limits.inodes", self.inodes, 16, 1 << 24)
        in_range("limits.nofile", self.nofile, 64, 1 << 20)
        in_range("limits.output", parse_size(self.output), 1 << 10, 64 << 20)
        in_range("limits.checkpoints", self.checkpoints, 1, 32)
        in_range("limits.checkpoint_memory", self.checkpoint_memory, 0, 1)
        in_range("limits.checkpoint_files", parse_size(self.checkpoint_files), 0, 1 << 40)
        in_range("limits.tool_calls", self.tool_calls, 0, 1_000_000)
        in_range("limits.tool_bytes", parse_size(self.tool_bytes), 0, 1 << 40)


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting there is."""

    image: str = ""  # executor image; empty: the one built from this checkout's executor_image/
    docker_host: str = ""  # engine address; empty: DOCKER_HOST, else /var/run/docker.sock
    # Sockets live here; empty: /run/cellblock for root, $XDG_RUNTIME_DIR/cellblock, else ~/.cache/cellblock/run.
    runtime_dir: str = ""
    timeout: float = 30.0  # seconds for one execution
    grace: float = 1.0  # seconds between the interrupt and the kill
    start_timeout: float = 30.0  # seconds for a container to come up
    min_isolation_level: int = 1  # a start that reaches less is refused; 1, 2 or 3, see docs/isolation.md
    runtime: str = ""  # container runtime by the engine's name for it, such as runsc; empty: the default, if like runc
    lease: float = 60.0  # seconds a container lives on when its orchestrator has gone silent
    max_lifetime: float = 86400.0  # seconds after which a container ends itself, and gc removes it, whatever happens
    tool_timeout: float = 60.0  # seconds for one tool call that sets none of its own; the execution's end ends it too
    approval_timeout: float = 300.0  # seconds for an approver to answer; then it is no
    audit: str = ""  # file of the audit log; empty: none
    max_sandboxes: int = 100  # containers of one process at the same time; one more is refused
    landlock: str = "auto"  # files, exec and signals of user code: "auto" where the kernel has Landlock, or "off"
    model: str = "gpt-5-mini"  # model of `cellblock run` and of the demo
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        in_range("timeout", self.timeout, 0.01, 86400)
        in_range("grace", self.grace, 0, 60)
        in_range("start_timeout", self.start_timeout, 1, 600)
        in_range("min_isolation_level", self.min_isolation_level, 1, 3)
        in_range("lease", self.lease, 5, 3600)
        in_range("tool_timeout", self.tool_timeout, 0.01, 86400)
        in_range("approval_timeout", self.approval_timeout, 0.01, 86400)
        in_range("max_lifetime", self.max_lifetime, 60, 30 * 86400)
        in_range("max_sandboxes", self.max_sandboxes, 1, 10_000)
        one_of("landlock", self.landlock, ("auto", "off"))

    @classmethod
    def load(cls, path: str | Path | None = None, env: Mapping[str, str] | None = None) -> Config:
        """Settings from the file and the environment.

        Raises:
            ConfigError: the file cannot be read, or a key is unknown, of the wrong type or out of range.
        """
        file = settings_file(path, env)
        return cls.of(read_toml(file) if file else {}, env)

    @classmethod
    def of(cls, values: Mapping[str, Any], env: Mapping[str, str] | None = None) -> Config:
        """Settings from the content of a file, ``TABLES`` left out, and the environment.

        Raises:
            ConfigError: a key is unknown, of the wrong type or out of range.
        """
        own = {
            key: dict(value) if key == "limits" and isinstance(value, dict) else value for key, value in values.items()
        }
        for key, text in (os.environ if env is None else env).items():
            if key.startswith(_ENV_PREFIX) and key not in _ENV_ELSEWHERE:
                _put_env(own, key, text)
        return build(cls, {key: value for key, value in own.items() if key not in TABLES}, others=TABLES)


def settings_file(path: str | Path | None = None, env: Mapping[str, str] | None = None) -> Path | None:
    """The file that settings are read from: ``path``, else as the environment says, else that of the current folder."""
    chosen = path or (os.environ if env is None else env).get("CELLBLOCK_CONFIG")
    file = Path(chosen or "cellblock.toml")
    return file if chosen or file.is_file() else None


def read_toml(file: Path) -> dict[str, Any]:
    """What is in a settings file.

    Raises:
        ConfigError: it cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:  # no file, no UTF-8, no TOML, an int of too many digits
        raise ConfigError(f"settings file {file}: {error}") from None


def _put_env(values: dict[str, Any], key: str, text: str) -> None:
    name, known = key.removeprefix(_ENV_PREFIX).lower(), [field.name for field in dataclasses.fields(Config)]
    if name.startswith("limits_"):
        limits = values.setdefault("limits", {})
        if isinstance(limits, dict):
            limits[name.removeprefix("limits_")] = text
        return
    known.remove("limits")
    if name not in known:
        told = instead(name, known, show=lambda field: _ENV_PREFIX + field.upper())
        raise ConfigError(f"environment variable {key} is no setting{told}")
    values[name] = text
