"""The request of a chat completion: parameters, roles, pictures, tools."""

from __future__ import annotations

import base64
import copy
import enum
import pickle
from typing import Any

import pytest

from orchestrator.errors import ConfigError
from orchestrator.models import REMOVE_PARAMETER, ChatMessage, ChatToolCall, ToolSchema
from orchestrator.models.asked import Asked
from orchestrator.models.chat_request import ChatSettings
from orchestrator.models.refusals import refused_parameter
from tests.unit.pictures import PICTURE

TOOL = ToolSchema("f", "does", {"type": "object", "properties": {}})
TOOL_SENT = {
    "type": "function",
    "function": {"name": "f", "description": "does", "parameters": {"type": "object", "properties": {}}},
}
ASKED = ChatMessage("user", "u")
CONVERSATION = [
    ChatMessage("system", "s"),
    ASKED,
    ChatMessage("assistant", "thinking", tool_calls=(ChatToolCall("f", {"x": 1}, "a"), ChatToolCall("g", {}, "b"))),
    ChatMessage("tool", "one", tool_call_id="a"),
    ChatMessage("tool", "two", tool_call_id="b"),
]


def request(model_id: str = "m", *args: Any, stream: bool = False, **parameters: Any) -> dict[str, Any]:
    made = ChatSettings(model_id, parameters).request(Asked((ASKED,), *args, stream=stream))
    assert made.pop("model") == model_id
    assert made.pop("messages") == [{"role": "user", "content": "u"}]
    return made


def test_nothing_but_what_is_asked_for() -> None:
    assert request() == {}


def test_tools_must_be_called_unless_told_otherwise() -> None:
    assert request("m", (), [TOOL]) == {"tools": [TOOL_SENT], "tool_choice": "required"}
    assert request("m", (), [TOOL], tool_choice="auto") == {"tools": [TOOL_SENT], "tool_choice": "auto"}
    assert request("m", (), [TOOL], tool_choice=REMOVE_PARAMETER) == {"tools": [TOOL_SENT]}


def test_what_needs_tools_or_a_stream_is_not_sent_without() -> None:
    more = {"tool_choice": "auto", "parallel_tool_calls": False, "stream_options": {"include_usage": False}}
    assert request(**more) == {}
    assert request("m", (), [TOOL], **more).keys() == {"tools", "tool_choice", "parallel_tool_calls"}
    assert request("m", stream=True, **more) == {"stream": True, "stream_options": {"include_usage": False}}


def test_a_stream_is_asked_for_its_usage() -> None:
    assert request("m", stream=True) == {"stream": True, "stream_options": {"include_usage": True}}


def test_parameters_go_over_what_would_be_sent() -> None:
    assert request("m", ["END"], stop=["MINE"], temperature=0) == {"stop": ["MINE"], "temperature": 0}
    assert request("m", ["END"], stop=REMOVE_PARAMETER, temperature=REMOVE_PARAMETER) == {}
    assert request("o3", ["END"], stop=["MINE"]) == {"stop": ["MINE"]}


def test_a_response_format() -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}
    assert request("m", (), (), wanted) == {"response_format": wanted}


def test_the_sentinel_stays_itself() -> None:
    assert copy.deepcopy(REMOVE_PARAMETER) is REMOVE_PARAMETER
    assert pickle.loads(pickle.dumps(REMOVE_PARAMETER)) is REMOVE_PARAMETER
    assert repr(REMOVE_PARAMETER) == "REMOVE_PARAMETER"


def test_only_what_nobody_asked_for_may_be_left_out() -> None:
    settings = ChatSettings("m", {"tool_choice": "required", "temperature": 0})
    made = settings.request(Asked((ASKED,), ("END",), (TOOL,), stream=True))
    assert settings.removable(made) == ("stop", "stream_options")
    assert "stop" not in settings.request(Asked((ASKED,), ("END",)), {"stop", "temperature"})
    assert "temperature" in settings.request(Asked((ASKED,)), {"temperature"})


@pytest.mark.parametrize("name", ["messages", "tools", "stream"])
def test_what_is_no_parameter(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        ChatSettings("m", {name: True})


# Messages.


def messages(*conversation: ChatMessage, roles: dict[Any, str] | None = None) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = ChatSettings("m", {}, roles).request(Asked(conversation))["messages"]
    return made


def test_calls_and_their_answers() -> None:
    calls = [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    assert messages(*CONVERSATION) == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "thinking", "tool_calls": calls},
        {"role": "tool", "content": "one", "tool_call_id": "a"},
        {"role": "tool", "content": "two", "tool_call_id": "b"},
    ]


class Roles(enum.StrEnum):
    ANSWERS = "tool-response"
    CALLS = "tool-call"


@pytest.mark.parametrize(
    "roles",
    [{"system": "user", "tool": "user"}, {"system": "user", Roles.ANSWERS: "user", Roles.CALLS: "assistant"}],
)
def test_a_server_that_knows_two_roles(roles: dict[Any, str]) -> None:
    assert messages(*CONVERSATION, roles=roles) == [
        {"role": "user", "content": "s\nu"},
        {"role": "assistant", "content": 'thinking\nCalling tools:\nf({"x": 1})\ng({})'},
        {"role": "user", "content": "one\ntwo"},
    ]


def test_roles_that_a_server_adds() -> None:
    assert messages(*CONVERSATION[:2], roles={"system": "developer"})[0] == {"role": "developer", "content": "s"}


def test_a_role_that_there_is_not() -> None:
    with pytest.raises(ConfigError, match="no such role: critic; there are system"):
        ChatSettings("m", {}, {"critic": "user"})


def test_pictures() -> None:
    url = f"data:image/png;base64,{base64.b64encode(PICTURE.data).decode()}"
    shown = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": url}}]
    look = ChatMessage("user", "look", (PICTURE,))
    assert messages(look) == [{"role": "user", "content": shown}]
    assert messages(ASKED, look, roles={"system": "user"}) == [
        {"role": "user", "content": [{"type": "text", "text": "u"}, *shown]}
    ]


def test_a_server_of_text_is_shown_no_picture() -> None:
    settings = ChatSettings("m", flatten_messages_as_text=True)
    assert settings.request(Asked((ASKED,)))["messages"] == [{"role": "user", "content": "u"}]
    with pytest.raises(ConfigError, match="takes text only"):
        settings.request(Asked((ChatMessage("user", "look", (PICTURE,)),)))


# What a server refuses.


@pytest.mark.parametrize(
    ("message", "refused"),
    [
        ("Unsupported parameter: 'stop' is not supported with this model.", "stop"),
        ("Argument not supported on this model: stop", "stop"),
        ("[{'type': 'extra_forbidden', 'loc': ('body', 'stop'), 'msg': 'Extra inputs are not permitted'}]", "stop"),
        ("Unrecognized request argument supplied: stream_options", "stream_options"),
        ("deepseek-reasoner does not support this tool_choice", "tool_choice"),
        ("The tool_choice parameter doesn't support being set to required", "tool_choice"),
        ("temperature is not supported", None),
        ("non-stop flights are not supported", None),
        ("the context is too long, so please stop", None),
    ],
)
def test_refusals_as_servers_word_them(message: str, refused: str | None) -> None:
    sent = ("stop", "stream_options", "tool_choice")
    assert refused_parameter(400, message, None, sent) == refused
    assert refused_parameter(500, message, "stop", sent) is None
    assert refused_parameter(400, message, None, ()) is None


def test_a_refusal_that_names_its_parameter() -> None:
    assert refused_parameter(400, "array too long", "stop", ["tool_choice", "stop"]) == "stop"
