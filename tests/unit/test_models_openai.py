"""``OpenAIServerModel`` against a real HTTP server on 127.0.0.1 that speaks, or refuses to speak, chat completions."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import time
import zlib
from typing import Any

import httpx
import httpx2
import pytest

from orchestrator.errors import ConfigError, ModelReplyInvalid, ModelUnavailable
from orchestrator.models import ChatToolCall, ModelReply, OpenAIModel, OpenAIServerModel, TokenUsage, ToolSchema
from tests.unit.chat_server import (
    RESET,
    SILENT,
    WAIT,
    Answer,
    ChatServer,
    completion,
    failure,
    refusing,
    serving,
    stream,
    tool_call,
    whole,
)
from tests.unit.model_cases import MESSAGES, QUICK, generate

TOOL = ToolSchema("f", "does", {"type": "object", "properties": {}})
KEY = "sk-test-0123456789abcdef"


def model_on(server: ChatServer, model_id: str = "m", **more: Any) -> OpenAIServerModel:
    return OpenAIServerModel(model_id, api_base=server.url, api_key=KEY, **({"retry": QUICK} | more))


def test_a_reply_and_its_usage() -> None:
    with serving(completion("hello")) as server:
        assert generate(model_on(server, temperature=0.5), ["\nX"]) == ModelReply("hello", TokenUsage(7, 3))
        assert server.bodies == [
            {
                "model": "m",
                "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
                "temperature": 0.5,
                "stop": ["\nX"],
            }
        ]
        assert [request.path for request in server.requests] == ["/v1/chat/completions"]
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("model_id", "sent"),
    [
        ("gpt-4.1", True),
        ("o3-mini", True),
        ("o3", False),
        ("o4-mini", False),
        ("gpt-5-mini", False),
        ("openai/gpt-5", False),
        ("x-ai/grok-4", False),
        ("my-o3", True),
    ],
)
def test_stop_is_left_out_for_models_that_refuse_it_and_the_reply_is_cut_in_any_case(model_id: str, sent: bool) -> None:
    with serving(completion("code\nX rest")) as server:
        assert generate(model_on(server, model_id), ["\nX"]).text == "code"
        assert ("stop" in server.bodies[0]) is sent


def test_a_server_error_is_tried_again() -> None:
    with serving(whole("{}", 500), whole("<html>", 503, {"Content-Type": "text/html"}), completion("ok")) as server:
        assert generate(model_on(server)).text == "ok"
        assert len(server.requests) == 3


def test_the_retries_end() -> None:
    with serving(whole('{"error": {"message": "overloaded"}}', 503)) as server:
        with pytest.raises(ModelUnavailable, match=r"model m: HTTP 503.*overloaded.*calls made: 3"):
            generate(model_on(server))
        assert len(server.requests) == 3


@pytest.mark.parametrize("headers", [{"Retry-After": "0.2"}, {"retry-after-ms": "200"}])
def test_retry_after_is_honoured(headers: dict[str, str]) -> None:
    async def timed(model: OpenAIServerModel) -> float:
        loop = asyncio.get_running_loop()
        before = loop.time()
        assert (await model.generate(MESSAGES)).text == "ok"
        return loop.time() - before

    with serving(whole("{}", 429, headers), completion("ok")) as server:
        assert asyncio.run(timed(model_on(server))) >= 0.2


def test_a_wait_beyond_the_budget_is_not_begun() -> None:
    with serving(whole("{}", 429, {"Retry-After": "3600"})) as server:
        with pytest.raises(ModelUnavailable, match="asks to wait 3600 s"):
            generate(model_on(server))
        assert len(server.requests) == 1


def test_an_account_without_credit_is_not_asked_again() -> None:
    body = '{"error": {"message": "quota", "code": "insufficient_quota"}}'
    with serving(whole(body, 429)) as server:
        with pytest.raises(ModelUnavailable, match="quota"):
            generate(model_on(server))
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_ends_at_once_and_shows_no_key(status: int) -> None:
    body = json.dumps({"error": {"message": f"Bad key: {KEY}, not sk-other-abcdefgh12345"}})
    with serving(whole(body, status)) as server:
        with pytest.raises(ModelUnavailable) as caught:
            generate(model_on(server))
        assert len(server.requests) == 1
        assert f"HTTP {status}" in str(caught.value)
        assert "0123456789" not in str(caught.value)
        assert "abcdefgh" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "answer",
    [
        whole("not json"),
        whole("<html>Hello</html>", headers={"Content-Type": "text/html"}),
        whole(""),
        whole("[1]"),
        whole("null"),
        whole("{}"),
        whole('{"choices": []}'),
        whole('{"choices": [{}]}'),
        whole('{"choices": [{"message": {"content": 3}}]}'),
        whole('{"choices": "abc"}'),
        whole("[" * 100_000),
    ],
)
def test_garbage_is_an_invalid_reply(answer: Answer) -> None:
    with serving(answer) as server:
        with pytest.raises(ModelReplyInvalid, match="model m: the endpoint's answer"):
            generate(model_on(server))
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("content", "more", "text"),
    [
        (None, {}, ""),
        (None, {"refusal": "I cannot."}, "I cannot."),
        ([{"type": "text", "text": "a"}, {"type": "thinking"}, {"type": "text", "text": "b"}], {}, "ab"),
        ("half \ud800", {}, "half \\ud800"),
    ],
)
def test_unusual_replies(content: Any, more: dict[str, Any], text: str) -> None:
    with serving(completion(content, **more)) as server:
        assert generate(model_on(server)).text == text


def test_usage_may_be_missing() -> None:
    with serving(whole('{"choices": [{"message": {"content": "x"}}], "usage": null}')) as server:
        assert generate(model_on(server)) == ModelReply("x", None)


def test_a_slow_server_is_given_up() -> None:
    with serving(SILENT) as server, pytest.raises(ModelUnavailable, match=r"no reply within 0.05 s"):
        generate(model_on(server, timeout=0.05))


def test_slow_then_quick() -> None:
    with serving(SILENT, completion("ok")) as server:
        assert generate(model_on(server, timeout=0.5)).text == "ok"


def test_a_call_can_be_cancelled() -> None:
    async def cancelled(server: ChatServer) -> None:
        task = asyncio.ensure_future(model_on(server).generate(MESSAGES))
        await asyncio.to_thread(server.asked.wait, WAIT)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with serving(SILENT) as server:
        asyncio.run(cancelled(server))


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    model = OpenAIServerModel("m", api_base=f"http://127.0.0.1:{port}/v1", api_key=KEY, retry=QUICK)
    with pytest.raises(ModelUnavailable, match=r"no connection.*calls made: 3"):
        generate(model)


def test_one_model_serves_several_event_loops() -> None:
    with serving(completion("a")) as server:
        model = model_on(server)
        assert [generate(model).text, generate(model).text] == ["a", "a"]


def test_a_key_is_needed_unless_the_server_is_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        OpenAIServerModel("m")
    with serving(completion("a")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert generate(OpenAIServerModel("m")).text == "a"


def test_the_key_is_not_in_the_repr() -> None:
    assert KEY not in repr(OpenAIModel("m", api_base="http://127.0.0.1:1/v1", api_key=KEY))


# Tools, and what else a request holds.


def test_tools_and_their_calls() -> None:
    with serving(completion("why", [tool_call("f", '{"x": 1}', "a")])) as server:
        reply = generate(model_on(server), tools=[TOOL], response_format={"type": "json_object"})
        assert reply == ModelReply("why", TokenUsage(7, 3), (ChatToolCall("f", {"x": 1}, "a"),))
        assert server.bodies[0]["tools"][0]["function"]["name"] == "f"
        assert server.bodies[0]["tool_choice"] == "required"
        assert server.bodies[0]["response_format"] == {"type": "json_object"}


def test_parameters_that_only_the_server_knows() -> None:
    with serving(completion("a")) as server:
        generate(model_on(server, top_k=3, extra_body={"min_p": 0.1}, extra_headers={"X-Mine": "1"}))
        assert server.bodies[0].keys() == {"model", "messages", "top_k", "min_p"}
        assert server.requests[0].headers["x-mine"] == "1"


def test_arguments_of_the_client() -> None:
    with serving(completion("a")) as server:
        generate(
            model_on(server, client_kwargs={"default_headers": {"X-Mine": "1"}, "base_url": f"{server.address}/x"})
        )
        assert server.requests[0].headers["x-mine"] == "1"
        assert server.requests[0].path == "/x/chat/completions"
    with pytest.raises(ConfigError, match="AsyncOpenAI takes no colour"):
        OpenAIServerModel("m", api_key=KEY, client_kwargs={"colour": "red"})


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_an_http_client_of_ones_own(library: Any) -> None:
    mine = library.AsyncClient(headers={"X-Mine": "1"})
    with serving(stream("hel", ending="drop"), completion("a")) as server:
        model = model_on(server, client_kwargs={"http_client": mine}, retry=QUICK)
        assert generate(model).text == "a"
        assert [request.headers["x-mine"] for request in server.requests] == ["1", "1"]


# What a server refuses.


@pytest.mark.parametrize("message", [None, "Argument not supported on this model: stop"])
def test_a_refused_stop_is_left_out_from_then_on(message: str | None) -> None:
    with serving(refusing("stop", completion("code\nX rest"), message)) as server:
        model = model_on(server, retry=False)
        assert [generate(model, ["\nX"]).text for _ in range(2)] == ["code", "code"]
        assert ["stop" in body for body in server.bodies] == [True, False, False]


def test_a_refusal_in_the_form_of_fastapi() -> None:
    detail = [{"type": "extra_forbidden", "loc": ["body", "stop"], "msg": "Extra inputs are not permitted"}]
    with serving(whole({"detail": detail}, 422), completion("a")) as server:
        assert generate(model_on(server), ["\nX"]).text == "a"
        assert ["stop" in body for body in server.bodies] == [True, False]


def test_several_refusals_are_learned_one_after_the_other() -> None:
    with serving(refusing("stop", failure(500)), refusing("tool_choice", completion("a"))) as server:
        model = model_on(server)
        assert generate(model, ["\nX"], tools=[TOOL]).text == "a"
        assert [[name in body for name in ("stop", "tool_choice")] for body in server.bodies] == [
            [True, True],
            [False, True],
            [False, False],
        ]


def test_what_the_user_asked_for_is_not_left_out() -> None:
    with serving(refusing("stop", completion("a"))) as server:
        with pytest.raises(ModelUnavailable, match=r"HTTP 400.*'stop' is not supported"):
            generate(model_on(server, stop=["END"]))
        assert len(server.requests) == 1


# Failures that are reported with status 200, and bodies without end.


@pytest.mark.parametrize("report", [{"message": "overloaded"}, {"message": "bad gateway", "code": 502}, "overloaded"])
def test_a_failure_with_status_200_is_tried_again(report: Any) -> None:
    with serving(whole({"error": report}), completion("ok")) as server:
        assert generate(model_on(server)).text == "ok"


@pytest.mark.parametrize("code", [400, 401, "insufficient_quota"])
def test_a_hopeless_one_is_not(code: Any) -> None:
    with serving(whole({"error": {"message": f"no, {KEY}", "code": code}})) as server:
        with pytest.raises(ModelUnavailable, match=r"model m: the endpoint reports: no, \[key\]"):
            generate(model_on(server))
        assert len(server.requests) == 1


@pytest.mark.parametrize("broken", [RESET, *(Answer((b'{"choices": ',), ending=how) for how in ("drop", "reset"))])
def test_a_connection_that_breaks_is_tried_again(broken: Answer) -> None:
    with serving(broken, completion("ok")) as server:
        assert generate(model_on(server)).text == "ok"
        assert len(server.requests) == 2


def test_a_reply_without_end_is_refused() -> None:
    with serving(Answer((b"x" * (1 << 20),), ending="endless")) as server:
        with pytest.raises(ModelReplyInvalid, match="larger than 33,554,432 bytes"):
            generate(model_on(server))
        assert server.left.wait(WAIT)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "quoted", ["<html>%s", "x" * 105 + "%s", '{"a": "%s"}', '{"choices": [{"message": 3}], "a": "%s"}']
)
def test_an_answer_that_quotes_its_request_shows_no_key(quoted: str) -> None:
    with serving(lambda request: whole(quoted % request.headers["authorization"])) as server:
        model = OpenAIServerModel("m", api_base=server.url, api_key="Local-Secret-Value", retry=False)
        with pytest.raises(ModelReplyInvalid, match="endpoint's answer") as caught:
            generate(model)
        assert "Loc" not in str(caught.value)


@pytest.mark.parametrize("status", [302, 404])
def test_an_error_without_end_is_shown_in_part(status: int) -> None:
    with serving(Answer((b"x" * 5000,), status, ending="endless")) as server:
        with pytest.raises(ModelUnavailable, match=f"HTTP {status}: xxx"):
            generate(model_on(server))
        assert server.left.wait(WAIT)


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_an_error_that_expands_is_shown_in_part(packing: str) -> None:
    body = b'"' + b"sk-a" * 10_000_000 + b'"'
    packed = gzip.compress(body) if packing == "gzip" else zlib.compress(body)
    with serving(Answer((packed,), 400, headers={"Content-Encoding": packing})) as server:
        model = model_on(server)
        generating = time.process_time()
        with pytest.raises(ModelUnavailable, match="HTTP 400"):
            generate(model)
        assert time.process_time() - generating < 2.0  # seconds; all of it takes some five


def test_an_error_that_is_packed_is_read() -> None:
    body = gzip.compress(json.dumps({"error": {"message": "no such \x1b[31mmodel"}}).encode())
    with serving(Answer((body,), 404, headers={"Content-Encoding": "gzip"})) as server:
        with pytest.raises(ModelUnavailable) as caught:
            generate(model_on(server))
        assert str(caught.value) == "model m: HTTP 404: no such model"


def test_a_reply_that_expands_without_end_is_refused() -> None:
    packed = gzip.compress(b"x" * (64 << 20))
    bomb = Answer((packed,), headers={"Content-Encoding": "gzip"})
    with serving(bomb) as server, pytest.raises(ModelReplyInvalid, match="larger than"):
        generate(model_on(server))


def test_a_dripping_server_is_given_up() -> None:
    with serving(Answer((b" ",), ending="endless", pause=0.01)) as server:
        with pytest.raises(ModelUnavailable, match=r"no reply within 0.3 s \(calls made: 1\)"):
            generate(model_on(server, timeout=0.3, retry=False))
        assert server.left.wait(WAIT)


# How often it is called.


def test_one_call_only() -> None:
    with serving(failure(503), completion("ok")) as server:
        with pytest.raises(ModelUnavailable, match="calls made: 1"):
            generate(model_on(server, retry=False))
        assert len(server.requests) == 1


def test_calls_keep_to_their_pace() -> None:
    async def several(model: OpenAIServerModel) -> float:
        begun = time.monotonic()
        await asyncio.gather(*(model.generate(MESSAGES) for _ in range(4)))
        return time.monotonic() - begun

    with serving(completion("a")) as server:
        assert asyncio.run(several(model_on(server, requests_per_minute=1200))) >= 3 * 0.05
    with pytest.raises(ConfigError, match="requests_per_minute"):
        OpenAIServerModel("m", api_key=KEY, requests_per_minute=0)
