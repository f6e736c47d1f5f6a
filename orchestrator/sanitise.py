"""Text from a sandbox or a model made safe to show: to a terminal, in a log, in a prompt.

What could drive a terminal or hide from the reader's eye is taken out or written as an escape; the rest is untouched.
"""

from __future__ import annotations

import re
from collections.abc import Callable

# ECMA-48 sequences: CSI; OSC, DCS, SOS, PM and APC up to their terminator (bounded: an open one must not eat the text
# after it); two-byte sequences. Eight-bit openers are left to _UNSAFE, which escapes every C1 control.
_SEQUENCES = re.compile(
    r"\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]|\x1b[\]PX^_][^\x07\x1b\n]{0,4096}(?:\x07|\x1b\\)|\x1b[ -/]{0,3}[0-NOQ-WYZ\\`-~]"
)
# C0 but tab and newline, DEL and C1 (a carriage return or backspace overwrites what stands there); what is invisible or
# turns the direction of writing: soft hyphen, joiners, fillers, zero width, bidi (Unicode TR36), line separators, tags
# and variation selectors, which can carry hidden text; halves of surrogate pairs, which nothing can encode.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
_MARKS = "\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
# Printable by Unicode's word, and yet nothing is to be seen: fillers, blank Braille, variation selectors and the like.
_BLANK = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
)
_RETURN = re.compile("\r(?!\n)")
_MARK_FLOOD = re.compile(f"([{_MARKS}]{{4}})[{_MARKS}]+")  # no script stacks more than four on one letter
_STYLE_FLOOD = re.compile("([\ufe0e\ufe0f])[\ufe0e\ufe0f]+")  # text or emoji: said once it is said
# What chat templates of open models take for the start of a role or a turn, if it stands in a message's text:
# <|im_start|>, <｜User｜>, [INST], <<SYS>>, <start_of_turn>, </s>. Servers that template text may not escape it.
_ROLE_TOKENS = re.compile(r"<(?=[|｜])|\[(?=/?INST\])|<(?=</?SYS>>)|<(?=/?s>)|<(?=(?:start|end)_of_turn>)")


def sanitise(text: str) -> str:
    """``text`` without terminal sequences, every other unsafe character written out as ``\\x08`` or ``\\u202e``."""
    text = _SEQUENCES.sub("", text.replace("\r\n", "\n"))
    return _STYLE_FLOOD.sub(r"\1", _MARK_FLOOD.sub(r"\1", _UNSAFE.sub(_escape, text)))


def in_words(value: object, write: Callable[[object], str] = repr) -> str:
    """``value`` by ``write``. Something else of what cannot be written: an int of thousands of digits, say."""
    try:
        return write(value)
    except Exception:  # noqa: BLE001 - the repr of a class of the program's own may raise anything
        return f"<{type(value).__qualname__}>"


def without_roles(text: str) -> str:
    """``text`` for a prompt: a space breaks each token that a chat template would take for the start of a role."""
    return _ROLE_TOKENS.sub(r"\g<0> ", text)


def one_line(text: str, limit: int) -> str:
    """``text`` made safe to show, on one line, and of at most ``limit`` characters. For names and reasons."""
    words = " ".join(sanitise(text).split())
    line = words if words.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in words)
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def visible(text: str) -> str:
    """``text`` with everything that cannot be seen written out, and nothing taken out: for who has to judge it.

    Line breaks stay, and a carriage return, which ends a line for Python, ends one here, too. A letter that looks like
    another one stays.
    """
    text = _RETURN.sub("\r\n", text)
    shown = "".join(c if c == "\n" or (c.isprintable() and c not in _BLANK) else _escaped(c) for c in text)
    return _MARK_FLOOD.sub(lambda match: match[1] + "".join(map(_escaped, match[0][len(match[1]) :])), shown)


def _escape(match: re.Match[str]) -> str:
    return _escaped(match[0])


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
