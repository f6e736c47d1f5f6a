"""What a value is called where it arrives: without its library, it is something else in a sandbox."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.media import AgentAudio, AgentImage
from orchestrator.policy import top_level
from orchestrator.sandbox import NDArray, Table

# As the sandbox decodes them (docs/values.md); and which grants bring the library along.
_WITHOUT: Mapping[str, str] = {
    "numpy": "nested lists",
    "pandas": "a dict from column to list",
    "PIL": "an object with mime and data",
}
_BROUGHT_BY: Mapping[str, frozenset[str]] = {
    "numpy": frozenset({"numpy", "pandas", "matplotlib"}),
    "pandas": frozenset({"pandas"}),
    "PIL": frozenset({"PIL", "matplotlib"}),
}
_KNOWN = frozenset().union(*_BROUGHT_BY.values(), sys.stdlib_module_names)
_CLASSES: Mapping[tuple[str, str], str] = {
    ("numpy", "ndarray"): "numpy",
    ("pandas", "DataFrame"): "pandas",
    ("pandas", "Series"): "pandas",
    ("PIL", "Image"): "PIL",
}
_OURS: Mapping[type, str] = {NDArray: "numpy", Table: "pandas", AgentImage: "PIL"}  # which stand for the library's
_WITH: Mapping[str, str] = {"numpy": "an array of numpy", "pandas": "of pandas", "PIL": "an image of Pillow"}


def type_in_words(value: Any) -> str:
    """The name of its type."""
    return type(value).__name__


def arriving_type(value: Any, rules: Iterable[str]) -> str:
    """The name of its type, and what it is in a sandbox of these import rules if that is something else."""
    name, library = type_in_words(value), _library_of(value)
    if isinstance(value, AgentAudio):
        return f"{name}; here {_WITHOUT['PIL']}"
    granted = set(top_level(rules))
    if library is None or not granted <= _KNOWN:  # others may need the library, and bring it
        return name
    if granted & _BROUGHT_BY[library]:
        return f"{name}; here {_WITH[library]}" if type(value) in _OURS else name
    return f"{name}; here, without {library}, {_WITHOUT[library]}"


def _library_of(value: Any) -> str | None:
    for kind in type(value).__mro__:
        known = _OURS.get(kind) or _CLASSES.get((kind.__module__.partition(".")[0], kind.__name__))
        if known:
            return known
    return None
