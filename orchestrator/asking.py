"""Asks the person at the terminal whether code may run and tools may be called. Without a plain yes, they may not."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal, TextIO

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from orchestrator.policy import ExecutionRequest, Request, ToolCallRequest, Verdict
from orchestrator.sanitise import visible

What = Literal["ask", "tools", "executions"]
MAX_SHOWN = 50_000  # characters: what is too long to be read is not asked about but refused
_LOOK_AGAIN = 0.02  # seconds between two looks whether the terminal is free
_MAX_LINE = 4096  # bytes that a terminal gives at once
_YES = frozenset({"y", "yes"})
_NO = frozenset({"n", "no"})


class TerminalApprover:
    """An approver for ``Sandbox`` or ``CodeAgent``. Questions come one after the other.

    Args:
        what: ``tools`` or ``executions`` to be asked about these alone, ``ask`` for both.
        keyboard: where answers come from; a terminal.
        console: where questions are shown.
        floor: held while a question is open. Whoever else prints there holds it while printing: what the code prints
            meanwhile could look like another question.
    """

    def __init__(
        self,
        what: What = "ask",
        keyboard: TextIO | None = None,
        console: Console | None = None,
        floor: threading.Lock | None = None,
    ) -> None:
        self._what = what
        self._keyboard = keyboard or sys.stdin
        self._console = console or Console()
        self._floor = floor or threading.Lock()

    @property
    def has_terminal(self) -> bool:
        """True if there is somebody to ask."""
        return self._keyboard.isatty() and self._console.is_terminal

    async def __call__(self, request: Request) -> Verdict:
        """Shows the request and waits for an answer."""
        match request:
            case ExecutionRequest(code) if self._what != "tools":
                return await self._judge("May this code run?", code)
            case ToolCallRequest(tool, arguments) if self._what != "executions":
                lines = "".join(f"    {name} = {value!r},\n" for name, value in arguments.items())
                return await self._judge("May this tool be called?", f"{tool}(\n{lines})" if lines else f"{tool}()")
        return Verdict(True)

    async def _judge(self, question: str, what: str) -> Verdict:
        if not self.has_terminal:
            return Verdict(False, "there is no terminal to ask at")
        if len(what) > MAX_SHOWN:
            return Verdict(False, f"it is too long to be read, {len(what):,} characters; at most {MAX_SHOWN:,}")
        async with self._alone():
            self._console.print()
            # In a frame, line by line: nothing in it can be taken for the question, or for an answer.
            self._console.print(Panel(Text(visible(what)), title=question, title_align="left", border_style="yellow"))
            try:
                return _verdict(await self._line("y, or n and a reason: "))
            except asyncio.CancelledError:
                self._console.print("\n(no answer is needed any more)")
                raise

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        # Looked for, not waited for: a thread that waited could get the floor when nobody wants it any more.
        while not self._floor.acquire(blocking=False):  # noqa: ASYNC110 - threads hold it, too
            await asyncio.sleep(_LOOK_AGAIN)
        try:
            yield
        finally:
            self._floor.release()

    async def _line(self, prompt: str) -> str | None:
        """What is typed from now on, up to Enter. None if the terminal is closed, or Ctrl-D is pressed."""
        loop, keyboard, typed = asyncio.get_running_loop(), self._keyboard.fileno(), asyncio.Event()
        try:
            termios.tcflush(keyboard, termios.TCIFLUSH)  # what was typed before the question is no answer to it
            self._console.print(prompt, end="")
            loop.add_reader(keyboard, typed.set)
            await typed.wait()
            line = os.read(keyboard, _MAX_LINE)
        except (OSError, termios.error):
            return None
        finally:
            loop.remove_reader(keyboard)
        return line.decode("utf-8", "replace").strip() if line else None


def _verdict(line: str | None) -> Verdict:
    if line is None:
        return Verdict(False, "nobody answered")
    word, _, rest = line.partition(" ")
    if line.lower() in _YES:
        return Verdict(True)
    return Verdict(False, rest.strip() if word.lower().rstrip(",:") in _NO else line)
