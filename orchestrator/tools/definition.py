"""What the definition of a tool must say, checked when it is made. Each message tells what to change."""

from __future__ import annotations

import inspect
import json
import keyword
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.errors import ToolError
from orchestrator.tools.schema import Schema, type_schema
from orchestrator.tools.schema_words import TYPE_NAMES, types_of


def check_texts(tool: Any) -> None:
    """Its name, description, output type, output schema and timeout.

    Raises:
        ToolError: one is missing or wrong.
    """
    for attribute in ("name", "description", "output_type"):
        value = getattr(tool, attribute, None)
        if not isinstance(value, str) or not value.strip():
            raise ToolError(f"{type(tool).__name__}: set '{attribute}' to a text, not {value!r}")
    if not tool.name.isidentifier() or keyword.iskeyword(tool.name):
        raise ToolError(f"tool {tool.name!r}: its name must be a Python identifier, as code calls it by it")
    if tool.name.startswith("__") and tool.name.endswith("__"):
        raise ToolError(f"tool {tool.name!r}: names with two underscores around them are Python's own; choose another")
    if tool.output_type not in TYPE_NAMES:
        raise ToolError(f"tool {tool.name}: output_type {tool.output_type!r} is none of {sorted(TYPE_NAMES)}")
    _check_output_schema(tool.name, tool.output_schema)
    _check_timeout(tool.name, tool.timeout)


def _check_timeout(name: str, timeout: Any) -> None:
    number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if timeout is not None and not (number and timeout > 0):
        raise ToolError(f"tool {name}: timeout is {timeout!r}; it must be seconds, above 0, or None")


def _check_output_schema(name: str, schema: Any) -> None:
    if schema is None:
        return
    try:
        written = isinstance(schema, Mapping) and json.dumps(schema)
    except (TypeError, ValueError) as error:
        raise ToolError(f"tool {name}: output_schema cannot be written as JSON: {error}") from None
    if not written:
        raise ToolError(f"tool {name}: set 'output_schema' to a JSON schema, a dict, not {schema!r}")


def check_inputs(name: str, inputs: Any) -> None:
    """That ``inputs`` maps each argument to a schema with a description.

    Raises:
        ToolError: it does not.
    """
    if not isinstance(inputs, Mapping):
        raise ToolError(f"tool {name}: set 'inputs' to a dict from argument to schema ({{}} for none)")
    for argument, schema in inputs.items():
        place = f"tool {name}: inputs[{argument!r}]"
        if not isinstance(argument, str) or not argument.isidentifier() or keyword.iskeyword(argument):
            raise ToolError(f"{place}: the name of an argument must be a Python identifier, as code passes it by it")
        if not isinstance(schema, Mapping) or not isinstance(schema.get("description"), str):
            raise ToolError(f"{place} must be a dict with 'type' and 'description'")
        _check_schema(place, schema)


def _check_schema(place: str, schema: Any) -> None:
    if not isinstance(schema, Mapping):
        raise ToolError(f"{place} must be a dict that describes a type, not {schema!r}")
    options = schema.get("anyOf")
    if options is None:
        names = schema.get("type")
        names = names if isinstance(names, list) else [names]
        if not names or not all(isinstance(name, str) and name in TYPE_NAMES for name in names):
            raise ToolError(f"{place}: type {schema.get('type')!r} is none of {sorted(TYPE_NAMES)}")
    if "enum" in schema and (not isinstance(schema["enum"], list | tuple) or not schema["enum"]):
        raise ToolError(f"{place}: 'enum' must list the allowed values, not {schema['enum']!r}")
    for inner, part in _parts(place, schema):
        _check_schema(inner, part)


def _parts(place: str, schema: Schema) -> Iterable[tuple[str, Any]]:
    """The schemas inside of one."""
    for key in ("anyOf", "prefixItems"):
        options = schema.get(key, [])
        if not isinstance(options, list | tuple):
            raise ToolError(f"{place}: '{key}' must be a list of schemas, not {options!r}")
        yield from ((f"{place}[{key!r}][{number}]", option) for number, option in enumerate(options))
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping):
        raise ToolError(f"{place}: 'properties' must be a dict of schemas, not {properties!r}")
    yield from ((f"{place}['properties'][{key!r}]", part) for key, part in properties.items())
    if "items" in schema:
        yield f"{place}['items']", schema["items"]
    if not isinstance(more := schema.get("additionalProperties", True), bool):
        yield f"{place}['additionalProperties']", more


def check_agreement(name: str, inputs: Mapping[str, Schema], signature: inspect.Signature) -> None:
    """That ``inputs`` and the parameters of ``forward`` are the same, also in which may be None.

    Raises:
        ToolError: they are not.
    """
    said, taken = sorted(inputs), sorted(signature.parameters)
    if said != taken:
        raise ToolError(f"tool {name}: 'inputs' names {said} and forward() takes {taken}; make them the same")
    for argument, parameter in signature.parameters.items():
        _check_nullable(f"tool {name}: inputs[{argument!r}]", inputs[argument], parameter)


def _check_nullable(place: str, schema: Schema, parameter: inspect.Parameter) -> None:
    empty, argument = inspect.Parameter.empty, parameter.name
    hinted = parameter.annotation is not empty and takes_null(type_schema(parameter.annotation))
    if takes_null(schema):
        if parameter.default is empty and not hinted:
            raise ToolError(f"{place} may be null: give it a default in forward(), such as '{argument}=None'")
    elif (hinted or parameter.default is None) and "any" not in types_of(schema):
        raise ToolError(f"{place}: forward() takes None for it; add 'nullable': True")


def takes_null(schema: Schema) -> bool:
    """Whether None is a value for it by its own words. ``any`` leaves it open."""
    options = schema.get("anyOf", ())
    return bool(schema.get("nullable")) or "null" in types_of(schema) or any(map(takes_null, options))


def signature_of_inputs(inputs: Mapping[str, Schema]) -> inspect.Signature:
    """The signature of a tool whose ``forward`` is not asked: what has no default comes first, as Python wants it.

    An argument that may be null has the default None, unless its schema gives another as ``default``.
    """
    parameters = [
        inspect.Parameter(argument, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=_default(schema))
        for argument, schema in inputs.items()
    ]
    return inspect.Signature(sorted(parameters, key=lambda parameter: parameter.default is not parameter.empty))


def _default(schema: Schema) -> Any:
    return schema.get("default", None if takes_null(schema) else inspect.Parameter.empty)
