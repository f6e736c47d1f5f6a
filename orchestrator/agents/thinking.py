"""A reasoning model's draft at the beginning of its reply: it may hold drafts of code and of calls. No I/O."""

from __future__ import annotations

_OPENED, _CLOSED = "<think>", "</think>"


def past_thinking(text: str) -> int:
    """Where the draft ends: 0 if there is none, the length of the text if the draft was cut off.

    Some templates write the opening tag themselves, so that a reply may begin inside of the draft.
    """
    end = text.find(_CLOSED)
    opened = text.lstrip().startswith(_OPENED)
    if end < 0:
        return len(text) if opened else 0
    return end + len(_CLOSED) if opened or text[:end].endswith("\n") else 0
