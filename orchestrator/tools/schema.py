"""Type hints and docstring of a function -> JSON schema, with smolagents' names for the types.

``any`` stands for what JSON schema has no word for (a DataFrame, bytes, a class of one's own): what can really cross
into the sandbox is decided there, value by value.
"""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, get_args, get_origin

from orchestrator.errors import ToolError
from orchestrator.media import AgentAudio, AgentImage, is_picture
from orchestrator.tools.choices import with_choices
from orchestrator.tools.docstring import Docstring, parse_docstring
from orchestrator.tools.records import Field, is_record, record_fields
from orchestrator.tools.schema_words import choices_schema

Schema = Mapping[str, Any]

SEQUENCES = (
    list,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Collection,
    collections.abc.Iterable,
)
SETS = (set, frozenset, collections.abc.Set, collections.abc.MutableSet)
MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)

# Pairs, compared by identity: a hint may be something that has no hash.
_SIMPLE: Sequence[tuple[Any, str]] = (
    (str, "string"),
    (bool, "boolean"),
    (int, "integer"),
    (float, "number"),
    (tuple, "array"),
    *((kind, "array") for kind in SEQUENCES),
    *((kind, "object") for kind in MAPPINGS),
    (None, "null"),
    (type(None), "null"),
    (Any, "any"),
    (AgentImage, "image"),
    (AgentAudio, "audio"),
)


@dataclass(frozen=True, slots=True)
class FunctionSchema:
    """What a function tells about itself. ``inputs`` maps each argument to its schema, with a ``description``."""

    name: str
    description: str
    inputs: Mapping[str, Schema]
    output_type: str
    returns: str
    signature: inspect.Signature


def type_schema(hint: Any) -> dict[str, Any]:
    """The JSON schema of one type hint.

    Raises:
        ToolError: a dataclass or TypedDict in it has hints that cannot be read, or holds itself.
    """
    return _type_schema(hint, ())


def _type_schema(hint: Any, inside: tuple[type, ...]) -> dict[str, Any]:
    """``inside``: the records that this hint is a part of."""
    simple = next((name for kind, name in _SIMPLE if hint is kind), None)
    if simple:
        return {"type": simple}
    if any(hint is kind for kind in SETS):
        return {"type": "array", "uniqueItems": True}
    if is_picture(hint):
        return {"type": "image"}
    if isinstance(hint, type) and issubclass(hint, Enum):
        return choices_schema([member.value for member in hint])
    if is_record(hint):
        return _record(hint, inside)
    arguments = get_args(hint)
    match get_origin(hint):
        case typing.Literal:
            return choices_schema([choice.value if isinstance(choice, Enum) else choice for choice in arguments])
        case typing.Annotated:
            return _type_schema(arguments[0], inside)
        case typing.Union | types.UnionType:
            return _union(arguments, inside)
        case origin if origin in (tuple, *SEQUENCES, *SETS, *MAPPINGS):
            return _container(origin, arguments, inside)
        case _:
            return {"type": "any"}


def _record(record: type, inside: tuple[type, ...]) -> dict[str, Any]:
    if record in inside:
        raise ToolError(f"{record.__name__} holds itself, which a schema cannot say; use dict for the part inside")
    fields = record_fields(record)
    return {
        "type": "object",
        "properties": {name: _field(field, (*inside, record)) for name, field in fields.items()},
        "required": [name for name, field in fields.items() if field.required],
        "additionalProperties": False,
    }


def _field(field: Field, inside: tuple[type, ...]) -> dict[str, Any]:
    schema = _type_schema(field.hint, inside)
    return schema | {"description": field.description} if field.description else schema


def _union(arguments: Sequence[Any], inside: tuple[type, ...]) -> dict[str, Any]:
    """``Optional`` is ``nullable``; plain types are a list of names, anything richer is ``anyOf``."""
    options = [_type_schema(hint, inside) for hint in arguments if hint is not type(None)]
    schema: dict[str, Any]
    if len(options) == 1:
        schema = options[0]
    elif all(set(option) == {"type"} for option in options):
        schema = {"type": list(dict.fromkeys(option["type"] for option in options))}
    else:
        schema = {"anyOf": options}
    return schema | {"nullable": True} if type(None) in arguments else schema


def _container(origin: Any, arguments: Sequence[Any], inside: tuple[type, ...]) -> dict[str, Any]:
    if origin in MAPPINGS:
        return {"type": "object", "additionalProperties": _type_schema(arguments[1], inside)}
    if origin in SETS:
        return {"type": "array", "items": _type_schema(arguments[0], inside), "uniqueItems": True}
    if origin is not tuple or (len(arguments) == 2 and arguments[1] is Ellipsis):
        return {"type": "array", "items": _type_schema(arguments[0], inside)}
    return {"type": "array", "prefixItems": [_type_schema(hint, inside) for hint in arguments]}


def function_schema(function: Callable[..., Any]) -> FunctionSchema:
    """Name, description, inputs and output of a function, by its type hints and Google-style docstring.

    Raises:
        ToolError: something is missing; the message says what to add.
    """
    name = function.__name__
    signature = hinted_signature(name, function)
    docs = parse_docstring(function.__doc__)
    if not docs.summary:
        raise ToolError(f"tool {name}: add a docstring that says what it does; the model chooses tools by it")
    inputs = {parameter.name: _input(name, parameter, docs) for parameter in signature.parameters.values()}
    unknown = sorted(set(docs.arguments) - set(inputs))
    if unknown:
        raise ToolError(f"tool {name}: its docstring's Args describe {', '.join(unknown)}, which it does not take")
    if signature.return_annotation is inspect.Signature.empty:
        raise ToolError(f"tool {name}: add the type it returns, such as '-> str' ('-> None' for nothing)")
    output = type_schema(signature.return_annotation).get("type", "any")
    output_type = output if isinstance(output, str) else "any"
    return FunctionSchema(name, docs.summary, inputs, output_type, docs.returns, signature)


def _input(name: str, parameter: inspect.Parameter, docs: Docstring) -> Schema:
    if parameter.annotation is inspect.Parameter.empty:
        raise ToolError(f"tool {name}: add a type hint to argument {parameter.name!r}, such as '{parameter.name}: str'")
    if not docs.arguments.get(parameter.name):
        raise ToolError(f"tool {name}: describe argument {parameter.name!r} under 'Args:' in its docstring")
    try:
        schema = type_schema(parameter.annotation)
    except ToolError as error:
        raise ToolError(f"tool {name}: argument {parameter.name!r}: {error}") from error
    if parameter.default is None:
        schema["nullable"] = True  # ``n: int = None`` says it, too
    return with_choices(f"tool {name}: argument {parameter.name!r}", schema, docs.arguments[parameter.name])


def hinted_signature(name: str, function: Callable[..., Any]) -> inspect.Signature:
    """The signature with its hints as real types, also under ``from __future__ import annotations``.

    Raises:
        ToolError: a hint names something that does not exist, or the function takes ``*args`` or ``**kwargs``.
    """
    try:
        signature = inspect.signature(function)
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception as error:  # evaluating the developer's hints runs their code, and can raise anything
        raise ToolError(f"tool {name}: its type hints cannot be read: {type(error).__name__}: {error}") from error
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ToolError(
                f"tool {name}: name its arguments one by one, so that the model knows them, not {parameter}"
            )
    parameters = [p.replace(annotation=hints.get(p.name, p.annotation)) for p in signature.parameters.values()]
    returns = hints.get("return", signature.return_annotation)
    returns = None if returns is type(None) else returns  # as it was written
    return signature.replace(parameters=parameters, return_annotation=returns)
