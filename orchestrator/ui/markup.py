"""Hostile text as Markdown that is inert: what a model, a sandbox, a tool or a visitor wrote, for a chat window.

Two ways, and no third: a fenced block whose fence is longer than any run of its marks inside, or prose in which every
character that could begin HTML, a link, a picture, code or a formula is written as a numeric entity. Markdown never
takes an entity for structure, so emphasis, headings, lists and tables are all that prose can still say. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from orchestrator.agents.observation import truncate
from orchestrator.sanitise import in_words, one_line, sanitise

MAX_SHOWN = 20_000  # characters of one text: more makes a page slow, and nobody reads it there
MAX_ROWS = 50  # of a table
MAX_COLUMNS = 20
MAX_CELL = 200  # characters
_LANGUAGES = frozenset(  # that a fence may name: some other names make a program of the text (mermaid draws it)
    ("bash", "c", "cpp", "css", "diff", "go", "html", "java", "javascript", "json", "python", "rust", "sql", "yaml")
)

# What could begin HTML, an entity, a link, a picture, a reference, code, an escape, a struck or mathematical text.
# Names of hosts and addresses become links by themselves: their marks are taken from them.
_ACTIVE = re.compile(r"[&<>\[\]!:@`~\\{}$^]|(?<=www)\.", re.IGNORECASE)
_ALL = re.compile(r"[^\w\s]|_")
# Possessive: what is taken is never given back, so that time grows with the length of the text, not with its square.
_FENCE = re.compile(r" {0,3}+(`{3,}+|~{3,}+)[ \t]*+([\w+-]*+)[^`]*+")
_CODE = re.compile(r"(?<!`)(`++)([^`\n]++)\1(?!`)")
_INDENT = re.compile(r"^[ \t]{4,}(?![-*+\d])", re.MULTILINE)


def prose(text: str) -> str:
    """What a model said: its own fenced blocks become blocks, ``marked`` words code; links and HTML are shown as text.

    Without its middle if it is long.
    """
    lines = sanitise(truncate(text.strip(), MAX_SHOWN)).split("\n")
    return "\n\n".join(part for part in _parts(lines) if part)


def plain(text: str) -> str:
    """Text that means nothing but itself, line by line."""
    return _literal(sanitise(truncate(text.strip("\n"), MAX_SHOWN)))


def title(text: str, limit: int) -> str:
    """One line of at most ``limit`` characters that means nothing but itself."""
    return _literal(one_line(text, limit))


def block(text: str, language: str = "") -> str:
    """``text`` in a fenced block that nothing in it can end."""
    body = sanitise(truncate(text.strip("\n"), MAX_SHOWN))
    longest = max((len(run) for run in re.findall("`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language if language in _LANGUAGES else 'text'}\n{body}\n{fence}"


def table(columns: Sequence[object], rows: Sequence[Sequence[object]], total: int) -> str:
    """The first rows of ``total``, the beginnings of their cells, and how much is not shown."""
    width = min(len(columns), MAX_COLUMNS)
    lines = [_row([in_words(column, str) for column in columns[:width]]), "|" + " --- |" * width]
    lines += [_row([_cell(value) for value in row[:width]]) for row in rows[:MAX_ROWS]]
    missing = []
    if total > len(rows[:MAX_ROWS]):
        missing.append(f"{total - len(rows[:MAX_ROWS]):,} more rows")
    if len(columns) > width:
        missing.append(f"{len(columns) - width:,} more columns")
    return "\n".join(lines) + (f"\n\nNot shown: {', '.join(missing)}." if missing else "")


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(title(cell, MAX_CELL) for cell in cells) + " |"


def _cell(value: object) -> str:
    return value if isinstance(value, str) else f"{value:.6g}" if isinstance(value, float) else in_words(value)


def _parts(lines: Sequence[str]) -> Iterator[str]:
    """Prose and blocks in their order. A block that is not closed goes to the end, as in Markdown."""
    fence, language, inside = "", "", list[str]()
    for is_mark, group in groupby(lines, lambda line: _FENCE.fullmatch(line) is not None):
        for line in group if is_mark else ["\n".join(group)]:
            mark = _FENCE.fullmatch(line) if is_mark else None
            if mark and not fence:
                yield _prose("\n".join(inside))
                fence, language, inside = mark[1], mark[2].lower(), []
            elif mark and mark[1].startswith(fence) and not mark[2]:
                yield block("\n".join(inside), language)
                fence, inside = "", []
            else:
                inside.append(line)
    yield block("\n".join(inside), language) if fence else _prose("\n".join(inside))


def _prose(text: str) -> str:
    parts, end = [], 0
    for code in _CODE.finditer(text):
        # A tag of our own around entities, not the marks of Markdown: those could be torn apart by what is around them.
        parts += [_quiet(text[end : code.start()]), f"<code>{_literal(code[2].strip())}</code>"]
        end = code.end()
    return "".join((*parts, _quiet(text[end:]))).strip("\n")


def _quiet(text: str) -> str:
    # Four spaces begin a block of code, in which entities would be shown as they are written.
    indented = _INDENT.sub(lambda match: "\u00a0" * len(match[0].expandtabs(4)), text)
    return _ACTIVE.sub(_entity, indented)


def _literal(text: str) -> str:
    lines = text.split("\n")
    return "\n".join(_spaces(line) + _ALL.sub(_entity, line.strip()) for line in lines)


def _spaces(line: str) -> str:
    return "\u00a0" * min(40, len(line.expandtabs(4)) - len(line.expandtabs(4).lstrip()))


def _entity(match: re.Match[str]) -> str:
    return f"&#{ord(match[0])};"
