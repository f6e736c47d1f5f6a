"""The body of a chat completion -> ``ModelReply``. No I/O; an endpoint may send anything, so every step is checked."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.errors import ModelReplyInvalid
from orchestrator.models.model import ModelReply, TokenUsage

_SHOWN = 120  # characters of a wrong answer in the error


def parse_completion(name: str, body: str) -> ModelReply:
    """The first choice's text and the usage.

    A refusal counts as text: the agent shows it and asks again. No text at all (a reasoning model that spent its
    tokens on thinking) is an empty reply, not an invalid one.

    Raises:
        ModelReplyInvalid: this is no chat completion.
    """
    try:
        completion = json.loads(body)
    except (ValueError, RecursionError):
        raise _invalid(name, "is not JSON", body) from None
    match completion:
        case {"choices": [{"message": {"content": content, **message}}, *_]}:
            text = _text(content if content is not None else message.get("refusal"))
        case {"choices": []}:
            raise _invalid(name, "has no choices", body)
        case _:
            raise _invalid(name, "is no chat completion", body)
    if text is None:
        raise _invalid(name, "has a message that is no text", body)
    return ModelReply(_encodable(text), _usage(completion.get("usage")))


def _text(content: Any) -> str | None:
    """The text of ``content``: a string, or (some servers) a list of parts. None if it is neither."""
    match content:
        case None:
            return ""
        case str():
            return content
        case list():
            parts = [part["text"] for part in content if _is_text_part(part)]
            return "".join(parts) if parts else None
        case _:
            return None


def _is_text_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _encodable(text: str) -> str:
    """JSON can carry half a surrogate pair, UTF-8 cannot: such a half would fail far from here."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _usage(usage: Any) -> TokenUsage | None:
    match usage:
        case {"prompt_tokens": int(read), "completion_tokens": int(written)}:
            return TokenUsage(read, written)
        case _:
            return None


def _invalid(name: str, what: str, body: str) -> ModelReplyInvalid:
    shown = " ".join(_encodable(body[: _SHOWN * 2]).split())[:_SHOWN]
    return ModelReplyInvalid(f"model {name}: the endpoint's answer {what}: {shown!r}")
