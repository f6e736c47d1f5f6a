"""Tools to and from folders and a hub, and collections of tools."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mcp
import pytest

from orchestrator import tool
from orchestrator.errors import ConfigError, ToolError, ToolUnavailable
from orchestrator.tools import Tool, ToolCollection, as_tool, load_tool
from tests.unit.hub_server import Hub, hub  # noqa: F401 - a fixture

ROOT = Path(__file__).parents[2]


@tool
def double(text: str) -> str:
    """Doubles.

    Args:
        text: what
    """
    return text * 2


class Repeat(Tool):
    """Written as smolagents' users write it."""

    name = "repeat"
    description = "Repeats."
    inputs = {"text": {"type": "string", "description": "what"}}  # noqa: RUF012
    output_type = "string"

    def __init__(self, times: int = 2, model_repo_id: str = "") -> None:
        self.times = times
        self.model = model_repo_id

    async def forward(self, text: str) -> str:
        return text * self.times + self.model


class Plain(Tool):
    """Without an ``__init__``."""

    name = "plain"
    description = "Gives it back."
    inputs = {"text": {"type": "string", "description": "what"}}  # noqa: RUF012
    output_type = "string"

    def forward(self, text: str) -> str:
        return text


def test_a_folder_has_what_smolagents_has_in_it(tmp_path: Path) -> None:
    double.save(str(tmp_path / "new"))
    assert {file.name for file in (tmp_path / "new").iterdir()} == {"tool.py", "app.py", "requirements.txt"}
    assert (tmp_path / "new/requirements.txt").read_text().split() == ["cellblock", "gradio"]
    code = (tmp_path / "new/tool.py").read_text()
    assert Tool.from_code(code, trust_remote_code=True)("ab") == "abab"
    double.save(str(tmp_path / "bare"), "mine", make_gradio_app=False)
    assert {file.name for file in (tmp_path / "bare").iterdir()} == {"mine.py", "requirements.txt"}
    with pytest.raises(ToolError, match="tool_file_name"):
        double.save(str(tmp_path), "../evil")


@pytest.mark.parametrize("made", [double, Repeat()])
def test_the_app_in_it_runs(made: Tool, tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    made.save(str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "proto")])
    env = os.environ | {"GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False", "PYTHONPATH": paths}
    app = subprocess.Popen([sys.executable, "app.py"], cwd=tmp_path, env=env, stdout=subprocess.DEVNULL)
    try:
        assert _reached(port)("ab") == "abab"
    finally:
        app.terminate()
        app.wait(20)


def _reached(port: int) -> Tool:
    until = time.monotonic() + 40
    while True:
        try:
            return Tool.from_space(f"http://127.0.0.1:{port}", "it", "d")
        except ToolUnavailable:
            if time.monotonic() > until:
                raise


def test_to_the_hub_and_back(hub: Hub) -> None:  # noqa: F811
    where = double.push_to_hub("me/double", token=hub.token, private=True, commit_message="mine")
    assert where.startswith(f"{hub.url}/spaces/me/double/commit/")
    assert set(hub.files("space", "me/double")) == {"tool.py", "app.py", "requirements.txt", "README.md"}
    assert hub.repos["space", "me/double"].private
    assert hub.repos["space", "me/double"].sdk == "gradio"
    with pytest.raises(ToolUnavailable, match="the hub, me/double: "):
        Tool.from_hub("me/double", trust_remote_code=True)
    assert Tool.from_hub("me/double", token=hub.token, trust_remote_code=True)("ab") == "abab"


def test_as_a_pull_request(hub: Hub) -> None:  # noqa: F811
    hub.put("space", "me/double", {"tool.py": b"old"})
    where = double.push_to_hub("me/double", token=hub.token, create_pr=True)
    assert where.endswith("/discussions/1")
    assert hub.files("space", "me/double")["tool.py"] == b"old"
    assert Tool.from_hub("me/double", trust_remote_code=True, revision="refs/pr/1")("ab") == "abab"


def test_a_class_is_made_with_arguments(hub: Hub) -> None:  # noqa: F811
    Repeat().push_to_hub("repeat", token=hub.token)
    made: Any = load_tool("tester/repeat", model_repo_id="me/m", trust_remote_code=True, times=3)
    assert (made.times, made.model, made.is_async) == (3, "me/m", True)


