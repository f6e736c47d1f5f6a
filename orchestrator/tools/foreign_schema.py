"""A JSON schema from elsewhere (an MCP server, LangChain, a Space) -> inputs as a ``Tool`` has them.

Such a schema is hostile: it may be huge, endlessly deep, refer to itself, or describe in ten pages. What is read of it
is bounded, and what is not understood or is over a bound becomes ``any``: checked less here, and refused where the
call goes if it is wrong. The words that come out are those that ``mismatch()`` knows.
"""

from __future__ import annotations

import inspect
import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.errors import ToolError
from orchestrator.sanitise import one_line, sanitise, without_roles
from orchestrator.tools.schema import Schema
from orchestrator.tools.schema_words import JSON_TYPES, choices_schema, one_or_all

MAX_DEPTH = 6  # of schemas in schemas: what is deeper no model fills in right
MAX_NODES = 1000  # schemas in one tool's, all told: anyOf and $ref multiply them
MAX_ARGUMENTS = 64  # of one tool; more is no signature that anybody can call
MAX_OPTIONS = 16  # of one anyOf
MAX_CHOICES = 100  # of one enum
MAX_CHOICE = 200  # characters of one of them, or of a default
MAX_REFERENCES = 8  # from one $ref to the next
MAX_NAME = 64  # characters of a tool's or argument's name
MAX_DESCRIPTION = 4000  # characters of a tool's description: it is in every prompt
MAX_ARGUMENT_DESCRIPTION = 500
MAX_RETURNS = 2000
MAX_CHARACTERS = 20_000  # of names, choices, defaults and descriptions in one tool's schema: they are in every prompt

_ANY: Schema = {"type": "any"}
_NO_LETTER = re.compile(r"[^A-Za-z0-9_]")  # ASCII only: letters that look like others would make names that lie


def python_name(name: str, reserved: frozenset[str] = frozenset()) -> str:
    """``name`` as an identifier. One that is an identifier of ASCII letters stays as it is.

    Every other character becomes ``_`` ("get-weather" -> "get_weather"); a leading digit gets a ``_`` before it; a
    keyword of Python ("from") or a name in ``reserved`` gets one after it.

    Raises:
        ToolError: it is empty or longer than ``MAX_NAME``.
    """
    if not name or len(name) > MAX_NAME:
        raise ToolError(f"a name of {len(name):,} characters ({one_line(name, 40)!r}); it must have 1 to {MAX_NAME}")
    made = _NO_LETTER.sub("_", name)
    made = f"_{made}" if made[0].isdigit() else made
    return f"{made}_" if keyword.iskeyword(made) or made in reserved else made


def described(text: object, limit: int) -> str:
    """A description made safe to show, and cut."""
    words = without_roles(sanitise(text[: 2 * limit])).strip() if isinstance(text, str) else ""
    return words if len(words) <= limit else f"{words[: limit - 1]}…"


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a tool takes. ``remote`` maps each argument's name here to its name there."""

    inputs: Mapping[str, Schema]
    signature: inspect.Signature
    remote: Mapping[str, str]


def arguments_of(tool: str, schema: Any) -> Arguments:
    """The arguments that an object's schema describes: each property one, those that are required first.

    What may be left out has the schema's default if it is a plain value, else None.

    Raises:
        ToolError: it is no object's schema, has too many properties, or two of them get the same name here.
    """
    reader = _Reader(schema)
    root = reader.resolved(schema)
    properties = root.get("properties", {}) if isinstance(root, Mapping) else None
    if not isinstance(root, Mapping) or not isinstance(properties, Mapping) or root.get("type", "object") != "object":
        raise ToolError(f"tool {tool}: its input schema is not that of an object")
    if len(properties) > MAX_ARGUMENTS:
        raise ToolError(f"tool {tool}: it takes {len(properties):,} arguments; at most {MAX_ARGUMENTS}")
    needed = set(_names(root.get("required")))
    names = sorted(properties, key=lambda name: name not in needed)  # stable: in the schema's order otherwise
    remote = _renamed(tool, names)
    inputs = {here: reader.input(properties[there]) for here, there in remote.items()}
    parameters = [reader.parameter(here, there in needed, properties[there]) for here, there in remote.items()]
    return Arguments(inputs, inspect.Signature(parameters), remote)


def _renamed(tool: str, names: Sequence[str]) -> Mapping[str, str]:
    remote: dict[str, str] = {}
    for there in names:
        here = python_name(there)
        if here in remote:
            raise ToolError(f"tool {tool}: arguments {remote[here]!r} and {there!r} would both be named {here!r}")
        remote[here] = there
    return remote


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_CHOICE and _is_harmless(value)
    if isinstance(value, int):
        return value.bit_length() <= 64
    return value is None or isinstance(value, float)


def _is_harmless(text: str) -> bool:
    """Whether it may stand in a prompt as it is: a name or a value cannot be made safe, it would be another one."""
    return text.isprintable() and without_roles(text) == text


