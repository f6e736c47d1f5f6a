"""What the definition of a ``Tool`` subclass must say, rule by rule, and what endpoints and prompts are told of it."""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar

import jsonschema
import pytest

from orchestrator.errors import ToolError
from orchestrator.media import AgentImage
from orchestrator.tools import Tool, tool
from orchestrator.tools.json_schema import json_schema, parameters_schema


class Lookup(Tool):
    name = "lookup"
    description = "Looks up."
    inputs: ClassVar = {
        "key": {"type": "string", "description": "what"},
        "most": {"type": "integer", "description": "how many", "nullable": True},
    }
    output_type = "object"

    def forward(self, key, most=None):  # type: ignore[no-untyped-def]
        return {"key": key, "most": most}


def said(argument: str, **schema: Any) -> dict[str, Any]:
    return {"inputs": {**Lookup.inputs, argument: {"description": "x", **schema}}}


def hinted(self: Any, key: str | None, most: int = 3) -> dict[str, Any]:
    return {"key": key, "most": most}


def with_default(self: Any, key: str = "a", most: int = 3) -> dict[str, Any]:
    return {"key": key, "most": most}


def without_default(self, key, most):  # type: ignore[no-untyped-def]
    return {"key": key, "most": most}


def none_by_default(self, key=None, most=None):  # type: ignore[no-untyped-def]
    return {"key": key, "most": most}


def starred(self: Any, **kwargs: Any) -> dict[str, Any]:
    return kwargs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (said("two words", type="string"), "must be a Python identifier, as code passes it"),
        (said("class", type="string"), "must be a Python identifier, as code passes it"),
        (said("key", type="text"), r"inputs\['key'\]: type 'text' is none of"),
        (said("key"), r"inputs\['key'\]: type None is none of"),
        (said("key", type=[]), r"type \[\] is none of"),
        (said("key", type=["string", 3]), r"type \['string', 3\] is none of"),
        (said("key", type="string", enum="abc"), "'enum' must list the allowed values, not 'abc'"),
        (said("key", type="string", enum=[]), "'enum' must list the allowed values"),
        (said("key", type="array", items="string"), r"\['items'\] must be a dict that describes a type, not 'string'"),
        (said("key", type="array", items={"type": "str"}), r"inputs\['key'\]\['items'\]: type 'str' is none of"),
        (said("key", type="array", prefixItems={}), "'prefixItems' must be a list of schemas"),
        (said("key", anyOf=[{"type": "x"}]), r"\['anyOf'\]\[0\]: type 'x' is none of"),
        (said("key", anyOf="x"), "'anyOf' must be a list of schemas"),
        (said("key", type="object", properties=["a"]), "'properties' must be a dict of schemas"),
        (said("key", type="object", properties={"a": {}}), r"\['properties'\]\['a'\]: type None is none of"),
        (said("key", type="object", additionalProperties={"type": 1}), r"\['additionalProperties'\]: type 1 is"),
        (said("key", type="object", additionalProperties="string"), "must be a dict that describes a type"),
        ({"forward": without_default}, r"inputs\['most'\] may be null: give it a default .*'most=None'"),
        ({"forward": none_by_default}, r"inputs\['key'\]: forward\(\) takes None for it; add 'nullable': True"),
        ({"forward": hinted}, r"inputs\['key'\]: forward\(\) takes None for it; add 'nullable': True"),
        ({"forward": starred}, "name its arguments one by one"),
        ({"output_schema": []}, "set 'output_schema' to a JSON schema"),
        ({"output_schema": {"type": str}}, "output_schema cannot be written as JSON"),
        ({"name": "final_answer"}, "the sandbox has a function of that name"),
    ],
)
def test_a_wrong_definition_is_refused_with_what_to_fix(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ToolError, match=message):
        type("Changed", (Lookup,), changes)()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"forward": with_default},  # a default that is not None needs no null
        said("key", type=["string", "null"]) | {"forward": hinted},
        said("key", anyOf=[{"type": "string"}, {"type": "null"}]) | {"forward": none_by_default},
        said("key", type="any") | {"forward": none_by_default},
        {"output_schema": {"type": "object"}},
    ],
)
def test_a_right_definition_is_taken(changes: dict[str, Any]) -> None:
    assert type("Changed", (Lookup,), changes)().name == "lookup"


class Starred(Lookup):
    skip_forward_signature_validation = True
    inputs: ClassVar = {
        "most": {"type": "integer", "description": "how many", "nullable": True},
        "key": {"type": "string", "description": "what"},
        "unit": {"type": "string", "description": "of what", "default": "m"},
    }

    forward = starred