def test_one_commit_can_be_named(hub: Hub) -> None:  # noqa: F811
    double.push_to_hub("me/double", token=hub.token)
    good = hub.repos["space", "me/double"].heads["main"].id
    hub.put("space", "me/double", {"tool.py": b"raise SystemExit('changed')"})
    assert Tool.from_hub("me/double", trust_remote_code=True, revision=good)("x") == "xx"


def test_nothing_is_asked_of_the_hub_without_trust(hub: Hub) -> None:  # noqa: F811
    for load in (Tool.from_hub, load_tool, ToolCollection.from_hub):
        with pytest.raises(ConfigError, match=r"runs its code on the host.*trust_remote_code=True"):
            load("me/double")
    assert hub.requests == []


def test_what_cannot_be_saved_is_not_sent(hub: Hub) -> None:  # noqa: F811
    outside = object()

    @tool
    def closes(text: str) -> str:
        """Closes.

        Args:
            text: what
        """
        return repr(outside)

    with pytest.raises(ToolError, match="'outside'"):
        closes.push_to_hub("me/closes", token=hub.token)
    assert hub.repos == {}


def test_what_a_tool_was_made_with_is_not_dropped(hub: Hub, tmp_path: Path) -> None:  # noqa: F811
    for made in (Repeat(3), Repeat(times=3)):
        with pytest.raises(ToolError, match="repeat cannot be saved: it was made with times, or"):
            made.save(str(tmp_path / "new"))
    with pytest.raises(ToolError, match="made with times, model_repo_id"):
        Repeat(3, "me/m").push_to_hub("me/repeat", token=hub.token)
    assert hub.repos == {}
    assert not (tmp_path / "new").exists()


def test_what_was_changed_in_an_object_is_not_dropped(tmp_path: Path) -> None:
    function, kind = as_tool(double.forward), Plain()
    function.timeout = 5.0
    function.save(str(tmp_path / "timeout"))
    loaded = Tool.from_code((tmp_path / "timeout/tool.py").read_text(), trust_remote_code=True)
    assert loaded.timeout == 5.0
    function.description = kind.description = "Another."
    for made in (function, kind):
        with pytest.raises(ToolError, match=f"{made.name} cannot be saved: its description was changed"):
            made.save(str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_what_is_not_there_or_no_tool(hub: Hub) -> None:  # noqa: F811
    hub.put("space", "me/empty", {"readme": b""})
    hub.put("space", "me/big", {"tool.py": b"#" * (2 << 20)})
    hub.put("space", "me/other", {"tool.py": b"\xff\xfe"})
    for name, error in (("gone", ToolUnavailable), ("empty", ToolUnavailable), ("other", ToolUnavailable)):
        with pytest.raises(error, match=f"me/{name}"):
            Tool.from_hub(f"me/{name}", trust_remote_code=True)
    with pytest.raises(ToolError, match="more than"):
        Tool.from_hub("me/big", trust_remote_code=True)


def test_a_collection(hub: Hub) -> None:  # noqa: F811
    double.push_to_hub("me/double", token=hub.token)
    Repeat().push_to_hub("me/repeat", token=hub.token)
    hub.collect("me/tools-1", ("space", "me/repeat"), ("model", "me/m"), ("space", "me/double"))
    made = ToolCollection.from_hub("me/tools-1", trust_remote_code=True)
    assert [one.name for one in made.tools] == ["repeat", "double"]
    with pytest.raises(ToolUnavailable, match="me/nothing"):
        ToolCollection.from_hub("me/nothing", trust_remote_code=True)


def test_a_collection_of_an_mcp_server() -> None:
    from tests.unit import mcp_server

    program = mcp.StdioServerParameters(command=sys.executable, args=[mcp_server.__file__, "hostile-names"])
    with (
        pytest.raises(ConfigError, match=r"would be started on the host.*trust_remote_code=True"),
        ToolCollection.from_mcp(program),
    ):
        pass
    with ToolCollection.from_mcp(program, trust_remote_code=True) as made:
        assert [one.name for one in made.tools] == ["get", "final_answer_", "class_"]
    with pytest.raises(ToolUnavailable), ToolCollection.from_mcp({"url": "http://127.0.0.1:9/mcp"}):
        pass
