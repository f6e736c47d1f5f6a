"""Verdicts: default deny, exact names."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import ConfigError
from orchestrator.policy import ALLOWED, DEFAULT_AUTHORIZED_IMPORTS, MAX_IMPORT_RULES, ToolPolicy, import_rules

POLICY = ToolPolicy(frozenset({"search", "größe"}), max_calls=3)


def test_without_more_the_default_list_is_the_list() -> None:
    assert set(import_rules()) == set(DEFAULT_AUTHORIZED_IMPORTS)
    assert not {"os", "sys", "subprocess", "socket", "importlib", "builtins", "ctypes", "*"} & set(import_rules())


def test_more_rules_are_added_sorted_and_once() -> None:
    rules = import_rules(["pandas", "numpy.*", "json", "pandas"])
    assert rules == tuple(sorted({*DEFAULT_AUTHORIZED_IMPORTS, "pandas", "numpy.*"}))
    assert import_rules(name for name in ["pandas"]) == import_rules(("pandas",))


@pytest.mark.parametrize("rule", ["a", "a.b", "a.b.*", "*", "_a", "a1", "über.größe"])
def test_a_rule_of_a_legal_form_is_taken(rule: str) -> None:
    assert rule in import_rules([rule])


@pytest.mark.parametrize(
    "rule", ["", " ", "a b", "a.", ".a", "a..b", "a.*.b", "*.a", "a*", "**", "1a", "a-b", "a\n", "a;b", None, 5, b"a"]
)
def test_a_rule_of_another_form_is_named(rule: object) -> None:
    with pytest.raises(ConfigError, match="is not a module name") as caught:
        import_rules([rule])  # type: ignore[list-item]
    assert repr(rule) in str(caught.value)


def test_a_string_in_place_of_a_list_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="list of names, not the string 'pandas'"):
        import_rules("pandas")


def test_there_is_a_largest_number_of_rules() -> None:
    room = MAX_IMPORT_RULES - len(DEFAULT_AUTHORIZED_IMPORTS)
    assert len(import_rules(f"p{i}" for i in range(room))) == MAX_IMPORT_RULES
    with pytest.raises(ConfigError, match="1001 rules"):
        import_rules(f"p{i}" for i in range(room + 1))


def test_a_granted_tool_is_allowed_until_its_calls_are_used_up() -> None:
    assert [POLICY.review("search", before).allowed for before in range(5)] == [True, True, True, False, False]
    assert POLICY.review("search", 0) is ALLOWED
    assert "used up its 3 tool calls" in POLICY.review("search", 3).reason


@pytest.mark.parametrize(
    "name", ["", "Search", "search ", "search\0", "sеarch", "search_", "__class__", "gro\u0308ße", "gr\u00f6sse"]
)
def test_a_name_that_is_not_exactly_granted_is_denied(name: str) -> None:
    verdict = POLICY.review(name, 0)
    assert not verdict.allowed
    assert "not granted" in verdict.reason


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=500), st.integers(0, 10))
def test_every_other_name_is_denied_in_few_words(name: str, before: int) -> None:
    verdict = POLICY.review(name, before)
    assert verdict.allowed == (name in POLICY.granted and before < 3)
    assert len(verdict.reason) < 1200


def test_the_reason_says_what_is_granted() -> None:
    assert POLICY.review("x", 0).reason.endswith("granted: größe, search")
    assert ToolPolicy(frozenset()).review("x", 0).reason.endswith("granted: none")
