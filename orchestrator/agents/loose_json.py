"""JSON as models write it: with trailing commas, single quotes, ``True``, and line breaks in strings. No I/O.

Only what has one meaning is accepted. The reader is our own because it must say where it stopped, so that a search
through a reply goes on from there and stays linear; because it must bound the depth; and because ``json`` is strict.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

MAX_DEPTH = 64  # arguments of tools are a few levels deep; also what keeps the recursion here far from Python's limit
MAX_DIGITS = 1000  # of an integer; reading one costs the square of them

_TOKEN = re.compile(
    r"""(?P<mark>[][{},:])
    |"(?P<double>[^"\\]*+(?:\\.[^"\\]*+)*+)"
    |'(?P<single>[^'\\]*+(?:\\.[^'\\]*+)*+)'
    |(?P<number>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?)(?![\w.])
    |(?P<word>true|false|null|True|False|None)\b""",
    re.DOTALL | re.VERBOSE,
)
_BLANK = re.compile(r"[ \t\r\n]*+")
_WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
_QUOTES = re.compile(r"\\.|\"", re.DOTALL)
_AS_JSON = {"\\'": "'", '"': '\\"'}


class NotJson(Exception):
    """What was read is no JSON.

    Attributes:
        position: where; reading stopped there.
        reason: what is wrong, for a model to read.
        keys: the keys of objects that were read before.
        unfinished: the text ended too early.
        too_deep: it is nested deeper than ``MAX_DEPTH``.
    """

    def __init__(
        self, position: int, reason: str, keys: frozenset[str], *, unfinished: bool = False, too_deep: bool = False
    ) -> None:
        super().__init__(reason)
        self.position = position
        self.reason = reason
        self.keys = keys
        self.unfinished = unfinished
        self.too_deep = too_deep


def read_value(text: str, start: int = 0) -> tuple[Any, int]:
    """The value that begins at ``start``, and where it ends. Of a key that comes twice, the last counts.

    Raises:
        NotJson: there is none.
    """
    reader = _Reader(text, start)
    value = reader.value(depth=0)
    return value, reader.position


@dataclass
class _Reader:
    text: str
    position: int
    keys: set[str] = field(default_factory=set)

    def value(self, depth: int) -> Any:
        token = self._token("a value")
        self.position = token.end()
        match token.lastgroup:
            case "double" | "single":
                return self._string(token)
            case "number":
                return self._number(token)
            case "word":
                return _WORDS[token[0]]
        if depth >= MAX_DEPTH:
            raise self._wrong(token.start(), f"it is nested more than {MAX_DEPTH} levels deep", too_deep=True)
        match token[0]:
            case "{":
                return self._object(depth + 1)
            case "[":
                return self._array(depth + 1)
        raise self._wrong(token.start(), "a value is missing")

    def _object(self, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        while not self._took("}"):  # also after a comma
            key = self._key()
            self._expect(":", "':'")
            self.keys.add(key)
            made[key] = self.value(depth)
            if not self._took(","):
                self._expect("}", "',' or '}'")
                break
        return made

    def _array(self, depth: int) -> list[Any]:
        made: list[Any] = []
        while not self._took("]"):
            made.append(self.value(depth))
            if not self._took(","):
                self._expect("]", "',' or ']'")
                break
        return made

    def _key(self) -> str:
        token = self._token("a key in quotes")
        if token.lastgroup not in ("double", "single"):
            raise self._wrong(token.start(), "a key in quotes is missing")
        self.position = token.end()
        return self._string(token)

    def _took(self, mark: str) -> bool:
        blank = _BLANK.match(self.text, self.position)
        at = blank.end() if blank else self.position
        if not self.text.startswith(mark, at):
            return False
        self.position = at + 1
        return True

    def _expect(self, mark: str, wanted: str) -> None:
        if not self._took(mark):
            raise self._wrong(self._token(wanted).start(), f"{wanted} is missing")

    def _token(self, wanted: str) -> re.Match[str]:
        """The next token, not taken yet."""
        blank = _BLANK.match(self.text, self.position)
        at = blank.end() if blank else self.position
        if token := _TOKEN.match(self.text, at):
            return token
        rest = self.text[at : at + 1]
        unfinished = rest in ("", '"', "'")
        raise self._wrong(at, "a string is not closed" if rest and unfinished else f"{wanted} is missing", unfinished)

    def _string(self, token: re.Match[str]) -> str:
        body = token["double"] if token["double"] is not None else token["single"]
        if "\\" not in body:
            return _encodable(body)
        try:
            quoted = _QUOTES.sub(lambda found: _AS_JSON.get(found[0], found[0]), body)
            return _encodable(json.loads(f'"{quoted}"', strict=False))
        except ValueError:
            wrong = self._wrong(token.start(), "a string has a backslash that escapes nothing (write two of them)")
            raise wrong from None

    def _number(self, token: re.Match[str]) -> int | float:
        digits = token[0]
        if len(digits) <= MAX_DIGITS and digits.removeprefix("-").isdigit():
            return int(digits)
        number = float(digits)
        if not math.isfinite(number):
            raise self._wrong(token.start(), "a number is too large")
        return number

    def _wrong(self, position: int, reason: str, unfinished: bool = False, too_deep: bool = False) -> NotJson:
        return NotJson(position, reason, frozenset(self.keys), unfinished=unfinished, too_deep=too_deep)


def _encodable(text: str) -> str:
    """JSON can carry half a surrogate pair, UTF-8 cannot: such a half would fail far from here."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
