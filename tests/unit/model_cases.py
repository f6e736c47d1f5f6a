"""What a model behind HTTP does whatever library it is asked through: held against each by the tests of that model.

``make`` makes the model for a server of ``chat_server``, with settings over those of the test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from orchestrator.errors import ModelUnavailable
from orchestrator.models import (
    REMOVE_PARAMETER,
    ChatMessage,
    ChatToolCall,
    ModelDelta,
    ModelReply,
    RetryPolicy,
    StreamingModel,
    TokenUsage,
    ToolCallDelta,
    ToolSchema,
)
from tests.unit.chat_server import (
    SILENT,
    WAIT,
    Answer,
    ChatServer,
    chunk,
    completion,
    refusing,
    serving,
    stream,
    tool_call,
)
from tests.unit.pictures import PICTURE

QUICK = RetryPolicy(attempts=3, budget=20.0, base_delay=0.001, max_delay=0.01)
MESSAGES = [ChatMessage("system", "s"), ChatMessage("user", "u")]
LOOK = [ChatMessage("user", "look", images=(PICTURE,))]
WEATHER = ToolSchema("weather", "Weather now.", {"type": "object", "properties": {"city": {"type": "string"}}})

Make = Callable[..., Any]


def generate(
    model: Any, stop_sequences: Sequence[str] = (), *, messages: Sequence[ChatMessage] = MESSAGES, **more: Any
) -> ModelReply:
    async def reply() -> ModelReply:
        async with asyncio.timeout(WAIT):
            given: ModelReply = await model.generate(messages, stop_sequences, **more)
            return given

    return asyncio.run(reply())


def streamed(model: Any, stop_sequences: Sequence[str] = (), **more: Any) -> list[ModelDelta]:
    async def collected() -> list[ModelDelta]:
        async with asyncio.timeout(WAIT), aclosing(model.generate_stream(MESSAGES, stop_sequences, **more)) as pieces:
            return [piece async for piece in pieces]

    return asyncio.run(collected())


# What is sent.


def sends_tools_pictures_and_calls(make: Make) -> None:
    history = [
        *LOOK,
        ChatMessage("assistant", "", tool_calls=(ChatToolCall("weather", {"city": "Paris"}, "c1"),)),
        ChatMessage("tool", "sunny", tool_call_id="c1"),
    ]
    with serving(completion(None, [tool_call("weather", '{"city": "Rome"}', "c2")])) as server:
        reply = generate(make(server), messages=history, tools=[WEATHER])
        assert reply.text == ""
        assert reply.tool_calls == (ChatToolCall("weather", {"city": "Rome"}, "c2"),)
        body = server.bodies[0]
        assert body["tools"][0]["function"]["name"] == "weather"
        assert body["tool_choice"] == "required"
        assert body["messages"][0]["content"][1]["image_url"]["url"] == PICTURE.to_data_url()
        assert body["messages"][1]["tool_calls"][0]["id"] == body["messages"][2]["tool_call_id"] == "c1"


def renames_roles_and_leaves_parameters_out(make: Make) -> None:
    with serving(completion("ok")) as server:
        model = make(server, custom_role_conversions={"system": "user"}, tool_choice=REMOVE_PARAMETER)
        generate(model, tools=[WEATHER])
        assert [message["role"] for message in server.bodies[0]["messages"]] == ["user"]
        assert "tool_choice" not in server.bodies[0]


def leaves_out_what_was_refused(make: Make) -> None:
    with serving(refusing("stop", completion("code S rest"))) as server:
        model = make(server)
        assert generate(model, ["S"]).text == "code "
        assert generate(model, ["S"]).text == "code "
        assert len(server.requests) == 3


# What fails.


def gives_up_at_a_long_wait(make: Make, busy: Answer, said: str) -> None:
    """``busy`` asks for 900 seconds of patience, which is more than ``QUICK`` has."""
    with serving(busy) as server:
        with pytest.raises(ModelUnavailable, match=rf"{said}.*asks to wait 900 s"):
            generate(make(server))
        assert len(server.requests) == 1


def refuses_in_one_short_line(make: Make, refusal: Answer, key: str, said: str) -> None:
    """``refusal`` has the key in it, and a long text of several lines; ``said`` of it is told."""
    with serving(refusal) as server:
        with pytest.raises(ModelUnavailable, match=said) as caught:
            generate(make(server))
        assert len(server.requests) == 1
    assert key not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def hangs_up_when_cancelled(make: Make) -> None:
    async def cancelled(server: ChatServer) -> None:
        task = asyncio.create_task(make(server).generate(MESSAGES))
        assert await asyncio.to_thread(server.asked.wait, WAIT)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(server.left.wait, WAIT)

    with serving(SILENT) as server:
        asyncio.run(asyncio.wait_for(cancelled(server), WAIT))


# Streams.


def streams_a_call(make: Make) -> None:
    call = chunk(tool_calls=[tool_call("weather", '{"a":', "c1", index=0)])
    more = chunk(tool_calls=[{"index": 0, "function": {"arguments": " 1}"}}])
    with serving(stream("hel", "lo", call, more)) as server:
        model = make(server)
        assert isinstance(model, StreamingModel)
        assert streamed(model, tools=[WEATHER]) == [
            ModelDelta("hel"),
            ModelDelta("lo"),
            ModelDelta(tool_calls=(ToolCallDelta(0, '{"a":', "weather", "c1"),)),
            ModelDelta(tool_calls=(ToolCallDelta(0, " 1}"),)),
            ModelDelta(token_usage=TokenUsage(7, 3)),
        ]
        assert server.bodies[0]["stream_options"] == {"include_usage": True}


def breaks_off(make: Make, broken: Answer, error: type[Exception], said: str) -> None:
    """A stream that broke in the middle of a reply is not begun again."""
    seconds = 3.0 if broken.ending == "hold" else WAIT  # the first piece, too, has to come within them
    with serving(broken) as server:
        with pytest.raises(error, match=said):
            streamed(make(server, timeout=seconds))
        assert len(server.requests) == 1


def hangs_up_when_its_stream_is_closed(make: Make, answer: Answer) -> None:
    """``answer`` streams "a", and does not end."""

    async def first_piece(server: ChatServer) -> ModelDelta:
        async with aclosing(make(server).generate_stream(MESSAGES)) as pieces:
            piece: ModelDelta = await anext(pieces)
        # The loop goes on, so it is not its end that closes the connection.
        assert await asyncio.to_thread(server.left.wait, WAIT)
        return piece

    with serving(answer) as server:
        assert asyncio.run(asyncio.wait_for(first_piece(server), WAIT)) == ModelDelta("a")
