"""What a piece of work costs this thread."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

BOUNDED = 5.0  # seconds; what grows with the square of hostile data takes longer if there is enough of it


def seconds_of(work: Callable[[], object]) -> float:
    """The processor's seconds that this thread works: neither other threads count nor what other tests left to free."""
    gc.collect()
    gc.disable()
    try:
        begun = time.thread_time()
        work()
        return time.thread_time() - begun
    finally:
        gc.enable()
