"""Arguments as JSON. No I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from orchestrator.errors import AgentError

MAX_NESTING = 32  # of lists and mappings in each other


def as_json(value: Any, place: str, depth: int = MAX_NESTING) -> Any:
    """``value`` in the types of JSON: sets become sorted lists, tuples lists.

    Raises:
        AgentError: it has parts that JSON does not know; the message names the place.
    """
    if depth <= 0:
        raise AgentError(f"{place} is nested too deep")
    match value:
        case None | bool() | str():
            return value
        case int():
            return int(value)
        case float() if math.isfinite(value):
            return float(value)
        case list() | tuple():
            return [as_json(part, f"{place}[{number}]", depth - 1) for number, part in enumerate(value)]
        case set() | frozenset():
            return [as_json(part, place, depth - 1) for part in sorted(value, key=repr)]
        case Mapping() if all(isinstance(key, str) for key in value):
            return {str(key): as_json(part, f"{place}[{key!r}]", depth - 1) for key, part in value.items()}
    raise AgentError(f"{place} is of the type {type(value).__name__}, which cannot be written down")
