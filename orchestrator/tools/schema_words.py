"""The words that a schema has for types. They are JSON schema's and smolagents' own: ``any``, ``image``, ``audio``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# smolagents' AUTHORIZED_TYPES: what `inputs` and `output_type` of a Tool subclass may say.
TYPE_NAMES = frozenset({"string", "boolean", "integer", "number", "image", "audio", "array", "object", "any", "null"})
MEDIA = frozenset({"image", "audio"})
JSON_TYPES = TYPE_NAMES - MEDIA - {"any"}  # those of JSON schema

_NAMES: Mapping[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "array",
    tuple: "array",
    dict: "object",
    type(None): "null",
}


def types_of(schema: Mapping[str, Any]) -> list[str]:
    """The names under ``type``, which may be one or several; none if the schema says no type."""
    names = schema.get("type", [])
    return [names] if isinstance(names, str) else list(names)


def one_or_all(names: Sequence[str]) -> str | list[str]:
    """What to write under ``type``: each name once, and one alone as itself."""
    different = list(dict.fromkeys(names))
    return different[0] if len(different) == 1 else different


def type_names(values: Sequence[Any]) -> list[str]:
    """The types of ``values``, each once."""
    return list(dict.fromkeys(_NAMES.get(type(value), "any") for value in values))


def choices_schema(values: Sequence[Any]) -> dict[str, Any]:
    """The schema of one of ``values``."""
    return {"type": one_or_all(type_names(values)), "enum": list(values)}
