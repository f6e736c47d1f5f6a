"""Dataclasses and TypedDicts as arguments: their fields, by the class and of an instance."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from orchestrator.errors import ToolError
from orchestrator.tools.docstring import parse_docstring


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record: its type hint, whether it must be given, and what the class says of it."""

    hint: Any
    required: bool
    description: str


def is_record(hint: Any) -> bool:
    """Whether ``hint`` is a dataclass or a TypedDict."""
    return isinstance(hint, type) and (dataclasses.is_dataclass(hint) or typing.is_typeddict(hint))


@functools.lru_cache(maxsize=256)  # read again for every value that is made; more classes than any tools name
def record_fields(record: type) -> dict[str, Field]:
    """The fields that can be given, by name. What they mean is read from Args or Attributes in the class's docstring.

    Raises:
        ToolError: a hint of a field names something that does not exist.
    """
    try:
        hints = typing.get_type_hints(record, include_extras=True)
    except Exception as error:  # evaluating the developer's hints runs their code, and can raise anything
        raise ToolError(f"the hints of {record.__name__} cannot be read: {type(error).__name__}: {error}") from error
    texts = parse_docstring(record.__doc__).arguments
    required = _typed_dict(record, hints) if typing.is_typeddict(record) else _dataclass(record)
    return {name: Field(_bare(hints[name]), needed, texts.get(name, "")) for name, needed in required.items()}


def _dataclass(record: type) -> dict[str, bool]:
    missing = dataclasses.MISSING
    return {
        field.name: field.default is missing and field.default_factory is missing
        for field in dataclasses.fields(record)
        if field.init
    }


def _typed_dict(record: type, hints: Mapping[str, Any]) -> dict[str, bool]:
    keys: frozenset[str] = getattr(record, "__required_keys__", frozenset())
    # Under ``from __future__ import annotations`` the class does not know which fields say NotRequired; the hints do.
    told = {typing.Required: True, typing.NotRequired: False}
    return {name: told.get(get_origin(hint), name in keys) for name, hint in hints.items()}


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) in (typing.Required, typing.NotRequired) else hint


def values_of(instance: Any) -> dict[str, Any]:
    """The fields of a dataclass instance as they are, one level deep."""
    return {field.name: getattr(instance, field.name) for field in dataclasses.fields(instance) if field.init}
