"""MCP servers as tools: real ones over stdio and HTTP, and hostile ones."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import mcp
import pytest

from orchestrator.errors import ConfigError, ToolError, ToolUnavailable
from orchestrator.media import AgentAudio, AgentImage
from orchestrator.tools.mcp import MCPClient
from orchestrator.tools.tool import Tool
from tests.unit import mcp_server
from tests.unit.over_http import over_http
from tests.unit.tool_calls import Calls, in_loop

DEADLINE = 20.0  # seconds for a server to start, or for anything else that is waited for


def program(mode: str, **more: Any) -> Any:
    return mcp.StdioServerParameters(command=sys.executable, args=[mcp_server.__file__, mode], **more)


def called(tool: Tool, *args: Any, **kwargs: Any) -> Any:
    """As whoever has no sandbox calls it, on a loop of its own."""

    async def main() -> Any:
        async with asyncio.timeout(DEADLINE):
            return await tool(*args, **kwargs)

    return asyncio.run(main())


def by_name(tools: list[Tool]) -> dict[str, Tool]:
    return {tool.name: tool for tool in tools}


@pytest.fixture(scope="module")
def honest() -> Iterator[dict[str, Tool]]:
    with MCPClient(program("honest")) as tools:
        yield by_name(tools)


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """Lets nobody in."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 403, "headers": []})
        await send({"type": "http.response.body"})


@pytest.mark.parametrize("transport", ["streamable-http", "sse"])
def test_a_key_in_an_address_is_in_no_error(transport: str) -> None:
    with over_http(nothing) as url, pytest.raises(ToolUnavailable) as caught:
        MCPClient({"url": f"{url}/mcp?k=hunter2", "transport": transport}).__enter__()
    assert "hunter2" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


def test_names_that_are_no_identifiers_become_some(honest: dict[str, Tool]) -> None:
    assert "get_weather" in honest
    assert called(honest["get_weather"], "Rome") == "Rome: sun for 1 days"
    assert called(honest["get_weather"], city="Rome", days=2, units="K") == "Rome: sun for 2 days in K"


def test_the_model_is_shown_a_function(honest: dict[str, Tool]) -> None:
    prompt = honest["get_weather"].to_code_prompt()
    assert prompt.startswith("def get_weather(city: str, days: int = 1, units: str | None = None) ->")
    assert "The weather in a city." in prompt


def test_wrong_arguments_do_not_reach_the_server(honest: dict[str, Tool]) -> None:
    with pytest.raises(TypeError, match="'days' must be integer, not str 'two'"):
        called(honest["get_weather"], "Rome", days="two")
    with pytest.raises(TypeError, match=r"'numbers' at \[1\] must be number"):
        called(honest["add"], [1, "2"])
    with pytest.raises(TypeError, match="missing a required argument: 'city'"):
        called(honest["get_weather"])
    with pytest.raises(TypeError, match=r"numbers\[0\] is nested deeper|must be number"):
        called(honest["add"], [object()])


def test_structured_content_is_a_value(honest: dict[str, Tool]) -> None:
    assert called(honest["add"], (1, 2.5)) == 3.5
    assert called(honest["person"], "Ada") == {"name": "Ada", "age": 7}


@pytest.mark.parametrize(("structured", "value"), [(True, {"result": 3.0}), (False, "3.0"), (None, 3.0)])
def test_structured_content_as_one_likes(structured: bool | None, value: Any) -> None:
    with MCPClient(program("honest"), structured_output=structured) as tools:
        assert called(by_name(tools)["add"], [1, 2]) == value


def test_parts_of_several_kinds(honest: dict[str, Tool]) -> None:
    text, image, audio = called(honest["mixed"])
    assert text == "look"
    assert isinstance(image, AgentImage)
    assert image.data == mcp_server.PNG
    assert isinstance(audio, AgentAudio)


def test_an_error_of_the_tool_is_one_here(honest: dict[str, Tool]) -> None:
    with pytest.raises(RuntimeError, match="no: because"):
        called(honest["fail"], "because")


def test_a_sandbox_calls_it(honest: dict[str, Tool]) -> None:
    async def case() -> tuple[Any, Any]:
        calls = Calls([honest["get_weather"], honest["fail"]])
        return await calls.call("get_weather", "Rome", days=3), await calls.call("fail", "x")

    good, bad = in_loop(case())
    assert good == "Rome: sun for 3 days"
    assert bad.startswith("RuntimeError: ")
    assert "no: x" in bad


def test_the_program_sees_little_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "hush")
    with MCPClient(program("honest", env={"GIVEN": "1"})) as tools:
        seen = json.loads(called(by_name(tools)["environment"]))
    assert seen["GIVEN"] == "1"
    assert "MY_SECRET" not in seen
    assert "hush" not in seen.values()


