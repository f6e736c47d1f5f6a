"""What the executor is told of the settings: budgets, and environment variables of user code."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.config import Config, parse_size
from orchestrator.errors import ConfigError

MAX_ENV, MAX_ENV_BYTES = 64, 64 << 10  # variables, and all of them together


def checked_env(env: Mapping[str, str]) -> dict[str, str]:
    """A copy.

    Raises:
        ConfigError: too many, too long, or no text that can be a variable.
    """
    if len(env) > MAX_ENV:
        raise ConfigError(f"env has {len(env)} variables; at most {MAX_ENV}")
    for name, value in env.items():
        if (
            not isinstance(name, str)
            or not isinstance(value, str)
            or not name
            or set("=\0") & set(name)
            or "\0" in value
        ):
            raise ConfigError(f"env: {name!r} must be text without '=' or NUL, and so must its value")
    if sum(len(name.encode()) + len(value.encode()) for name, value in env.items()) > MAX_ENV_BYTES:
        raise ConfigError(f"env takes more than {MAX_ENV_BYTES:,} bytes; pass data through files instead")
    return dict(env)


def budgets(config: Config) -> dict[str, float]:
    """What the supervisor holds a session to, as ``Open`` has it: sizes in bytes, times in seconds."""
    limits = config.limits
    return {
        "memory_bytes": parse_size(limits.memory),
        "output_bytes": parse_size(limits.output),
        "grace_seconds": config.grace,
        "checkpoints": limits.checkpoints,
        "checkpoint_share": limits.checkpoint_memory,
        "checkpoint_files": parse_size(limits.checkpoint_files),
    }
