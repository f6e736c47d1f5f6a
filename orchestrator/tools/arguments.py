"""Is this value what the tool's schema asks for? Checked for every call, as arguments come from the sandbox."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, get_args

from orchestrator.tools.schema import Schema

_PYTHON: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "array": (list, tuple),
    "object": (dict,),
    "null": (type(None),),
}


def checked_arguments(
    name: str,
    signature: inspect.Signature,
    inputs: Mapping[str, Schema],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> inspect.BoundArguments:
    """The arguments bound to the signature, a value given for an Enum argument turned into its member.

    Raises:
        TypeError: one is missing, unknown, or of another type than the schema says. The model sees the message.
    """
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{name}(): {error}") from None
    for argument, value in bound.arguments.items():
        parameter = signature.parameters[argument]
        if value is parameter.default:
            continue
        member = _member(parameter.annotation, value)
        problem = "" if member is not None else mismatch(inputs.get(argument, {}), value)
        if problem:
            raise TypeError(f"{name}(): argument {argument!r} {problem}")
        bound.arguments[argument] = value if member is None else member
    return bound


def _member(hint: Any, value: Any) -> Enum | None:
    """The member that ``value`` stands for: the sandbox sends the plain value, a class does not travel."""
    for option in (hint, *get_args(hint)):  # Optional[Color] too
        if isinstance(option, type) and issubclass(option, Enum):
            return next((member for member in option if value is member or value == member.value), None)
    return None


def mismatch(schema: Schema, value: Any) -> str:
    """What is wrong with ``value``, or nothing."""
    if value is None and schema.get("nullable"):
        return ""
    if "enum" in schema:
        allowed = any(type(option) is type(value) and option == value for option in schema["enum"])
        return "" if allowed else f"must be one of {schema['enum']!r}, not {_shown(value)}"
    if "anyOf" in schema:
        problems = [mismatch(option, value) for option in schema["anyOf"]]
        return "" if "" in problems else "; or it ".join(problems)
    names = schema.get("type", "any")
    names = [names] if isinstance(names, str) else names
    if not any(_is(value, name) for name in names):
        return f"must be {' or '.join(names)}, not {_shown(value)}"
    return _inside(schema, value)


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):  # Python counts True as an int; a model that passes it for a number is mistaken
        return name in ("boolean", "any")
    return name not in _PYTHON or isinstance(value, _PYTHON[name])


def _inside(schema: Schema, value: Any) -> str:
    """The first problem among the elements of a container."""
    parts: list[tuple[Any, Schema, Any]] = []
    if "items" in schema and isinstance(value, (list, tuple)):
        parts = [(place, schema["items"], item) for place, item in enumerate(value)]
    elif "prefixItems" in schema and isinstance(value, (list, tuple)):
        expected = schema["prefixItems"]
        if len(value) != len(expected):
            return f"must have {len(expected)} elements, not {len(value)}"
        parts = [(place, option, item) for place, (option, item) in enumerate(zip(expected, value, strict=True))]
    elif "additionalProperties" in schema and isinstance(value, dict):
        parts = [(key, schema["additionalProperties"], item) for key, item in value.items()]
    for place, option, item in parts:
        problem = mismatch(option, item)
        if problem:
            return f"at [{place!r}] {problem}"
    return ""


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 80 else text[:79] + '…'}"
