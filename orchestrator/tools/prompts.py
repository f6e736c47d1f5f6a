"""How a tool is shown to a model: as the function that code will call, or in words."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from enum import Enum
from textwrap import indent
from typing import Any, get_args

from orchestrator.media import Media, is_picture
from orchestrator.tools.records import is_record
from orchestrator.tools.schema import Schema
from orchestrator.tools.schema_words import types_of

_PYTHON_NAMES: Mapping[str, str] = {
    "string": "str",
    "boolean": "bool",
    "integer": "int",
    "number": "float",
    "array": "list",
    "object": "dict",
    "any": "Any",
    "null": "None",
    "image": "Image",
    "audio": "Audio",
}


def code_prompt(
    name: str,
    signature: inspect.Signature,
    description: str,
    inputs: Mapping[str, Schema],
    output_type: str,
    returns: str = "",
) -> str:
    """``def name(arg: type) -> type:`` with a Google-style docstring.

    Types are the hints of the function where it has them, else those of its schema, in Python's words. Classes that
    are not there in the sandbox are shown as what is passed for them.
    """
    arguments = ", ".join(_argument(parameter, inputs) for parameter in signature.parameters.values())
    lines = [description.strip()]
    if inputs:
        lines += ["", "Args:", *(f"    {argument}: {_described(schema)}" for argument, schema in inputs.items())]
    if returns:
        lines += ["", "Returns:", f"    {returns}"]
    text = "\n".join(lines).replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    head = f"def {name}({arguments}) -> {_hint(signature.return_annotation, {'type': output_type})}:"
    docstring = indent(f'"""{text}\n"""', "    ")
    return f"{head}\n{docstring}"


def tool_calling_prompt(
    name: str, description: str, inputs: Mapping[str, Schema], output_type: str, returns: str = ""
) -> str:
    """The tool in three lines of words, with its arguments as JSON."""
    gives = f"{output_type}: {returns}" if returns else output_type
    return f"{name}: {description.strip()}\n    Takes: {json.dumps(inputs, default=str)}\n    Gives: {gives}"


def with_schema(returns: str, output_schema: Mapping[str, Any] | None) -> str:
    """What a tool returns, in words, with the JSON schema of it if there is one."""
    if output_schema is None:
        return returns
    return f"{returns} As this JSON schema says: {json.dumps(output_schema)}".strip()


def _described(schema: Schema) -> str:
    """The argument's description, and the keys of the dicts in it."""
    keys = _keys(schema)
    return f"{schema['description']} {keys}".rstrip() if keys else schema["description"]


def _keys(schema: Schema) -> str:
    if "properties" in schema:
        required = schema.get("required", ())
        shown = (_key(name, part, name in required) for name, part in schema["properties"].items())
        return f"(keys: {', '.join(shown)})"
    more = schema.get("additionalProperties")
    inner = [*schema.get("anyOf", ()), *schema.get("prefixItems", ())]
    inner += [schema["items"]] if "items" in schema else []
    inner += [more] if isinstance(more, Mapping) else []
    return " ".join(dict.fromkeys(filter(None, map(_keys, inner))))


def _key(name: str, schema: Schema, required: bool) -> str:
    shown = f"{name}: {_from_schema(schema)}" + ("" if required else ", may be left out")
    about = f" - {schema['description']}" if schema.get("description") else ""
    keys = _keys(schema)
    return f"{shown}{about} {keys}".rstrip()


def _argument(parameter: inspect.Parameter, inputs: Mapping[str, Schema]) -> str:
    shown = f"{parameter.name}: {_hint(parameter.annotation, inputs.get(parameter.name, {}))}"
    default = parameter.default.value if isinstance(parameter.default, Enum) else parameter.default
    return shown if default is parameter.empty else f"{shown} = {default!r}"


def _hint(annotation: Any, schema: Schema) -> str:
    if "enum" in schema or annotation is inspect.Parameter.empty or _is_of_the_host(annotation):
        return _from_schema(schema)
    return inspect.formatannotation(annotation).removeprefix("typing.")


def _is_of_the_host(annotation: Any) -> bool:
    """Whether it names a class for which data is passed: there is no such class where the code runs."""
    if isinstance(annotation, Enum):  # in a Literal
        return True
    if isinstance(annotation, type) and (
        issubclass(annotation, Enum | Media) or is_record(annotation) or is_picture(annotation)
    ):
        return True
    return any(map(_is_of_the_host, get_args(annotation)))


def _from_schema(schema: Schema) -> str:
    if "enum" in schema:
        shown = f"Literal[{', '.join(map(repr, schema['enum']))}]"
    elif "anyOf" in schema:
        shown = " | ".join(dict.fromkeys(map(_from_schema, schema["anyOf"])))
    else:
        names = types_of(schema) or ["any"]
        shown = " | ".join(dict.fromkeys(_of_type(name, schema) for name in names))
    return f"{shown} | None" if schema.get("nullable") and "None" not in shown.split(" | ") else shown


def _of_type(name: str, schema: Schema) -> str:
    if name == "array" and "items" in schema:
        return f"{'set' if schema.get('uniqueItems') else 'list'}[{_from_schema(schema['items'])}]"
    if name == "array" and "prefixItems" in schema:
        return f"tuple[{', '.join(map(_from_schema, schema['prefixItems']))}]"
    if name == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"dict[str, {_from_schema(schema['additionalProperties'])}]"
    return _PYTHON_NAMES.get(name, "Any")
