"""HTML as Markdown, converted in a process of its own that is bounded in memory and time."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

_PROGRAM = Path(__file__).with_name("convert_html.py")
# What Python needs to find its packages. Nothing else of the environment is the converter's business: keys are there.
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
_SECONDS = 15.0  # of waiting: more than the processor time that the process may use


async def to_markdown(html: str, base_url: str, max_characters: int) -> tuple[str, bool]:
    """The page as Markdown, at most ``max_characters`` of it, and whether there is more. Links become absolute.

    Raises:
        OSError: it cannot be converted within the bounds.
    """
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", str(_PROGRAM), base_url, str(max_characters)),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        env=environment,
    )
    try:
        async with asyncio.timeout(_SECONDS):
            output, _ = await process.communicate(html.encode("utf-8", "replace"))
    except TimeoutError:
        output = b""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise OSError("the page cannot be turned into text")
    text = output.decode("utf-8", "replace")
    return text[:max_characters], len(text) > max_characters
