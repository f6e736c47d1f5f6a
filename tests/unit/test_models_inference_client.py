"""``InferenceClientModel``: the real huggingface_hub against a server on 127.0.0.1."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ConfigError, ModelReplyInvalid, ModelUnavailable
from orchestrator.models import HfApiModel, InferenceClientModel
from orchestrator.models.inference_client import _is_of_hugging_face
from orchestrator.models.model import ModelDelta, ModelReply, TokenUsage
from tests.unit import model_cases
from tests.unit.chat_server import (
    RESET,
    SILENT,
    WAIT,
    Answer,
    ChatServer,
    completion,
    events,
    failure,
    serving,
    stream,
    whole,
)
from tests.unit.model_cases import LOOK, MESSAGES, QUICK, generate, streamed

TOKEN = "hf_0123456789abcdefghij"


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_INFERENCE_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    # This process has imported the library, perhaps before a model could set the variable.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nonexistent/token")


def model(server: ChatServer, **more: Any) -> InferenceClientModel:
    return InferenceClientModel("some/model", base_url=server.url, token=TOKEN, **({"retry": QUICK} | more))


def test_a_reply_and_its_request() -> None:
    with serving(completion("hello\nX rest")) as server:
        of = model(server, temperature=0.5, top_k=3, bill_to="us")
        assert generate(of, stop_sequences=["\nX"]) == ModelReply("hello", TokenUsage(7, 3))
        request = server.requests[0]
        assert request.path == "/v1/chat/completions"
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        assert request.headers["x-hf-bill-to"] == "us"
        assert request.body == {
            "model": "some/model",
            "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
            "temperature": 0.5,
            "top_k": 3,
            "stop": ["\nX"],
            "stream": False,
        }


def test_without_arguments_it_asks_the_endpoint_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(completion("ok")) as server:
        monkeypatch.setenv("HF_INFERENCE_ENDPOINT", server.address)
        assert generate(HfApiModel()).text == "ok"
        assert server.requests[0].path == "/v1/chat/completions"
        assert server.requests[0].body["model"] == "Qwen/Qwen3-Next-80B-A3B-Thinking"
        assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize("stored", ["environment", "file"])
def test_a_token_that_was_found_goes_to_hugging_face_alone(
    stored: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if stored == "environment":
        monkeypatch.setenv("HF_TOKEN", TOKEN)
    else:
        (tmp_path / "token").write_text(TOKEN)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    with serving(completion("ok"), completion("ok")) as server:
        assert generate(InferenceClientModel("m", base_url=server.url)).text == "ok"
        assert generate(InferenceClientModel("m", base_url=server.url, token=TOKEN)).text == "ok"
        assert [TOKEN in request.headers["authorization"] for request in server.requests] == [False, True]


@pytest.mark.parametrize(
    ("url", "is_theirs"),
    [
        ("https://router.huggingface.co/v1", True),
        ("https://x1.us-east-1.aws.endpoints.huggingface.cloud", True),
        ("https://hf.co", True),
        ("http://huggingface.co", False),
        ("https://nothuggingface.co", False),
        ("https://huggingface.co.evil.org", False),
        ("https://huggingface.co@evil.org", False),
        ("https://evil.org/huggingface.co", False),
        ("https://evil.hf.space", False),
    ],
)
def test_which_endpoints_are_of_hugging_face(url: str, is_theirs: bool) -> None:
    assert _is_of_hugging_face(url) is is_theirs


def test_an_endpoints_url_as_the_model() -> None:
    with serving(completion("ok")) as server:
        assert generate(InferenceClientModel(server.address, token=TOKEN)).text == "ok"
        assert server.requests[0].path == "/v1/chat/completions"


def test_without_a_token_and_a_server_it_says_what_to_set() -> None:
    with pytest.raises(ConfigError, match="set HF_TOKEN"):
        InferenceClientModel()


def test_a_missing_package_is_told_with_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"pip install 'cellblock\[hf\]'"):
        InferenceClientModel(token=TOKEN)


def test_token_and_api_key_are_the_same() -> None:
    with pytest.raises(ConfigError, match="one of them"):
        InferenceClientModel(token="a", api_key="b")


def test_tools_pictures_and_a_history_of_calls() -> None:
    model_cases.sends_tools_pictures_and_calls(model)


def test_roles_are_renamed_and_parameters_left_out() -> None:
    model_cases.renames_roles_and_leaves_parameters_out(model)


def test_pictures_are_an_error_for_a_model_of_text() -> None:
    with serving(completion("ok")) as server:
        with pytest.raises(ConfigError, match="text only"):
            generate(model(server, flatten_messages_as_text=True), messages=LOOK)
        assert server.requests == []


def test_what_the_server_does_not_take_is_left_out_from_then_on() -> None:
    model_cases.leaves_out_what_was_refused(model)


@pytest.mark.parametrize(
    "first", [failure(429), failure(500), whole("<html>", 503), Answer((), ending="drop", head=False), RESET]
)
def test_what_may_heal_is_tried_again(first: Answer) -> None:
    with serving(first, completion("ok")) as server:
        assert generate(model(server)).text == "ok"
        assert len(server.requests) == 2


def test_the_wait_that_the_endpoint_asks_for_is_honoured() -> None:
    model_cases.gives_up_at_a_long_wait(model, failure(429, "slow down", {"Retry-After": "900"}), "slow down")


def test_a_refusal_is_final_one_short_line_and_without_the_key() -> None:
    refusal = failure(401, f"bad\nkey {TOKEN} " + "x" * 999)
    model_cases.refuses_in_one_short_line(model, refusal, TOKEN, r"HTTP 401: .*bad")


@pytest.mark.parametrize("body", ["<html>", "[1]", "{}", '{"choices": []}', '{"choices": 5}', '{"error": "x"}', "\xff"])
def test_an_answer_that_is_none_is_invalid(body: str) -> None:
    with serving(whole(body)) as server, pytest.raises(ModelReplyInvalid, match="some/model"):
        generate(model(server))


@pytest.mark.parametrize("answer", [SILENT, Answer((b" ",) * 200, pause=0.05)], ids=["silent", "dripping"])
def test_one_timeout_for_the_whole_call(answer: Answer) -> None:
    with serving(answer) as server, pytest.raises(ModelUnavailable, match=r"no reply within 0\.3 s"):
        generate(model(server, timeout=0.3, retry=False))


def test_a_cancelled_call_hangs_up() -> None:
    model_cases.hangs_up_when_cancelled(model)


def test_a_streamed_reply_with_a_call() -> None:
    model_cases.streams_a_call(model)


def test_nothing_behind_a_stop_sequence_is_streamed() -> None:
    with serving(stream("code ST", "OP rest")) as server:
        pieces = streamed(model(server), stop_sequences=["STOP"])
        assert "".join(piece.text for piece in pieces) == "code "
        assert pieces[-1].token_usage == TokenUsage(7, 3)


def test_a_stream_is_left_soon_after_a_stop_sequence() -> None:
    with serving(stream("code STOP", "rest", ending="endless")) as server:
        pieces = streamed(model(server), stop_sequences=["STOP"])
        assert "".join(piece.text for piece in pieces) == "code "
        assert server.left.wait(WAIT)


@pytest.mark.parametrize("first", [failure(503), events('{"error": "busy", "error_type": "overloaded"}')])
def test_a_stream_that_fails_before_its_first_piece_is_tried_again(first: Answer) -> None:
    with serving(first, stream("ok")) as server:
        assert streamed(model(server))[0] == ModelDelta("ok")
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (stream("a", ending="drop"), ModelUnavailable, "in the middle"),
        (events('{"choices": [{"index": 0, "delta": {"content": "a"}}]}'), ModelUnavailable, "ended in the middle"),
        (events('{"choices": [{"index": 0, "delta": {"content": "a"}}]}', "{bad"), ModelReplyInvalid, "read"),
        (events('{"choices": [{"index": 0, "delta": {"content": "a"}}]}', "[1]"), ModelReplyInvalid, "read"),
        (stream("a", ending="hold"), ModelUnavailable, "no reply within"),
    ],
    ids=["dropped", "cut", "garbage", "no object", "silent"],
)
def test_a_stream_that_breaks_in_the_middle_is_an_error_and_not_begun_again(
    answer: Answer, error: type[Exception], said: str
) -> None:
    model_cases.breaks_off(model, answer, error, said)


def test_closing_a_stream_closes_the_connection() -> None:
    model_cases.hangs_up_when_its_stream_is_closed(model, stream("a", ending="hold"))


def test_calls_are_paced() -> None:
    async def two(of: InferenceClientModel) -> float:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await asyncio.gather(of.generate(MESSAGES), of.generate(MESSAGES))
        return loop.time() - begun

    with serving(completion("ok")) as server:
        assert asyncio.run(two(model(server, requests_per_minute=120))) >= 0.5


ASKS_THE_HUB = """
import asyncio
from orchestrator.errors import ModelUnavailable
from orchestrator.models import ChatMessage, InferenceClientModel
model = InferenceClientModel("some/model", provider="together", token="hf_x")
try:
    asyncio.run(model.generate([ChatMessage("user", "u")]))
except ModelUnavailable as error:
    print(error)
"""


def test_a_model_that_the_provider_does_not_have_is_told_and_nothing_else_asked_of_the_hub(tmp_path: Path) -> None:
    """In a process of its own: huggingface_hub reads the hub's address when it is imported."""
    with serving(whole({"id": "some/model", "inferenceProviderMapping": {}})) as server:
        settings = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
        ran = subprocess.run(
            [sys.executable, "-c", ASKS_THE_HUB],
            env={name: value for name, value in os.environ.items() if "TELEMETRY" not in name} | settings,
            capture_output=True,
            text=True,
            timeout=WAIT * 2,
        )
        assert "some/model is not supported by provider together" in ran.stdout, ran.stderr
        assert [request.path.partition("?")[0] for request in server.requests] == ["/api/models/some/model"]
