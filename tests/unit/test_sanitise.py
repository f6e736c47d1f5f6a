"""Text that could drive a terminal, or hide from its reader, is made harmless."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.sanitise import sanitise


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain äöü 漢字 😀\n\ttext", "plain äöü 漢字 😀\n\ttext"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b]0;title\x07x", "x"),
        ("\x1b]52;c;aGk=\x1b\\x", "x"),
        ("\x1b]8;;http://a.test\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bP1;2q#0\x1b\\x", "x"),
        ("\x1b]0;never ended", "\\x1b]0;never ended"),
        ("\x1b(0lqk", "lqk"),
        ("\x9b31m", "\\x9b31m"),
        ("a\r\nb", "a\nb"),
        ("100%\rdone", "100%\\x0ddone"),
        ("ab\x08c\x00\x7f", "ab\\x08c\\x00\\x7f"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\u200bb\ufeff\u2028", "a\\u200bb\\ufeff\\u2028"),
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("e\u0301", "e\u0301"),
        ("e" + "\u0301" * 100, "e" + "\u0301" * 4),
    ],
)
def test_sanitise(text: str, safe: str) -> None:
    assert sanitise(text) == safe


def test_no_control_character_of_any_plane_is_left() -> None:
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") and char not in "\n\t":
            assert char not in sanitise(char)
        if unicodedata.bidirectional(char) in ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"):
            assert char not in sanitise(char)


@given(st.text(st.sampled_from("\x1b[]0;m\\\x07P\x9b\n a\r\u202e\u0301"), max_size=40))
def test_what_is_safe_stays_safe(text: str) -> None:
    safe = sanitise(text)
    assert not any(unicodedata.category(char) == "Cc" and char not in "\n\t" for char in safe)
    assert sanitise(safe) == safe
    safe.encode("utf-8")


@pytest.mark.parametrize("piece", ["\x1b]", "\x1b[", "\x1b[0", "\x1bP\x1b", "\u0301", "\r"])
def test_hostile_text_costs_no_more_than_its_length(piece: str) -> None:
    sanitise(piece * (1_000_000 // len(piece)))
