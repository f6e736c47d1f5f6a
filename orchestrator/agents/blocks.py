"""Where the code blocks of a reply are, of three kinds; better kinds first:

1. the configured tags;
2. fences that say Python: three backticks and ``python`` or ``py``;
3. fences that say nothing.

A tag and a fence right after one another are one block of the better kind. Either closing ends any block (models mix
them up). A block whose closing is missing reaches to the next opening, or to the end of the reply: most endpoints cut
the closing off as the stop sequence. Everything here is linear in the length of the reply.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from orchestrator.agents.literals import PythonScanner

# At three backticks: the language, if the rest of the line may be an info string (CommonMark 4.5: it has no backtick).
_FENCE = re.compile(r"```[ \t]*([\w+#.-]*)[^\n`]*(?=\n|\Z)|```(python3?|py)\b", re.IGNORECASE)
_FENCE_PLACE = r"^[ \t]*```|```(?=python3?\b|py\b)"  # within a line only a Python fence is one
_PYTHON = frozenset({"python", "python3", "py"})
_FOREIGN_END = re.compile(r"^[ \t]*```[ \t]*$", re.MULTILINE)
_FAR = 200  # characters to look back for the start of a line: to its real start would cost the square of a long line
_BLANK = re.compile(r"\s*")


class Kind(IntEnum):
    """What a block is marked as; a higher one is preferred."""

    OTHER = 0  # a fence of another language
    BARE = 1
    PYTHON = 2
    TAGGED = 3


@dataclass(frozen=True, slots=True)
class Block:
    """``start`` is where its opening stands. ``cut``: the reply ended before its closing."""

    start: int
    code: str
    kind: Kind
    cut: bool
    inline: bool  # in running text on one line


@dataclass(frozen=True, slots=True)
class _Opener:
    start: int
    end: int
    kind: Kind
    alone: bool = True  # nothing else is on its line; if not, it may be a mention in running text


def split_blocks(text: str, opening: str, closing: str) -> Iterator[Block]:
    """The blocks of ``text`` from left to right; ``opening`` and ``closing`` are the configured tags."""
    return _Splitter(text, opening, closing).blocks()


class _Splitter:
    def __init__(self, text: str, opening: str, closing: str) -> None:
        self._text = text
        self._opening = opening
        self._closings = (closing, "```")
        self._places = re.compile(f"{re.escape(opening)}|{_FENCE_PLACE}", re.MULTILINE | re.IGNORECASE)
        self._scanner = PythonScanner(text, self._closings, (opening,))
        self._foreign_ends = True  # whether a foreign fence can still be closed; searched in vain only once

    def blocks(self) -> Iterator[Block]:
        """One after the other. Inside a block nothing opens another one, but a new opening ends it."""
        opener = self._next_opener(0)
        while opener:
            if opener.kind is Kind.OTHER:
                position = self._past_foreign(opener)
            else:
                opener = self._merged(opener)
                end, position = self._end_of(opener)
                cut = end == len(self._text)
                reopened = position == end and not cut
                # "I use <code> for code:" is a mention, and the real block follows it. A bare fence without an end is
                # most likely the end of something.
                if not (reopened and not opener.alone) and not (cut and opener.kind is Kind.BARE):
                    yield self._block(opener, end, cut)
            opener = self._next_opener(position)

    def _block(self, opener: _Opener, end: int, cut: bool) -> Block:
        code = self._text[opener.end : end]
        inline = not opener.alone and "\n" not in code
        return Block(opener.start, _tidied(code), opener.kind, cut, inline)

    def _next_opener(self, position: int) -> _Opener | None:
        for place in self._places.finditer(self._text, position):
            start = place.end() - 3 if place[0].endswith("```") else place.start()
            opener = self._opener_at(start)
            if opener and not self._is_quoted(opener):
                return opener
        return None

    def _opener_at(self, start: int) -> _Opener | None:
        fence = _FENCE.match(self._text, start)
        if fence:
            return _Opener(start, fence.end(), self._kind_of(fence))
        if not self._text.startswith(self._opening, start):
            return None
        end = start + len(self._opening)
        line = self._text[max(0, start - _FAR) : start].rpartition("\n")[2]
        alone = not line.strip() and self._text[end : end + 1] in ("", "\n", "\r")
        return _Opener(start, end, Kind.TAGGED, alone)

    def _kind_of(self, fence: re.Match[str]) -> Kind:
        if fence[0].startswith(self._opening):  # tags that are a fence themselves
            return Kind.TAGGED
        language = _language(fence)
        if language in _PYTHON:
            return Kind.PYTHON
        return Kind.OTHER if language else Kind.BARE

    def _is_quoted(self, opener: _Opener) -> bool:
        """A tag after a single backtick is a mention."""
        before = self._text[max(0, opener.start - 2) : opener.start]
        return opener.kind is Kind.TAGGED and before.endswith("`") and before != "``"

    def _merged(self, opener: _Opener) -> _Opener:
        """With the openings that follow it at once, as in a tag and then a fence: one of the better kind."""
        while inner := self._opener_at(self._past_blank(opener.end)):
            if inner.kind is Kind.OTHER or inner.kind is opener.kind:
                break
            opener = _Opener(opener.start, inner.end, max(opener.kind, inner.kind), opener.alone)
        return opener

    def _end_of(self, opener: _Opener) -> tuple[int, int]:
        """Where the code ends, and where to go on: the same place if another block opens there."""
        for start, mark in self._scanner.marks(opener.end):
            inner = self._opener_at(start)
            if inner and inner.kind >= Kind.PYTHON:
                return start, start
            return start, self._past_closings(start + len(mark))
        return len(self._text), len(self._text)

    def _past_closings(self, position: int) -> int:
        """Past further closings that follow at once, as after a fence inside a tag."""
        while True:
            start = self._past_blank(position)
            closing = next((mark for mark in self._closings if self._text.startswith(mark, start)), None)
            fence = _FENCE.match(self._text, start)
            if closing is None or (fence and _language(fence)):
                return position
            position = start + len(closing)

    def _past_blank(self, position: int) -> int:
        blank = _BLANK.match(self._text, position)
        return blank.end() if blank else position

    def _past_foreign(self, opener: _Opener) -> int:
        """Past a fence of another language; if it is never closed, only past its opening."""
        end = _FOREIGN_END.search(self._text, opener.end) if self._foreign_ends else None
        self._foreign_ends = end is not None
        return end.end() if end else opener.end


def _language(fence: re.Match[str]) -> str:
    return (fence[1] or fence[2] or "").lower()


def _tidied(code: str) -> str:
    """Without blank lines around, and without a common indentation (a block in a list item has one)."""
    code = re.sub(r"\A(?:[ \t]*\r?\n)+", "", code.rstrip())
    return textwrap.dedent(code) if code[:1] in (" ", "\t") else code
