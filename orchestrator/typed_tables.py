"""Tables of a settings file as frozen dataclasses. An unknown key is an error that names the nearest right one. No I/O.

A field's type says what may be written: text, a number, true or false, a list (``tuple[str, ...]``), one of some words
(``Literal``), a table (a dataclass), or a table with names of the writer's own (``Mapping``).
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType, NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from orchestrator.errors import ConfigError

Table = TypeVar("Table")


def build(cls: type[Table], values: Mapping[str, Any], place: str = "", others: Iterable[str] = ()) -> Table:
    """A ``cls`` of ``values``, whose place in the file is ``place``, such as ``limits``; empty for the whole file.

    ``others``: names that are right there too, and read by somebody else; for the message.

    Raises:
        ConfigError: a key is unknown, lacking, of the wrong type or out of range; the message names it.
    """
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type] # it is a dataclass
    kinds, built = get_type_hints(cls), {}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"unknown setting {_inside(place, key)}{instead(key, [*known, *others], place)}")
        built[key] = _convert(_inside(place, key), value, kinds[key])
    for field in dataclasses.fields(cls):  # type: ignore[arg-type] # the same
        if field.name not in built and field.default is field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{_inside(place, field.name)} is missing")
    try:
        return cls(**built)
    except ConfigError as error:  # of its own checks, which do not know where in the file they are
        raise error if str(error).startswith(place) else ConfigError(f"{place}: {error}") from None


def instead(wrong: str, known: Iterable[str], place: str = "", show: Callable[[str], str] = str) -> str:
    """What to say after the naming of something that is not there: the nearest of ``known``, and all of them."""
    names = list(known)
    if not names:
        return "; there are none"
    said = ", ".join(show(_inside(place, name)) for name in names)
    # By small letters, which is how people err least.
    close = difflib.get_close_matches(wrong.lower(), [name.lower() for name in names], 1)
    nearest = [show(_inside(place, name)) for name in names if name.lower() in close]
    return f"; did you mean {nearest[0]}? Known: {said}" if nearest else f"; known: {said}"


def one_of(name: str, value: str, known: Iterable[str]) -> None:
    """Raises unless ``value`` is among ``known``.

    Raises:
        ConfigError: it is not.
    """
    names = tuple(known)
    if value not in names:
        raise ConfigError(f"{name} is {value!r}; it must be {' or '.join(map(repr, names))}")


def in_range(name: str, value: float, low: float, high: float) -> None:
    """Raises unless ``value`` is a number from ``low`` to ``high``, both included.

    Raises:
        ConfigError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{name} is {value!r}; it must be a number")
    if not low <= value <= high:
        raise ConfigError(f"{name} is {value:g}; it must be between {low:g} and {high:g}")


def _inside(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _convert(name: str, value: Any, kind: Any) -> Any:
    """``value`` as a ``kind``, which is the type of a field."""
    if kind is Any:
        return value
    if kind is bool:
        return _checked(name, value, bool, "true or false")
    if kind is str:
        return _text(name, value)
    if kind in (int, float):
        return _number(name, value, whole=kind is int)
    if dataclasses.is_dataclass(kind):
        return build(kind, _checked(name, value, dict, "a table"), name)  # type: ignore[arg-type] # it is a class
    return _convert_to_many(name, value, get_origin(kind), get_args(kind))


def _convert_to_many(name: str, value: Any, origin: Any, arguments: tuple[Any, ...]) -> Any:
    if origin is Literal:
        one_of(name, value, arguments)
        return value
    if origin is tuple:
        items = _checked(name, value, list, "a list")
        return tuple(_convert(f"{name}[{number}]", item, arguments[0]) for number, item in enumerate(items))
    if origin is Mapping:
        table = _checked(name, value, dict, "a table")
        return MappingProxyType({key: _convert(f"{name}.{key}", item, arguments[1]) for key, item in table.items()})
    (only,) = (argument for argument in arguments if argument is not NoneType)  # `float | None`: what may be left out
    return _convert(name, value, only)


def _checked(name: str, value: Any, kind: type[Any], said: str) -> Any:
    if not isinstance(value, kind):
        raise ConfigError(f"{name} must be {said}, not {value!r}" if kind is bool else f"{name} must be {said}")
    return value


def _text(name: str, value: Any) -> str:
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise ConfigError(f"{name} must be text, not {value!r}")


def _number(name: str, value: Any, whole: bool) -> float:
    if isinstance(value, bool):
        raise ConfigError(f"{name} must be a number, not {value!r}")
    try:
        number = float(value)
        if not whole:
            return number
        if number.is_integer():
            return int(value)
    except (TypeError, ValueError):
        pass
    except OverflowError:  # an int beyond every float; it may have too many digits to be shown
        raise ConfigError(f"{name} must be a number of a reasonable size") from None
    raise ConfigError(f"{name} must be a number{', whole' if whole else ''}, not {value!r}")
