"""Completions and their chunks as servers really send them, and as hostile ones might."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import ModelReplyInvalid
from orchestrator.models import (
    ChatToolCall,
    ModelDelta,
    ModelReply,
    TokenUsage,
    ToolCallDelta,
    joined,
)
from orchestrator.models.completion import ChunkReader, parse_json, reply_of
from orchestrator.models.deltas import MAX_REPLY, pieces_of
from orchestrator.models.tool_calls import MAX_NAME, MAX_TOOL_CALLS
from tests.unit.chat_server import USAGE, chunk, tool_call


def reply(*calls: Any, content: Any = None, **message: Any) -> ModelReply:
    said = {"content": content, "tool_calls": list(calls), **message}
    return reply_of("m", {"choices": [{"message": said}], "usage": USAGE})


def streamed(*chunks: Any) -> ModelReply:
    reader = ChunkReader("m")
    return joined([reader.delta(each) for each in chunks])


def piece(**call: Any) -> dict[str, Any]:
    """A chunk with one piece of a call, of just these fields."""
    function = {name: call.pop(name) for name in ("name", "arguments") if name in call}
    return chunk(tool_calls=[{**call, **({"function": function} if function else {})}])


# Whole completions.


def test_tool_calls_of_a_reply() -> None:
    got = reply(tool_call("f", '{"x": 1}', "a"), tool_call("g", "", "b"), content="why")
    assert got == ModelReply("why", TokenUsage(7, 3), (ChatToolCall("f", {"x": 1}, "a"), ChatToolCall("g", {}, "b")))


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ({"x": [1]}, {"x": [1]}),
        (None, {}),
        ("  ", {}),
        ("not json", "not json"),
        ('"text"', "text"),
        ("[" * 100_000, "[" * 100_000),
        ("1" * 10_000, "1" * 10_000),
        (r'{"x": "\ud800"}', {"x": "?"}),
        (r'{"x": "\ud83d\ude00"}', {"x": "\N{GRINNING FACE}"}),
        ("half \ud800", "half \\ud800"),
    ],
)
def test_arguments(sent: Any, read: Any) -> None:
    assert reply(tool_call("f", sent)).tool_calls[0].arguments == read


@pytest.mark.parametrize(
    ("sent", "given_"),
    [
        (["a", "b"], ["a", "b"]),
        ([None, "", 3], ["call_1", "call_2", "call_3"]),
        (["a", "a", "a"], ["a", "call_1", "call_2"]),
        ([None, "call_1", "call_1"], ["call_2", "call_1", "call_3"]),
        (["x" * (MAX_NAME + 1)], ["call_1"]),
        (["\ud800"], ["\\ud800"]),
    ],
)
def test_each_call_has_an_id_of_its_own(sent: list[Any], given_: list[str]) -> None:
    assert [call.id for call in reply(*(tool_call("f", "{}", id) for id in sent)).tool_calls] == given_


@given(st.lists(st.none() | st.sampled_from(["call_1", "call_2", "call_3", "a", ""]), max_size=8))
def test_any_ids_become_unique_and_good_ones_stay(sent: list[str | None]) -> None:
    given_ = [call.id for call in reply(*(tool_call("f", "{}", id) for id in sent)).tool_calls]
    assert len(set(given_)) == len(given_) == len(sent)
    assert {id for id in sent if id} <= set(given_)


@pytest.mark.parametrize(
    ("calls", "what"),
    [
        ([3], "without a name"),
        ([{}], "without a name"),
        ([{"function": {"name": None}}], "without a name"),
        ([{"function": {"name": ["f"]}}], "without a name"),
        ([{"function": "f"}], "without a name"),
        ([tool_call("f" * (MAX_NAME + 1))], "a name of 257 characters"),
        ([tool_call("f")] * (MAX_TOOL_CALLS + 1), "more than 128 tool calls"),
        ({"0": tool_call("f")}, "no list"),
        ("f()", "no list"),
    ],
)
def test_what_is_no_tool_call(calls: Any, what: str) -> None:
    with pytest.raises(ModelReplyInvalid, match=rf"model m: the endpoint's answer .*{what}"):
        reply_of("m", {"choices": [{"message": {"content": "", "tool_calls": calls}}]})


def test_the_most_calls_are_taken() -> None:
    assert len(reply(*[tool_call("f")] * MAX_TOOL_CALLS).tool_calls) == MAX_TOOL_CALLS


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "a", "reasoning_content": "thoughts"}, "a"),
        ({"reasoning_content": "thoughts"}, ""),
        ({"content": None, "reasoning": "thoughts"}, ""),
        ({"content": [{"type": "thinking", "text": "thoughts"}]}, ""),
        ({"tool_calls": []}, ""),
        ({"content": "", "refusal": "no"}, "no"),
        ({"content": "a", "tool_calls": None}, "a"),
    ],
)
def test_thoughts_are_left_out(message: dict[str, Any], text: str) -> None:
    assert reply_of("m", {"choices": [{"message": message}]}) == ModelReply(text)


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -1, "completion_tokens": 2},
        {"prompt_tokens": "1", "completion_tokens": 2},
        {"prompt_tokens": True, "completion_tokens": 2},
        {"prompt_tokens": 1, "completion_tokens": 10**4000},
        [],
        3,
        {},
    ],
)
def test_a_usage_that_is_none(usage: Any) -> None:
    assert reply_of("m", {"choices": [{"message": {"content": ""}}], "usage": usage}).token_usage is None


# Chunks.


def test_text_in_chunks() -> None:
    got = streamed(chunk(role="assistant"), chunk("a"), chunk("b", "stop"), {"choices": [], "usage": USAGE})
    assert got == ModelReply("ab", TokenUsage(7, 3))


CALLS = (ChatToolCall("f", {"x": 1}, "a"), ChatToolCall("g", {"y": 2}, "b"))


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param(
            [
                piece(index=0, id="a", name="f", arguments=""),
                piece(index=0, arguments='{"x":'),
                piece(index=0, arguments=" 1}"),
                piece(index=1, id="b", name="g", arguments='{"y": 2}'),
            ],
            id="as OpenAI does",
        ),
        pytest.param(
            [
                piece(index=0, id="a", name="f", arguments='{"x":'),
                piece(index=1, id="b", name="g", arguments='{"y":'),
                piece(index=0, id="a", name="f", arguments=" 1}"),
                piece(index=1, id="b", name="g", arguments=" 2}"),
            ],
            id="ids and names again and again, calls interleaved",
        ),
        pytest.param(
            [
                piece(index=0, id="a", name="f", arguments='{"x":'),
                piece(index=0, id="random", arguments=" 1}"),
                piece(index=1, id="b", name="g", arguments='{"y": 2}'),
            ],
            id="another id in each piece",
        ),
        pytest.param(
            [
                piece(index=0, id="a", name="f", arguments='{"x": 1}'),
                piece(index=0, id="b", name="g", arguments='{"y": 2}'),
            ],
            id="each call at index 0",
        ),
        pytest.param(
            [
                piece(id="a", name="f"),
                piece(arguments='{"x":'),
                piece(arguments=" 1}"),
                piece(id="b", name="g", arguments='{"y": 2}'),
            ],
            id="no index, the rest without id",
        ),
        pytest.param(
            [
                piece(id="a", name="f", arguments='{"x":'),
                piece(id="b", name="g", arguments='{"y":'),
                piece(id="a", arguments=" 1}"),
                piece(id="b", name="g", arguments=" 2}"),
            ],
            id="no index, ids in each piece",
        ),
        pytest.param(
            [
                piece(index=0, id="a"),
                piece(index=0, name="f", arguments={"x": 1}),
                piece(index=7, id="b", name="g", arguments={"y": 2}),
            ],
            id="the name late, the arguments as objects, an index left out",
        ),
        pytest.param(
            [chunk(tool_calls=[tool_call("f", '{"x": 1}', "a"), tool_call("g", '{"y": 2}', "b")])],
            id="both whole in one chunk, without index",
        ),
        pytest.param(
            [
                {
                    "choices": [
                        {"message": {"tool_calls": [tool_call("f", '{"x": 1}', "a"), tool_call("g", '{"y": 2}', "b")]}}
                    ]
                }
            ],
            id="no stream at all",
        ),
    ],
)
def test_pieces_of_tool_calls(chunks: list[Any]) -> None:
    assert streamed(*chunks).tool_calls == CALLS


def test_calls_without_index_and_id_are_told_apart_by_their_names() -> None:
    got = streamed(piece(name="f", arguments='{"x":'), piece(arguments=" 1}"), piece(name="f", arguments="{}"))
    assert got.tool_calls == (ChatToolCall("f", {"x": 1}, "call_1"), ChatToolCall("f", {}, "call_2"))


def test_a_finish_is_the_models_not_the_connections() -> None:
    reader = ChunkReader("m")
    reader.delta(chunk("a"))
    assert not reader.finished
    reader.delta(chunk(finish="length"))
    assert reader.finished


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        3,
        [],
        {},
        {"choices": 3},
        {"choices": [3]},
        {"choices": [{"delta": 3}]},
        {"choices": [{"delta": {"content": 3}}]},
        chunk(tool_calls=3),
        chunk(tool_calls=[3]),
        chunk(tool_calls=[{}]),
        chunk(tool_calls=[{"function": 3}]),
        piece(index=0, name="f" * (MAX_NAME + 1)),
    ],
)
def test_what_is_no_chunk(wrong: Any) -> None:
    with pytest.raises(ModelReplyInvalid, match="model m: the endpoint's answer"):
        ChunkReader("m").delta(wrong)


def test_endless_calls_are_no_reply() -> None:
    with pytest.raises(ModelReplyInvalid, match="more than 128"):
        streamed(*(piece(index=10**30 + index, name="f") for index in range(MAX_TOOL_CALLS + 1)))


FIELDS = [
    *("choices", "message", "delta", "content", "usage", "prompt_tokens", "tool_calls"),
    *("function", "name", "arguments", "id", "index"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=4,
        )
    ),
)
MESSAGES = JSON | st.fixed_dictionaries(
    {
        "content": JSON,
        "tool_calls": JSON | st.lists(st.fixed_dictionaries({"function": JSON, "id": JSON, "index": JSON})),
    }
)


@given(st.text() | JSON.map(json.dumps) | MESSAGES.map(lambda c: json.dumps({"choices": [{"message": c}], "usage": c})))
def test_any_body_is_a_reply_or_invalid(body: str) -> None:
    try:
        got = reply_of("m", parse_json("m", body))
    except ModelReplyInvalid:
        return
    assert got.text.encode("utf-8").decode() == got.text
    assert len({call.id for call in got.tool_calls}) == len(got.tool_calls)


@given(st.lists(JSON | MESSAGES.map(lambda c: {"choices": [{"delta": c}], "usage": c}), max_size=5))
def test_any_chunks_are_a_reply_or_invalid(chunks: list[Any]) -> None:
    try:
        got = streamed(*chunks)
    except ModelReplyInvalid:
        return
    assert got.text.encode("utf-8").decode() == got.text
    assert len({call.id for call in got.tool_calls}) == len(got.tool_calls)


# Pieces and the whole.


@given(
    st.builds(
        ModelReply,
        st.text(),
        st.none() | st.builds(TokenUsage, st.integers(0, 9), st.integers(0, 9)),
        st.lists(
            st.tuples(st.text(min_size=1, max_size=9), st.dictionaries(st.text(max_size=3), st.integers() | st.text())),
            max_size=3,
        ).map(lambda calls: tuple(ChatToolCall(name, given_, f"id{at}") for at, (name, given_) in enumerate(calls))),
    )
)
def test_a_reply_in_pieces_joins_to_itself(reply: ModelReply) -> None:
    pieces = list(pieces_of(reply))
    assert joined(pieces) == reply
    assert len(pieces) > len(reply.text.split())


def test_names_and_ids_that_are_sent_again_are_not_appended() -> None:
    pieces = [ToolCallDelta(0, text, "f", "a") for text in ('{"x":', " 1}")]
    assert joined([ModelDelta(tool_calls=(piece,)) for piece in pieces]).tool_calls == (CALLS[0],)


def test_calls_come_in_the_order_of_their_indexes() -> None:
    pieces = (ToolCallDelta(5, '{"y": 2}', "g", "b"), ToolCallDelta(1, '{"x": 1}', "f", "a"))
    assert joined([ModelDelta(tool_calls=pieces)]).tool_calls == CALLS


def test_the_last_usage_counts() -> None:
    assert joined([ModelDelta(token_usage=TokenUsage(1, n)) for n in range(3)]).token_usage == TokenUsage(1, 2)


@pytest.mark.parametrize(
    ("delta", "what"),
    [
        (ModelDelta("x" * (MAX_REPLY // 4)), "longer than"),
        (ModelDelta(tool_calls=(ToolCallDelta(0, "x" * (MAX_REPLY // 4), "f"),)), "longer than"),
        (ModelDelta(tool_calls=tuple(ToolCallDelta(n, "", "f") for n in range(MAX_TOOL_CALLS + 1))), "more than 128"),
        (ModelDelta(tool_calls=(ToolCallDelta(0, "{}"),)), "without a name"),
    ],
)
def test_a_joined_reply_has_bounds(delta: ModelDelta, what: str) -> None:
    with pytest.raises(ModelReplyInvalid, match=what):
        joined([delta] * 5)
