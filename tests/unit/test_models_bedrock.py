"""``AmazonBedrockModel``: the real boto3 against a server on 127.0.0.1 that speaks the Converse API."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import sys
from typing import Any

import pytest

from orchestrator.errors import ConfigError, ModelReplyInvalid, ModelUnavailable
from orchestrator.models import REMOVE_PARAMETER
from orchestrator.models.bedrock import AmazonBedrockModel, AmazonBedrockServerModel
from orchestrator.models.model import (
    ChatMessage,
    ChatToolCall,
    ModelDelta,
    ModelReply,
    StreamingModel,
    TokenUsage,
    ToolCallDelta,
    ToolSchema,
)
from orchestrator.models.retry import RetryPolicy
from tests.unit import model_cases
from tests.unit.chat_server import RESET, WAIT, Answer, ChatServer, Request, serving, whole
from tests.unit.converse import END, USAGE, answer, stream, text_piece
from tests.unit.event_stream import event, exception
from tests.unit.model_cases import MESSAGES, QUICK, WEATHER, generate, streamed
from tests.unit.pictures import PICTURE, PNG

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"


def model(server: ChatServer, **more: Any) -> AmazonBedrockModel:
    settings = {
        "endpoint_url": server.address,
        "region_name": "us-east-1",
        "aws_access_key_id": "AKIAIOSFODNN7EXAMPLE",
        "aws_secret_access_key": SECRET,
    }
    return AmazonBedrockModel("amazon.nova-pro-v1:0", client_kwargs=settings, **({"retry": QUICK} | more))


def failure(status: int, kind: str, message: str = "no", **headers: str) -> Answer:
    return whole({"message": message}, status, {"x-amzn-errortype": kind} | headers)


def test_an_ordinary_reply_has_text_and_usage_and_no_calls() -> None:
    with serving(answer({"text": "hel"}, {"text": "lo"})) as server:
        reply = generate(model(server, temperature=0.5, max_tokens=9), stop_sequences=["\nX"])
        assert reply == ModelReply("hello", TokenUsage(7, 3))
        assert server.requests[0].path == "/model/amazon.nova-pro-v1%3A0/converse"
        assert server.bodies == [
            {
                "messages": [{"role": "user", "content": [{"text": "u"}]}],
                "system": [{"text": "s"}],
                "inferenceConfig": {"stopSequences": ["\nX"], "temperature": 0.5, "maxTokens": 9},
            }
        ]


def test_the_dicts_that_it_is_given_stay_as_they_are() -> None:
    settings = {"endpoint_url": "http://127.0.0.1:9", "region_name": "us-east-1"}
    given = {"inferenceConfig": {"maxTokens": 9}, "toolConfig": {"toolChoice": {"auto": {}}}}
    before = copy.deepcopy((settings, given))
    with serving(answer({"text": "a"}), answer({"text": "b"})) as server:
        settings |= {"endpoint_url": server.address, "aws_access_key_id": "A", "aws_secret_access_key": SECRET}
        before[0].update(settings)
        asked = AmazonBedrockModel("m", client_kwargs=settings, temperature=0.5, toolChoice={"any": {}}, **given)  # type: ignore[arg-type]
        generate(asked)
        generate(asked, tools=[WEATHER], stop_sequences=["x"])
        assert [body["inferenceConfig"] for body in server.bodies] == [
            {"maxTokens": 9, "temperature": 0.5},
            {"maxTokens": 9, "temperature": 0.5, "stopSequences": ["x"]},
        ]
    assert (settings, given) == before


def test_the_reply_is_cut_at_every_stop_sequence_although_the_api_takes_few() -> None:
    stops = ["a!", "b!", "c!", "d!", "e!"]
    with serving(answer({"text": "code e! rest"})) as server:
        assert generate(model(server), stop_sequences=stops).text == "code "
        assert server.bodies[0]["inferenceConfig"] == {"stopSequences": stops[:4]}


def test_what_was_read_from_the_cache_was_read() -> None:
    usage = USAGE | {"cacheReadInputTokens": 100, "cacheWriteInputTokens": 20}
    with serving(answer({"text": "x"}, usage=usage)) as server:
        assert generate(model(server)).token_usage == TokenUsage(127, 3)


@pytest.mark.parametrize("count", [10**4000, -1])
def test_a_usage_that_cannot_be_meant_is_none(count: int) -> None:
    cached = USAGE | {"cacheReadInputTokens": count}
    with serving(answer({"text": "x"}, usage=USAGE | {"inputTokens": count}), answer(usage=cached)) as server:
        assert generate(model(server)).token_usage is None
        assert generate(model(server)).token_usage == TokenUsage(7, 3)


def test_tools_go_there_and_calls_come_back() -> None:
    call = {"toolUse": {"toolUseId": "t1", "name": "weather", "input": {"city": "Paris"}}}
    with serving(answer({"text": "so"}, call)) as server:
        reply = generate(model(server), tools=[WEATHER])
        assert reply.tool_calls == (ChatToolCall("weather", {"city": "Paris"}, "t1"),)
        assert server.bodies[0]["toolConfig"] == {
            "tools": [
                {
                    "toolSpec": {
                        "name": "weather",
                        "description": "Weather now.",
                        "inputSchema": {"json": dict(WEATHER.parameters)},
                    }
                }
            ],
            "toolChoice": {"any": {}},
        }


HISTORY = [
    ChatMessage("system", "s"),
    ChatMessage("user", "task"),
    ChatMessage("user", "more", images=(PICTURE,)),
    ChatMessage("assistant", "", tool_calls=(ChatToolCall("weather", {"city": "Paris"}, "call 1"),)),
    ChatMessage("tool", "sunny", tool_call_id="call 1"),
    ChatMessage("tool", " ", tool_call_id="call_2"),
    ChatMessage("user", "go on"),
]


def test_a_history_with_calls_and_pictures_alternates_between_two_roles() -> None:
    with serving(answer({"text": "x"})) as server:
        generate(model(server), messages=HISTORY, tools=[WEATHER])
        picture = {"image": {"format": "png", "source": {"bytes": base64.b64encode(PNG).decode()}}}
        use = {"toolUse": {"toolUseId": "call_1", "name": "weather", "input": {"city": "Paris"}}}
        results = [
            {"toolResult": {"toolUseId": "call_1", "content": [{"text": "sunny"}]}},
            {"toolResult": {"toolUseId": "call_2", "content": [{"text": "(empty)"}]}},
        ]
        assert server.bodies[0]["messages"] == [
            {"role": "user", "content": [{"text": "task"}, {"text": "more"}, picture]},
            {"role": "assistant", "content": [use]},
            {"role": "user", "content": [*results, {"text": "go on"}]},
        ]


@pytest.mark.parametrize(
    ("roles", "tools"), [(None, []), ({"tool": "user"}, [WEATHER])], ids=["no tools", "tool role renamed"]
)
def test_calls_and_results_are_text_where_the_api_would_refuse_them(roles: Any, tools: list[ToolSchema]) -> None:
    with serving(answer({"text": "x"})) as server:
        generate(model(server, custom_role_conversions=roles), messages=HISTORY, tools=tools)
        assert server.bodies[0]["messages"][1:] == [
            {"role": "assistant", "content": [{"text": 'Calling tool weather with {"city": "Paris"}'}]},
            {"role": "user", "content": [{"text": "sunny"}, {"text": "go on"}]},
        ]


def test_a_model_without_system_prompts_gets_them_from_the_user() -> None:
    with serving(answer({"text": "x"})) as server:
        generate(model(server, custom_role_conversions={"system": "user"}))
        assert "system" not in server.bodies[0]
        assert server.bodies[0]["messages"] == [{"role": "user", "content": [{"text": "s"}, {"text": "u"}]}]


def test_a_response_format_becomes_an_output_config() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    form = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": schema}}
    with serving(answer({"text": "{}"})) as server:
        generate(model(server), response_format=form)
        text_format = server.bodies[0]["outputConfig"]["textFormat"]
        assert text_format["type"] == "json_schema"
        assert json.loads(text_format["structure"]["jsonSchema"].pop("schema")) == schema
        assert text_format["structure"]["jsonSchema"] == {"name": "n"}


def test_parameters_go_before_what_is_sent_by_itself() -> None:
    with serving(answer({"text": "x"})) as server:
        of = model(server, inferenceConfig={"maxTokens": 5}, toolConfig={"toolChoice": {"auto": {}}})
        generate(of, stop_sequences=["S"], tools=[WEATHER])
        assert server.bodies[0]["inferenceConfig"] == {"maxTokens": 5, "stopSequences": ["S"]}
        assert server.bodies[0]["toolConfig"]["toolChoice"] == {"auto": {}}
        assert len(server.bodies[0]["toolConfig"]["tools"]) == 1


def test_a_parameter_can_be_left_out_and_a_choice_needs_tools() -> None:
    with serving(answer({"text": "x"})) as server:
        of = model(server, toolChoice=REMOVE_PARAMETER, stopSequences=REMOVE_PARAMETER)
        generate(of, stop_sequences=["S"], tools=[WEATHER])
        generate(model(server, toolChoice={"auto": {}}))
        assert server.bodies[0]["toolConfig"].keys() == {"tools"}
        assert server.bodies[0]["inferenceConfig"] == {}
        assert "toolConfig" not in server.bodies[1]


@pytest.mark.parametrize("given", [{"toolChoice": {"auto": {}}}, {"toolConfig": {"toolChoice": {"auto": {}}}}])
def test_a_choice_among_tools_is_in_the_place_of_the_usual_one(given: Any) -> None:
    with serving(answer({"text": "x"})) as server:  # boto3 checks that of a union one member is set
        generate(model(server, **given), tools=[WEATHER])
        assert server.bodies[0]["toolConfig"]["toolChoice"] == {"auto": {}}


@pytest.mark.parametrize("given", [{"toolChoice": {"auto": {}}}, {"toolConfig": {"toolChoice": {"auto": {}}}}])
def test_what_the_user_asked_for_is_not_left_out(given: Any) -> None:
    refused = failure(400, "ValidationException", "This model doesn't support the toolConfig.toolChoice field.")
    with serving(refused) as server, pytest.raises(ModelUnavailable, match="toolChoice"):
        generate(model(server, **given), tools=[WEATHER])
    assert len(server.bodies) == 1


def test_what_the_model_does_not_take_is_left_out_from_then_on() -> None:
    def taking(request: Request) -> Answer:
        for name, path in (("toolConfig", "toolChoice"), ("inferenceConfig", "stopSequences")):
            if path in request.body.get(name, {}):
                said = f"This model doesn't support the {name}.{path} field. Remove {name}.{path} and try again."
                return failure(400, "ValidationException", said)
        return answer({"text": "code S rest"})

    with serving(taking) as server:
        of = model(server)
        assert generate(of, stop_sequences=["S"], tools=[WEATHER]).text == "code "
        assert len(server.requests) == 3
        generate(of, stop_sequences=["S"], tools=[WEATHER])
        assert len(server.requests) == 4


@pytest.mark.parametrize(
    "first",
    [
        failure(429, "ThrottlingException"),
        failure(500, "InternalServerException"),
        failure(503, "ServiceUnavailableException"),
        failure(408, "ModelTimeoutException"),
        Answer((), ending="drop", head=False),
        RESET,
    ],
    ids=["throttled", "internal", "unavailable", "model timeout", "dropped", "reset"],
)
def test_what_may_heal_is_tried_again_by_us_alone(first: Answer) -> None:
    with serving(first, answer({"text": "ok"})) as server:
        assert generate(model(server)).text == "ok"
        assert len(server.requests) == 2


def test_the_wait_that_the_endpoint_asks_for_is_honoured() -> None:
    busy = failure(429, "ThrottlingException", **{"Retry-After": "900"})
    model_cases.gives_up_at_a_long_wait(model, busy, "ThrottlingException")


def test_a_refusal_is_final_one_short_line_and_without_the_key() -> None:
    refusal = failure(400, "ValidationException", f"bad\n{SECRET} " + "x" * 999)
    model_cases.refuses_in_one_short_line(model, refusal, SECRET, "ValidationException")


@pytest.mark.parametrize("body", ["<html>", "[1]", "{}", '{"output": {"message": {"content": 5}}}'])
def test_an_answer_that_is_none_is_invalid(body: str) -> None:
    with serving(whole(body)) as server, pytest.raises(ModelReplyInvalid, match=r"nova"):
        generate(model(server))


def test_one_timeout_for_the_whole_call() -> None:
    dripping = Answer((b" ",) * 200, pause=0.05)
    with serving(dripping) as server, pytest.raises(ModelUnavailable, match=r"no reply within 0\.3 s"):
        generate(model(server, timeout=0.3, retry=RetryPolicy(attempts=1)))


def test_a_cancelled_call_is_not_waited_for() -> None:
    async def cancelled(server: ChatServer) -> None:
        task = asyncio.create_task(model(server).generate(MESSAGES))
        assert await asyncio.to_thread(server.asked.wait, WAIT)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, WAIT)

    with serving(Answer((), ending="hold", head=False)) as server:
        asyncio.run(asyncio.wait_for(cancelled(server), WAIT))  # the loop's end would wait for a pool's threads


def test_a_streamed_reply_with_a_call() -> None:
    start = {"contentBlockIndex": 1, "start": {"toolUse": {"toolUseId": "t1", "name": "weather"}}}
    inputs = [
        event("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"toolUse": {"input": piece}}})
        for piece in ('{"city"', ': "Paris"}')
    ]
    head = event("messageStart", {"role": "assistant"})
    with serving(
        stream(head, text_piece("hel"), text_piece("lo"), event("contentBlockStart", start), *inputs, *END)
    ) as s:
        of = model(s)
        assert isinstance(of, StreamingModel)
        assert streamed(of, tools=[WEATHER]) == [
            ModelDelta("hel"),
            ModelDelta("lo"),
            ModelDelta(tool_calls=(ToolCallDelta(0, "", "weather", "t1"),)),
            ModelDelta(tool_calls=(ToolCallDelta(0, '{"city"'),)),
            ModelDelta(tool_calls=(ToolCallDelta(0, ': "Paris"}'),)),
            ModelDelta(token_usage=TokenUsage(7, 3)),
        ]
        assert s.requests[0].path.endswith("/converse-stream")


def test_nothing_behind_a_stop_sequence_is_streamed() -> None:
    with serving(stream(text_piece("code ST"), text_piece("OP rest"), *END)) as server:
        pieces = streamed(model(server), stop_sequences=["STOP"])
        assert "".join(piece.text for piece in pieces) == "code "


@pytest.mark.parametrize(
    "first",
    [failure(429, "ThrottlingException"), stream(exception("throttlingException", "slow down"))],
    ids=["status", "in the stream"],
)
def test_a_stream_that_fails_before_its_first_piece_is_tried_again(first: Answer) -> None:
    with serving(first, stream(text_piece("ok"), *END)) as server:
        assert streamed(model(server))[0] == ModelDelta("ok")
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (stream(text_piece("a"), exception("throttlingException", "slow down")), ModelUnavailable, "in the middle"),
        (stream(text_piece("a"), exception("validationException", "bad")), ModelUnavailable, "validation"),
        (stream(text_piece("a"), ending="drop"), ModelUnavailable, "no connection"),
        (stream(text_piece("a"), text_piece("b")), ModelUnavailable, "in the middle"),
        (stream(text_piece("a"), b"\x00" * 64), ModelReplyInvalid, "cannot be read"),
    ],
    ids=["healing", "refused", "dropped", "cut", "garbage"],
)
def test_a_stream_that_breaks_in_the_middle_is_an_error_and_not_begun_again(
    answer: Answer, error: type[Exception], said: str
) -> None:
    model_cases.breaks_off(model, answer, error, said)


def test_closing_a_stream_closes_the_connection() -> None:
    model_cases.hangs_up_when_its_stream_is_closed(model, stream(text_piece("a"), ending="endless"))


def test_a_region_that_is_missing_is_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ConfigError, match="region"):
        AmazonBedrockModel("m")


def test_a_missing_package_is_told_with_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigError, match=r"pip install 'cellblock\[bedrock\]'"):
        AmazonBedrockModel("m")


def test_a_call_of_a_tool_without_a_name_is_no_reply() -> None:
    with (
        serving(answer({"toolUse": {"toolUseId": "t1", "input": {}}})) as server,
        pytest.raises(ModelReplyInvalid, match="without a name"),
    ):
        generate(model(server))


def test_a_client_of_the_users_is_used() -> None:
    with serving(answer({"text": "ok"})) as server:
        client = model(server)._client
        assert generate(AmazonBedrockServerModel("other", client=client)).text == "ok"
        assert server.requests[0].path == "/model/other/converse"
