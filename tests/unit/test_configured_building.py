"""Agents of the settings: what they are made of, and runs of them with a model behind a real server."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.agents import CodeAgent, LogLevel, MultiStepAgent, ShortenOldest, SummariseOldest, ToolCallingAgent
from orchestrator.config import Config, Limits
from orchestrator.configured import Asked, Models, ServiceSettings, build_agent
from orchestrator.errors import ConfigError, NotFound, ToolUnavailable
from orchestrator.models import OpenAIServerModel
from orchestrator.policy import ToolCallRequest
from tests.unit.chat_server import Answer, ChatServer, completion, failure, serving, tool_call
from tests.unit.configured_files import load, shop

DEADLINE = 60.0  # seconds for one test's run


@pytest.fixture
def tools(tmp_path: Path) -> str:
    """The name of a module of tools in the folder of the settings."""
    return shop(tmp_path)


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def with_agent(
    settings: ServiceSettings, name: str, use: Callable[[MultiStepAgent], Awaitable[Any] | Any], **more: Any
) -> Any:
    async def main() -> Any:
        async with asyncio.timeout(DEADLINE), build_agent(settings, name, **more) as agent:
            used = use(agent)
            return await used if isinstance(used, Awaitable) else used

    return asyncio.run(main())


def calls(*made: tuple[str, dict[str, Any]]) -> Answer:
    return completion(
        tool_calls=[tool_call(name, json.dumps(given), f"call_{n}") for n, (name, given) in enumerate(made)]
    )


def final(answer: Any) -> Answer:
    return calls(("final_answer", {"answer": answer}))


def model(server: ChatServer, more: str = "") -> str:
    return f'[models.served]\nmodel = "openai:m"\napi_base = "{server.url}"\n{more}\n'


@pytest.fixture
def unasked() -> str:
    """A table for agents that are made and not run."""
    return '[models.served]\nmodel = "openai:m"\napi_base = "http://127.0.0.1:1/v1"\n'


# -------------------------------------------------------------------------------------------------------------- made


def test_an_agent_that_writes_code_is_made_as_described(tmp_path: Path, unasked: str, tools: str) -> None:
    (tmp_path / "prompts.yaml").write_text("system_prompt: Be brief.\n")
    settings = load(
        tmp_path,
        f"""timeout = 3
        {unasked}
        [agents.default]
        model = "served"
        tools = ["{tools}:orders", "{tools}:papers", "user_input"]
        imports = ["numpy"]
        limits = {{ pids = 50 }}
        tool_timeout = 5
        max_steps = 7
        planning_interval = 2
        instructions = "Be brief."
        prompt_templates = "prompts.yaml"
        stream_outputs = true
        compaction = "none"
        use_structured_outputs_internally = true
        max_print_outputs_length = 1000
        on_error = "rollback"
        """,
    )
    agent = with_agent(settings, "", lambda agent: agent)
    assert isinstance(agent, CodeAgent)
    assert list(agent.tools) == ["orders", "papers", "user_input"]
    assert "numpy" in agent.authorized_imports
    assert (agent.max_steps, agent.planning_interval, agent.max_print_outputs_length) == (7, 2, 1000)
    assert (agent.on_error, agent.stream_outputs, agent.compaction) == ("rollback", True, None)
    assert (agent.use_structured_outputs_internally, agent.logger.level) == (True, LogLevel.OFF)
    assert agent.system_prompt == "Be brief."
    sandbox = agent._workplace._make()  # type: ignore[union-attr]
    assert sandbox._config == Config(timeout=3, tool_timeout=5, limits=Limits(pids=50))
    assert not sandbox._approver.asks


def test_an_agent_that_calls_tools_is_made_as_described(tmp_path: Path, unasked: str) -> None:
    text = f'tool_timeout = 7\n{unasked}[agents.a]\nkind = "tool_calling"\nmodel = "served"\nmax_tool_threads = 3\n'
    settings = load(tmp_path, text + 'compaction = "summarise"\n')
    agent = with_agent(settings, "a", lambda agent: agent)
    assert isinstance(agent, ToolCallingAgent)
    assert (agent.max_tool_threads, agent.tool_timeout) == (3, 7)
    assert isinstance(agent.compaction, SummariseOldest)
    agent = with_agent(load(tmp_path, text + "tool_timeout = 2\n"), "a", lambda agent: agent, config=Config())
    assert agent.tool_timeout == 2
    assert isinstance(agent.compaction, ShortenOldest)


def ping() -> str:
    """Answers."""
    return "pong"


def test_an_agent_has_its_team_and_the_team_its_own(tmp_path: Path, unasked: str, tools: str) -> None:
    agents = {"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}
    text = unasked + "".join(
        f"[agents.{name}]\nmodel = 'served'\ndescription = 'good'\n"
        f"tools = ['{tools}:orders']\nmanaged_agents = {team}\n"
        for name, team in agents.items()
    )
    settings = load(tmp_path, text)
    agent = with_agent(settings, "a", lambda agent: agent, tools=[ping])
    assert list(agent.tools) == ["orders", "ping"]
    b, c = agent.managed_agents["b"], agent.managed_agents["c"]
    assert (b.name, b.description, list(b.tools)) == ("b", "good", ["orders"])
    assert b.managed_agents["d"] is not c.managed_agents["d"]


def test_each_run_has_a_new_agent_that_is_closed_with_it(tmp_path: Path, unasked: str) -> None:
    settings = load(tmp_path, f"{unasked}[agents.default]\nmodel = 'served'\n")
    first, second = (with_agent(settings, "", lambda agent: agent) for _ in range(2))
    assert first is not second
    assert first._workplace._closed


@pytest.mark.parametrize(
    ("agent", "says"),
    [
        ("tools = ['nosuch']", "agents.a: tool 'nosuch': ModuleNotFoundError: "),
        ("tools = ['SHOP:nosuch']", "agents.a: tool 'SHOP:nosuch': AttributeError"),
        ("tools = ['SHOP:untyped']", "agents.a: .*untyped"),
        ("tools = ['SHOP:papers', 'SHOP:Papers']", "agents.a: two tools"),
        ("prompt_templates = 'nosuch.yaml'", "agents.a: .*nosuch.yaml"),
    ],
)
def test_what_an_agent_cannot_be_made_of_is_told_with_its_name(
    tmp_path: Path, unasked: str, tools: str, agent: str, says: str
) -> None:
    settings = load(tmp_path, f"{unasked}[agents.a]\nmodel = 'served'\n{agent}\n".replace("SHOP", tools))
    with pytest.raises(ConfigError, match=says.replace("SHOP", tools)):
        with_agent(settings, "a", lambda agent: agent)


def test_an_agent_that_is_not_there_is_told_with_the_nearest(tmp_path: Path, unasked: str) -> None:
    with pytest.raises(NotFound, match="there is no agent 'defalt'; did you mean default"):
        with_agent(load(tmp_path, ""), "defalt", lambda agent: agent)


def test_the_modules_of_tools_leave_the_search_path_as_it_was(tmp_path: Path, unasked: str, tools: str) -> None:
    before = list(sys.path)
    with_agent(
        load(tmp_path, f"{unasked}[agents.a]\nmodel = 'served'\ntools = ['{tools}:orders']\n"), "a", lambda agent: agent
    )
    assert sys.path == before


# ------------------------------------------------------------------------------------------------------------ models


def test_a_model_is_asked_as_described_and_with_the_key_of_the_environment(tmp_path: Path) -> None:
    with serving(final(1)) as server:
        more = (
            'api_key_env = "SERVED_KEY"\ntemperature = 0.5\nmax_tokens = 9\nparameters = { extra_body = { top_k = 3 } }'
        )
        text = model(server, more) + "[agents.default]\nkind = 'tool_calling'\nmodel = 'served'\n"
        run = with_agent(
            load(tmp_path, text), "", lambda agent: agent.arun("go"), models=Models({"SERVED_KEY": "sk-of-nobody"})
        )
        assert run == 1
        body = server.bodies[0]
        assert (body["model"], body["temperature"], body["max_tokens"], body["top_k"]) == ("m", 0.5, 9, 3)
        assert server.requests[0].headers["authorization"] == "Bearer sk-of-nobody"


def test_a_key_that_the_environment_does_not_have_is_told(tmp_path: Path) -> None:
    text = "[models.m]\nmodel = 'openai:m'\napi_key_env = 'NO_SUCH_KEY'\n[agents.default]\nmodel = 'm'\n"
    settings = load(tmp_path, text)
    for env in ({}, {"NO_SUCH_KEY": ""}):
        with pytest.raises(ConfigError, match=r"models\.m: api_key_env: the environment has no NO_SUCH_KEY"):
            Models(env).of(settings, "default")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("model = 'bedrock:m'\napi_base = 'http://x'", "api_base: models of bedrock have no address"),
        ("model = 'transformers:m'\napi_key_env = 'KEY'", "api_key: models of transformers take no key"),
        ("model = 'openai:m'\napi_base = 'http://x'\nparameters = { model_id = 'x' }", "parameters do not fit"),
        ("model = 'openai:m'\napi_base = 'http://x'\nrequests_per_minute = 0", "requests_per_minute"),
        ("model = 'openai:m'", "set OPENAI_API_KEY"),
    ],
)
def test_what_a_model_cannot_be_made_with_is_told_with_its_name(tmp_path: Path, lines: str, says: str) -> None:
    settings = load(tmp_path, f"[models.m]\n{lines}\n[agents.default]\nmodel = 'm'\n")
    with pytest.raises(ConfigError, match=rf"models\.m: .*{says}"):
        Models({"KEY": "k"}).of(settings, "default")


def test_a_model_is_one_for_all_runs_until_its_table_changes(tmp_path: Path, unasked: str) -> None:
    agents = "[agents.a]\nmodel = 'served'\n[agents.b]\nmodel = 'served'\n"
    models, settings = Models({}), load(tmp_path, unasked + agents)
    made = models.of(settings, "a")
    assert isinstance(made, OpenAIServerModel)
    assert models.of(load(tmp_path, unasked + agents), "b") is made
    changed = load(tmp_path, f"{unasked}seed = 1\n{agents}")
    assert models.of(changed, "a") is not made
    assert models.of(changed, "a") is models.of(changed, "b")


def test_the_model_of_the_settings_may_be_one_of_the_tables(tmp_path: Path, unasked: str) -> None:
    made = Models({}).of(load(tmp_path, f"model = 'served'\n{unasked}"), "default")
    assert isinstance(made, OpenAIServerModel)
    assert made.model_id == "m"


# -------------------------------------------------------------------------------------------------------------- runs

CALLER = "[agents.default]\nkind = 'tool_calling'\nmodel = 'served'\ntools = ['{tools}:orders', '{tools}:send_mail']\n"


def test_a_run_calls_the_tools_of_the_operator_and_those_of_the_app(tmp_path: Path, tools: str) -> None:
    def double(number: int) -> int:
        """Twice the number.

        Args:
            number: which.
        """
        return 2 * number

    script = (calls(("orders", {"customer": "Ann"}), ("double", {"number": 4})), final("done"))
    with serving(*script) as server:
        settings = load(tmp_path, model(server) + CALLER.format(tools=tools))
        assert with_agent(settings, "default", lambda agent: agent.arun("go"), tools=[double]) == "done"
        told = [message["content"] for message in server.bodies[1]["messages"] if message["role"] == "tool"]
    assert "rice" in told[0]
    assert "8" in told[1]


def test_a_run_is_recorded_where_it_is_told(tmp_path: Path, tools: str) -> None:
    record = tmp_path / "run.jsonl"
    with serving(final(7)) as server:
        settings = load(tmp_path, model(server) + CALLER.format(tools=tools))
        with_agent(settings, "default", lambda agent: agent.arun("go"), record=record)
        assert with_agent(settings, "default", lambda agent: agent.aresume(record)) == 7


def test_the_policy_is_asked_before_each_call(tmp_path: Path, tools: str) -> None:
    asked: list[Asked] = []

    async def ask(question: Asked) -> bool:
        asked.append(question)
        return isinstance(question.request, ToolCallRequest) and question.request.arguments["to"] == "Ann"

    rules = "[[policy]]\ntool = 'send_mail'\naction = 'ask'\n[[policy]]\ntool = 'orders'\naction = 'refuse'\n"
    rules += "reason = 'shut'\n"
    made = [("send_mail", {"to": "Ann"}), ("send_mail", {"to": "Bob"}), ("orders", {"customer": "Ann"})]
    with serving(calls(*made), final("done")) as server:
        settings = load(tmp_path, model(server) + CALLER.format(tools=tools) + rules)
        with_agent(settings, "default", lambda agent: agent.arun("go"), ask=ask)
    assert {(question.agent, question.rule) for question in asked} == {("default", "policy[0]")}
    assert len(asked) == 2
    assert importlib.import_module(tools).CALLED == [("send_mail", "Ann")]
    told = [message["content"] for message in server.bodies[1]["messages"] if message["role"] == "tool"]
    assert "not approved: shut" in told[2]


def test_a_member_of_a_team_is_under_the_rules_of_its_own_name(tmp_path: Path, tools: str) -> None:
    team = (
        "[agents.boss]\nkind = 'tool_calling'\nmodel = 'served'\nmanaged_agents = ['clerk']\n"
        f"[agents.clerk]\nkind = 'tool_calling'\nmodel = 'served'\ndescription = 'x'\ntools = ['{tools}:orders']\n"
        "[[policy]]\ntool = 'orders'\nagent = 'clerk'\naction = 'refuse'\nreason = 'no orders today'\n"
        "[[policy]]\ntool = '*'\nagent = 'boss'\naction = 'allow'\n"
    )
    script = (
        calls(("clerk", {"task": "look"})),
        calls(("orders", {"customer": "Ann"})),
        final("nothing"),
        final("as the clerk said"),
    )
    with serving(*script) as server:
        settings = load(tmp_path, model(server) + team)
        assert with_agent(settings, "boss", lambda agent: agent.arun("go")) == "as the clerk said"
        assert any("no orders today" in str(message["content"]) for message in server.bodies[2]["messages"])
    assert importlib.import_module(tools).CALLED == []


# --------------------------------------------------------------------------------------------------------------- MCP


def test_mcp_servers_are_connected_as_long_as_the_agent_is_there(tmp_path: Path) -> None:
    from tests.unit import mcp_server

    script = (calls(("get_weather", {"city": "Odense"})), final("sun"))
    with serving(*script) as server:
        command = f"{sys.executable} {mcp_server.__file__} honest"
        text = f"[agents.default]\nkind = 'tool_calling'\nmodel = 'served'\nmcp = ['{command}']\n"
        settings = load(tmp_path, model(server) + text)
        kept: list[MultiStepAgent] = []

        async def use(agent: MultiStepAgent) -> Any:
            kept.append(agent)
            return await agent.arun("go")

        assert with_agent(settings, "default", use) == "sun"
        told = [message["content"] for message in server.bodies[1]["messages"] if message["role"] == "tool"]
    assert "Odense: sun for 1 days" in told[0]
    with pytest.raises(ToolUnavailable):
        asyncio.run(kept[0].tools["get_weather"].forward(city="Rome"))  # type: ignore[arg-type]


def test_a_program_gets_the_variables_of_its_table_and_no_others(
    tmp_path: Path, unasked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.unit import mcp_server

    monkeypatch.setenv("GIVEN_KEY", "canary-1")
    monkeypatch.setenv("OTHER_KEY", "canary-2")
    program = f"[mcp.s]\ncommand = '{sys.executable} {mcp_server.__file__} honest'\nenv = ['GIVEN_KEY']\n"
    settings = load(tmp_path, f"{unasked}{program}[agents.default]\nmodel = 'served'\nmcp = ['s']\n")

    async def use(agent: MultiStepAgent) -> Any:
        return await agent.tools["environment"].forward()

    seen = str(with_agent(settings, "", use))
    assert "canary-1" in seen
    assert "canary-2" not in seen
    monkeypatch.delenv("GIVEN_KEY")
    with pytest.raises(ConfigError, match=r"agents\.default: mcp\.s: env: the environment has no GIVEN_KEY"):
        with_agent(settings, "", use)


def test_a_server_at_an_address_gets_the_headers_of_its_table(
    tmp_path: Path, unasked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCP_TOKEN", "Bearer canary")
    with serving(failure(403)) as server:
        table = f"[mcp.s]\nurl = '{server.address}/mcp'\nheaders_env = {{ Authorization = 'MCP_TOKEN' }}\n"
        settings = load(tmp_path, f"{unasked}{table}[agents.default]\nmodel = 'served'\nmcp = ['s']\n")
        with pytest.raises(ToolUnavailable) as raised:
            with_agent(settings, "", lambda agent: agent)
        assert server.requests[0].headers["authorization"] == "Bearer canary"
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize(
    ("server", "error", "says"),
    [
        ("'", ConfigError, 'agents.default: MCP server "\'" is no URL and no command'),
        ("http://127.0.0.1:1/mcp", ToolUnavailable, "http://127.0.0.1 cannot be connected to"),
    ],
)
def test_an_mcp_server_that_is_not_there_is_told(
    tmp_path: Path, unasked: str, server: str, error: type[Exception], says: str
) -> None:
    settings = load(tmp_path, f'{unasked}[agents.default]\nmodel = "served"\nmcp = ["{server}"]\n')
    with pytest.raises(error, match=says):
        with_agent(settings, "default", lambda agent: agent)
