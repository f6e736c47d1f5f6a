"""What an MCP tool answered, as a plain value. It is hostile: bounded, decoded no further than base64, never a path."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.media import media_of

MAX_PARTS = 1000  # of one result
MAX_BYTES = 32 << 20  # of its texts and data together, as they came; a sandbox's own bound for one value is lower
MAX_ERROR = 4000  # characters of an error's text: it goes into the model's prompt


def result_value(result: Any, structured: bool | None, wrapped: bool) -> Any:
    """The value of a ``CallToolResult`` that is no error.

    Its structured content if it has some (with its pictures and sounds, if there are any, in a list behind it), else
    its parts: one by itself, several as a list, none as None. A text is a str, a picture an ``AgentImage``, sound an
    ``AgentAudio``, data of another format bytes, a link its address.

    Args:
        result: what came.
        structured: False leaves structured content out.
        wrapped: it is ``{"result": value}`` because the server cannot send the value itself: give that.

    Raises:
        ValueError: it is over a bound, or its data is no base64.
    """
    _check_size(result)
    parts = [_value(part) for part in result.content]
    if structured is not False and result.structured_content is not None:
        return _structured(result.structured_content, parts, wrapped)
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else parts


def _structured(value: Any, parts: Sequence[Any], wrapped: bool) -> Any:
    if wrapped and isinstance(value, Mapping) and value.keys() == {"result"}:
        value = value["result"]
    media = [part for part in parts if not isinstance(part, str)]
    return [value, *media] if media else value


def error_text(result: Any) -> str:
    """What a result says that is an error."""
    texts = [part.text for part in result.content[:MAX_PARTS] if part.type == "text"]
    return "\n".join(texts)[:MAX_ERROR] or "the tool failed and does not say why"


def _check_size(result: Any) -> None:
    if len(result.content) > MAX_PARTS:
        raise ValueError(f"the server's result has {len(result.content):,} parts; at most {MAX_PARTS:,} are taken")
    size = sum(len(text) for part in result.content for text in _texts(part))
    if size > MAX_BYTES:
        raise ValueError(f"the server's result has {size:,} bytes; at most {MAX_BYTES:,} are taken")


def _texts(part: Any) -> Iterable[str]:
    resource = getattr(part, "resource", None)
    return (
        text
        for name in ("text", "data", "blob", "uri")
        if isinstance(text := getattr(resource or part, name, None), str)
    )


def _value(part: Any) -> Any:
    match part.type:
        case "text":
            return part.text
        case "image" | "audio":
            return _media(part.data, part.mime_type)
        case "resource_link":
            return str(part.uri)
        case _:  # a resource; the client has checked that there is no other
            text = getattr(part.resource, "text", None)
            return text if text is not None else _media(part.resource.blob, part.resource.mime_type or "")


def _media(data: str, mime: str) -> Any:
    """A picture or sound; bytes if they are of a kind that is not known here, or not what they are said to be."""
    try:
        decoded = base64.b64decode(data, validate=True)
    except binascii.Error:
        raise ValueError("the server's result has data that is no base64") from None
    try:
        return media_of(decoded, mime)
    except ConfigError:
        return decoded
