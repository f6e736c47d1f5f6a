"""Names and values that variables may have; the rest is in the contract tests."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executor_image.runner.values import decode_pairs
from orchestrator.errors import ConfigError, ValueNotPortable
from orchestrator.sandbox.variables import MAX_VARIABLES, encoded_variables
from tests.unit.value_samples import any_text, same, with_arrays

names = st.text(st.characters(categories=("Ll", "Lu")), min_size=1, max_size=8).filter(str.isidentifier)


@settings(max_examples=80)
@given(st.dictionaries(any_text | names, with_arrays, max_size=4))
def test_any_variables_arrive_as_they_are_or_are_refused(variables: dict[str, Any]) -> None:
    try:
        sent = encoded_variables(variables, frozenset())
    except ConfigError:
        return
    assert same(decode_pairs(memoryview(sent)), variables)


@settings(max_examples=200)
@given(any_text | names)
def test_a_name_that_is_taken_is_found_by_code_of_that_name(name: str) -> None:
    try:
        encoded_variables({name: 1}, frozenset())
    except ConfigError:
        return
    assert eval(name, {name: 5}) == 5


def test_none_at_all_are_no_bytes() -> None:
    assert encoded_variables(None, frozenset()) == encoded_variables({}, frozenset()) == b""


def test_any_mapping_will_do() -> None:
    assert encoded_variables(MappingProxyType({"x": 1}), frozenset()) == encoded_variables({"x": 1}, frozenset())


@pytest.mark.parametrize(
    "name", ["None", "", "a.b", "x\0", "\ud800", "__builtins__", "__import__", "f", "final_answer"]
)
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="variables: "):
        encoded_variables({name: 1}, frozenset({"f"}))


def test_soft_keywords_and_builtins_are_names_as_in_any_program() -> None:
    assert encoded_variables({"match": 1, "type": 2, "len": 3, "_": 4, "__x": 5}, frozenset())


def test_all_of_them_share_the_bounds_of_one_value() -> None:
    with pytest.raises(ValueNotPortable, match="the variables take"):
        encoded_variables({f"v{n}": bytes(10_000) for n in range(MAX_VARIABLES)}, frozenset())
