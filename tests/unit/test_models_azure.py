"""``AzureOpenAIServerModel`` against a real HTTP server: its paths, its credentials; the rest is that of OpenAI's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchestrator.errors import ConfigError, ModelReplyInvalid, ModelUnavailable
from orchestrator.models import AzureOpenAIModel, AzureOpenAIServerModel, ChatMessage, ModelReply, TokenUsage, joined
from tests.unit import model_cases
from tests.unit.chat_server import RESET, SILENT, WAIT, Answer, ChatServer, completion, failure, serving, stream, whole
from tests.unit.model_cases import QUICK, generate, streamed

KEY = "0123456789abcdef0123456789abcdef"
MESSAGES = [ChatMessage("user", "u")]
VARIABLES = ("AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN", "OPENAI_API_VERSION")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def model_on(server: ChatServer, **more: Any) -> AzureOpenAIServerModel:
    return AzureOpenAIServerModel("gpt-4.1", server.address, KEY, "2024-10-21", **({"retry": QUICK} | more))


PATH = "/openai/deployments/gpt-4.1/chat/completions?api-version=2024-10-21"


def test_a_reply_of_a_deployment() -> None:
    with serving(completion("a\nX b")) as server:
        reply = asyncio.run(model_on(server, temperature=0).generate(MESSAGES, ["\nX"]))
        assert reply == ModelReply("a", TokenUsage(7, 3))
        assert server.requests[0].path == PATH
        assert server.requests[0].headers["api-key"] == KEY
        assert server.bodies[0]["temperature"] == 0


def test_a_stream_begins_with_what_a_filter_found() -> None:
    async def read(model: AzureOpenAIServerModel) -> ModelReply:
        return joined([delta async for delta in model.generate_stream(MESSAGES)])

    with serving(stream({"choices": [], "prompt_filter_results": []}, "hel", "lo")) as server:
        assert asyncio.run(read(model_on(server))) == ModelReply("hello", TokenUsage(7, 3))
        assert server.requests[0].path == PATH


def test_everything_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(completion("a")) as server:
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.address)
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
        assert asyncio.run(AzureOpenAIModel("gpt-4.1").generate(MESSAGES)).text == "a"
        assert server.requests[0].path == PATH
        assert server.requests[0].headers["api-key"] == KEY


@pytest.mark.parametrize("missing", ["AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY", "OPENAI_API_VERSION"])
def test_what_is_missing_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {"AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY", "OPENAI_API_VERSION"} - {missing}:
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with pytest.raises(ConfigError, match=f"model gpt-4.1: set {missing}, or pass"):
        AzureOpenAIServerModel("gpt-4.1")


@pytest.mark.parametrize("where", ["argument", "variable", "provider"])
def test_a_token_in_place_of_a_key(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def token() -> str:
        return "my-token"

    given: dict[str, Any] = {}
    if where == "variable":
        monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "my-token")
    else:
        given = {"azure_ad_token": "my-token"} if where == "argument" else {"azure_ad_token_provider": token}
    with serving(completion("a")) as server:
        model = AzureOpenAIServerModel("gpt-4.1", server.address, api_version="2024-10-21", client_kwargs=given)
        assert asyncio.run(model.generate(MESSAGES)).text == "a"
        assert server.requests[0].headers["authorization"] == "Bearer my-token"
        assert "api-key" not in server.requests[0].headers


def test_the_key_is_shown_nowhere() -> None:
    with serving(failure(401, f"bad key {KEY}")) as server:
        model = model_on(server)
        with pytest.raises(ModelUnavailable, match=r"HTTP 401.*bad key \[key\]"):
            asyncio.run(model.generate(MESSAGES))
        assert KEY not in repr(model)


def test_tools_pictures_and_a_history_of_calls() -> None:
    model_cases.sends_tools_pictures_and_calls(model_on)


def test_roles_are_renamed_and_parameters_left_out() -> None:
    model_cases.renames_roles_and_leaves_parameters_out(model_on)


def test_what_the_deployment_does_not_take_is_left_out_from_then_on() -> None:
    model_cases.leaves_out_what_was_refused(model_on)


@pytest.mark.parametrize("first", [failure(429), failure(500), whole("<html>", 503), failure(408), RESET])
def test_what_may_heal_is_tried_again(first: Answer) -> None:
    with serving(first, completion("ok")) as server:
        assert generate(model_on(server)).text == "ok"
        assert [request.path for request in server.requests] == [PATH] * 2


@pytest.mark.parametrize("broken", ["<html>", "{", "[]", '"text"', '{"choices": []}', '{"choices": [{"message": 5}]}'])
def test_an_answer_that_is_none_is_told_and_not_asked_for_again(broken: str) -> None:
    with serving(whole(broken), completion("late")) as server:
        with pytest.raises(ModelReplyInvalid, match=r"model gpt-4\.1: "):
            generate(model_on(server))
        assert len(server.requests) == 1


def test_json_that_ends_in_the_middle_with_the_connection_is_tried_again() -> None:
    with serving(Answer((b'{"choices": ',), ending="drop"), completion("ok")) as server:
        assert generate(model_on(server)).text == "ok"


def test_broken_json_in_a_stream() -> None:
    broken = Answer((b"data: {oops\n\n",), headers={"Content-Type": "text/event-stream"})
    with serving(broken) as server, pytest.raises((ModelReplyInvalid, ModelUnavailable), match=r"model gpt-4\.1"):
        streamed(model_on(server))


def test_a_silent_server_is_given_up_and_left() -> None:
    with serving(SILENT) as server:
        with pytest.raises(ModelUnavailable, match=r"no reply within 0.05 s"):
            generate(model_on(server, timeout=0.05))
        assert server.left.wait(WAIT)


def test_a_silent_server_is_asked_again() -> None:
    with serving(SILENT, completion("ok")) as server:
        assert generate(model_on(server, timeout=0.5)).text == "ok"
        assert [request.path for request in server.requests] == [PATH] * 2


def test_the_wait_that_the_endpoint_asks_for_is_honoured() -> None:
    model_cases.gives_up_at_a_long_wait(model_on, failure(429, "slow down", {"Retry-After": "900"}), "slow down")


def test_a_refusal_is_final_one_short_line_and_without_the_key() -> None:
    refusal = failure(401, f"bad\nkey {KEY} " + "x" * 999)
    model_cases.refuses_in_one_short_line(model_on, refusal, KEY, r"HTTP 401: .*bad")


def test_a_cancelled_call_hangs_up() -> None:
    model_cases.hangs_up_when_cancelled(model_on)


def test_a_streamed_reply_with_a_call() -> None:
    model_cases.streams_a_call(model_on)


@pytest.mark.parametrize("ending", ["drop", "reset", "hold"])
def test_a_stream_that_breaks_in_the_middle_is_an_error_and_not_begun_again(ending: Any) -> None:
    model_cases.breaks_off(model_on, stream("a", ending=ending), ModelUnavailable, "connection broke|no reply within")


def test_closing_a_stream_closes_the_connection() -> None:
    model_cases.hangs_up_when_its_stream_is_closed(model_on, stream("a", ending="hold"))
