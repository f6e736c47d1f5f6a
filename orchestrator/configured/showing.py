"""The settings as TOML, as they are in force: defaults, the file and the environment together."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, time
from typing import Any

from orchestrator.configured.settings import ServiceSettings
from orchestrator.credentials import secrets_in, without_queries

_BARE = re.compile(r"[A-Za-z0-9_-]+")
HIDDEN = "(hidden)"


def as_toml(settings: ServiceSettings) -> str:
    """What ``ServiceSettings.load`` would read as the same, but for credentials: ``(hidden)``.

    That is a text that looks like one, and what stands in the query of a URL.
    """
    lines = [*_table("", settings.config), *_table("service", settings.service)]
    for place in ("models", "mcp", "agents", "pools"):
        for name, table in getattr(settings, place).items():
            lines += _table(f"{place}.{_key(name)}", table)
    for rule in settings.policy:
        lines += ["", "[[policy]]", *_pairs(rule)]
    return "\n".join(lines) + "\n"


def _table(place: str, table: Any) -> Iterator[str]:
    if place:
        yield from ("", f"[{place}]")
    yield from _pairs(table)
    for known in fields(table):  # after all others: what follows a table's heading is in it
        if is_dataclass(value := getattr(table, known.name)):
            yield from _table(f"{place}.{known.name}" if place else known.name, value)


def _pairs(table: Any) -> Iterator[str]:
    for known in fields(table):
        value = getattr(table, known.name)
        if value is not None and not is_dataclass(value):
            yield f"{known.name} = {_value(value)}"


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _text(HIDDEN if any(secrets_in(value, "name")) else without_queries(value, HIDDEN))
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
        case Mapping():
            return f"{{{', '.join(f'{_key(name)} = {_value(part)}' for name, part in value.items())}}}"
        case date() | time():
            return value.isoformat()
        case _:
            return repr(value)  # a number; inf and nan, too, are written so


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
