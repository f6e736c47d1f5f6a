"""``OpenAIServerModel`` against a real HTTP server on 127.0.0.1 that speaks, or refuses to speak, chat completions."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from orchestrator.errors import ConfigError, ModelReplyInvalid, ModelUnavailable
from orchestrator.models import ChatMessage, ModelReply, OpenAIModel, OpenAIServerModel, RetryPolicy, TokenUsage

QUICK = RetryPolicy(attempts=3, budget=20.0, base_delay=0.001, max_delay=0.01)
MESSAGES = [ChatMessage("system", "s"), ChatMessage("user", "u")]
KEY = "sk-test-0123456789abcdef"


@dataclass
class Answer:
    """One answer of the server. ``hold``: wait until the test is over before giving it."""

    body: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hold: bool = False
    kind: str = "application/json"


def completion(content: Any, **more: Any) -> Answer:
    body = {
        "id": "1",
        "object": "chat.completion",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content, **more}}
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }
    return Answer(json.dumps(body))


@dataclass
class Server:
    """Gives its answers in order, the last one again and again, and keeps the requests it got."""

    answers: list[Answer]
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    asked: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    def model(self, model_id: str = "m", **more: Any) -> OpenAIServerModel:
        return OpenAIServerModel(model_id, api_base=self.url, api_key=KEY, **({"retry": QUICK} | more))


@contextmanager
def serving(*answers: Answer) -> Iterator[Server]:
    server = Server(list(answers))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            assert self.path == "/v1/chat/completions"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = server.answers[min(len(server.requests), len(server.answers) - 1)]
            server.requests.append(json.loads(body))
            server.keys.append(self.headers["Authorization"])
            server.asked.set()
            if answer.hold:
                server.over.wait()
                self.close_connection = True
                return
            data = answer.body.encode()
            self.send_response(answer.status)
            for name, value in {
                "Content-Type": answer.kind,
                "Content-Length": str(len(data)),
                **answer.headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        http.shutdown()
        thread.join()
        http.server_close()


def generate(model: OpenAIServerModel, stop: Sequence[str] = ()) -> ModelReply:
    return asyncio.run(model.generate(MESSAGES, stop))


def test_a_reply_and_its_usage() -> None:
    with serving(completion("hello")) as server:
        assert generate(server.model(temperature=0.5), ["\nX"]) == ModelReply("hello", TokenUsage(7, 3))
        assert server.requests == [
            {
                "model": "m",
                "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
                "temperature": 0.5,
                "stop": ["\nX"],
            }
        ]
        assert server.keys == [f"Bearer {KEY}"]


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
        assert generate(server.model(model_id), ["\nX"]).text == "code"
        assert ("stop" in server.requests[0]) is sent


def test_a_server_error_is_tried_again() -> None:
    with serving(Answer("{}", 500), Answer("<html>", 503, kind="text/html"), completion("ok")) as server:
        assert generate(server.model()).text == "ok"
        assert len(server.requests) == 3


def test_the_retries_end() -> None:
    with serving(Answer('{"error": {"message": "overloaded"}}', 503)) as server:
        with pytest.raises(ModelUnavailable, match=r"model m: HTTP 503.*overloaded.*calls made: 3"):
            generate(server.model())
        assert len(server.requests) == 3


@pytest.mark.parametrize("headers", [{"Retry-After": "0.2"}, {"retry-after-ms": "200"}])
def test_retry_after_is_honoured(headers: dict[str, str]) -> None:
    async def timed(model: OpenAIServerModel) -> float:
        loop = asyncio.get_running_loop()
        before = loop.time()
        assert (await model.generate(MESSAGES)).text == "ok"
        return loop.time() - before

    with serving(Answer("{}", 429, headers), completion("ok")) as server:
        assert asyncio.run(timed(server.model())) >= 0.2


def test_a_wait_beyond_the_budget_is_not_begun() -> None:
    with serving(Answer("{}", 429, {"Retry-After": "3600"})) as server:
        with pytest.raises(ModelUnavailable, match="asks to wait 3600 s"):
            generate(server.model())
        assert len(server.requests) == 1


def test_an_account_without_credit_is_not_asked_again() -> None:
    body = '{"error": {"message": "quota", "code": "insufficient_quota"}}'
    with serving(Answer(body, 429)) as server:
        with pytest.raises(ModelUnavailable, match="quota"):
            generate(server.model())
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_ends_at_once_and_shows_no_key(status: int) -> None:
    body = json.dumps({"error": {"message": f"Bad key: {KEY}, not sk-other-abcdefgh12345"}})
    with serving(Answer(body, status)) as server:
        with pytest.raises(ModelUnavailable) as caught:
            generate(server.model())
        assert len(server.requests) == 1
        assert f"HTTP {status}" in str(caught.value)
        assert "0123456789" not in str(caught.value)
        assert "abcdefgh" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "answer",
    [
        Answer("not json"),
        Answer("<html>Hello</html>", kind="text/html"),
        Answer(""),
        Answer("[1]"),
        Answer("null"),
        Answer("{}"),
        Answer('{"choices": []}'),
        Answer('{"choices": [{}]}'),
        Answer('{"choices": [{"message": {"content": 3}}]}'),
        Answer('{"choices": "abc"}'),
        Answer("[" * 100_000),
    ],
)
def test_garbage_is_an_invalid_reply(answer: Answer) -> None:
    with serving(answer) as server:
        with pytest.raises(ModelReplyInvalid, match="model m: the endpoint's answer"):
            generate(server.model())
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
        assert generate(server.model()).text == text


def test_usage_may_be_missing() -> None:
    with serving(Answer('{"choices": [{"message": {"content": "x"}}], "usage": null}')) as server:
        assert generate(server.model()) == ModelReply("x", None)


def test_a_slow_server_is_given_up() -> None:
    with serving(Answer("", hold=True)) as server, pytest.raises(ModelUnavailable, match=r"no reply within 0.05 s"):
        generate(server.model(timeout=0.05))


def test_slow_then_quick() -> None:
    with serving(Answer("", hold=True), completion("ok")) as server:
        assert generate(server.model(timeout=0.5)).text == "ok"


def test_a_call_can_be_cancelled() -> None:
    async def cancelled(server: Server) -> None:
        task = asyncio.ensure_future(server.model().generate(MESSAGES))
        await asyncio.to_thread(server.asked.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with serving(Answer("", hold=True)) as server:
        asyncio.run(cancelled(server))


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    model = OpenAIServerModel("m", api_base=f"http://127.0.0.1:{port}/v1", api_key=KEY, retry=QUICK)
    with pytest.raises(ModelUnavailable, match=r"no connection.*calls made: 3"):
        generate(model)


def test_one_model_serves_several_event_loops() -> None:
    with serving(completion("a")) as server:
        model = server.model()
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
