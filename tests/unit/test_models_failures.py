"""What is told of an endpoint's failure."""

from __future__ import annotations

import pytest

from orchestrator.models.failures import may_heal, reason


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-0123456789",
        "hf_abcdefghijklmnop",
        "gsk_0123456789ab",
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_abcdefghijklmnop",
        "bedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29tLw==",
    ],
)
def test_what_looks_like_a_key_is_not_told(key: str) -> None:
    assert reason(ValueError(f"wrong key: {key}, sorry")) == "wrong key: [key], sorry"


def test_a_reason_is_one_short_line_without_the_secrets() -> None:
    assert reason("a\n  b tops3cret c", [None, "", "tops3cret"]) == "a b [key] c"
    assert len(reason("x" * 10_000)) == 300


def test_nothing_in_a_reason_drives_a_terminal_or_hides_a_secret() -> None:
    assert reason("a\x1b]0;PWNED\x07\x1b[2J b\u202e") == "a b\\u202e"
    assert reason("x tops\x1b[31m3cret", ["tops3cret"]) == "x [key]"
    assert "tops" not in reason(" " * 4090 + "tops3cret", ["tops3cret"])


def test_an_error_without_words_is_called_by_its_class() -> None:
    assert reason(KeyError()) == "KeyError"


@pytest.mark.parametrize(("status", "heals"), [(400, False), (401, False), (408, True), (429, True), (500, True)])
def test_which_status_may_heal(status: int, heals: bool) -> None:
    assert may_heal(status) is heals
