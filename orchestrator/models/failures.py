"""Which failures of an endpoint may heal, and how an error is told without its keys. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.credentials import KEY_IN_TEXT
from orchestrator.sanitise import one_line

_MAX_REASON = 300  # characters of an endpoint's error text; some send whole HTML pages
_MAX_READ = 4096  # characters of it that are looked at
_HEALING = frozenset({408, 409, 425, 429})  # and every 5xx
NO_CREDIT = "insufficient_quota"  # OpenAI reports it as 429 too; waiting fills no account


def may_heal(status: int, code: object = None) -> bool:
    """Whether an answer with this HTTP status, and OpenAI's ``code`` for it, is worth another try."""
    return (status in _HEALING or status >= 500) and code != NO_CREDIT


def reason(error: BaseException | str, secrets: Iterable[str | None] = ()) -> str:
    """An error's text on one line, short, without ``secrets`` and what else looks like a key."""
    hidden = [secret for secret in secrets if secret]
    # Before it is cut, where half of one would be left; and again once there is nothing between its letters any more.
    text = one_line(_without(hidden, str(error))[:_MAX_READ], _MAX_READ) or type(error).__name__
    return KEY_IN_TEXT.sub("[key]", _without(hidden, text))[:_MAX_REASON]


def _without(secrets: Iterable[str], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, "[key]")
    return text
