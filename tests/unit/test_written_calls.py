"""What models without a tool-calling API write, and the calls that are taken from it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.agents.loose_json import MAX_DEPTH, NotJson, read_value
from orchestrator.agents.parsing import FormatError
from orchestrator.agents.written_calls import MAX_CALLS, MAX_CHARS, written_calls

Call = tuple[str, Any]
WEATHER: Call = ("get_weather", {"city": "Paris"})
SEARCH: Call = ("web_search", {"query": "a } b ] \" ' {", "n": [1, 2.5, None, True]})
JSON = json.dumps({"name": "get_weather", "arguments": {"city": "Paris"}})
JSON_2 = json.dumps({"name": SEARCH[0], "arguments": SEARCH[1]})


def calls(reply: str) -> list[Call]:
    found = written_calls(reply)
    assert isinstance(found, tuple), found
    return [(call.name, call.arguments) for call in found]


def problem(reply: str) -> str:
    found = written_calls(reply)
    assert isinstance(found, FormatError), found
    return found.message


@pytest.mark.parametrize(
    "reply",
    [
        JSON,
        f"I look it up.\nAction:\n{JSON}",
        f"Action: {JSON}\nObservation: it rains",
        f"Thought: {{x}} and [y], see [1].\n```json\n{JSON}\n```\nDone.",
        f"```\n{JSON}\n```",
        f"<tool_call>\n{JSON}\n</tool_call>",
        f"<tool_call>{JSON}",  # cut at the stop sequence
        f"[TOOL_CALLS] [{JSON}]",
        f"[TOOL_CALLS][{JSON}]</s>",
        f"<|python_tag|>{JSON}<|eom_id|>",
        '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}',
        '<function=get_weather>{"city": "Paris"}</function>',
        '<tool_call>\n<function=get_weather>\n{"city": "Paris"}\n</function>\n</tool_call>',
        'Action: get_weather\nAction Input: {"city": "Paris"}\n',
        '{"tool": "get_weather", "parameters": {"city": "Paris"}}',
        '{"tool_name": "get_weather", "tool_arguments": {"city": "Paris"}}',
        '{"thought": "rain?", "action": "get_weather", "action_input": {"city": "Paris"}}',
        '{"type": "function", "name": "get_weather", "parameters": {"city": "Paris"}}',
        '{"function": "get_weather", "args": {"city": "Paris"}}',
        '{"type": "function", "function": {"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}}',
        '{"tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}]}',
        '{"thought": "rain?", "tool_call": {"name": "get_weather", "arguments": {"city": "Paris"}}}',
        '{"name": "get_weather", "arguments": {"city": "Paris",},}',
        "{'name': 'get_weather', 'arguments': {'city': 'Paris'}}",
        f"{JSON}}}",
        f"<think>\n{JSON_2}\n</think>\n{JSON}",
        f"I draft {JSON_2}\n</think>\n\n{JSON}",  # the template wrote the opening tag
        f'First I thought of {{"name": "other", "arguments": {{}}}}.\n<tool_call>\n{JSON}\n</tool_call>',
        f"{JSON}\nObservation: rain\nAction:\n{JSON_2}",  # it invents the result, and goes on with it
        f"<tool_call>{JSON}</tool_call><tool_response>rain</tool_response><tool_call>{JSON_2}</tool_call>",
        f"Observation: it was dry before.\n{JSON}",
    ],
)
def test_one_call(reply: str) -> None:
    assert calls(reply) == [WEATHER]


@pytest.mark.parametrize(
    "reply",
    [
        f"{JSON}\n{JSON_2}",
        f"[{JSON}, {JSON_2}]",
        f"Action:\n[{JSON},\n{JSON_2},]",
        f"<tool_call>{JSON}</tool_call>\n<tool_call>{JSON_2}</tool_call>",
        f"<|python_tag|>{JSON}; {JSON_2}",
        f"```json\n{JSON}\n```\nand\n```json\n{JSON_2}\n```",
    ],
)
def test_several_calls_in_their_order(reply: str) -> None:
    assert calls(reply) == [WEATHER, SEARCH]


def test_ids_are_unique_and_of_a_form_that_every_template_takes() -> None:
    found = written_calls(JSON * MAX_CALLS)
    assert isinstance(found, tuple)
    assert len({call.id for call in found}) == MAX_CALLS
    assert all(re.fullmatch("[a-z0-9]{9}", call.id) for call in found)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('"Paris"', "Paris"),
        ('"5"', "5"),
        ('"{not json"', "{not json"),
        ("[1]", [1]),
        ("null", {}),
        ('""', {}),
        ("{}", {}),
    ],
)
def test_arguments_that_are_no_object_are_left_to_the_tool(arguments: str, expected: Any) -> None:
    assert calls(f'{{"name": "f", "arguments": {arguments}}}') == [("f", expected)]


def test_a_tool_without_arguments() -> None:
    assert calls('{"name": "f"}') == [("f", {})]


def test_keys_of_ones_own_are_none_and_the_model_is_told_ours() -> None:
    wrong = problem('{"fn": "f", "with": {"x": 1}}')
    assert '{"name": "the tool\'s name", "arguments": ' in wrong
    assert calls(JSON) == [WEATHER]


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "It rains.",
        "{x} [y] {",
        '{"city": "Paris"}',
        '{"name": "Bob", "age": 3}',
        '{"name": "", "arguments": {}}',
        '{"name": 3, "arguments": {}}',
        '{"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}',
        f"<think>{JSON}</think>It rains.",
        f"<think>{JSON}",  # it never came to an answer
        f"{JSON} was an example. [TOOL_CALLS] []",
    ],
)
def test_no_call_is_a_problem_that_shows_the_form(reply: str) -> None:
    message = problem(reply)
    assert message.startswith("Your reply calls no tool. ")
    assert '{"name": "the tool\'s name", "arguments": {"argument": "value"}}' in message


def test_the_problem_tells_how_to_answer() -> None:
    assert '{"name": "final_answer", "arguments": {"answer": ' in problem("The final answer is 4.")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (
            '{"name": "f" "arguments": {"name": "g", "arguments": {}}}',
            "no valid JSON: ',' or '}' is missing between",
        ),
        ('{"name": "f", "arguments": {city: "Paris"}}', "a key in quotes is missing between"),
        ('{"name": "f", "arguments": {"a": undefined}}', "a value is missing"),
        ('{"name": "f", "arguments": {"a": "\\d"}}', "a backslash that escapes nothing"),
        ('{"name": "f", "arguments": {"a": 1e999}}', "a number is too large"),
        ('{"name": "f", "arguments": ' + "[" * 100 + "]" * 100 + "}", "more than 64 levels"),
        ("<tool_call>{name: f}</tool_call>", "a key in quotes is missing"),
        ('<function=f>{"a" 1}</function>', "':' is missing"),
        (f"[{JSON}, 5]", "tool calls and something else"),
        ("[" * 100, "more than 64 levels"),
    ],
)
def test_a_broken_call_spoils_the_reply(broken: str, said: str) -> None:
    assert re.search(said, problem(broken))
    assert re.search(said, problem(f"{broken}\n{JSON}"))
    assert re.search(said, problem(f"{JSON}\n{broken}")) or broken.startswith("<")  # a marker drops what is before it


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        ('{"name": "f", "arguments": {"a": "x', "a string is not closed after"),
        ('{"name": "f", "arguments": {"a": 1', "',' or '}' is missing after"),
        ('{"name": "f", "arguments":', "a value is missing after"),
        ('<tool_call>{"na', "a string is not closed after"),
    ],
)
def test_a_cut_call_spoils_the_reply(cut: str, said: str) -> None:
    assert f"Your reply ends before its tool call does: {said} " in problem(cut)
    assert said in problem(f"<tool_call>{JSON}\n{cut}")


def test_bounds() -> None:
    assert "at most 64" in problem(JSON * (MAX_CALLS + 1))
    assert f"at most {MAX_CHARS}" in problem("x" * (MAX_CHARS + 1))


Value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
SomeCalls = st.lists(
    st.tuples(st.from_regex(r"[a-z_][a-z0-9_.]{0,20}", fullmatch=True), st.dictionaries(st.text(), Value, max_size=4)),
    min_size=1,
    max_size=4,
)
PROSE = st.text("ab }]'\"`:,.\n", max_size=20)


def _each(form: Callable[[Call], str]) -> Callable[[Sequence[Call]], str]:
    return lambda some: "\n".join(map(form, some))


def _object(call: Call, name: str = "name", arguments: str = "arguments", **more: Any) -> dict[str, Any]:
    return {**more, name: call[0], arguments: call[1]}


def _openai(call: Call) -> dict[str, Any]:
    return {"id": "1", "type": "function", "function": _object((call[0], json.dumps(call[1])))}


FORMS: list[Callable[[Sequence[Call]], str]] = [
    _each(lambda call: json.dumps(_object(call))),
    _each(lambda call: json.dumps(_object(call), ensure_ascii=False, indent=2)),
    _each(lambda call: json.dumps(_object(call, "tool", "parameters"))),
    _each(lambda call: f"```json\n{json.dumps(_object(call))}\n```"),
    _each(lambda call: f"<tool_call>\n{json.dumps(_object(call))}\n</tool_call>"),
    _each(lambda call: f"<|python_tag|>{json.dumps(_object(call, 'name', 'parameters', type='function'))}"),
    _each(lambda call: f"<function={call[0]}>{json.dumps(call[1])}</function>"),
    _each(lambda call: f"[TOOL_CALLS]{call[0]}[ARGS]{json.dumps(call[1])}"),
    _each(lambda call: f"Action: {call[0]}\nAction Input: {json.dumps(call[1])}"),
    _each(lambda call: f"Action:\n{json.dumps(_object(call))}"),
    lambda some: json.dumps([_object(call) for call in some]),
    lambda some: "[TOOL_CALLS] " + json.dumps([_object(call) for call in some]),
    lambda some: json.dumps({"tool_calls": [_openai(call) for call in some]}, ensure_ascii=False),
]


@given(SomeCalls, st.sampled_from(FORMS), PROSE, PROSE, st.booleans())
def test_calls_survive_every_form(
    some: list[Call], form: Callable[[Sequence[Call]], str], before: str, after: str, thinks: bool
) -> None:
    draft = f"<think>{before}{form(some)}</think>" if thinks else ""
    assert calls(f"{draft}{before}\n{form(some)}\n{after}") == some


@given(Value)
def test_json_is_read_as_json_reads_it(value: Any) -> None:
    text = json.dumps(value)
    assert read_value(text) == (json.loads(text), len(text))


PIECES = st.sampled_from(
    [
        *"{}[]:,\"'\\\n 1x",
        "true",
        '"name":',
        '"arguments":',
        JSON,
        "<tool_call>",
        "[TOOL_CALLS]",
        "Action: f\n",
        "Action Input:",
        "<function=f>",
        "[ARGS]",
        "<think>",
        "</think>",
        "Observation:",
        "\\u",
        "\\ud800",
        "\ud800",
    ]
)


@given(st.lists(PIECES, max_size=40).map("".join) | st.text())
def test_any_text_is_taken_or_refused(reply: str) -> None:
    match written_calls(reply):
        case FormatError(message=message):
            assert message.startswith("Your reply ")
        case found:
            assert found
            assert all(call.name for call in found)


@given(st.lists(PIECES, max_size=20).map("".join))
def test_reading_stops_within_the_text(text: str) -> None:
    try:
        end = read_value(text)[1]
    except NotJson as wrong:
        end = wrong.position
    assert 0 <= end <= len(text)


@pytest.mark.parametrize(
    "piece",
    [
        "{",
        "[",
        '{"',
        '{"a":',
        '["',
        "{'",
        "{'a\\",
        '{"a": "',
        "[1,",
        "[[1],",
        " ",
        "\n",
        "\n ",
        "{ ",
        "[\n",
        "<tool_call>\n",
        "Action: f\n",
        "Action:",
        "<function=f>",
        "[TOOL_CALLS]",
        '{"\\"',
        "{\"'",
        "'{\"",
        "1",
        "[1",
        "-",
        "\\",
        '[["a',
        "</think>",
        '{"a":[1,',
        "[" * MAX_DEPTH + "]" * MAX_DEPTH,
        "[" * MAX_DEPTH,
        '{"name":"f",',
        '{"a":1},',
    ],
)
def test_hostile_replies_cost_no_more_than_their_length(piece: str) -> None:
    # Quadratic work on this much would outlast the time limit of the test run by far.
    many = piece * (MAX_CHARS // len(piece) - 40)
    for reply in (many, f'{{"name": "f", "arguments": "{many}'):
        assert isinstance(written_calls(reply), FormatError)
