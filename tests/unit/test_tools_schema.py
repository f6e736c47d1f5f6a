"""Type hints and docstrings as JSON schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, Optional, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.tools.docstring import parse_docstring
from orchestrator.tools.mismatch import mismatch
from orchestrator.tools.schema import type_schema


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


class Mixed(Enum):
    A = "a"
    B = 1


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        (str, {"type": "string"}),
        (bool, {"type": "boolean"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (list, {"type": "array"}),
        (dict, {"type": "object"}),
        (tuple, {"type": "array"}),
        (None, {"type": "null"}),
        (Any, {"type": "any"}),
        (bytes, {"type": "any"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (dict[str, float], {"type": "object", "additionalProperties": {"type": "number"}}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (tuple[int, str], {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]}),
        (tuple[int], {"type": "array", "prefixItems": [{"type": "integer"}]}),
        (Optional[str], {"type": "string", "nullable": True}),  # noqa: UP045 - people write it
        (int | None, {"type": "integer", "nullable": True}),
        (Union[int, str], {"type": ["integer", "string"]}),  # noqa: UP007 - people write it
        (int | str | None, {"type": ["integer", "string"], "nullable": True}),
        (list[int] | str, {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "string"}]}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Literal[1, 2], {"type": "integer", "enum": [1, 2]}),
        (Literal["a", 1], {"type": ["string", "integer"], "enum": ["a", 1]}),
        (Literal[Mixed.A, "x", Size.LARGE], {"type": ["string", "integer"], "enum": ["a", "x", 2]}),
        (Size, {"type": "integer", "enum": [1, 2]}),
        (Mixed, {"type": ["string", "integer"], "enum": ["a", 1]}),
        (Annotated[int, "how many"], {"type": "integer"}),
        (set, {"type": "array", "uniqueItems": True}),
        (frozenset[int], {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
        (Sequence[str], {"type": "array", "items": {"type": "string"}}),
        (Iterable, {"type": "array"}),
        (Mapping[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (list[Literal["x"]], {"type": "array", "items": {"type": "string", "enum": ["x"]}}),
    ],
)
def test_hints(hint: Any, schema: dict[str, Any]) -> None:
    assert type_schema(hint) == schema


def test_a_union_names_what_is_wrong_with_each_option() -> None:
    assert mismatch(type_schema(list[int] | str), ["a"]) == (
        "at [0] must be integer, not str 'a'; or it must be string, not list ['a']"
    )


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_any_takes_every_value(value: Any) -> None:
    assert mismatch(type_schema(Any), value) == ""


def test_a_value_that_cannot_be_written_out_is_told_of_all_the_same() -> None:
    """Python writes no int of so many digits; a key of thousands of characters is cut."""
    huge = 10**5000
    assert mismatch({"type": "string"}, huge) == "must be string, not int <int>"
    assert mismatch({"enum": ["a"]}, huge) == "must be one of ['a'], not int <int>"
    assert mismatch(type_schema(dict[Any, str]), {huge: 1}) == "at [<int>] must be string, not int 1"
    assert len(mismatch(type_schema(dict[str, str]), {"k" * 5000: 1})) < 200


def test_a_docstring_is_read_in_parts() -> None:
    docs = parse_docstring(
        """Does a thing.

        With care: always.

        Args:
            a (int, optional): first
                line
            b: "x: y"

            c: third
        Returns:
            A text,
            on two lines.
        """
    )
    assert docs.summary == "Does a thing.\n\nWith care: always."
    assert docs.arguments == {"a": "first line", "b": '"x: y"', "c": "third"}
    assert docs.returns == "A text, on two lines."


def test_a_class_describes_its_fields_under_attributes() -> None:
    assert parse_docstring("A thing.\n\nAttributes:\n    a: first").arguments == {"a": "first"}


@given(st.text())
def test_any_docstring_can_be_read(text: str) -> None:
    parse_docstring(text)
