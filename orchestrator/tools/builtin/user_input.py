"""Asks the person at the terminal."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from textwrap import indent
from typing import TextIO

from orchestrator.keyboard import PROCESS_FLOOR, alone, typed_line
from orchestrator.sanitise import visible
from orchestrator.tools.schema import Schema
from orchestrator.tools.tool import Tool

MAX_QUESTION = 4000  # characters: a longer one is not read by anybody


class UserInputTool(Tool):
    """Shows a question and waits for a line. Questions come one after the other.

    Args:
        keyboard: where answers come from, a terminal; standard input by default.
        screen: where questions are shown; standard output by default.
        floor: held while a question is open. Whoever else asks at this terminal holds it while asking; of standard
            input it is ``PROCESS_FLOOR`` by default.
    """

    name = "user_input"
    description = "Asks the user a question and gives their answer, one line. Use it only for what no other tool knows."
    inputs: Mapping[str, Schema] = {"question": {"type": "string", "description": "the question"}}
    output_type = "string"
    timeout = 3600.0  # people take their time

    def __init__(
        self, keyboard: TextIO | None = None, screen: TextIO | None = None, floor: threading.Lock | None = None
    ) -> None:
        self._keyboard = keyboard or sys.stdin
        self._screen = screen or sys.stdout
        self._floor = floor or (threading.Lock() if keyboard else PROCESS_FLOOR)

    async def forward(self, question: str) -> str:
        """The answer.

        Raises:
            EOFError: there is no terminal, or nobody answers at it.
        """
        if not self._keyboard.isatty():
            raise EOFError("nobody can be asked: standard input is no terminal")
        async with alone(self._floor):
            # Line by line behind a bar: no part of it can be taken for something else that is shown there.
            print(indent(visible(question[:MAX_QUESTION]), "│ ", lambda _: True), file=self._screen)
            line = await typed_line(self._keyboard, self._prompt)
        if line is None:
            raise EOFError("nobody answered: the terminal was closed")
        return line

    def _prompt(self) -> None:
        print("answer: ", end="", file=self._screen, flush=True)
