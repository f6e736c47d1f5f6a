"""Streams of ``OpenAIServerModel`` from a real HTTP server: whole, broken, silent, endless, left by their reader."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.errors import ModelReplyInvalid, ModelUnavailable
from orchestrator.models import (
    ChatToolCall,
    ModelDelta,
    ModelReply,
    OpenAIServerModel,
    StreamingModel,
    TokenUsage,
    ToolSchema,
    joined,
)
from tests.unit.chat_server import (
    RESET,
    SILENT,
    USAGE,
    WAIT,
    Answer,
    ChatServer,
    chunk,
    completion,
    events,
    failure,
    refusing,
    serving,
    stream,
    tool_call,
    whole,
)
from tests.unit.model_cases import MESSAGES, QUICK, streamed

TOOL = ToolSchema("f", "does", {"type": "object", "properties": {}})


def model_on(server: ChatServer, **more: Any) -> OpenAIServerModel:
    return OpenAIServerModel("m", api_base=server.url, api_key="k", **({"retry": QUICK} | more))


def text_before_failure(model: OpenAIServerModel, match: str) -> str:
    """What a stream gives before it fails as unavailable."""
    seen: list[str] = []

    async def read() -> None:
        async with asyncio.timeout(WAIT):
            async for delta in model.generate_stream(MESSAGES):
                seen.append(delta.text)

    with pytest.raises(ModelUnavailable, match=match) as caught:
        asyncio.run(read())
    assert caught.value.__cause__ is None
    return "".join(seen)


def test_a_streamed_reply() -> None:
    with serving(stream("hel", "lo")) as server:
        model = model_on(server)
        assert isinstance(model, StreamingModel)
        deltas = streamed(model)
        assert [delta.text for delta in deltas] == ["hel", "lo", ""]
        assert [delta.token_usage for delta in deltas] == [None, None, TokenUsage(7, 3)]
        assert server.bodies[0]["stream"] is True
        assert server.bodies[0]["stream_options"] == {"include_usage": True}
        assert [request.path for request in server.requests] == ["/v1/chat/completions"]


def test_pieces_arrive_before_the_reply_ends() -> None:
    async def first(model: OpenAIServerModel) -> ModelDelta:
        async with asyncio.timeout(WAIT):
            pieces = model.generate_stream(MESSAGES)
            delta = await anext(pieces)
            await pieces.aclose()
            return delta

    with serving(stream("hel", ending="hold")) as server:
        assert asyncio.run(first(model_on(server))) == ModelDelta("hel")


def test_tool_calls_in_pieces() -> None:
    pieces = [
        chunk(tool_calls=[tool_call("f", '{"x":', "a", index=0)]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": " 1}"}}]),
    ]
    with serving(stream("why", *pieces, finish="tool_calls")) as server:
        reply = joined(streamed(model_on(server), tools=[TOOL]))
        assert reply == ModelReply("why", TokenUsage(7, 3), (ChatToolCall("f", {"x": 1}, "a"),))
        assert server.bodies[0]["tool_choice"] == "required"


def test_an_empty_reply_is_one() -> None:
    with serving(stream()) as server:
        assert streamed(model_on(server)) == [ModelDelta(token_usage=TokenUsage(7, 3))]


def test_a_server_that_does_not_stream() -> None:
    with serving(completion("hello", [tool_call("f", "{}", "a")])) as server:
        reply = joined(streamed(model_on(server), tools=[TOOL]))
        assert reply == ModelReply("hello", TokenUsage(7, 3), (ChatToolCall("f", {}, "a"),))


# Stop sequences.


@pytest.mark.parametrize("pieces", [["code\nX", " rest"], ["code\n", "X rest"], ["co", "de", "\n", "X", " rest"]])
def test_nothing_behind_a_stop_sequence_is_given(pieces: list[str]) -> None:
    with serving(stream(*pieces)) as server:
        reply = joined(streamed(model_on(server), ["\nX"]))
        assert reply == ModelReply("code", TokenUsage(7, 3))  # the model ended soon after, so its usage is known


def test_what_only_begins_like_a_stop_sequence_is_given() -> None:
    with serving(stream("code\n", "Y", "\n")) as server:
        assert joined(streamed(model_on(server), ["\nX"])).text == "code\nY\n"


def test_a_model_that_goes_on_after_a_stop_sequence_is_left() -> None:
    endless = replace(stream("code\nX", " and", ending="endless"), pause=0.01)
    with serving(endless) as server:
        assert joined(streamed(model_on(server), ["\nX"])) == ModelReply("code")
        assert server.left.wait(WAIT)


def test_tool_calls_after_a_stop_sequence_are_given() -> None:
    with serving(stream("why\nX", " rest", chunk(tool_calls=[tool_call("f", "{}", "a", index=0)]))) as server:
        reply = joined(streamed(model_on(server), ["\nX"], tools=[TOOL]))
        assert reply == ModelReply("why", TokenUsage(7, 3), (ChatToolCall("f", {}, "a"),))


# Failures.


@pytest.mark.parametrize(
    "failing",
    [
        failure(500),
        failure(429, headers={"Retry-After": "0.01"}),
        stream(ending="drop"),
        stream(chunk(role="assistant"), ending="drop"),
        RESET,
        stream(chunk(role="assistant"), ending="reset"),
        events(),
        events(json.dumps({"error": {"message": "overloaded", "code": 502}})),
        events(json.dumps({"error": "overloaded"})),
        whole({"error": {"message": "overloaded"}}),
        whole("<html>", headers={"Content-Type": "text/html"}),
    ],
)
def test_what_fails_before_the_first_piece_is_tried_again(failing: Answer) -> None:
    with serving(failing, stream("ok")) as server:
        assert joined(streamed(model_on(server))).text == "ok"
        assert len(server.requests) == 2


def test_the_tries_end() -> None:
    with serving(stream(ending="drop")) as server:
        assert text_before_failure(model_on(server), r"connection broke.*calls made: 3") == ""


def test_what_is_reported_as_hopeless_is_not_tried_again() -> None:
    with serving(events(json.dumps({"error": {"message": "too long", "code": 400}}))) as server:
        assert text_before_failure(model_on(server), "model m: the endpoint reports: too long") == ""
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("failing", "reason"),
    [
        (stream("hel", ending="drop"), "connection broke"),
        (stream("hel", ending="reset"), "connection broke"),
        (events(json.dumps(chunk("hel"))), "stream ended in the middle"),
        (events(json.dumps(chunk("hel")), framed=False), "stream ended in the middle"),
        (events(json.dumps(chunk("hel")), json.dumps({"error": {"message": "crash"}})), "reports: crash"),
    ],
)
def test_what_fails_later_is_not(failing: Answer, reason: str) -> None:
    with serving(failing, stream("ok")) as server:
        assert text_before_failure(model_on(server), rf"model m: .*{reason}.*in the middle of a reply") == "hel"
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "ending",
    [
        events(json.dumps(chunk("hel")), json.dumps(chunk("lo", "stop")), framed=False),
        events(json.dumps(chunk("hel")), json.dumps(chunk("lo", "stop")), ending="drop"),
        events(json.dumps(chunk("hel")), json.dumps(chunk("lo")), "[DONE]"),
        events(json.dumps(chunk("hello")), "[DONE]", ending="hold"),
    ],
)
def test_a_reply_that_was_finished_is_whole_however_its_stream_ends(ending: Answer) -> None:
    with serving(ending) as server:
        assert joined(streamed(model_on(server))) == ModelReply("hello")


@pytest.mark.parametrize("wrong", ["not json", "[" * 100_000, "3", '{"choices": [{"delta": {"content": 3}}]}', "{}"])
def test_garbage_in_a_stream(wrong: str) -> None:
    with serving(events(json.dumps(chunk("hel")), wrong)) as server:
        with pytest.raises(ModelReplyInvalid, match="model m: the endpoint's answer"):
            streamed(model_on(server))
        assert len(server.requests) == 1


def test_a_silent_stream_is_given_up() -> None:
    with serving(stream("hel", ending="hold")) as server:
        assert text_before_failure(model_on(server, timeout=0.2), "no reply within 0.2 s") == "hel"
        assert server.left.wait(WAIT)


def test_a_stream_that_never_begins_is_given_up() -> None:
    with serving(SILENT, SILENT, stream("ok")) as server:
        patient = replace(QUICK, attempts=6)  # also the answer may be late now and then
        assert joined(streamed(model_on(server, timeout=0.5, retry=patient))).text == "ok"


def test_comments_are_silence() -> None:
    pings = Answer((b": ping\n\n",), headers={"Content-Type": "text/event-stream"}, ending="endless", pause=0.01)
    with serving(pings) as server:
        assert text_before_failure(model_on(server, timeout=0.2, retry=False), r"no reply.*calls made: 1") == ""


@pytest.mark.parametrize("piece", [b"data: " + b"x" * (1 << 20), b"x" * (1 << 20), b"data: y\n" * (1 << 17)])
def test_an_event_without_end_is_refused(piece: bytes) -> None:
    endless = Answer((piece,), headers={"Content-Type": "text/event-stream"}, ending="endless")
    with serving(endless) as server:
        with pytest.raises(ModelReplyInvalid, match="larger than 33,554,432 bytes"):
            streamed(model_on(server))
        assert server.left.wait(WAIT)


def test_a_stream_without_end_is_refused() -> None:
    thoughts = f"data: {json.dumps(chunk(reasoning_content='x' * (1 << 20)))}\n\n".encode()
    endless = Answer((thoughts,), headers={"Content-Type": "text/event-stream"}, ending="endless")
    with serving(endless) as server:
        with pytest.raises(ModelReplyInvalid, match="larger than 268,435,456 bytes"):
            streamed(model_on(server))
        assert server.left.wait(WAIT)


# What the server does not take.


def test_a_server_that_does_not_count_tokens_of_streams() -> None:
    with serving(refusing("stream_options", stream("ok"))) as server:
        model = model_on(server)
        assert [joined(streamed(model)).text for _ in range(2)] == ["ok", "ok"]
        assert ["stream_options" in body for body in server.bodies] == [True, False, False]


def test_a_usage_in_every_chunk_is_given_once() -> None:
    chunks = [chunk("a") | {"usage": {**USAGE, "completion_tokens": 1}}, chunk("b") | {"usage": USAGE}]
    with serving(stream(*chunks)) as server:
        deltas = streamed(model_on(server))
        assert [delta.token_usage for delta in deltas] == [None, None, TokenUsage(7, 3)]


# Readers that leave.


@pytest.mark.parametrize("how", ["closed", "cancelled"])
def test_the_server_sees_at_once_that_the_reader_has_left(how: str) -> None:
    async def leave(server: ChatServer) -> None:
        pieces = model_on(server).generate_stream(MESSAGES)
        async with asyncio.timeout(WAIT):
            await anext(pieces)
            if how == "closed":
                await pieces.aclose()
            else:
                waiting = asyncio.ensure_future(anext(pieces))
                await asyncio.sleep(0)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            # The loop goes on, so it is not its end that closes the connection.
            assert await asyncio.to_thread(server.left.wait, WAIT)

    with serving(stream("hel", ending="hold")) as server:
        asyncio.run(leave(server))


def test_a_reader_may_leave_before_the_first_piece() -> None:
    async def leave(server: ChatServer) -> None:
        waiting = asyncio.ensure_future(anext(model_on(server).generate_stream(MESSAGES)))
        async with asyncio.timeout(WAIT):
            assert await asyncio.to_thread(server.asked.wait, WAIT)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert await asyncio.to_thread(server.left.wait, WAIT)

    with serving(SILENT) as server:
        asyncio.run(leave(server))


def test_a_slow_reader_is_no_silent_server() -> None:
    async def read(model: OpenAIServerModel) -> list[str]:
        texts = []
        async for delta in model.generate_stream(MESSAGES):
            await asyncio.sleep(0.7)  # longer than the timeout; nothing is waited for here
            texts.append(delta.text)
        return texts

    with serving(stream("hel", "lo")) as server:
        assert asyncio.run(read(model_on(server, timeout=0.5))) == ["hel", "lo", ""]
