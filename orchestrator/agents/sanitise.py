"""Text from a sandbox or a model made safe to show: to a terminal, in a log, in a prompt.

What could drive a terminal or hide from the reader's eye is taken out or written as an escape; the rest is untouched.
"""

from __future__ import annotations

import re

# ECMA-48 sequences: CSI; OSC, DCS, SOS, PM and APC up to their terminator (bounded: an open one must not eat the text
# after it); two-byte sequences. Eight-bit openers are left to _UNSAFE, which escapes every C1 control.
_SEQUENCES = re.compile(
    r"\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]|\x1b[\]PX^_][^\x07\x1b\n]{0,4096}(?:\x07|\x1b\\)|\x1b[ -/]{0,3}[0-NOQ-WYZ\\`-~]"
)
# C0 but tab and newline, DEL and C1 (a carriage return or backspace overwrites what stands there); what is invisible or
# turns the direction of writing: soft hyphen, zero width, bidi (Unicode TR36), line separators, tags and variation
# selectors that can carry hidden text; halves of surrogate pairs, which nothing can encode.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
_MARKS = "\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
_MARK_FLOOD = re.compile(f"([{_MARKS}]{{4}})[{_MARKS}]+")  # no script stacks more than four on one letter


def sanitise(text: str) -> str:
    """``text`` without terminal sequences, every other unsafe character written out as ``\\x08`` or ``\\u202e``."""
    text = _SEQUENCES.sub("", text.replace("\r\n", "\n"))
    return _MARK_FLOOD.sub(r"\1", _UNSAFE.sub(_escape, text))


def one_line(text: str, limit: int) -> str:
    """``text`` made safe to show, on one line, and of at most ``limit`` characters."""
    line = " ".join(sanitise(text).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
