"""How a tool is shown to a model that writes code: as the function it will call."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from enum import Enum
from textwrap import indent
from typing import Any

from orchestrator.tools.schema import Schema

_PYTHON_NAMES: Mapping[str, str] = {
    "string": "str",
    "boolean": "bool",
    "integer": "int",
    "number": "float",
    "array": "list",
    "object": "dict",
    "any": "Any",
    "null": "None",
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

    Types are the hints of the function where it has them, else those of its schema, in Python's words.
    """
    arguments = ", ".join(_argument(parameter, inputs) for parameter in signature.parameters.values())
    lines = [description.strip()]
    if inputs:
        lines += ["", "Args:", *(f"    {argument}: {schema['description']}" for argument, schema in inputs.items())]
    if returns:
        lines += ["", "Returns:", f"    {returns}"]
    text = "\n".join(lines).replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    head = f"def {name}({arguments}) -> {_hint(signature.return_annotation, {'type': output_type})}:"
    docstring = indent(f'"""{text}\n"""', "    ")
    return f"{head}\n{docstring}"


def _argument(parameter: inspect.Parameter, inputs: Mapping[str, Schema]) -> str:
    shown = f"{parameter.name}: {_hint(parameter.annotation, inputs.get(parameter.name, {}))}"
    default = parameter.default.value if isinstance(parameter.default, Enum) else parameter.default
    return shown if default is parameter.empty else f"{shown} = {default!r}"


def _hint(annotation: Any, schema: Schema) -> str:
    if "enum" in schema:
        return f"Literal{schema['enum']!r}"
    if annotation is not inspect.Parameter.empty:
        return inspect.formatannotation(annotation).removeprefix("typing.")
    names = schema.get("type", "any")
    names = [names] if isinstance(names, str) else names
    names = [*names, "null"] if schema.get("nullable") else names
    return " | ".join(dict.fromkeys(_PYTHON_NAMES.get(name, "Any") for name in names))
