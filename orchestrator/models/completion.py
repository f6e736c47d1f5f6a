"""Chat completions -> ``ModelReply``, and their chunks -> ``ModelDelta``. No I/O.

An endpoint may send anything, so every step is checked. Thoughts (``reasoning_content`` and the like) are left out.

https://platform.openai.com/docs/api-reference/chat/object
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeGuard

from orchestrator.errors import ModelReplyInvalid
from orchestrator.models.failures import reason
from orchestrator.models.model import ModelDelta, ModelReply, TokenUsage, ToolCallDelta
from orchestrator.models.tool_calls import (
    MAX_NAME,
    MAX_TOOL_CALLS,
    Malformed,
    checked_name,
    encodable,
    sent_call,
    tool_calls,
)

Secrets = Iterable[str | None]

_SHOWN = 120  # characters of a wrong answer in the error
MAX_TOKENS = 10**12  # of one call, in a count that can be meant
_SAYS = frozenset({"content", "refusal", "tool_calls", "reasoning_content", "reasoning"})  # one of them makes a message


def parse_json(name: str, body: str, secrets: Secrets = ()) -> Any:
    """The JSON value that an endpoint's answer is. ``secrets`` are not told in the error: it may quote its request.

    Raises:
        ModelReplyInvalid: it is none.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise _invalid(name, "is not JSON", body, secrets) from None


def reply_of(name: str, completion: Any, secrets: Secrets = ()) -> ModelReply:
    """The first choice's text and tool calls, and the usage. ``name`` is the model's, for the error.

    ``secrets`` are not told there.

    A refusal counts as text: the agent shows it and asks again. No text at all (a reasoning model that spent its
    tokens on thinking) is an empty reply, not an invalid one.

    Raises:
        ModelReplyInvalid: this is no chat completion.
    """
    match completion:
        case {"choices": [{"message": dict() as message}, *_]} if _SAYS & message.keys():
            pass
        case {"choices": []}:
            raise _invalid(name, "has no choices", completion, secrets)
        case _:
            raise _invalid(name, "is no chat completion", completion, secrets)
    try:
        calls = tool_calls([sent_call(call) for call in _calls(message)])
        return ModelReply(_text(message), _usage(completion), calls)
    except Malformed as error:
        raise _invalid(name, str(error), completion, secrets) from None


class ChunkReader:
    """The chunks of one streamed completion -> ``ModelDelta``, one each.

    Servers disagree on how the pieces of a tool call are marked. Here each call has one index, in the order in which
    calls appear, and its name and id come once. A piece belongs to the call with its ``index``; without one, to the
    call with its ``id``; without that, to the latest. It begins a call of its own if there is none such, or if it has a
    name and neither of the two, or a name and another id than the call with its index.

    Attributes:
        finished: the model has ended its reply, as opposed to the connection.
    """

    def __init__(self, name: str, secrets: Secrets = ()) -> None:
        self._name = name
        self._secrets = secrets
        self._calls: list[_Call] = []
        self.finished = False

    def delta(self, chunk: Any) -> ModelDelta:
        """What ``chunk`` adds. A whole completion is taken too: some servers answer with it although asked to stream.

        Raises:
            ModelReplyInvalid: this is no chunk.
        """
        choice: dict[str, Any] = {}
        match chunk:
            case {"choices": [dict() as first, *_]}:
                choice = first if first.get("index") in (0, None) else {}
            case {"choices": [] | None} | {"usage": {}}:
                pass
            case _:
                raise _invalid(self._name, "has a part that is no chunk of a completion", chunk, self._secrets)
        said = choice.get("delta") or choice.get("message") or {}
        if not isinstance(said, dict):
            raise _invalid(self._name, "has a part that is no chunk of a completion", chunk, self._secrets)
        self.finished = self.finished or isinstance(choice.get("finish_reason"), str)
        try:
            return ModelDelta(_text(said), tuple(self._pieces(said)), _usage(chunk))
        except Malformed as error:
            raise _invalid(self._name, str(error), chunk, self._secrets) from None

    def _pieces(self, said: Mapping[str, Any]) -> Iterator[ToolCallDelta]:
        for piece in _calls(said):
            match piece:
                case {"function": dict() as function}:
                    yield self._piece(piece, function)
                case {"index": int()} | {"id": str()}:
                    yield self._piece(piece, {})
                case _:
                    raise Malformed("has a piece of a tool call that is none")

    def _piece(self, piece: Mapping[str, Any], function: Mapping[str, Any]) -> ToolCallDelta:
        name, id = checked_name(_string(function.get("name"))), _short(piece.get("id"))
        call = self._call(piece.get("index"), id, name)
        new_name, new_id = "" if call.name else name, "" if call.id else id
        call.name, call.id = call.name or name, call.id or id
        return ToolCallDelta(call.position, _arguments_piece(function.get("arguments")), new_name, new_id)

    def _call(self, index: Any, id: str, name: str) -> _Call:
        """The call that a piece with these marks belongs to."""
        known = self._known(index, id, name)
        if known is not None and not (name and id and known.id and known.id != id):
            return known
        if len(self._calls) >= MAX_TOOL_CALLS:
            raise Malformed(f"has more than {MAX_TOOL_CALLS} tool calls")
        self._calls.append(_Call(len(self._calls), index))
        return self._calls[-1]

    def _known(self, index: Any, id: str, name: str) -> _Call | None:
        latest = reversed(self._calls)
        if isinstance(index, int):
            return next((call for call in latest if call.index == index), None)
        if id and (name or any(call.id == id for call in self._calls)):
            return next((call for call in latest if call.id == id), None)
        return None if name else next(latest, None)


