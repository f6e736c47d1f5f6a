"""What the session writes: made safe for a terminal, as it is to a file or a pipe."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.events import Stream
from orchestrator.sanitise import sanitise

MAX_VALUE = 20_000  # characters of a value shown on a terminal: more scrolls everything else away
_RED, _YELLOW, _PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[0m"


class Screen:
    """Writes to standard output and standard error, whether they are a terminal or not."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err
        self._unfinished: TextIO | None = None  # where the last line written has no end yet

    def output(self, stream: Stream, text: str) -> None:
        """A piece of what the code wrote."""
        if stream == "stdout":
            self._write(self._out, text)
        else:
            self._write(self._err, text, _RED)

    def value(self, text: str) -> None:
        """The repr of the last expression."""
        if self._out.isatty() and len(text) > MAX_VALUE:
            text = f"{text[:MAX_VALUE]}… ({len(text) - MAX_VALUE:,} more characters)"
        self._line(self._out, text)

    def failure(self, text: str) -> None:
        """A traceback."""
        self._line(self._err, text.removesuffix("\n"), _RED)

    def note(self, text: str) -> None:
        """What the user has to know and did not ask for, in one line."""
        self._line(self._err, text, _YELLOW)

    def say(self, text: str) -> None:
        """The answer to a command."""
        self._line(self._out, text)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """The answer to a command, as a table."""
        self.finish_line()
        table = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for row in rows:
            table.add_row(*(Text(sanitise(cell)) for cell in row))
        Console(file=self._out, highlight=False).print(table)

    def finish_line(self) -> None:
        """What is written next begins a line."""
        if self._unfinished:
            self._unfinished.write("\n")
            self._unfinished.flush()
            self._unfinished = None

    def _line(self, stream: TextIO, text: str, colour: str = "") -> None:
        self.finish_line()
        self._write(stream, text, colour)
        self.finish_line()

    def _write(self, stream: TextIO, text: str, colour: str = "") -> None:
        stream.write(_for_terminal(text, colour) if stream.isatty() else _encodable(text, stream))
        stream.flush()
        self._unfinished = None if text.endswith("\n") else stream


def _for_terminal(text: str, colour: str) -> str:
    safe = sanitise(text)
    return f"{colour}{safe}{_PLAIN}" if colour and not os.environ.get("NO_COLOR") else safe


def _encodable(text: str, stream: TextIO) -> str:
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)
