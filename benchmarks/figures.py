"""One figure, and how a median is taken."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

MILLISECOND = 1e3


@dataclass(frozen=True)
class Figure:
    """One row: median milliseconds, and the floor measured in the same run."""

    name: str
    milliseconds: float
    floor: float | None = None
    floor_name: str = ""


def median_of(count: int, call: Callable[[], object], pause: float = 0.0) -> float:
    """Median milliseconds of ``call``, a tenth as many calls first to warm up."""
    seconds = []
    for turn in range(-(count // 10), count):
        started = time.perf_counter()
        call()
        if turn >= 0:
            seconds.append(time.perf_counter() - started)
        if pause:
            time.sleep(pause)
    return statistics.median(seconds) * MILLISECOND
