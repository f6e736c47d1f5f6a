"""Replies as JSON objects of a thought and code, for endpoints that can be held to a schema. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.agents.loose_json import NotJson, read_value
from orchestrator.agents.parsing import CodeAction, CodeTags, FormatError, checked_length, extract_code
from orchestrator.agents.thinking import past_thinking

RESPONSE_FORMAT: Mapping[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "ThoughtAndCodeAnswer",
        "strict": True,
        "schema": {
            "type": "object",
            "additionalProperties": False,
            "required": ["thought", "code"],
            "properties": {
                "thought": {"type": "string", "description": "What you do in this step and why."},
                "code": {"type": "string", "description": "Python code, with no tags or fences around it."},
            },
        },
    },
}


def structured_action(reply: str, tags: CodeTags) -> CodeAction | FormatError:
    """The code of a JSON reply; tags or a fence that it wears all the same are taken off.

    A model that ignores the format writes as it is used to: code between tags is taken then, too.
    """
    reply = reply[past_thinking(reply) :]
    found = _object_in(reply)
    if found is None:
        action = extract_code(reply, tags)
        return FormatError(_EXPECTED) if isinstance(action, FormatError) else action
    match found:
        case {"code": str(code), **rest} if code.strip():
            thought = rest.get("thought")
            return checked_length(CodeAction(_bare(code, tags), thought.strip() if isinstance(thought, str) else ""))
    return FormatError(_EXPECTED)


_EXPECTED = (
    "Your reply is not the JSON object that is expected. Answer with exactly this form and nothing around it:\n"
    '{"thought": "what you do in this step and why", "code": "# Python code"}'
)


def _object_in(reply: str) -> Any:
    text = reply.strip()
    if not text.startswith("{"):  # some endpoints put a fence or words around it
        text = text[text.find("{") : text.rfind("}") + 1]
    try:
        value, end = read_value(text)
    except NotJson:
        return None
    return None if text[end:].strip() else value


def _bare(code: str, tags: CodeTags) -> str:
    """Without what stands around all of it; a fence in a literal of the code is none of that."""
    inner = extract_code(code, tags) if code.lstrip().startswith((tags.opening, "```")) else None
    return inner.code if isinstance(inner, CodeAction) else code.strip()
