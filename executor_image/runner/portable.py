"""What may leave the sandbox, and how it is looked at: nothing of the user's is called but ``repr``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, Protocol

MAX_DEPTH = 32  # levels of containers; each is two of protobuf's 100
MAX_NODES = 100_000
MAX_INT_BYTES = 512
MAX_DECIMAL_CHARS = 1000
MAX_EXPONENT_CHARS = 13  # a sign and twelve digits
MAX_OPAQUE_REPR = 2048
# Set members and keys whose hashes are not seeded, in one value: what such keys can cost the host grows with the square
# of their number. The host takes no more of them than this.
MAX_ODD_KEYS = 50_000
SIGNS = {  # of struct, for an item of each dtype of numpy that can travel
    "bool": "?",
    "int8": "b",
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "uint8": "B",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
    "float16": "e",
    "float32": "f",
    "float64": "d",
    "complex64": "ff",
    "complex128": "dd",
}
DTYPES = frozenset(SIGNS)


class NotPortable(TypeError):
    """A value cannot leave the sandbox; the message names the type and the path of the part that cannot."""


class TooLarge(NotPortable):
    """The value as a whole is over a budget."""


def safe_repr(value: object, limit: int) -> str:
    """``repr(value)``, cut to ``limit`` characters; what to show instead if it raises."""
    try:
        text = plain(repr(value))
    except Exception as error:  # noqa: BLE001 — a repr is user code: what it raises is shown, and fails nothing
        name = of_class(type(value), "__name__")
        text = f"<{name} object; its repr raised {of_class(type(error), '__name__')}>"
    half = limit // 2 - 2  # the mark between them has three characters
    return text if len(text) <= limit else f"{text[:half]} … {text[-half:]}"


def plain(text: str) -> str:
    """The same as an exact str: a subclass can lie about its length."""
    return "".join((text,))


def of_class(kind: type, what: str) -> Any:
    """``kind``'s own ``what``, asked of ``type`` itself: a metaclass can have a property of that name."""
    found = type.__dict__[what].__get__(kind)
    return plain(found) if issubclass(type(found), str) else found


def type_name(value: object) -> str:
    name, module = of_class(type(value), "__qualname__"), of_class(type(value), "__module__")
    return name if type(module) is not str or module == "builtins" else f"{module}.{name}"


class Encoder(Protocol):
    """What encodes the parts of a value, and counts them."""

    def value(self, value: object, path: str, depth: int = 0) -> bytes:
        """One serialised Value."""

    def encoded(self, value: object, path: str, depth: int) -> bytes:
        """The same, uncounted: of what stands for a value that has been counted."""

    def names(self, values: list[object], path: str) -> None:
        """Counts values that the host will have to hash."""


Encode = Callable[[Any, Any, str, int], bytes]
"""An encoder's method, as it were: of an Encoder, the value, its path and depth."""


def refuse(_: object, value: object, path: str, __: int) -> bytes:
    """Of what cannot travel."""
    raise NotPortable(f"{path} is of type {type_name(value)}, which cannot leave the sandbox")


def library(name: str) -> Any:
    """A module for what has come from the host; None if this sandbox is not granted it."""
    try:
        return importlib.import_module(name)
    except Exception:  # noqa: BLE001 — or if the code has broken it, which may raise anything
        return None


def class_of(module_name: str, name: str) -> Any:
    """What has that name in a module, if user code has loaded it; nothing is imported to find out."""
    module = sys.modules.get(module_name)
    return vars(module).get(name) if issubclass(type(module), ModuleType) else None