def test_inputs_alone_can_say_what_the_arguments_are() -> None:
    starred = Starred()
    assert str(starred.__signature__) == "(key, most=None, unit='m')"
    assert starred("a") == {"key": "a"}
    assert starred("a", most=2) == {"key": "a", "most": 2}
    assert starred.to_code_prompt().startswith(
        "def lookup(key: str, most: int | None = None, unit: str = 'm') -> dict:"
    )
    assert starred.parameters["required"] == ["key"]
    with pytest.raises(TypeError, match="missing a required argument: 'key'"):
        starred(most=2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'other'"):
        starred("a", other=2)


def test_a_single_dict_of_the_arguments_is_taken_apart() -> None:
    lookup = Lookup()
    assert lookup({"key": "a", "most": 2}) == {"key": "a", "most": 2}
    assert lookup({"key": "a"}) == {"key": "a", "most": None}
    for given, message in [
        ({"key": "a", "other": 1}, "'key' must be string, not dict"),
        ({}, "must be string, not dict"),
    ]:
        with pytest.raises(TypeError, match=message):
            lookup(given)


def test_a_dict_that_the_first_argument_takes_stays_one() -> None:
    @tool
    def keep(table: dict[str, Any], note: str = "") -> Any:
        """Keeps.

        Args:
            table: which
            note: why
        """
        return table, note

    assert keep({"table": 1}) == ({"table": 1}, "")


class Unit(Enum):
    METRE = "m"
    FOOT = "ft"


@tool
def measure(
    image: AgentImage,
    unit: Unit = Unit.METRE,
    pair: tuple[int, str] = (1, "a"),
    anything: Any = None,
    tags: set[str] | None = None,
    table: dict[str, list[Any]] | None = None,
    either: list[int] | str | None = "x",
) -> dict[str, float]:
    """Measures.

    Args:
        image: which
        unit: in what
        pair: two
        anything: at all
        tags: its tags
        table: a table
        either: or

    Returns:
        The lengths.
    """
    return {}


def test_the_json_schema_for_endpoints() -> None:
    assert parameters_schema(measure) == measure.parameters
    assert measure.parameters == {
        "type": "object",
        "properties": {
            "image": {"type": "string", "description": "which (the name of an image)"},
            "unit": {"type": "string", "enum": ["m", "ft"], "description": "in what", "default": "m"},
            "pair": {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "items": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
                "minItems": 2,
                "maxItems": 2,
                "description": "two",
            },
            "anything": {"description": "at all"},
            "tags": {
                "type": ["array", "null"],
                "items": {"type": "string"},
                "uniqueItems": True,
                "description": "its tags",
            },
            "table": {
                "type": ["object", "null"],
                "additionalProperties": {"type": "array", "items": {}},
                "description": "a table",
            },
            "either": {
                "anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "string"}, {"type": "null"}],
                "description": "or",
                "default": "x",
            },
        },
        "required": ["image"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string", "enum": ["a"], "nullable": True}, {"type": ["string", "null"], "enum": ["a", None]}),
        ({"type": ["string", "null"], "nullable": True}, {"type": ["string", "null"]}),
        ({"type": "any", "nullable": True}, {}),
        ({"type": ["any", "string"]}, {}),
        ({"type": "array"}, {"type": "array", "items": {}}),
        (
            {"type": "array", "prefixItems": [{"type": "null"}]},
            {
                "type": "array",
                "prefixItems": [{"type": "null"}],
                "items": {"type": "null"},
                "minItems": 1,
                "maxItems": 1,
            },
        ),
        ({"type": "object", "additionalProperties": False}, {"type": "object", "additionalProperties": False}),
        (
            {"type": "object", "properties": {"a": {"type": "any"}}},
            {
                "type": "object",
                "properties": {"a": {}},
                "required": [],
            },
        ),
        ({"type": ["audio", "image"]}, {"type": "string", "description": "(the name of an audio or image)"}),
    ],
)
def test_every_word_has_one_in_json_schema(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    assert json_schema(schema) == expected


def test_the_json_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(measure.parameters)
    validator = jsonschema.Draft202012Validator(measure.parameters)
    assert validator.is_valid({"image": "a", "pair": [1, "b"], "table": None, "anything": [None]})
    assert not validator.is_valid({"image": "a", "pair": ["b", 1]})
    assert not validator.is_valid({"image": "a", "more": 1})


def test_a_tool_in_words() -> None:
    assert Lookup().to_tool_calling_prompt() == (
        "lookup: Looks up.\n"
        '    Takes: {"key": {"type": "string", "description": "what"}, "most": {"type": "integer", "description": '
        '"how many", "nullable": true}}\n'
        "    Gives: object"
    )
    assert measure.to_tool_calling_prompt().endswith("Gives: object: The lengths.")


def test_the_schema_of_the_output_is_shown() -> None:
    class Told(Lookup):
        output_schema: ClassVar = {"type": "object", "properties": {"key": {"type": "string"}}}

    for shown in (Told().to_code_prompt(), Told().to_tool_calling_prompt()):
        assert 'As this JSON schema says: {"type": "object", "properties": {"key": {"type": "string"}}}' in shown


@pytest.mark.parametrize("timeout", [0, -1, "9", True, float("nan")])
def test_a_timeout_is_a_time(timeout: Any) -> None:
    class Timed(Lookup):
        pass

    Timed.timeout = timeout
    for make in (Timed, lambda: tool(timeout=timeout)(measure.forward)):
        with pytest.raises(ToolError, match=r"timeout is .*; it must be seconds, above 0, or None"):
            make()


def test_a_setup_that_would_never_be_awaited_is_refused() -> None:
    class Late(Lookup):
        async def setup(self) -> None:  # type: ignore[override]
            pass

    with pytest.raises(ToolError, match=r"tool lookup: setup\(\) cannot be async"):
        Late()