@dataclass(slots=True)
class _Reader:
    """Reads schemas that are parts of ``root``, within one budget for them all."""

    root: Any
    nodes: int = field(default=MAX_NODES)
    characters: int = field(default=MAX_CHARACTERS)

    def input(self, schema: Any) -> Schema:
        """That of one argument, with its description."""
        reduced = self.reduced(schema)
        text = schema.get("description") or schema.get("title") if isinstance(schema, Mapping) else ""
        words = one_line(described(text, MAX_ARGUMENT_DESCRIPTION), MAX_ARGUMENT_DESCRIPTION)
        return {**reduced, "description": words if self._affords(words) else ""}

    def parameter(self, name: str, needed: bool, schema: Any) -> inspect.Parameter:
        """Without a hint: its schema says more than one would."""
        default: Any = inspect.Parameter.empty
        if not needed:
            given = schema.get("default") if isinstance(schema, Mapping) else None
            default = given if _is_plain(given) and self._affords(str(given)) else None
        return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)

    def _affords(self, *texts: str) -> bool:
        """Whether there is still room for them in prompts; then they are counted."""
        size = sum(map(len, texts))
        if size > self.characters:
            return False
        self.characters -= size
        return True

    def reduced(self, schema: Any, depth: int = 0) -> dict[str, Any]:
        """What we make of one schema."""
        self.nodes -= 1
        if depth > MAX_DEPTH or self.nodes < 0:
            return dict(_ANY)
        schema = self.resolved(schema)
        if not isinstance(schema, Mapping):
            return dict(_ANY)
        for word in ("anyOf", "oneOf"):
            if word in schema:
                return self._options(schema[word], depth)
        choices = [schema["const"]] if "const" in schema else schema.get("enum")
        if choices is not None:
            return self._choices(choices) | ({"nullable": True} if schema.get("nullable") is True else {})
        return self._typed(schema, depth)

    def resolved(self, schema: Any) -> Any:
        """Follows ``$ref`` within the root, and an ``allOf`` of one."""
        for _ in range(MAX_REFERENCES):
            match schema:
                case {"$ref": str(pointer)}:
                    schema = self._at(pointer)
                case {"allOf": [only]} if not {"type", "properties", "enum"} & set(schema):
                    schema = only
                case {"allOf": _}:
                    return None
                case _:
                    return schema
        return None

    def _at(self, pointer: str) -> Any:
        """What a JSON pointer (RFC 6901) into the root points at. Nothing is ever fetched."""
        if not pointer.startswith("#") or pointer.count("/") > MAX_REFERENCES:
            return None
        found = self.root
        for part in pointer.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or key not in found:
                return None
            found = found[key]
        return found

    def _options(self, options: Any, depth: int) -> dict[str, Any]:
        if not isinstance(options, list) or not 0 < len(options) <= MAX_OPTIONS:
            return dict(_ANY)
        made = [self.reduced(option, depth + 1) for option in options]
        nullable = any(option == {"type": "null"} or option.get("nullable") for option in made)
        made = [option for option in made if option != {"type": "null"}]
        if any(option.get("type") == "any" for option in made):
            return dict(_ANY)
        if len(made) == 1:
            return made[0] | ({"nullable": True} if nullable else {})
        if made and all(set(option) == {"type"} and isinstance(option["type"], str) for option in made):
            joined: dict[str, Any] = {"type": list(dict.fromkeys(option["type"] for option in made))}
        else:
            joined = {"anyOf": made} if made else {"type": "null"}
        return joined | ({"nullable": True} if nullable and made else {})

    def _typed(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        said = schema.get("type")
        names = said if isinstance(said, list) else [said]
        if not names or not all(isinstance(name, str) and name in JSON_TYPES for name in names):
            return dict(_ANY)
        plain = [str(name) for name in names if name != "null"]
        if not plain:
            return {"type": "null"}
        made: dict[str, Any] = {"type": one_or_all(plain)}
        if "null" in names or schema.get("nullable") is True:
            made["nullable"] = True
        if "array" in plain and isinstance(schema.get("items"), Mapping) and "prefixItems" not in schema:
            made["items"] = self.reduced(schema["items"], depth + 1)
        if "object" in plain:
            made |= self._members(schema, depth)
        return made

    def _members(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        """Of an object: its properties, or what each value must be, if it has none by name."""
        properties, rest = schema.get("properties"), schema.get("additionalProperties")
        if isinstance(properties, Mapping) and 0 < len(properties) <= MAX_ARGUMENTS:
            named = {
                name: value
                for name, value in properties.items()
                if isinstance(name, str) and len(name) <= MAX_NAME and _is_harmless(name)
            }
            if not self._affords(*named):
                return {}
            required = [name for name in _names(schema.get("required")) if name in named]
            made = {name: self.reduced(value, depth + 1) for name, value in named.items()}
            return {"properties": made} | ({"required": required} if required else {}) if made else {}
        if not properties and isinstance(rest, Mapping):
            return {"additionalProperties": self.reduced(rest, depth + 1)}
        return {}

    def _choices(self, choices: Any) -> dict[str, Any]:
        """An enum of plain values; one of others, or of too many, is not checked."""
        if not isinstance(choices, list) or not 0 < len(choices) <= MAX_CHOICES:
            return dict(_ANY)
        if not all(map(_is_plain, choices)) or not self._affords(*map(str, choices)):
            return dict(_ANY)
        return choices_schema(choices)


def _names(value: Any) -> list[str]:
    """The texts in ``value``, if it is a list; a schema may say anything."""
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def reduced_schema(schema: Any) -> dict[str, Any]:
    """One schema by itself, such as that of a result."""
    return _Reader(schema).reduced(schema)
