"""A checked value as the tool's hint says: a member for its value, a dataclass for a dict, pixels for a picture.

Values come from the sandbox as data. Only the classes that the tool's own hints name are made of them.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any, get_args, get_origin

from orchestrator.errors import ConfigError
from orchestrator.media import AgentImage, is_picture
from orchestrator.tools.mismatch import mismatch
from orchestrator.tools.records import is_record, record_fields
from orchestrator.tools.schema import SETS, Schema, type_schema

# Hashes of text and bytes are seeded; those of numbers are known, and elements can be chosen that collide: then making
# a set takes time that grows with the square of their number. So many take milliseconds.
MAX_UNSEEDED = 1000
_SEEDED = (str, bytes)


def needs_decoding(hint: Any) -> bool:
    """Whether a value for ``hint`` holds a picture that has to be decoded, which takes its time."""
    return is_picture(hint) or any(needs_decoding(part) for part in _parts(hint))


def _parts(hint: Any) -> Iterable[Any]:
    return [field.hint for field in record_fields(hint).values()] if is_record(hint) else get_args(hint)


def converted(place: str, hint: Any, value: Any) -> Any:
    """``value``, which is what the schema of ``hint`` asks for, as ``hint`` says. What fits already stays as it is.

    Args:
        place: which argument of which tool, for messages.
        hint: the type hint; anything without a counterpart here changes nothing.
        value: the checked value.

    Raises:
        TypeError: a list cannot become a set, or a picture cannot be decoded.
        ValueError: the dataclass refuses its fields.
    """
    if is_picture(hint):
        return _decoded(place, value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _member(hint, value)
    if is_record(hint):
        return _record(place, hint, value)
    arguments = get_args(hint)
    match get_origin(hint) or hint:
        case typing.Annotated:
            return converted(place, arguments[0], value)
        case typing.Literal:
            return _choice(arguments, value)
        case typing.Union | types.UnionType:
            return _option(place, arguments, value)
        case origin if isinstance(value, dict):
            return _mapping(place, arguments, value) if len(arguments) == 2 else value
        case origin if isinstance(value, list | tuple | set | frozenset):
            return _elements(place, origin, arguments, value)
    return value


def _member(members: Iterable[Any], value: Any) -> Any:
    return next((member for member in members if value is member or value == member.value), value)


def _choice(choices: tuple[Any, ...], value: Any) -> Any:
    """The member that stands there, for its value; what stands there as it is needs none."""
    if any(type(choice) is type(value) and choice == value for choice in choices):
        return value
    return _member([choice for choice in choices if isinstance(choice, Enum)], value)


def _decoded(place: str, value: Any) -> Any:
    if not isinstance(value, AgentImage):
        return value
    try:
        return value.to_pil()
    except ConfigError as error:
        raise TypeError(f"{place}: {error}") from None


def _record(place: str, record: type, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    fields = {
        name: converted(place, field.hint, value[name])
        for name, field in record_fields(record).items()
        if name in value
    }
    if typing.is_typeddict(record):
        return fields
    try:
        return record(**fields)
    except Exception as error:  # its __post_init__ is the developer's code, and can raise anything
        raise ValueError(f"{place} is no {record.__name__}: {error}") from error


def _option(place: str, options: tuple[Any, ...], value: Any) -> Any:
    """By the first option that takes it: a schema says which."""
    for hint, schema in zip(options, _schemas(options), strict=True):
        if not mismatch(schema, value):
            return converted(place, hint, value)
    return value


def _schemas(options: tuple[Any, ...]) -> Sequence[Schema]:
    try:
        return _known_schemas(options)
    except TypeError:  # one of them has no hash, as the unions of later Pythons may hold
        return [type_schema(hint) for hint in options]


@functools.lru_cache(maxsize=256)  # asked for each element of a list; more unions than any tools name
def _known_schemas(options: tuple[Any, ...]) -> Sequence[Schema]:
    return [type_schema(hint) for hint in options]


def _mapping(place: str, arguments: tuple[Any, ...], value: dict[Any, Any]) -> dict[Any, Any]:
    if not _changes(arguments[1]):
        return value
    return {key: converted(place, arguments[1], item) for key, item in value.items()}


def _elements(place: str, origin: Any, arguments: tuple[Any, ...], value: Any) -> Any:
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        items = [converted(place, hint, item) for hint, item in zip(arguments, value, strict=False)]
    elif arguments and _changes(arguments[0]):
        items = [converted(place, arguments[0], item) for item in value]
    else:
        items = value
    if items is not value and all(new is old for new, old in zip(items, value, strict=False)):
        items = value
    if origin in SETS:
        return _set(place, frozenset if origin is frozenset else set, items)
    if origin in (list, tuple):
        return items if type(items) is origin else origin(items)
    return items


def _changes(hint: Any) -> bool:
    """Whether a value for ``hint`` may become another one. For plain types it does not: lists of them can be long."""
    match get_origin(hint):
        case typing.Literal:
            return any(isinstance(choice, Enum) for choice in get_args(hint))
        case typing.Annotated:
            return _changes(get_args(hint)[0])
        case typing.Union | types.UnionType:
            return any(map(_changes, get_args(hint)))
    return hint not in (str, int, float, bool, Any, None, type(None))


def _set(place: str, kind: type, items: Any) -> Any:
    if isinstance(items, kind):
        return items
    if sum(type(item) not in _SEEDED for item in items) > MAX_UNSEEDED:
        raise TypeError(f"{place}: a set of more than {MAX_UNSEEDED:,} elements that are no text; pass fewer")
    try:
        return kind(items)
    except TypeError as error:
        raise TypeError(f"{place} cannot be a set: {error}") from None
