"""Waiting for what tells nobody that it has come about."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

DEADLINE = 30.0  # seconds
_LOOK_AGAIN = 0.02  # seconds


def eventually(true: Callable[[], object], what: str | Callable[[], str], seconds: float = DEADLINE) -> None:
    """Waits until ``true()``, without a busy loop and not for ever."""
    deadline = time.monotonic() + seconds
    tick = threading.Event()
    while not true():
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        tick.wait(_LOOK_AGAIN)
