"""A line from the person at the terminal, and one question at a time."""

from __future__ import annotations

import asyncio
import os
import termios
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TextIO

# The floor of the terminal that this process was started at: it has one keyboard, whoever asks.
PROCESS_FLOOR = threading.Lock()
_LOOK_AGAIN = 0.02  # seconds between two looks whether the terminal is free
_MAX_LINE = 4096  # bytes that a terminal gives at once


@asynccontextmanager
async def alone(floor: threading.Lock) -> AsyncIterator[None]:
    """Holds ``floor``, as everybody does who asks at this terminal, or prints where a question is open."""
    # Looked for, not waited for: a thread that waited could get the floor when nobody wants it any more.
    while not floor.acquire(blocking=False):  # noqa: ASYNC110 - threads hold it, too
        await asyncio.sleep(_LOOK_AGAIN)
    try:
        yield
    finally:
        floor.release()


async def typed_line(keyboard: TextIO, prompt: Callable[[], object]) -> str | None:
    """What is typed from now on, up to Enter. None if the terminal is closed, or Ctrl-D is pressed.

    A question that is given up leaves nothing behind that reads.

    Args:
        keyboard: a terminal.
        prompt: shows that it is the person's turn.
    """
    loop, source, typed = asyncio.get_running_loop(), keyboard.fileno(), asyncio.Event()
    try:
        termios.tcflush(source, termios.TCIFLUSH)  # what was typed before the question is no answer to it
        prompt()
        loop.add_reader(source, typed.set)
        await typed.wait()
        line = os.read(source, _MAX_LINE)
    except (OSError, termios.error):
        return None
    finally:
        loop.remove_reader(source)
    return line.decode("utf-8", "replace").strip() if line else None
