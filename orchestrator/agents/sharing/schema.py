"""What an agent's settings may be, in a file from anybody's hands. No I/O."""

from __future__ import annotations

import dataclasses
import keyword
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.agents.on_error import OnError
from orchestrator.config import Limits
from orchestrator.errors import AgentError
from orchestrator.sanitise import in_words, one_line

MAX_NAME = 200  # characters of an identifier, which becomes the name of a file
MAX_TEXT = 1_000_000  # characters of a description or of instructions: as of a whole prompt
MAX_STEPS = 10_000  # of a run that is asked for by a file; no work of a model is that long
MAX_SECONDS = 86_400.0  # as in the settings of this machine
MAX_CHARACTERS = 100_000_000  # of output per step: more than a sandbox keeps
MAX_THREADS = 1_024
MAX_LIST = 1_000
_SHOWN = 100  # characters of a wrong value in an error

Check = Callable[[Any], bool]
_FUNCTION = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*")  # module:name


def is_name(value: Any) -> bool:
    """A Python identifier that something can be called by; it is also fit to be the name of a file."""
    return isinstance(value, str) and len(value) <= MAX_NAME and value.isidentifier() and not keyword.iskeyword(value)


def is_text(value: Any) -> bool:
    """A text of bearable length."""
    return isinstance(value, str) and len(value) <= MAX_TEXT


def is_short(value: Any) -> bool:
    """A text of a line."""
    return isinstance(value, str) and len(value) <= _SHOWN * 5


def is_function(value: Any) -> bool:
    """``module:name``."""
    return is_short(value) and _FUNCTION.fullmatch(value) is not None


def is_bool(value: Any) -> bool:
    """True or False, not 1 or 0."""
    return isinstance(value, bool)


def whole(low: int, high: int) -> Check:
    """A whole number of that range."""
    return lambda value: type(value) is int and low <= value <= high


def seconds(value: Any) -> bool:
    """A time above 0."""
    return type(value) in (int, float) and math.isfinite(value) and 0 < value <= MAX_SECONDS


def optional(check: Check) -> Check:
    """That, or None."""
    return lambda value: value is None or check(value)


def list_of(check: Check, longest: int = MAX_LIST) -> Check:
    """A list of such."""
    return lambda value: isinstance(value, list) and len(value) <= longest and all(map(check, value))


def mapping_of(check: Check, longest: int = MAX_LIST) -> Check:
    """A mapping from texts to such."""
    return lambda value: (
        isinstance(value, dict)
        and len(value) <= longest
        and all(is_short(k) and check(part) for k, part in value.items())
    )


def _pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(is_short(part) and part.strip() for part in value)


_LIMITS: Mapping[str, Check] = {
    field.name: is_short if field.type == "str" else lambda value: type(value) in (int, float)
    for field in dataclasses.fields(Limits)
}
SANDBOX: Mapping[str, Check] = {
    "limits": optional(lambda value: isinstance(value, dict)),
    "timeout": optional(seconds),
    "env": optional(mapping_of(is_text)),
    "tool_timeout": optional(seconds),
}
_COMMON: Mapping[str, Check] = {
    "name": optional(is_name),
    "description": optional(is_text),
    "instructions": optional(is_text),
    "max_steps": whole(1, MAX_STEPS),
    "planning_interval": optional(whole(1, MAX_STEPS)),
    "verbosity_level": whole(-1, 10),
    "provide_run_summary": is_bool,
    "return_full_result": is_bool,
    "stream_outputs": is_bool,
}
SETTINGS: Mapping[str, Mapping[str, Check]] = {
    "CodeAgent": {
        **_COMMON,
        "additional_authorized_imports": list_of(is_short),
        "max_print_outputs_length": whole(1, MAX_CHARACTERS),
        "use_structured_outputs_internally": is_bool,
        "code_block_tags": optional(_pair),
        "on_error": lambda value: value in OnError.__args__,  # type: ignore[attr-defined]
        "sandbox": optional(lambda value: isinstance(value, dict)),
    },
    "ToolCallingAgent": {
        **_COMMON,
        "max_tool_threads": optional(whole(1, MAX_THREADS)),
        "tool_timeout": optional(seconds),
    },
}


def checked_settings(given: Mapping[str, Any], kind: str, place: str) -> dict[str, Any]:
    """``given``, if each of them is a setting of that class of agent, and of the right form.

    Raises:
        AgentError: one is not.
    """
    checked = checked_mapping(given, SETTINGS[kind], place)
    sandbox = checked.get("sandbox")
    if sandbox is not None:
        checked_mapping(sandbox, SANDBOX, f"{place}sandbox.")
        if sandbox.get("limits") is not None:
            checked_mapping(sandbox["limits"], _LIMITS, f"{place}sandbox.limits.")
    return checked


def checked_mapping(given: Any, checks: Mapping[str, Check], place: str) -> dict[str, Any]:
    """``given``, if its keys are among those of ``checks``, and each value passes its check.

    Raises:
        AgentError: they do not.
    """
    if not isinstance(given, Mapping):
        raise AgentError(f"{place.rstrip('.') or 'an agent'} must be a mapping, not {type(given).__name__}")
    for name, value in given.items():
        if name not in checks:
            raise AgentError(f"{place}{shown(name)} is not known; there are {', '.join(checks)}")
        if not checks[name](value):
            raise AgentError(f"{place}{name} cannot be {shown(value)}")
    return dict(given)


def shown(value: object) -> str:
    """A value from elsewhere in an error."""
    text = value if isinstance(value, str) else in_words(value)
    return one_line(text[: _SHOWN * 2], _SHOWN)
