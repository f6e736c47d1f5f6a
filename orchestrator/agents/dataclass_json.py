"""Frozen dataclasses as JSON and back, field by field, each as its type hint says. No class is named in the data."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from orchestrator.agents.value_json import read, written
from orchestrator.media import Media

Record = TypeVar("Record")


def written_record(record: Any) -> dict[str, Any]:
    """The fields of a dataclass, for ``json`` to write."""
    hints = _hints(record.__class__)
    return {field: _written_as(hint, getattr(record, field)) for field, hint in hints.items()}


def _written_as(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    hint = _without_none(hint)
    if _is_record(hint):
        return written_record(value)
    if get_origin(hint) is tuple:
        return [_written_as(get_args(hint)[0], item) for item in value]
    if isinstance(value, MappingProxyType):  # of an approver's request, say
        return written(dict(value))
    return value.value if isinstance(value, Enum) and isinstance(hint, type) else written(value)


def read_record(kind: type[Record], data: object) -> Record:
    """The dataclass of that type that was written as ``data``; fields that are missing have their defaults.

    Raises:
        ValueError, TypeError, KeyError, ArithmeticError: it is none.
    """
    if not isinstance(data, dict):
        raise ValueError(f"a {kind.__name__} is an object, not {type(data).__name__}")
    named: Any = kind  # mypy takes no type for hashable
    hints = _hints(named)
    unknown = data.keys() - hints.keys()
    if unknown:
        raise ValueError(f"{kind.__name__} has no {min(unknown)[:40]!r}")
    return kind(**{name: _read_field(f"{kind.__name__}.{name}", hints[name], part) for name, part in data.items()})


def _read_field(path: str, hint: Any, data: Any) -> Any:
    value = _read_as(hint, data)
    if not _fits(hint, value):
        raise ValueError(f"{path} cannot be a {type(value).__name__} like that")
    return value


def _read_as(hint: Any, data: Any) -> Any:
    if data is None:
        return None
    hint = _without_none(hint)
    if _is_record(hint):
        return read_record(hint, data)
    if get_origin(hint) is tuple:
        if not isinstance(data, list):
            raise ValueError(f"a {type(data).__name__} where a list is expected")
        return tuple(_read_as(get_args(hint)[0], item) for item in data)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(data)
    return read(data)


def _fits(hint: Any, value: Any) -> bool:
    """Whether ``value`` is what ``hint`` says."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(option, value) for option in arguments)
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(arguments[0], item) for item in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, dict) and all(
            _fits(arguments[0], key) and _fits(arguments[1], item) for key, item in value.items()
        )
    if hint is float:
        return type(value) in (float, int)
    return isinstance(value, hint) and (hint is bool or type(value) is not bool)


def _without_none(hint: Any) -> Any:
    """``X`` of ``X | None``; other hints as they are."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    options = [option for option in get_args(hint) if option is not type(None)]
    return options[0] if len(options) == 1 else hint


def _is_record(hint: Any) -> bool:
    """Whether its values are written field by field; pictures are values."""
    return isinstance(hint, type) and dataclasses.is_dataclass(hint) and not issubclass(hint, Media)


@functools.cache
def _hints(kind: type[Any]) -> Mapping[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}
