"""Asks the person at the terminal whether code may run and tools may be called. Without a plain yes, they may not."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Mapping
from typing import Any, Literal, TextIO

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from orchestrator.keyboard import PROCESS_FLOOR, alone, typed_line
from orchestrator.policy import ExecutionRequest, Request, ToolCallRequest, Verdict
from orchestrator.sanitise import visible

What = Literal["ask", "tools", "executions"]
# What is too long to be read is not asked about but refused.
MAX_SHOWN = 50_000  # characters, as they are shown
MAX_LINES = 500  # a dozen screens: of what has scrolled away nobody can say yes
_YES = frozenset({"y", "yes"})
_NO = frozenset({"n", "no"})


class TerminalApprover:
    """An approver for ``Sandbox`` or ``CodeAgent``. Questions come one after the other.

    Args:
        what: ``tools`` or ``executions`` to be asked about these alone, ``ask`` for both.
        keyboard: where answers come from; a terminal.
        console: where questions are shown.
        floor: held while a question is open. Whoever else prints there holds it while printing: what the code prints
            meanwhile could look like another question. Of standard input it is ``PROCESS_FLOOR`` by default.
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
        self._floor = floor or (threading.Lock() if keyboard else PROCESS_FLOOR)

    @property
    def has_terminal(self) -> bool:
        """True if there is somebody to ask."""
        return self._keyboard.isatty() and self._console.is_terminal

    async def __call__(self, request: Request) -> Verdict:
        """Shows the request and waits for an answer."""
        match request:
            case ExecutionRequest(code, _, variables) if self._what != "tools":
                return await self._judge("May this code run?", text_of_code(code, variables))
            case ToolCallRequest(tool, arguments) if self._what != "executions":
                return await self._judge("May this tool be called?", text_of_call(tool, arguments))
        return Verdict(True)

    async def _judge(self, question: str, what: str) -> Verdict:
        if not self.has_terminal:
            return Verdict(False, "there is no terminal to ask at")
        shown = visible(what[: MAX_SHOWN + 1])  # which never makes it shorter
        if len(shown) > MAX_SHOWN:
            return Verdict(False, f"it is too long to be read: more than {MAX_SHOWN:,} characters, as they are shown")
        if (lines := shown.count("\n") + 1) > MAX_LINES:
            return Verdict(False, f"it is too long to be read, {lines:,} lines; at most {MAX_LINES:,}")
        async with alone(self._floor):
            self._console.print()
            # In a frame, line by line: nothing in it can be taken for the question, or for an answer.
            self._console.print(Panel(Text(shown), title=question, title_align="left", border_style="yellow"))
            try:
                return _verdict(await typed_line(self._keyboard, self._prompt))
            except asyncio.CancelledError:
                self._console.print("\n(no answer is needed any more)")
                raise

    def _prompt(self) -> None:
        self._console.print("y, or n and a reason: ", end="")


def text_of_code(code: str, variables: Mapping[str, Any]) -> str:
    """All of an execution, for who has to judge it: what it is given, and what it does."""
    given = "".join(f"{name} = {value!r}\n" for name, value in variables.items())
    return f"{given}\n{code}" if given else code


def text_of_call(tool: str, arguments: Mapping[str, Any]) -> str:
    """All of a tool call, the same."""
    lines = "".join(f"    {name} = {value!r},\n" for name, value in arguments.items())
    return f"{tool}(\n{lines})" if lines else f"{tool}()"


def _verdict(line: str | None) -> Verdict:
    if line is None:
        return Verdict(False, "nobody answered")
    word, _, rest = line.partition(" ")
    if line.lower() in _YES:
        return Verdict(True)
    return Verdict(False, rest.strip() if word.lower().rstrip(",:") in _NO else line)
