"""Verdicts: default deny, exact names."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import ConfigError
from orchestrator.policy import (
    ALLOWED,
    DEFAULT_AUTHORIZED_IMPORTS,
    MAX_IMPORT_RULES,
    MAX_RUNNING,
    Spent,
    ToolCallRequest,
    ToolPolicy,
    import_rules,
)

POLICY = ToolPolicy(frozenset({"search", "größe"}), max_calls=3, max_bytes=100)


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
    with pytest.raises(ConfigError, match="list of names, not 'pandas'"):
        import_rules("pandas")


def test_there_is_a_largest_number_of_rules() -> None:
    room = MAX_IMPORT_RULES - len(DEFAULT_AUTHORIZED_IMPORTS)
    assert len(import_rules(f"p{i}" for i in range(room))) == MAX_IMPORT_RULES
    with pytest.raises(ConfigError, match="1001 rules"):
        import_rules(f"p{i}" for i in range(room + 1))


def test_a_granted_tool_is_allowed_until_its_calls_are_used_up() -> None:
    verdicts = [POLICY.review("search", 0, Spent(calls=before)) for before in range(5)]
    assert [verdict.allowed for verdict in verdicts] == [True, True, True, False, False]
    assert verdicts[0] is ALLOWED
    assert "used up its 3 tool calls" in verdicts[3].reason
    assert verdicts[3].rule == "max_calls"


def test_what_passes_between_code_and_tools_is_allowed_until_the_bytes_are_used_up() -> None:
    assert POLICY.review("search", 40, Spent(bytes=60)) is ALLOWED
    verdict = POLICY.review("search", 41, Spent(bytes=60))
    assert (verdict.allowed, verdict.rule) == (False, "max_bytes")
    assert (
        verdict.reason
        == "search(): 41 bytes do not fit into the 40 that are left to this execution's tool calls, of 100"
    )
    assert "0 that are left" in POLICY.review_bytes("it", 1, Spent(bytes=500)).reason


def test_only_so_many_calls_run_at_once() -> None:
    assert POLICY.review("search", 0, Spent(running=MAX_RUNNING - 1)) is ALLOWED
    assert POLICY.review("search", 0, Spent(running=MAX_RUNNING)).rule == "max_running"


def test_what_an_approver_is_shown_cannot_be_changed() -> None:
    given = {"a": 1}
    request = ToolCallRequest("search", given, 1)
    given["a"] = 2
    assert request.arguments == {"a": 1}
    with pytest.raises(TypeError):
        request.arguments["a"] = 2  # type: ignore[index]


@pytest.mark.parametrize(
    "name", ["", "Search", "search ", "search\0", "sеarch", "search_", "__class__", "gro\u0308ße", "gr\u00f6sse"]
)
def test_a_name_that_is_not_exactly_granted_is_denied(name: str) -> None:
    verdict = POLICY.review(name, 0, Spent())
    assert verdict.rule == "not_granted"
    assert not verdict.allowed
    assert "not granted" in verdict.reason


@settings(max_examples=60)
@given(st.text(max_size=500), st.integers(0, 10))
def test_every_other_name_is_denied_in_few_words(name: str, before: int) -> None:
    verdict = POLICY.review(name, 0, Spent(before))
    assert verdict.allowed == (name in POLICY.granted and before < 3)
    assert len(verdict.reason) < 1200


def test_the_reason_says_what_is_granted() -> None:
    assert POLICY.review("x", 0, Spent()).reason.endswith("granted: größe, search")
    assert ToolPolicy(frozenset(), 1, 1).review("x", 0, Spent()).reason.endswith("granted: none")
