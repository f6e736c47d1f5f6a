"""Where a statement ends, as far as a line editor has to know: brackets, strings, blocks.

Text only. Nothing is compiled or parsed on the host; what is wrong with the code, the sandbox's Python says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

INDENT = 4

_COMMAND = re.compile(r"%[^\n]*")
# Possessive (++, *+): a long string is walked once, and without memory for every character of it.
_PART = re.compile(
    r"""
    (?P<comment> \#[^\n]* )
    | (?P<string> \"\"\" (?:[^"\\]++ | \\. | "(?!\"\"))*+ \"\"\"  |  ''' (?:[^'\\]++ | \\. | '(?!''))*+ ''' )
    | (?P<unclosed> \"\"\".* | '''.* )
    | (?P<short> "(?:[^"\\\n]++ | \\.)*+ "?  |  '(?:[^'\\\n]++ | \\.)*+ '? )
    | (?P<opening> [(\[{] )
    | (?P<closing> [)\]}] )
    | (?P<joint> \\\n | \\\Z )
    | (?P<newline> \n )
    """,
    re.VERBOSE | re.DOTALL,
)
_CLAUSE = re.compile(r"(?:else|elif|except|finally)\b")  # goes on with the statement before it
_HEADER = re.compile(rf"(?:async|class|def|for|if|try|while|with)\b|@|{_CLAUSE.pattern}")
_LEAVES = re.compile(r"\s*(?:break|continue|pass|raise|return)\b")  # nothing follows it in its block


@dataclass(frozen=True, slots=True)
class _Line:
    """A logical line: where it begins, and its code without strings and comments."""

    start: int
    code: str


class _Scan:
    """The logical lines of a text, and whether the last one is still open."""

    def __init__(self, text: str) -> None:
        self.lines: list[_Line] = []
        self.is_open = False  # within brackets or a string, or after a backslash
        self._depth = 0
        self._start = 0
        self._code: list[str] = []
        at = 0
        while at < len(text):
            at = self._command(text, at) or self._part(text, at)
        self._end_line(len(text))
        self.is_open = self.is_open or self._depth > 0

    def _command(self, text: str, at: int) -> int:
        """The end of the command that begins here; 0 if none does."""
        found = _COMMAND.match(text, at) if at == self._start and not self._depth else None
        if found is None:
            return 0
        self._code.append(found[0])
        self._end_line(found.end() + 1)
        return found.end() + 1

    def _part(self, text: str, at: int) -> int:
        found = _PART.search(text, at)
        self._code.append(text[at : found.start()] if found else text[at:])
        if found is None:
            return len(text)
        self._take(found.lastgroup or "", found)
        return found.end()

    def _take(self, kind: str, found: re.Match[str]) -> None:
        match kind:
            case "string" | "short" | "unclosed":
                self._code.append("''")
                self.is_open = kind == "unclosed"
            case "opening" | "closing":
                self._code.append(found[0])
                self._depth = max(0, self._depth + (1 if kind == "opening" else -1))
            case "joint":
                self._code.append(" ")
                self.is_open = found.end() == len(found.string) and found[0] == "\\"
            case "newline" if self._depth:
                self._code.append(" ")
            case "newline":
                self._end_line(found.end())

    def _end_line(self, next_start: int) -> None:
        code = "".join(self._code)
        if code.strip():
            self.lines.append(_Line(self._start, code))
        self._start, self._code = next_start, []


def is_command(text: str) -> bool:
    """Something for the session itself, such as ``%undo``."""
    return text.startswith("%")


def is_complete(text: str) -> bool:
    """Whether Enter runs it: no bracket or string is open, and a block has been ended by an empty line."""
    scan = _Scan(text)
    if scan.is_open:
        return False
    return not scan.lines or not _is_in_block(scan.lines[-1].code) or _ends_with_empty_line(text)


def _is_in_block(code: str) -> bool:
    if is_command(code):
        return False
    return code[0].isspace() or code.rstrip().endswith(":") or _HEADER.match(code) is not None


def _ends_with_empty_line(text: str) -> bool:
    _, newline, last = text.rpartition("\n")
    return bool(newline) and not last.strip()


def statements(text: str) -> list[str]:
    """The statements and commands of a text, one by one. A block goes on over empty lines, as in a file."""
    lines = _Scan(text).lines
    starts = [line.start for line in lines[:1]]
    starts += [line.start for before, line in pairwise(lines) if _begins_statement(before.code, line.code)]
    return [text[start:end].rstrip() for start, end in pairwise([*starts, len(text)])]


def _begins_statement(before: str, code: str) -> bool:
    if is_command(before) or is_command(code):
        return True
    return not (code[0].isspace() or before.startswith("@") or _CLAUSE.match(code))


def indentation(text: str) -> str:
    """What a new line after ``text`` begins with."""
    line = text.rpartition("\n")[2]
    margin = line[: len(line) - len(line.lstrip())]
    if line.rstrip().endswith((":", "(", "[", "{")):
        return margin + " " * INDENT
    return margin[:-INDENT] if _LEAVES.match(line) else margin
