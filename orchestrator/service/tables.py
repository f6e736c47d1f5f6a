"""Tables on the command line, of what apps and agents said, made safe."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.sanitise import one_line

MAX_CELL = 80  # characters of a cell
PIPED_WIDTH = 240  # columns of a table that no terminal shows: a row is a line


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """On standard output."""
    table = Table(*heads)
    for row in rows:
        table.add_row(*(Text(one_line(cell, MAX_CELL)) for cell in row))
    Console(width=None if sys.stdout.isatty() else PIPED_WIDTH).print(table)


def date(seconds: float) -> str:
    """Of seconds since the epoch, in UTC."""
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M:%S}"
