"""``LiteLLMModel`` and ``LiteLLMRouterModel``: the real litellm against a server on 127.0.0.1."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

# Before its import: it would fetch a list of prices.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

from orchestrator.errors import ConfigError, ModelReplyInvalid, ModelUnavailable
from orchestrator.models import LiteLLMModel, LiteLLMRouterModel
from orchestrator.models.model import ChatToolCall, ModelDelta, ModelReply, TokenUsage
from tests.unit import model_cases
from tests.unit.chat_server import RESET, SILENT, WAIT, Answer, ChatServer, completion, failure, serving, stream, whole
from tests.unit.model_cases import LOOK, QUICK, WEATHER, generate, streamed

# Of litellm's own code; it silences them itself, which pytest undoes.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

KEY = "sk-test-0123456789abcdef"
FORM = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}

Kind = LiteLLMModel | LiteLLMRouterModel


def direct(server: ChatServer, model_id: str = "openai/m", **more: Any) -> LiteLLMModel:
    return LiteLLMModel(model_id, api_base=server.url, api_key=KEY, **({"retry": QUICK} | more))


def deployment(url: str, group: str = "m", **more: Any) -> dict[str, Any]:
    return {"model_name": group, "litellm_params": {"model": "openai/m", "api_base": url, "api_key": KEY, **more}}


def routed(server: ChatServer, **more: Any) -> LiteLLMRouterModel:
    return LiteLLMRouterModel("m", [deployment(server.url)], **({"retry": QUICK} | more))


both = pytest.mark.parametrize("model", [direct, routed])


@both
def test_a_reply_and_its_request(model: Any) -> None:
    with serving(completion("hello\nX rest")) as server:
        of = model(server, temperature=0.5, top_k=3)
        assert generate(of, stop_sequences=["\nX"], response_format=FORM) == ModelReply("hello", TokenUsage(7, 3))
        request = server.requests[0]
        assert request.path == "/v1/chat/completions"
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.body == {
            "model": "m",
            "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
            "temperature": 0.5,
            "top_k": 3,
            "stop": ["\nX"],
            "response_format": FORM,
        }


@both
def test_one_model_serves_several_event_loops(model: Any) -> None:
    with serving(completion("ok")) as server:
        of = model(server)
        assert [generate(of).text for _ in range(3)] == ["ok"] * 3


@both
def test_tools_pictures_and_a_history_of_calls(model: Any) -> None:
    model_cases.sends_tools_pictures_and_calls(model)


@both
def test_roles_are_renamed_and_parameters_left_out(model: Any) -> None:
    model_cases.renames_roles_and_leaves_parameters_out(model)


@pytest.mark.parametrize("model_id", ["ollama/llama3", "groq/llama3", "cerebras/llama3"])
def test_some_providers_take_text_only(model_id: str) -> None:
    with serving(completion("ok")) as server:
        with pytest.raises(ConfigError, match="text only"):
            generate(direct(server, model_id), messages=LOOK)
        assert server.requests == []


def test_a_group_with_a_deployment_that_takes_text_only_takes_text_only() -> None:
    of = LiteLLMRouterModel("m", [deployment("http://127.0.0.1:1/v1"), deployment("x", model="groq/llama3")])
    with pytest.raises(ConfigError, match="text only"):
        generate(of, messages=LOOK)


def test_what_litellm_knows_that_a_model_does_not_take_is_never_sent() -> None:
    with serving(completion("code S rest")) as server:
        of = direct(server, "perplexity/sonar")
        assert generate(of, stop_sequences=["S"]).text == "code "
        assert "stop" not in server.bodies[0]


@both
def test_what_the_server_does_not_take_is_left_out_from_then_on(model: Any) -> None:
    model_cases.leaves_out_what_was_refused(model)


@both
@pytest.mark.parametrize(
    "first",
    [failure(429), failure(500), whole("<html>", 503), failure(408), Answer((), ending="drop", head=False), RESET],
    ids=["429", "500", "503", "408", "dropped", "reset"],
)
def test_what_may_heal_is_tried_again_by_us_alone(model: Any, first: Answer) -> None:
    with serving(first, completion("ok")) as server:
        assert generate(model(server)).text == "ok"
        assert len(server.requests) == 2


@both
@pytest.mark.parametrize("status", [429, 503])
def test_the_wait_that_the_endpoint_asks_for_is_honoured(model: Any, status: int) -> None:
    model_cases.gives_up_at_a_long_wait(model, failure(status, "slow down", {"Retry-After": "900"}), "slow down")


@both
def test_a_refusal_is_final_one_short_line_and_without_the_key(model: Any) -> None:
    refusal = failure(401, f"bad\nkey {KEY} " + "x" * 999)
    model_cases.refuses_in_one_short_line(model, refusal, KEY, r"HTTP 401: .*bad")


@both
def test_an_account_without_credit_is_not_asked_again(model: Any) -> None:
    with serving(failure(429, "no money", code="insufficient_quota")) as server:
        with pytest.raises(ModelUnavailable, match="no money"):
            generate(model(server))
        assert len(server.requests) == 1


@both
@pytest.mark.parametrize("body", ["<html>", "[1]", "{}", '{"choices": 5}'])
def test_an_answer_that_is_none_is_told_like_a_failure(model: Any, body: str) -> None:
    with serving(whole(body)) as server, pytest.raises(ModelUnavailable, match="HTTP 500"):
        generate(model(server))


@both
def test_no_choices_are_no_reply(model: Any) -> None:
    with serving(whole('{"choices": []}')) as server, pytest.raises(ModelReplyInvalid, match="no choices"):
        generate(model(server))


def test_a_model_without_a_provider_is_told() -> None:
    with pytest.raises(ModelUnavailable, match=r"(?i)provider"):
        generate(LiteLLMModel("nonsense", retry=QUICK))


@both
@pytest.mark.parametrize("answer", [SILENT, Answer((b" ",) * 200, pause=0.05)], ids=["silent", "dripping"])
def test_one_timeout_for_the_whole_call(model: Any, answer: Answer) -> None:
    with serving(answer) as server, pytest.raises(ModelUnavailable, match=r"no reply within 0\.5 s|HTTP 408"):
        generate(model(server, timeout=0.5, retry=False))


@both
def test_a_cancelled_call_hangs_up(model: Any) -> None:
    model_cases.hangs_up_when_cancelled(model)


@both
def test_a_streamed_reply_with_a_call(model: Any) -> None:
    model_cases.streams_a_call(model)


@both
def test_nothing_behind_a_stop_sequence_is_streamed(model: Any) -> None:
    with serving(stream("code ST", "OP rest")) as server:
        pieces = streamed(model(server), stop_sequences=["STOP"])
        assert "".join(piece.text for piece in pieces) == "code "


@both
def test_a_stream_that_fails_before_its_first_piece_is_tried_again(model: Any) -> None:
    with serving(failure(503), stream("ok")) as server:
        assert streamed(model(server))[0] == ModelDelta("ok")
        assert len(server.requests) == 2


@both
@pytest.mark.parametrize("ending", ["drop", "hold"])
def test_a_stream_that_breaks_in_the_middle_is_an_error_and_not_begun_again(model: Any, ending: Any) -> None:
    model_cases.breaks_off(model, stream("a", ending=ending), ModelUnavailable, "in the middle")


@both
def test_closing_a_stream_closes_the_connection(model: Any) -> None:
    model_cases.hangs_up_when_its_stream_is_closed(model, stream("a", ending="hold"))


# Another provider's form: what the adapter is given is still a chat completion.
ANTHROPIC = {
    "id": "m1",
    "type": "message",
    "role": "assistant",
    "model": "c",
    "content": [
        {"type": "text", "text": "so STOP rest"},
        {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Paris"}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 7, "output_tokens": 3},
}


def anthropic(server: ChatServer) -> LiteLLMModel:
    return LiteLLMModel("anthropic/claude-sonnet-4-5", server.address, "sk-ant-0123456789", retry=QUICK)


def test_a_provider_with_a_form_of_its_own() -> None:
    with serving(whole(ANTHROPIC)) as server:
        reply = generate(anthropic(server), tools=[WEATHER], stop_sequences=["STOP"])
        assert reply == ModelReply("so ", TokenUsage(7, 3), (ChatToolCall("weather", {"city": "Paris"}, "t1"),))
        assert server.requests[0].path == "/v1/messages"
        assert server.bodies[0]["tool_choice"] == {"type": "any"}


def test_a_provider_with_errors_of_its_own() -> None:
    busy = {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}
    with (
        serving(whole(busy, 429, {"retry-after": "900"})) as server,
        pytest.raises(ModelUnavailable, match=r"slow down.*asks to wait 900 s"),
    ):
        generate(anthropic(server))
    assert len(server.requests) == 1


def test_a_router_goes_on_to_another_group() -> None:
    with serving(failure(401, "bad key")) as bad, serving(completion("ok")) as good:
        of = LiteLLMRouterModel(
            "m",
            [deployment(bad.url), deployment(good.url, "other")],
            {"fallbacks": [{"m": ["other"]}]},
            retry=QUICK,
        )
        assert generate(of).text == "ok"
        assert len(bad.requests) == len(good.requests) == 1


def test_a_group_that_is_not_in_the_list_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match="no entry"):
        LiteLLMRouterModel("other", [deployment("http://127.0.0.1:1/v1")])


def test_a_missing_package_is_told_with_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(ConfigError, match=r"pip install 'cellblock\[litellm\]'"):
        LiteLLMModel("openai/m")
    with pytest.raises(ConfigError, match=r"pip install 'cellblock\[litellm\]'"):
        LiteLLMRouterModel("m", [deployment("http://127.0.0.1:1/v1")])


def test_settings_that_the_router_does_not_know_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match="no_such_setting"):
        LiteLLMRouterModel("m", [deployment("http://127.0.0.1:1/v1")], {"no_such_setting": 1})


QUIET = """
import asyncio, socket, sys
connect = socket.socket.connect
def watched(self, address):
    if address[0] != "127.0.0.1":
        print("connects to", address)
    return connect(self, address)
socket.socket.connect = watched
from orchestrator.errors import ModelUnavailable
from orchestrator.models import ChatMessage, LiteLLMModel
for model_id in ("openai/m", "nonsense"):
    try:
        asyncio.run(LiteLLMModel(model_id, sys.argv[1], "k", retry=False).generate([ChatMessage("user", "u")]))
    except ModelUnavailable:
        pass
"""


def test_it_says_nothing_and_asks_nobody_else() -> None:
    with serving(failure(500), completion("ok")) as server:
        ran = subprocess.run(
            [sys.executable, "-c", QUIET, server.url],
            env={name: value for name, value in os.environ.items() if not name.startswith("LITELLM")}
            | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=WAIT * 2,
        )
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
        assert len(server.requests) == 1
