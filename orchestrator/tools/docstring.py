"""Google-style docstrings: the summary, and what ``Args:``, ``Attributes:`` and ``Returns:`` say."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass

_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns|Yields|Raises|Examples?|Notes?|Attributes):[ \t]*$", re.M)
_ARGUMENT_SECTIONS = ("Args", "Arguments", "Parameters", "Attributes")
_ARGUMENT = re.compile(r"^\*{0,2}(\w+)[ \t]*(?:\([^)]*\))?[ \t]*:[ \t]*(.*)$")


@dataclass(frozen=True, slots=True)
class Docstring:
    """What a docstring says. Line breaks inside an argument's text are folded away."""

    summary: str
    arguments: Mapping[str, str]
    returns: str


def parse_docstring(text: str | None) -> Docstring:
    """The parts of a Google-style docstring (https://google.github.io/styleguide/pyguide.html#383-functions-and-methods).

    The summary is all text before the first section. A class describes its fields under Args or Attributes. Sections
    other than these and Returns are dropped.
    """
    summary, *rest = _SECTION.split(inspect.cleandoc(text or ""))
    sections = dict(zip(rest[::2], rest[1::2], strict=True))
    arguments = next((sections[name] for name in _ARGUMENT_SECTIONS if sections.get(name)), "")
    return Docstring(summary.strip(), _arguments(arguments), _folded(sections.get("Returns", "")))


def _arguments(section: str) -> dict[str, str]:
    """Name -> text. A line indented deeper than the first one continues the argument above it."""
    found: dict[str, str] = {}
    current = ""
    for line in inspect.cleandoc(section).splitlines():
        match = _ARGUMENT.match(line)
        if match:
            current, text = match.groups()
            found[current] = text.strip()
        elif current and line.strip():
            found[current] = f"{found[current]} {line.strip()}".strip()
    return found


def _folded(text: str) -> str:
    return " ".join(text.split())
