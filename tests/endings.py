"""How an execution may end: its status, and what became of the variables."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from orchestrator import State, Status

T = TypeVar("T")

Ending = tuple[Status, State]
OK: Ending = (Status.OK, State.KEPT)
ERROR: Ending = (Status.ERROR, State.KEPT)
DENIED: Ending = (Status.IMPORT_DENIED, State.KEPT)
HEARD: Ending = (Status.TIMEOUT, State.KEPT)  # the interrupt ended it
KILLED: Ending = (Status.TIMEOUT, State.RESTORED)
DIED: Ending = (Status.DIED, State.RESTORED)
DIED_LOST: Ending = (Status.DIED, State.LOST)
TIMEOUT_LOST: Ending = (Status.TIMEOUT, State.LOST)
OK_LOST: Ending = (Status.OK, State.LOST)
OUT_OF_MEMORY: Ending = (Status.OUT_OF_MEMORY, State.RESTORED)
FLOODED: Ending = (Status.OUTPUT_LIMIT, State.RESTORED)
TRIES = 3


def tried(once: Callable[[], T], came_too_late: Callable[[T], bool]) -> T:
    """What comes of it, again if it came too late: on a busy machine it does now and then, by a fault every time."""
    for _ in range(TRIES - 1):
        if not came_too_late(come := once()):
            return come
    return once()