class _Call:
    """What is known of a tool call that is still coming."""

    def __init__(self, position: int, index: Any) -> None:
        self.position = position
        self.index = index  # as the server counts
        self.name = ""
        self.id = ""


def _calls(message: Mapping[str, Any]) -> list[Any]:
    match message:
        case {"tool_calls": list(calls)}:
            return calls
        case {"tool_calls": other} if other is not None:
            raise Malformed("has tool calls that are no list")
        case _:
            return []


def _text(message: Mapping[str, Any]) -> str:
    """The text of a message: a string, or (some servers) a list of parts; else why the model refuses."""
    match message.get("content"):
        case str(text):
            pass
        case list(parts):
            text = "".join(part["text"] for part in parts if _is_text_part(part))
        case None:
            text = ""
        case _:
            raise Malformed("has a message that is no text")
    return encodable(text or _string(message.get("refusal")))


def _is_text_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _arguments_piece(sent: Any) -> str:
    """A piece of a call's JSON text. Some servers send the arguments whole, as an object."""
    match sent:
        case None:
            return ""
        case str():
            return encodable(sent)
        case _:
            return json.dumps(sent)


def _string(sent: Any) -> str:
    return sent if isinstance(sent, str) else ""


def _short(id: Any) -> str:
    """An id that can be used; another one is as good as none."""
    return encodable(id) if isinstance(id, str) and len(id) <= MAX_NAME else ""


def _usage(completion: Mapping[str, Any]) -> TokenUsage | None:
    match completion.get("usage"):
        case {"prompt_tokens": read, "completion_tokens": written} if is_count(read) and is_count(written):
            return TokenUsage(read, written)
        case _:
            return None


def is_count(sent: Any) -> TypeGuard[int]:
    """Whether it is a number of tokens that can be meant: no bool, none with thousands of digits."""
    return type(sent) is int and 0 <= sent <= MAX_TOKENS


def _invalid(name: str, what: str, answer: Any, secrets: Secrets) -> ModelReplyInvalid:
    text = answer if isinstance(answer, str) else as_text(answer)
    shown = reason(text, secrets)[:_SHOWN]  # an endpoint may echo what it was sent
    return ModelReplyInvalid(f"model {name}: the endpoint's answer {what}: {shown!r}")


def as_text(answer: Any) -> str:
    """A parsed JSON value as text again, for people."""
    try:
        return json.dumps(answer)
    except RecursionError:
        return "(deeply nested)"
