"""The values that an argument is limited to: ``(choices: ["a", "b"])`` at the end of its description."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from orchestrator.errors import ToolError
from orchestrator.tools.schema_words import type_names, types_of

_WRITTEN = re.compile(r"\(choices:\s*(.*?)\s*\)\s*\.?\s*$", re.S)


def with_choices(place: str, schema: Mapping[str, Any], text: str) -> dict[str, Any]:
    """The schema with ``text`` as its description; choices at the end of that become its ``enum``.

    Raises:
        ToolError: they are no list in JSON, or not of the schema's type.
    """
    found = _WRITTEN.search(text)
    if found is None:
        return {**schema, "description": text}
    choices = _parsed(place, found[1])
    allowed = set(types_of(schema))
    if "any" not in allowed and not set(type_names(choices)) <= allowed | _also(allowed):
        raise ToolError(f"{place}: its choices {found[1]} are not of the type that its hint says")
    return {**schema, "enum": choices, "description": text[: found.start()].rstrip()}


def _also(allowed: set[str]) -> set[str]:
    return {"integer"} if "number" in allowed else set()


def _parsed(place: str, written: str) -> list[Any]:
    try:
        choices = json.loads(written)
    except (ValueError, RecursionError):
        choices = None
    if not isinstance(choices, list) or not choices or not all(isinstance(c, str | int | float) for c in choices):
        raise ToolError(f'{place}: write its choices as a list in JSON, such as (choices: ["a", "b"]), not {written}')
    return choices
