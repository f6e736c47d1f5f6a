"""Where marks stand in Python source outside its string literals: a scanner, not a parser.

Linear in the length of the text, whatever the text is: it is written by a model, and may be hostile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_END_OF = {
    quote: re.compile(rf"\\.|{quote}" if len(quote) == 3 else rf"\\.|{quote}|\n", re.DOTALL)
    for quote in ('"""', "'''", '"', "'")
}


class PythonScanner:
    """Finds marks (``closings`` and ``openings``) in ``text``, but for those in string literals.

    A quote that is never closed is no literal (Python would refuse it), so broken code does not swallow the rest of the
    reply. In a comment only a closing at the end of the line counts: ``# done</code>`` ends a block, and
    ``# see </code> in the docs`` does not. Expressions in f-strings are not looked into: a mark in a literal nested
    there, in the same quotes, is taken for one outside.
    """

    def __init__(self, text: str, closings: Sequence[str], openings: Sequence[str] = ()) -> None:
        self._text = text
        self._position = 0
        self._closings = tuple(closings)
        self._marks = tuple(sorted((*closings, *openings), key=len, reverse=True))
        quotes_and_comment = ('"""', "'''", '"', "'", "#")
        self._points = re.compile("|".join(re.escape(point) for point in (*self._marks, *quotes_and_comment)))
        # Up to where a kind of quote is known to be unclosed: without it, a line of such quotes costs its square.
        self._unclosed = dict.fromkeys(_END_OF, -1)

    def marks(self, position: int) -> Iterator[tuple[int, str]]:
        """Place and text of each mark from ``position`` on."""
        self._position = position
        while point := self._points.search(self._text, self._position):
            found = point[0]
            if found in self._marks:
                self._position = point.end()
                yield point.start(), found
            elif found == "#":
                yield from self._comment(point.end())
            else:
                self._position = self._end_of_literal(found, point.end())

    def _comment(self, start: int) -> Iterator[tuple[int, str]]:
        end = self._text.find("\n", start)
        self._position = end if end >= 0 else len(self._text)
        line = self._text[start : self._position].rstrip()
        for mark in self._closings:
            if line.endswith(mark):
                yield start + len(line) - len(mark), mark
                return

    def _end_of_literal(self, quote: str, start: int) -> int:
        """Past the literal that opened before ``start``, or ``start`` if it is never closed."""
        if start <= self._unclosed[quote]:
            return start
        for end in _END_OF[quote].finditer(self._text, start):
            if end[0] == quote:
                return end.end()
            if end[0] == "\n":
                self._unclosed[quote] = end.start()
                return start
        self._unclosed[quote] = len(self._text)
        return start
