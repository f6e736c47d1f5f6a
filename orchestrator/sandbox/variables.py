"""Variables that an execution is given: what a name of one may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.sandbox.encoding import encode_variables
from orchestrator.sandbox.names import shown, wrong_name

MAX_VARIABLES = 256  # more are better handed over as one dict
_ANSWER = "final_answer"


def encoded_variables(variables: Mapping[str, Any] | None, tools: frozenset[str]) -> bytes:
    """As they are sent; nothing for none. ``tools`` are names that are taken.

    Raises:
        ConfigError: too many, or a name that cannot be one; the message says what to do.
        ValueNotPortable: a value that cannot travel, by type and path.
    """
    if variables is None:
        return b""
    if not isinstance(variables, Mapping):
        raise ConfigError(f"variables must be a dict from name to value, not {type(variables).__name__}")
    if len(variables) > MAX_VARIABLES:
        raise ConfigError(f"{len(variables):,} variables; at most {MAX_VARIABLES}: put them into one dict")
    for name in variables:
        if wrong := _wrong(name, tools):
            raise ConfigError(f"variables: {shown(name)} {wrong}")
    return encode_variables(variables) if variables else b""


def _wrong(name: object, tools: frozenset[str]) -> str:
    if wrong := wrong_name(name, "variable"):
        return wrong
    if name == _ANSWER or name in tools:
        return "is the name of a function of the sandbox; choose another"
    return ""
