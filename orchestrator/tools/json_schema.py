"""A tool's arguments as the JSON schema that models' endpoints take: it has no ``any``, ``image`` or ``nullable``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

from orchestrator.tools.schema import Schema
from orchestrator.tools.schema_words import MEDIA, one_or_all, types_of

if TYPE_CHECKING:
    from orchestrator.tools.tool import Tool

_KEPT = ("description", "enum", "uniqueItems", "minItems", "maxItems", "minimum", "maximum", "pattern", "format")


def parameters_schema(tool: Tool) -> dict[str, Any]:
    """A schema of type ``object`` with a property for each argument of ``tool``; without a default it is required."""
    parameters = tool.__signature__.parameters
    return {
        "type": "object",
        "properties": {name: _argument(tool.inputs[name], parameters[name].default) for name in parameters},
        "required": [name for name, parameter in parameters.items() if parameter.default is parameter.empty],
        "additionalProperties": False,
    }


def _argument(schema: Schema, default: Any) -> dict[str, Any]:
    default = default.value if isinstance(default, Enum) else default
    if type(default) not in (str, int, float, bool):
        return json_schema(schema)
    return json_schema(schema) | {"default": default}


def json_schema(schema: Schema) -> dict[str, Any]:
    """One schema of this package in the words of JSON schema. ``any`` becomes the schema that says nothing."""
    made = {key: schema[key] for key in _KEPT if key in schema}
    if "anyOf" in schema:
        made["anyOf"] = [json_schema(option) for option in schema["anyOf"]]
    else:
        made |= _typed(types_of(schema) or ["any"], schema)
    return _nullable(made) if schema.get("nullable") else made


def _typed(names: Sequence[str], schema: Schema) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if "any" not in names:
        made["type"] = one_or_all(["string" if name in MEDIA else name for name in names])
    if media := sorted(MEDIA.intersection(names)):
        made["description"] = f"{schema.get('description', '')} (the name of an {' or '.join(media)})".lstrip()
    if "array" in names:
        made |= _array(schema)
    if "object" in names:
        made |= _object(schema)
    return made


def _array(schema: Schema) -> dict[str, Any]:
    """Always with ``items``: OpenAI's endpoint refuses an array without."""
    if "prefixItems" not in schema:
        return {"items": json_schema(schema.get("items", {}))}
    options = [json_schema(option) for option in schema["prefixItems"]]
    different = [option for place, option in enumerate(options) if option not in options[:place]]
    items = different[0] if len(different) == 1 else {"anyOf": different}
    return {"prefixItems": options, "items": items, "minItems": len(options), "maxItems": len(options)}


def _object(schema: Schema) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if "properties" in schema:
        made["properties"] = {name: json_schema(part) for name, part in schema["properties"].items()}
        made["required"] = list(schema.get("required", ()))
    more = schema.get("additionalProperties")
    if more is not None:
        made["additionalProperties"] = json_schema(more) if isinstance(more, Mapping) else more
    return made


def _nullable(made: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in made:
        return made | {"anyOf": [*made["anyOf"], {"type": "null"}]}
    if "enum" in made:
        made = made | {"enum": [*made["enum"], *([] if None in made["enum"] else [None])]}
    if "type" in made:
        made = made | {"type": one_or_all([*types_of(made), "null"])}
    return made
