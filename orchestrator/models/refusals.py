"""Which parameter of a request an endpoint's error says that it does not take. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable

_STATUS = frozenset({400, 422})  # 422: what servers on FastAPI say
_NOT_TAKEN = re.compile(
    r"(?:not|n't) (?:be )?(?:support|permit|allow|accept)|unsupported|unknown|unrecogni[sz]ed|unexpected|invalid",
    re.IGNORECASE,
)


def refused_parameter(status: int, message: str, named: str | None, candidates: Iterable[str]) -> str | None:
    """The one of ``candidates`` that was refused, if it was one.

    Args:
        status: of HTTP.
        message: the error's text.
        named: the parameter that the error names by itself, in OpenAI's ``param``.
        candidates: what was sent and can be left out.
    """
    if status not in _STATUS:
        return None
    for name in candidates:
        if named == name or (_NOT_TAKEN.search(message) and re.search(rf"(?<![\w-]){name}(?![\w-])", message)):
            return name
    return None
