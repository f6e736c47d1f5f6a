"""Tools from elsewhere, each called by an agent's code in a real container; what they are stays on the host."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import langchain_core.tools
import mcp
import pytest

from orchestrator.agents import CodeAgent
from orchestrator.config import Config
from orchestrator.events import ToolCall, ToolOutcome
from orchestrator.models import ScriptedModel
from orchestrator.tools import MCPClient, Tool, ToolCollection, VisitWebpageTool, tool
from tests.unit import mcp_server
from tests.unit.chat_server import serving, whole
from tests.unit.hub_server import Hub, hub  # noqa: F401 - a fixture
from tests.unit.over_http import over_http
from tests.unit.scripted_agents import step

pytestmark = pytest.mark.docker
MCP_SERVER = Path(__file__).parents[1] / "unit" / "mcp_server.py"


def answer(made: list[Tool], *codes: str) -> Any:
    """What an agent with these tools gives whose model says these codes; each tool is called once, and answers."""
    with CodeAgent(made, ScriptedModel([step(code) for code in codes])) as agent:
        events = list(agent.run("Use them.", stream=True))
    assert [event.name for event in events if isinstance(event, ToolCall)] == [one.name for one in made]
    assert [event.error for event in events if isinstance(event, ToolOutcome)] == [None] * len(made)
    return events[-1].output


def test_one_of_langchain(config: Config) -> None:
    @langchain_core.tools.tool
    def search(query: str, count: int = 3) -> list[str]:
        """Finds what one looks for."""
        return [f"{query} {os.getpid()}"] * count

    made = Tool.from_langchain(search)
    assert answer([made], "found = search('tea', count=2)", "final_answer(found)") == [f"tea {os.getpid()}"] * 2


def test_some_of_an_mcp_server(config: Config) -> None:
    parameters = mcp.StdioServerParameters(command=sys.executable, args=[str(MCP_SERVER), "honest"])
    with MCPClient(parameters) as found:
        made = {one.name: one for one in found}
        codes = ("weather = get_weather(city='Odense', days=3)", "final_answer([weather, person('Ada')['age'] * 2])")
        assert answer([made["get_weather"], made["person"]], *codes) == ["Odense: sun for 3 days", 14]


WEATHER = "final_answer(get_weather(city='Odense', days=3))"


def test_one_of_a_collection_of_an_mcp_server_that_is_a_program(config: Config) -> None:
    parameters = mcp.StdioServerParameters(command=sys.executable, args=[str(MCP_SERVER), "honest"])
    with ToolCollection.from_mcp(parameters, trust_remote_code=True) as collection:
        assert answer(named(collection, "get_weather"), WEATHER) == "Odense: sun for 3 days"


def test_one_of_a_collection_of_an_mcp_server_over_http(config: Config) -> None:
    with (
        over_http(mcp_server.honest().streamable_http_app()) as address,
        ToolCollection.from_mcp({"url": f"{address}/mcp", "transport": "streamable-http"}) as collection,
    ):
        assert answer(named(collection, "get_weather"), WEATHER) == "Odense: sun for 3 days"


def named(collection: ToolCollection, name: str) -> list[Tool]:
    return [one for one in collection.tools if one.name == name]


def test_a_page_of_a_host_that_is_allowed_and_of_no_other(config: Config) -> None:
    page = whole("<h1>Tea</h1><p>It is <b>hot</b>.", headers={"Content-Type": "text/html"})
    code = """
try:
    visit_webpage({url!r}.replace('127.0.0.1', '127.0.0.2'))
except Exception as error:
    refused = str(error)
final_answer([visit_webpage({url!r}), refused])
"""
    visit = VisitWebpageTool(allowed_hosts=["127.0.0.1"])
    with serving(page) as server:
        model = ScriptedModel([step(code.format(url=server.address))])
        with CodeAgent([visit], model) as agent:
            read, refused = agent.run("Read it.")
        assert [request.method for request in server.requests] == ["GET"]
    assert "# Tea" in read
    assert "It is **hot**." in read
    assert "127.0.0.2" in refused


def test_one_of_the_hub_and_one_of_a_collection(config: Config, hub: Hub) -> None:  # noqa: F811
    @tool
    def double(text: str) -> str:
        """Doubles.

        Args:
            text: what
        """
        return text * 2

    double.push_to_hub("me/double", token=hub.token)
    assert answer([Tool.from_hub("me/double", trust_remote_code=True)], "final_answer(double('ab'))") == "abab"
    hub.collect("me/tools-1", ("space", "me/double"))
    collection = ToolCollection.from_hub("me/tools-1", trust_remote_code=True)
    assert answer([*collection.tools], "final_answer(double('ab') + '!')") == "abab!"


def test_one_of_the_old_gradio_tools(config: Config) -> None:
    class Old:
        """As the tools of the gradio_tools package are."""

        name = "old-tool"
        description = "Doubles."

        def run(self, text: str, times: int = 2) -> str:
            return text * times

    assert answer([Tool.from_gradio(Old())], "final_answer(old_tool('ab', times=3))") == "ababab"


@contextmanager
def gradio_app() -> Iterator[str]:
    """The address of a real app."""
    gradio = pytest.importorskip("gradio")

    def greet(name: str, times: float) -> str:
        return f"hello {name}" * int(times)

    app = gradio.Interface(greet, [gradio.Textbox(), gradio.Number()], gradio.Textbox(), api_name="greet")
    _, url, _ = app.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, share=False)
    try:
        yield url
    finally:
        app.close()


def test_one_of_a_gradio_app(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    with gradio_app() as url:
        made = Tool.from_space(url, "greeter", "Greets.")
        assert answer([made], "final_answer(greeter('Ada', 2))") == "hello Ada" * 2
