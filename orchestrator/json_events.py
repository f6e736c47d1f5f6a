"""The events of a run as JSON, one object a line, for programs that watch ``cellblock run --json``.

Each has a ``type``, the snake_case name of the event's class. Values that JSON has no word for are shown as text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from orchestrator.agents import AgentEvent, Overheard
from orchestrator.events import kind_of
from orchestrator.media import Media

MAX_TEXT = 100_000  # characters of one text: a line has to be read as a whole
MAX_BITS = 4096  # of a number; longer ones are hexadecimal text
MAX_DEPTH = 12
MAX_ITEMS = 1_000  # of one container


def as_line(event: AgentEvent) -> str:
    """``event`` as one line of JSON, in ASCII: nothing in it can do anything to a terminal."""
    return json.dumps(_event(event, 0))


def _event(event: Any, depth: int) -> dict[str, Any]:
    """With its type, and those of the records that are its parts. What was overheard is an event, too."""
    inner = {"event": _event(event.event, depth + 1)} if isinstance(event, Overheard) else {}
    return {"type": kind_of(event), **_fields(event, depth, typed=True), **inner}


def _fields(record: Any, depth: int, *, typed: bool = False) -> dict[str, Any]:
    return {field.name: _plain(getattr(record, field.name), depth + 1, typed=typed) for field in fields(record)}


def _plain(value: Any, depth: int, *, typed: bool = False) -> Any:
    if depth > MAX_DEPTH:
        return "…"
    match value:
        case None | bool():
            return value
        case int():
            return value if value.bit_length() <= MAX_BITS else hex(value)[:MAX_TEXT]
        case float():
            return value if value - value == 0 else repr(value)  # JSON has no infinity
        case Enum():
            return str(value.value)
        case str():
            return value[:MAX_TEXT].encode("utf-8", "replace").decode()
        case Media():
            return {"mime": value.mime, "bytes": len(value.data)}
        case Mapping():
            return {str(key)[:MAX_TEXT]: _plain(item, depth + 1) for key, item in list(value.items())[:MAX_ITEMS]}
        case list() | tuple():
            return [_plain(item, depth + 1) for item in value[:MAX_ITEMS]]
        case _ if is_dataclass(value) and not isinstance(value, type):
            return {**({"type": kind_of(value)} if typed else {}), **_fields(value, depth)}
        case _:
            return repr(value)[:MAX_TEXT]
