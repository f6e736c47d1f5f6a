"""What an endpoint of Amazon Bedrock answers over its Converse API, for ``chat_server`` to serve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.unit.chat_server import Answer, whole
from tests.unit.event_stream import event

USAGE = {"inputTokens": 7, "outputTokens": 3, "totalTokens": 10}


def answer(*blocks: Mapping[str, Any], usage: Mapping[str, int] = USAGE) -> Answer:
    """A reply of these blocks, such as ``{"text": "hello"}``."""
    message = {"role": "assistant", "content": list(blocks)}
    return whole({"output": {"message": message}, "stopReason": "end_turn", "usage": usage})


def stream(*events: bytes, **more: Any) -> Answer:
    """A streamed reply of these events; ``more`` as of ``Answer``. ``END`` is how it regularly ends."""
    return Answer(events, headers={"Content-Type": "application/vnd.amazon.eventstream"}, **more)


def text_piece(text: str, block: int = 0) -> bytes:
    """Some text of a streamed reply."""
    return event("contentBlockDelta", {"contentBlockIndex": block, "delta": {"text": text}})


END = (event("messageStop", {"stopReason": "end_turn"}), event("metadata", {"usage": USAGE}))
