"""Is this value what the tool's schema asks for? Checked for every call, as arguments come from the sandbox."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from orchestrator.media import AgentAudio, AgentImage, is_picture
from orchestrator.sanitise import in_words
from orchestrator.tools.records import values_of
from orchestrator.tools.schema import Schema
from orchestrator.tools.schema_words import types_of

MAX_SHOWN = 80  # characters of a value in a message: a model that made a mistake knows what it passed

_PYTHON: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "array": (list, tuple),
    "object": (dict,),
    "null": (type(None),),
    "image": (AgentImage,),
    "audio": (AgentAudio,),
}
# What the names of a schema do not tell: neither bytes nor a path will do.
_NAMED: Mapping[str, str] = {
    "image": "image (an AgentImage, or an image of Pillow)",
    "audio": "audio (an AgentAudio)",
}


def mismatch(schema: Schema, value: Any) -> str:
    """What is wrong with ``value``, or nothing."""
    if value is None and schema.get("nullable"):
        return ""
    if "enum" in schema:
        plain = value.value if isinstance(value, Enum) else value
        allowed = any(_is_choice(plain, option) for option in schema["enum"])
        return "" if allowed else f"must be one of {schema['enum']!r}, not {_shown(value)}"
    if "anyOf" in schema:
        problems = [mismatch(option, value) for option in schema["anyOf"]]
        return "" if "" in problems else "; or it ".join(problems)
    names = types_of(schema) or ["any"]
    if not any(_is(value, name, schema) for name in names):
        return f"must be {' or '.join(_NAMED.get(name, name) for name in names)}, not {_shown(value)}"
    return _inside(schema, value)


def _is_choice(value: Any, option: Any) -> bool:
    kinds = (type(option), int) if type(option) is float else (type(option),)
    return type(value) in kinds and bool(value == option)


def _is(value: Any, name: str, schema: Schema) -> bool:
    if isinstance(value, bool):  # Python counts True as an int; a model that passes it for a number is mistaken
        return name in ("boolean", "any")
    if name == "array" and schema.get("uniqueItems") and isinstance(value, (set, frozenset)):
        return True
    if name == "object" and "properties" in schema and _is_instance(value):
        return True  # made on the host: none comes out of a sandbox
    if name == "image" and is_picture(type(value)):
        return True
    return name not in _PYTHON or isinstance(value, _PYTHON[name])


def _is_instance(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _inside(schema: Schema, value: Any) -> str:
    """The first problem among the elements of a container."""
    parts: list[tuple[Any, Schema, Any]] = []
    if "items" in schema and isinstance(value, (list, tuple, set, frozenset)):
        parts = [(place, schema["items"], item) for place, item in enumerate(value)]
    elif "prefixItems" in schema and isinstance(value, (list, tuple)):
        expected = schema["prefixItems"]
        if len(value) != len(expected):
            return f"must have {len(expected)} elements, not {len(value)}"
        parts = [(place, option, item) for place, (option, item) in enumerate(zip(expected, value, strict=True))]
    elif "properties" in schema and (isinstance(value, dict) or _is_instance(value)):
        return _fields(schema, value if isinstance(value, dict) else values_of(value))
    elif isinstance(schema.get("additionalProperties"), Mapping) and isinstance(value, dict):
        parts = [(key, schema["additionalProperties"], item) for key, item in value.items()]
    return _first_problem(parts)


def _fields(schema: Schema, given: Mapping[Any, Any]) -> str:
    known: Mapping[str, Schema] = schema["properties"]
    more = schema.get("additionalProperties", True)
    unknown = [key for key in given if key not in known]
    missing = [key for key in schema.get("required", ()) if key not in given]
    if missing:
        return f"lacks {missing[0]!r}"
    if unknown and more is False:
        return f"has {_shown(unknown[0])}, which is none of {sorted(known)}"
    others = {key: more for key in unknown if isinstance(more, Mapping)}
    return _first_problem([(key, {**known, **others}.get(key, {}), item) for key, item in given.items()])


def _first_problem(parts: Sequence[tuple[Any, Schema, Any]]) -> str:
    for place, option, item in parts:
        problem = mismatch(option, item)
        if problem:
            return f"at [{_written(place)}] {problem}"
    return ""


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {_written(value)}"


def _written(value: Any) -> str:
    text = in_words(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"
