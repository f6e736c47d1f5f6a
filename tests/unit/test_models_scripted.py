"""``ScriptedModel``: its script, whole and in pieces, and what it keeps."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.errors import ModelUnavailable
from orchestrator.models import (
    Asked,
    ChatMessage,
    ChatToolCall,
    ModelDelta,
    ModelReply,
    ScriptedModel,
    StreamingModel,
    TokenUsage,
    ToolSchema,
    joined,
)


def test_the_script_is_given_in_order_and_requests_are_kept() -> None:
    model = ScriptedModel(["a", ModelReply("b", TokenUsage(1, 2))])
    question = ChatMessage("user", "q")
    assert asyncio.run(model.generate([question])) == ModelReply("a")
    assert asyncio.run(model.generate([])) == ModelReply("b", TokenUsage(1, 2))
    assert model.requests == [(question,), ()]


def test_an_exhausted_script_is_an_error_that_says_so() -> None:
    with pytest.raises(ModelUnavailable, match="has 0 replies"):
        asyncio.run(ScriptedModel([]).generate([]))


def test_usage_adds_up() -> None:
    assert (TokenUsage(1, 2) + TokenUsage(3, 4)).total_tokens == 10


def test_a_script_of_tool_calls_and_what_was_asked() -> None:
    call, tool = ChatToolCall("f", {"x": 1}, "a"), ToolSchema("f", "does", {"type": "object"})
    model = ScriptedModel([ModelReply("", None, (call,)), "b"])
    question = ChatMessage("user", "q")
    assert asyncio.run(model.generate([question], ["END"], tools=[tool])).tool_calls == (call,)
    asyncio.run(model.generate([], response_format={"type": "json_object"}))
    assert model.calls == (
        Asked((question,), ("END",), (tool,)),
        Asked((), response_format={"type": "json_object"}),
    )


def test_a_stream_gives_the_same_script_word_by_word() -> None:
    async def pieces(model: ScriptedModel) -> list[ModelDelta]:
        return [delta async for delta in model.generate_stream([])]

    reply = ModelReply("two words", TokenUsage(1, 2), (ChatToolCall("f", {"x": 1}, "a"),))
    model = ScriptedModel(["first", reply])
    assert isinstance(model, StreamingModel)
    assert asyncio.run(model.generate([])).text == "first"
    streamed = asyncio.run(pieces(model))
    assert [delta.text for delta in streamed if delta.text] == ["two", " words"]
    assert joined(streamed) == reply
    assert [call.stream for call in model.calls] == [False, True]
    with pytest.raises(ModelUnavailable, match="has 2 replies"):
        asyncio.run(pieces(model))
