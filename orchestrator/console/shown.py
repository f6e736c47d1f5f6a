"""Messages of the API as JSON for the page. The page shows all of it as text."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

from orchestrator_api.v1 import orchestrator_pb2 as pb

from orchestrator.agents.event_json import event_from_json
from orchestrator.asking import text_of_call, text_of_code
from orchestrator.errors import AgentError
from orchestrator.events import ApprovalAsked
from orchestrator.sanitise import visible

MAX_EVENT = 1 << 20  # bytes of an event's JSON that go to the page as they are
MAX_TEXT = 200_000  # characters of each text in a longer one: the page shows no more of one
MAX_ITEMS = 2000  # items of each list or object in a longer one; the page shows fewer rows of a table
MAX_SENT = 32 << 20  # characters of JSON of one: a browser can hold that; four pictures or so
MAX_PICTURE = 6 << 20  # characters of a picture in Base64: 4 MiB of it
MAX_JUDGED = 100_000  # characters of what somebody has to judge, as they are shown: nobody reads more
# An event has no more of such a value than its repr. Within a text the quotes would have backslashes before them.
_OPAQUE = b'"$type":"opaque"'
_CUT = "…[cut]"


def run(message: pb.Run) -> dict[str, Any]:
    """A run. Its answer is in its events."""
    return {
        "id": message.id,
        "agent": message.agent,
        "task": message.task[:MAX_TEXT],
        "state": pb.Run.State.Name(message.state).removeprefix("STATE_").lower(),
        "owner": message.owner,
        "created": message.created,
        "started": message.started,
        "ended": message.ended,
        "steps": message.steps,
        "events": message.events,
        "input_tokens": message.input_tokens,
        "output_tokens": message.output_tokens,
        "error": message.error,
        "can_resume": message.can_resume,
        "sandbox": message.sandbox,
        "questions": [question.id for question in message.questions],  # what they ask is in the events
    }


def sandbox(message: pb.Sandbox) -> dict[str, Any]:
    """A sandbox."""
    return {
        "id": message.id,
        "name": message.name,
        "state": pb.Sandbox.State.Name(message.state).removeprefix("STATE_").lower(),
        "parent": message.parent,
        "run": message.run,
        "owner": message.owner,
        "created": message.created,
        "executions": message.executions,
        "imports": list(message.authorized_imports),
        "forkable": message.forkable,
        "tools": list(message.tool_names),
    }


def checkpoint(message: pb.CheckpointInfo) -> dict[str, Any]:
    """A checkpoint."""
    return {
        "number": message.number,
        "name": message.name,
        "execution": message.execution_count,
        "follows": message.follows if message.HasField("follows") else None,
        "age": message.age_seconds,
        "memory": message.memory_bytes,
        "has_files": message.has_files,
        "is_current": message.is_current,
        "container": message.container,
    }


def status(message: pb.ServiceStatus) -> dict[str, Any]:
    """The service."""
    return {
        "version": message.version,
        "started": message.started,
        "sandboxes": message.sandboxes,
        "runs": message.runs,
        "queued": message.queued,
        "agents": list(message.agents),
    }


def event(number: int, time: float, data: bytes | None) -> str:
    """An event as one line of JSON: its number, its time, and itself, with what is too long in it cut."""
    text = _left_out("is too large to be shown here") if data is None else _shown(data)
    return f'{{"number":{number},"time":{json.dumps(time)},"event":{text}}}'


def _shown(data: bytes) -> str:
    try:
        event = json.loads(data)
        if event["kind"] == "approval_asked":
            event = _question(data, event)
        elif len(data) > MAX_EVENT:
            event = cut(event)
        text = json.dumps(event, separators=(",", ":"))
    except (ValueError, TypeError, KeyError, RecursionError):
        return _left_out("cannot be read")
    return text if len(text) <= MAX_SENT else _left_out("is too large to be shown here")


def _question(data: bytes, event: dict[str, Any]) -> dict[str, Any]:
    """With one text of all that is asked about; without, if there is none: nobody can say yes to what he cannot see."""
    arguments = event.pop("arguments", {})
    text = _judged(data)
    pictures = [one for one in arguments.values() if isinstance(one, dict) and one.get("$type") == "media"]
    rest = {name: cut(value) for name, value in event.items() if name != "code"}
    return rest | {"shown": text, "pictures": pictures if text is not None else []}


def _judged(data: bytes) -> str | None:
    if _OPAQUE in data:
        return None
    try:
        asked = event_from_json(data)
        assert isinstance(asked, ApprovalAsked)
        whole = text_of_call(asked.tool, asked.arguments) if asked.tool else text_of_code(asked.code, asked.arguments)
    except (AgentError, ValueError):  # a number of too many digits
        return None
    text = visible(whole[: MAX_JUDGED + 1])  # which never makes it shorter
    return text if len(text) <= MAX_JUDGED else None


def _left_out(why: str) -> str:
    return json.dumps({"kind": "left_out", "reason": f"An event {why}."})


def cut(value: Any) -> Any:
    """``value`` with long texts and lists cut; pictures stay whole, as they are none otherwise."""
    match value:
        case str():
            return value if len(value) <= MAX_TEXT else value[:MAX_TEXT] + _CUT
        case list():
            return [cut(item) for item in value[:MAX_ITEMS]]
        case {"$type": "bytes" | "media", "data": str(data)} if len(data) <= MAX_PICTURE:
            return value
        case dict():
            return {key[:MAX_TEXT]: cut(item) for key, item in islice(value.items(), MAX_ITEMS)}
    return value