def test_a_call_that_takes_too_long_is_given_up_and_others_go_on() -> None:
    with MCPClient(program("honest"), {"client_session_timeout_seconds": 3.0}) as listed:
        tools = by_name(listed)
        with pytest.raises(TimeoutError, match=r"slow\(\) within 3 s"):
            called(tools["slow"])
        assert called(tools["add"], [1]) == 1


def test_a_server_that_dies_fails_its_calls_and_no_other_ones() -> None:
    with MCPClient([program("honest"), program("hostile-names")]) as listed:
        tools = by_name(listed)
        with pytest.raises(ToolUnavailable, match="went away before die"):
            called(tools["die"])
        with pytest.raises(ToolUnavailable, match="out of cheese"):
            called(tools["add"], [1])
        assert json.loads(called(tools["get"], "x"))["arguments"] == {"x": "x"}


def test_after_disconnect_nothing_runs() -> None:
    client = MCPClient(program("honest"))
    tools = by_name(client.get_tools())
    pid = called(tools["pid"])
    client.disconnect()
    client.disconnect()
    with pytest.raises(ToolUnavailable, match="not connected"):
        called(tools["add"], [1])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_new_tools_are_listed_when_the_server_tells() -> None:
    client = MCPClient(program("honest"))
    try:
        tools = by_name(client.get_tools())
        assert "late" not in tools
        assert client.get_tools()[0] is tools["get_weather"]
        assert called(tools["grow"]) == "grown"
        until = time.monotonic() + DEADLINE
        while "late" not in (tools := by_name(client.get_tools())):
            assert time.monotonic() < until
        assert called(tools["late"], "Oslo") == "Oslo: sun for 1 days"
    finally:
        client.disconnect()


def test_it_can_be_awaited_on_any_loop() -> None:
    async def main() -> Any:
        async with asyncio.timeout(DEADLINE), MCPClient(program("honest")) as tools:
            found = by_name(tools)
            return await asyncio.gather(*(found["add"]([number]) for number in range(20)))

    assert asyncio.run(main()) == list(range(20))


