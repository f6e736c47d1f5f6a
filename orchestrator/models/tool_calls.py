"""Tool calls as an endpoint sent them -> ``ChatToolCall``. No I/O; an endpoint may send anything."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.models.chat_format import parsed_arguments
from orchestrator.models.model import ChatToolCall

MAX_TOOL_CALLS = 128  # in one reply, each of which becomes a step's work; also the most tools that OpenAI takes
MAX_NAME = 256  # characters of a name or an id; OpenAI's names have 64 at most, ids about 40


class Malformed(Exception):
    """Something in an answer is not what it must be. The text says what, to follow "the endpoint's answer"."""


@dataclass(frozen=True, slots=True)
class SentCall:
    """A tool call as it was sent: nothing of it is certain but that the name is short."""

    name: str
    arguments: Any
    id: Any


def sent_call(call: Any) -> SentCall:
    """One entry of ``tool_calls``.

    Raises:
        Malformed: it is none.
    """
    match call:
        case {"function": {"name": str(name), **function}, **more}:
            return SentCall(checked_name(name), function.get("arguments"), more.get("id"))
        case _:
            raise Malformed("has a tool call without a name")


def checked_name(name: str) -> str:
    """``name``, as text that can be encoded.

    Raises:
        Malformed: it is too long for a name.
    """
    if len(name) > MAX_NAME:
        raise Malformed(f"has a tool call with a name of {len(name):,} characters")
    return encodable(name)


def tool_calls(sent: Sequence[SentCall]) -> tuple[ChatToolCall, ...]:
    """``sent`` with parsed arguments, and an id of its own for each: one that is missing or repeated is replaced.

    Raises:
        Malformed: there are more than ``MAX_TOOL_CALLS``.
    """
    if len(sent) > MAX_TOOL_CALLS:
        raise Malformed(f"has more than {MAX_TOOL_CALLS} tool calls")
    ids = _unique_ids(call.id for call in sent)
    return tuple(ChatToolCall(call.name, _arguments(call.arguments), id) for call, id in zip(sent, ids, strict=True))


def encodable(text: str) -> str:
    """JSON can carry half a surrogate pair, UTF-8 cannot: such a half would fail far from here."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _arguments(sent: Any) -> Any:
    value = parsed_arguments(sent)
    if isinstance(value, str):
        return encodable(value)
    try:  # there and back makes every text in it one that can be encoded
        return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except RecursionError:  # too deep to be written, and so to be sent back to the model
        return encodable(sent) if isinstance(sent, str) else {}


def _unique_ids(sent: Iterable[Any]) -> list[str]:
    ids = [encodable(id) if isinstance(id, str) and 0 < len(id) <= MAX_NAME else None for id in sent]
    taken = set(ids)
    unique: list[str] = []
    for id in ids:
        unique.append(id if id is not None and id not in unique else _free_id(taken))
    return unique


def _free_id(taken: set[str | None]) -> str:
    number = next(number for number in range(1, len(taken) + 2) if f"call_{number}" not in taken)
    taken.add(f"call_{number}")
    return f"call_{number}"
