"""``ScriptedModel``, and what completions and stop sequences are read as."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import ModelReplyInvalid, ModelUnavailable
from orchestrator.models import ChatMessage, ModelReply, ScriptedModel, TokenUsage
from orchestrator.models.completion import parse_completion
from orchestrator.models.model import cut_at_stop


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


@given(st.text(), st.lists(st.text(min_size=1), max_size=3))
def test_a_cut_text_has_no_stop_sequence(text: str, stops: list[str]) -> None:
    cut = cut_at_stop(text, stops)
    assert text.startswith(cut)
    assert not any(stop in cut for stop in stops)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "usage", "prompt_tokens"]), inner, max_size=3
        )
    ),
)


@given(st.text() | JSON.map(json.dumps) | JSON.map(lambda c: json.dumps({"choices": [{"message": c}], "usage": c})))
def test_any_body_is_a_reply_or_invalid(body: str) -> None:
    try:
        reply = parse_completion("m", body)
    except ModelReplyInvalid:
        return
    assert reply.text.encode("utf-8").decode() == reply.text