def test_a_caller_that_gives_up_is_let_go(honest: dict[str, Tool]) -> None:
    async def main() -> None:
        task = asyncio.create_task(honest["slow"]())
        await asyncio.wait({task}, timeout=0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert called(honest["add"], [2]) == 2


@pytest.mark.parametrize("transport", ["streamable-http", "sse"])
def test_over_http(transport: str) -> None:
    server = mcp_server.honest()
    app = server.sse_app() if transport == "sse" else server.streamable_http_app()
    with over_http(app) as address:
        url = f"{address}/{'sse' if transport == 'sse' else 'mcp'}"
        with MCPClient({"url": url, "transport": transport}) as listed:
            tools = by_name(listed)
            assert called(tools["get_weather"], "Rome") == "Rome: sun for 1 days"
            with pytest.raises(RuntimeError, match="no: because"):
                called(tools["fail"], "because")


@pytest.mark.parametrize("transport", ["streamable-http", "sse"])
def test_a_server_over_http_that_goes_away(transport: str) -> None:
    server = mcp_server.honest()
    app = server.sse_app() if transport == "sse" else server.streamable_http_app()
    with over_http(app) as address:
        client = MCPClient({"url": f"{address}/{'sse' if transport == 'sse' else 'mcp'}", "transport": transport})
        tools = by_name(client.get_tools())
    with pytest.raises(ToolUnavailable, match=r"went away before add\(\)|is gone"):
        called(tools["add"], [1])
    client.disconnect()


def test_headers_are_sent_and_a_big_answer_is_not_read() -> None:
    seen: list[dict[bytes, bytes]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        seen.append(dict(scope["headers"]))
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        for _ in range(60):
            await send({"type": "http.response.body", "body": b" " * (1 << 20), "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    with over_http(app) as address:
        client = MCPClient({"url": f"{address}/mcp", "headers": {"X-Key": "k"}}, {"connect_timeout": DEADLINE})
        with pytest.raises(ToolUnavailable):
            client.connect()
    assert seen[0][b"x-key"] == b"k"
    assert seen[0][b"accept-encoding"] == b"identity"


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ToolUnavailable, match=r"at http://127.0.0.1 cannot be connected to"):
        MCPClient({"url": f"http://user:secret@127.0.0.1:{port}/mcp?key=secret"}).connect()
    with pytest.raises(ToolUnavailable, match="cannot be connected to"):
        MCPClient(mcp.StdioServerParameters(command="/nonexistent/server")).connect()


def test_one_that_ends_at_once_is_quoted() -> None:
    with pytest.raises(ToolUnavailable, match="cannot find my configuration") as caught:
        MCPClient(program("hostile-exit")).connect()
    assert "\x1b" not in str(caught.value)


def test_one_that_never_answers() -> None:
    with pytest.raises(ToolUnavailable, match=r"did not answer within 0\.5 s"):
        MCPClient(program("hostile-mute"), {"connect_timeout": 0.5}).connect()


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("hostile-wide", "takes 100,000 arguments"),
        ("hostile-many", "more than 256 tools"),
        ("hostile-twins", "there is one of that name already"),
        ("hostile-endless", "more than 64 pages"),
    ],
)
def test_a_list_that_is_over_a_bound_is_refused(mode: str, message: str) -> None:
    with pytest.raises(ToolError, match=message):
        MCPClient(program(mode)).__enter__()


def test_names_of_python_are_evaded() -> None:
    with MCPClient(program("hostile-names")) as tools:
        assert [tool.name for tool in tools] == ["get", "final_answer_", "class_"]


def test_descriptions_are_cut_and_made_safe() -> None:
    with MCPClient(program("hostile-escape")) as (tool,):
        assert len(tool.description) <= 4000
        assert "\x1b" not in tool.description


@pytest.mark.parametrize(
    ("mode", "error", "message"),
    [
        ("hostile-huge", ValueError, "34,603,008 bytes"),
        ("hostile-parts", ValueError, "5,000 parts"),
        ("hostile-base64", ValueError, "no base64"),
        ("hostile-nonsense", RuntimeError, "refuses"),
        ("hostile-refuses", RuntimeError, "not today"),
    ],
)
def test_an_answer_that_is_over_a_bound_or_none_is_an_error(mode: str, error: type[Exception], message: str) -> None:
    with MCPClient(program(mode)) as tools:
        with pytest.raises(error, match=message) as caught:
            called(tools[0], "x")
        assert len(str(caught.value)) < 3000
        assert "\x1b" not in str(caught.value)


async def driving(scope: Any, receive: Any, send: Any) -> None:
    """A server whose events have names that drive a terminal."""
    request = json.loads((await receive())["body"]) if scope["method"] == "POST" else {}
    told = mcp_server.answer("hostile-names", request) if "id" in request else None
    events = "event: \x1b]0;PWNED\x07\x1b[2J\ndata: x\n\n"
    events += f"data: {json.dumps({'jsonrpc': '2.0', 'id': request.get('id'), 'result': told})}\n\n"
    status = 405 if not request else 200 if told else 202
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/event-stream")]})
    await send({"type": "http.response.body", "body": events.encode() if told else b""})


LISTING = """
import logging, sys
from orchestrator.tools.mcp import MCPClient
if sys.argv[2] == "logging":
    logging.basicConfig()
with MCPClient({"url": sys.argv[1]}) as tools:
    print(len(tools))
"""


@pytest.mark.parametrize(("logs", "told"), [("", ""), ("logging", "Unknown SSE event")])
def test_a_server_does_not_write_to_our_terminal(logs: str, told: str) -> None:
    with over_http(driving) as url:
        command = [sys.executable, "-c", LISTING, f"{url}/mcp", logs]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, "3\n"), ended.stderr
    assert "\x1b" not in ended.stderr
    assert told in ended.stderr if told else not ended.stderr


def test_data_that_is_no_picture_is_bytes() -> None:
    with MCPClient(program("hostile-picture")) as tools:
        assert called(tools[0], "x") == b"ABC"


def test_a_result_is_not_matched_with_the_servers_own_patterns() -> None:
    with MCPClient(program("hostile-regex")) as tools:
        assert called(tools[0], "x") == {"x": "a" * 40 + "!"}


def test_lines_that_are_no_json_are_passed_over() -> None:
    with MCPClient(program("hostile-noise")) as tools:
        assert json.loads(called(tools[0], "x"))["name"] == "get"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ([], "at least one"),
        ("http://x", "not str"),
        ({"transport": "sse"}, "'url' must be"),
        ({"url": "file:///etc/passwd"}, "'url' must be"),
        ({"url": "http://x", "transport": "carrier pigeon"}, "transport is"),
        ({"url": "http://x", "hedaers": {}}, "unknown key hedaers"),
    ],
)
def test_parameters_that_are_wrong(parameters: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MCPClient(parameters)


@pytest.mark.parametrize("given", [{"timeout": 1}, {"connect_timeout": 0}, {"connect_timeout": True}])
def test_adapter_settings_that_are_wrong(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="adapter_kwargs"):
        MCPClient({"url": "http://x"}, given)
