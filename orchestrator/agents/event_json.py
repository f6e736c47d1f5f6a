"""Events of runs as JSON and back: in the journal of the service, and on the way to apps.

Each is an object with its ``kind``, the snake_case name of its class, and its fields as dataclass_json.py writes them.
What is read may have been in anybody's hands: it is bounded, checked part by part, and nothing in it is evaluated. An
app reads events with protobuf alone installed, so nothing here may import more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

from orchestrator.agents.dataclass_json import read_record, written_record
from orchestrator.agents.memory_json import MAX_BYTES, check_marks, parsed, reading
from orchestrator.agents.run import Overheard, RunEvent
from orchestrator.agents.value_json import one_file, read, written
from orchestrator.errors import AgentError
from orchestrator.events import ApprovalAsked, ApprovalDecided, kind_of

MAX_TEAM = 32  # levels of members' members; no team has as many, and what has thousands is no event
KINDS: Mapping[str, type[Any]] = {kind_of(kind): kind for kind in get_args(RunEvent)}
_NAMES = {kind: name for name, kind in KINDS.items()}


def event_to_dict(event: RunEvent) -> dict[str, Any]:
    """``event`` as ``json`` can write it, with its ``kind``.

    Raises:
        AgentError: it was overheard through more than ``MAX_TEAM`` levels of a team.
    """
    agents: list[str] = []
    while isinstance(event, Overheard):
        agents.append(event.agent)
        event = event.event
    if len(agents) > MAX_TEAM:
        raise AgentError(f"an event was overheard through more than {MAX_TEAM} levels of a team")
    data = {"kind": _NAMES[type(event)], **written_record(event)}
    for agent in reversed(agents):
        data = {"kind": _NAMES[Overheard], "agent": written(agent), "event": data}
    return data


def event_from_dict(data: object) -> RunEvent:
    """The event that ``event_to_dict`` wrote.

    Raises:
        AgentError: it is none.
    """
    with reading("an event"), one_file():
        return _read(data)


def event_to_json(event: RunEvent) -> bytes:
    """The same as JSON on one line, in UTF-8.

    Raises:
        AgentError: as ``event_to_dict``.
    """
    data = event_to_dict(event)
    return json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()


def event_from_json(data: bytes) -> RunEvent:
    """The event that ``event_to_json`` wrote.

    Raises:
        AgentError: it is none, or has more than ``MAX_BYTES``.
    """
    with reading("an event"), one_file():
        if len(data) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        return _read(parsed(data))


def _read(data: object) -> RunEvent:
    agents: list[str] = []
    kind, fields = _split(data)
    while kind is Overheard:
        agent, data = _heard(fields)
        agents.append(agent)
        if len(agents) > MAX_TEAM:
            raise ValueError(f"overheard through more than {MAX_TEAM} levels of a team")
        kind, fields = _split(data)
    event: RunEvent = read_record(kind, fields)
    check_marks(event)
    for agent in reversed(agents):
        event = Overheard(agent, event)  # type: ignore[arg-type]  # _heard lets nothing else in
    return event


def _split(data: object) -> tuple[type[Any], Mapping[str, Any]]:
    """The class that an object's kind names, and its fields."""
    if not isinstance(data, dict) or data.get("kind") not in KINDS:
        raise ValueError("an event is an object whose kind is one of " + ", ".join(KINDS))
    return KINDS[data["kind"]], {name: part for name, part in data.items() if name != "kind"}


def _heard(fields: Mapping[str, Any]) -> tuple[str, object]:
    if fields.keys() != {"agent", "event"}:
        raise ValueError("what was overheard is an agent and an event")
    agent = read(fields["agent"])
    if not isinstance(agent, str):
        raise ValueError("an agent's name is no text")
    if _split(fields["event"])[0] in (ApprovalAsked, ApprovalDecided):
        raise ValueError("a question of the service's was overheard")
    return agent, fields["event"]
