"""What cannot be saved is told, all of it at once; it is left out only if that is asked for, and then to be given."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator import (
    AgentLogger,
    AsyncSandbox,
    CodeAgent,
    Config,
    SandboxSettings,
    ScriptedModel,
    Tool,
    ToolCallingAgent,
)
from orchestrator.agents.compaction import ShortenOldest
from orchestrator.errors import AgentError, ToolError
from orchestrator.made_with import made_with
from orchestrator.models import OpenAIServerModel
from orchestrator.policy import ExecutionRequest, ToolCallRequest
from orchestrator.tools import ApiWebSearchTool
from tests.unit import sharing_parts as parts

OUTSIDE = object()


async def approve(request: ExecutionRequest | ToolCallRequest) -> bool:
    return False


class Mine:
    async def generate(self, messages: Any, stop_sequences: Any = (), **more: Any) -> Any:
        raise NotImplementedError


class MyModel(OpenAIServerModel):
    """Builds on one that comes along."""


class Callable:
    def __call__(self, step: Any) -> None:
        pass

    def method(self, step: Any) -> None:
        pass


def nested() -> Any:
    def inner(step: Any) -> None:
        pass

    return inner


@parts.tool
def closed(text: str) -> str:
    """Uses what cannot be written down.

    Args:
        text: what
    """
    return f"{text}{OUTSIDE}"


class Named(Tool):
    name, description, output_type = "named", "d", "string"
    inputs = {}  # noqa: RUF012

    def forward(self) -> str:
        return ""


def refused(agent: Any, tmp_path: Path) -> str:
    """The reasons; nothing has been written."""
    with pytest.raises(AgentError) as caught:
        agent.save(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    return str(caught.value)


MODEL_REFUSALS: list[tuple[Any, str]] = [
    (ScriptedModel(["x"]), r"model is of the class ScriptedModel; .*OpenAIServerModel"),
    (Mine(), r"model is of the class Mine; "),
    (MyModel("m", api_key="x"), r"model is of the class MyModel; "),
    (parts.model(extra_headers={"X-Any": "v"}), r"model: extra_headers\['X-Any'\] may be a credential"),
    (
        parts.model(client_kwargs={"default_headers": {"Authorization": "v"}}),
        r"\['Authorization'\] may be a credential",
    ),
    (parts.model(extra_body={"a": [{"secretKey": "v"}]}), r"extra_body\['a'\]\[0\]\['secretKey'\] may be a credential"),
    (OpenAIServerModel("m", "https://user:pw@host.example/v1"), r"api_base may be a credential"),
    (parts.model(note="sk-0123456789abcdef0123"), r"model: note may be a credential"),
    (parts.model(client_kwargs={"http_client": OUTSIDE}), r"client_kwargs\['http_client'\] is of the type object"),
    (parts.model(weird=float("nan")), r"model: weird is of the type float"),
]


@pytest.mark.parametrize(("model", "why"), MODEL_REFUSALS)
def test_models(model: Any, why: str, tmp_path: Path) -> None:
    agent = CodeAgent([], model)
    told = refused(agent, tmp_path)
    assert re.search(why, told)
    assert "leave_out=['model']" in told
    agent.save(tmp_path, leave_out=["model"])
    with pytest.raises(AgentError, match="model was left out when the agent was saved; pass model="):
        CodeAgent.from_folder(tmp_path)
    assert CodeAgent.from_folder(tmp_path, model=model).model is model


@pytest.mark.parametrize(
    ("part", "settings", "why"),
    [
        ("approve", {"approve": approve}, "where they are done"),
        ("approve", {"sandbox": SandboxSettings(approve=approve)}, "where they are done"),
        ("logger", {"logger": AgentLogger(2, Console(file=io.StringIO()))}, "an object of this process"),
        ("record", {"record": "a-file-of-this-machine"}, "a file of this machine"),
        ("sandbox", {"sandbox": AsyncSandbox(final_answer=True)}, "was lent"),
        ("sandbox.config", {"sandbox": SandboxSettings(config=Config())}, "engine of this machine"),
        ("sandbox.ready", {"sandbox": SandboxSettings(ready=print)}, "in this program"),
        ("sandbox.watcher", {"sandbox": SandboxSettings(watcher=object())}, "in this program"),
        ("sandbox.env", {"sandbox": SandboxSettings(env={"MY_TOKEN": "x"})}, "MY_TOKEN may be a credential"),
        ("step_callbacks", {"step_callbacks": [lambda step: None]}, "at the top level of a module"),
        ("step_callbacks", {"step_callbacks": [nested()]}, "has no nested.<locals>.inner at its top level"),
        ("step_callbacks", {"step_callbacks": [Callable()]}, "an object of the type Callable"),
        ("step_callbacks", {"step_callbacks": [Callable().method]}, "an object of the type method"),
        ("final_answer_checks", {"final_answer_checks": [parts.is_short, lambda a, m: True]}, "a check: write it"),
        ("compaction", {"compaction": lambda conversation: None}, "compaction: write it"),
        ("tools.closed", {"tools": [closed, parts.shout]}, "'OUTSIDE'"),
    ],
)
def test_parts(part: str, settings: dict[str, Any], why: str, tmp_path: Path) -> None:
    arguments = {"tools": [], "model": parts.model(), **settings}
    agent = CodeAgent(**arguments)
    told = refused(agent, tmp_path)
    assert f"\n- {part}: " in told
    assert why in told
    assert f"leave_out=['{part}']" in told
    agent.save(tmp_path, leave_out=[part])
    with pytest.raises(AgentError, match=f"{part} was left out"):
        CodeAgent.from_folder(tmp_path, trust_remote_code=True, model=agent.model)
    loaded = CodeAgent.from_folder(tmp_path, trust_remote_code=True, model=agent.model, **settings)
    assert list(loaded.tools) == list(agent.tools)
    assert loaded.step_callbacks.registered == agent.step_callbacks.registered
    assert (loaded.final_answer_checks, loaded.compaction) == (agent.final_answer_checks, agent.compaction)
    ours = made_with(loaded)
    assert all(ours[name] is value for name, value in settings.items() if name not in ("tools",))


def test_an_approver_of_a_tool_calling_agent(tmp_path: Path) -> None:
    agent = ToolCallingAgent([], parts.model(), approve=approve)
    assert "- approve: " in refused(agent, tmp_path)
    agent.save(tmp_path, leave_out=["approve"])
    with pytest.raises(AgentError, match="approve was left out when the agent was saved; pass approve="):
        ToolCallingAgent.from_folder(tmp_path, model=agent.model)
    assert ToolCallingAgent.from_folder(tmp_path, model=agent.model, approve=None)._callables.approver.asks is False
    assert ToolCallingAgent.from_folder(tmp_path, model=agent.model, approve=approve)._callables.approver.asks is True


def test_the_config_of_a_tool_calling_agent(tmp_path: Path) -> None:
    agent = ToolCallingAgent([], parts.model(), config=Config(tool_timeout=7))
    assert "- config: " in refused(agent, tmp_path)
    agent.save(tmp_path, leave_out=["config"])
    with pytest.raises(AgentError, match="config was left out when the agent was saved; pass config="):
        ToolCallingAgent.from_folder(tmp_path, model=agent.model)
    again = ToolCallingAgent.from_folder(tmp_path, model=agent.model, config=Config(approval_timeout=3))
    assert made_with(again)["config"] == Config(approval_timeout=3)
    member = ToolCallingAgent([], parts.model(), name="member", description="m", config=Config(tool_timeout=7))
    CodeAgent([], parts.model(), managed_agents=[member]).save(tmp_path / "team", leave_out=["config"])
    loaded = CodeAgent.from_folder(tmp_path / "team", model=agent.model)
    assert made_with(loaded.managed_agents["member"])["config"] is None


def test_all_of_it_is_told_at_once(tmp_path: Path) -> None:
    deep = CodeAgent([closed], ScriptedModel([]), name="deep", description="d")
    team = ToolCallingAgent([], ScriptedModel([]), name="team", description="t", managed_agents=[deep], approve=approve)
    agent = CodeAgent([closed], Mine(), managed_agents=[team], logger=AgentLogger())  # type: ignore[arg-type]
    told = refused(agent, tmp_path)
    found = {line[2:].partition(": ")[0] for line in told.splitlines() if line.startswith("- ")}
    within = "managed_agents.team."
    assert found == {
        "model",
        "tools.closed",
        "logger",
        f"{within}model",
        f"{within}approve",
        f"{within}managed_agents.deep.model",
        f"{within}managed_agents.deep.tools.closed",
    }
    agent.save(tmp_path, leave_out=["model", "logger", "approve", "tools.closed"])
    given: dict[str, Any] = {"model": ScriptedModel([]), "logger": AgentLogger(), "tools": [closed]}
    with pytest.raises(AgentError, match=r"managed_agents\.team\.approve was left out"):
        CodeAgent.from_folder(tmp_path, **given)
    # What a member lacks is taken from what is given to its manager.
    member = ToolCallingAgent.from_folder(
        tmp_path / "managed_agents/team", approve=approve, model=Mine(), tools=[closed]
    )
    loaded = CodeAgent.from_folder(tmp_path, **given, managed_agents=[member])
    assert loaded.managed_agents["team"].managed_agents["deep"].tools == {"closed": closed}


def test_one_member_alone(tmp_path: Path) -> None:
    member = CodeAgent([], Mine(), name="member", description="m")  # type: ignore[arg-type]
    agent = CodeAgent([], parts.model(), managed_agents=[member])
    agent.save(tmp_path, leave_out=["managed_agents.member.model"])
    assert '"model": null' in (tmp_path / "managed_agents/member/agent.json").read_text()
    assert '"model": null' not in (tmp_path / "agent.json").read_text()


def test_the_record_of_a_member(tmp_path: Path) -> None:
    """It is not that of its manager."""
    member = CodeAgent([], parts.model(), name="member", description="m", record="members")
    agent = CodeAgent([], parts.model(), managed_agents=[member], record="managers")
    agent.save(tmp_path, leave_out=["record"])
    loaded = CodeAgent.from_folder(tmp_path, model=agent.model, record="mine")
    assert made_with(loaded)["record"] == "mine"
    assert made_with(loaded.managed_agents["member"])["record"] is None


def test_leaving_out_what_is_not_there(tmp_path: Path) -> None:
    for wrong in (["modle"], ["tools.x"], ["approve"]):
        with pytest.raises(AgentError, match=f"leave_out: there is no '{wrong[0]}' in this agent"):
            CodeAgent([], parts.model()).save(tmp_path, leave_out=wrong)
    with pytest.raises(AgentError, match="must be a list of names"):
        CodeAgent([], parts.model()).save(tmp_path, leave_out="model")


def test_agents_of_other_classes(tmp_path: Path) -> None:
    class My(CodeAgent):
        pass

    assert "of the class My; those of CodeAgent, ToolCallingAgent can be saved" in refused(
        My([], parts.model()), tmp_path
    )
    member = My([], parts.model(), name="m", description="m")
    assert "managed_agents.m is of the class My" in refused(
        CodeAgent([], parts.model(), managed_agents=[member]), tmp_path
    )


def test_a_tool_that_was_changed_after_it_was_made(tmp_path: Path) -> None:
    named, function = Named(), parts.tool(parts.shout.forward)
    named.description = "other"
    assert "its description was changed after it was made" in refused(CodeAgent([named], parts.model()), tmp_path)
    function.name = "whisper"
    assert "its name was changed after it was made" in refused(CodeAgent([function], parts.model()), tmp_path)
    repeat = parts.Repeat(2, what=OUTSIDE)
    assert "tool repeat: what is of the type object" in refused(CodeAgent([repeat], parts.model()), tmp_path)
    keyed = parts.Repeat(2, password="x")
    assert "tool repeat: password may be a credential" in refused(CodeAgent([keyed], parts.model()), tmp_path)


def test_settings_beyond_what_is_read(tmp_path: Path) -> None:
    """What cannot be loaded is not saved."""
    assert "max_steps cannot be 10001" in refused(CodeAgent([], parts.model(), max_steps=10_001), tmp_path)
    assert "planning_interval cannot be 10001" in refused(
        CodeAgent([], parts.model(), planning_interval=10_001), tmp_path
    )


def test_settings_of_a_search_tool(tmp_path: Path) -> None:
    tool = ApiWebSearchTool("https://search.example", api_key="K" * 30, api_key_name="MY_KEY")
    data = CodeAgent([tool], parts.model()).to_dict()["tools"]
    assert data == [
        {
            "name": "web_search",
            "class": "ApiWebSearchTool",
            "data": {"endpoint": "https://search.example", "api_key_name": "MY_KEY"},
        }
    ]
    headers = ApiWebSearchTool(headers={"X-Any": "v"})
    assert r"headers['X-Any'] may be a credential" in refused(CodeAgent([headers], parts.model()), tmp_path)


def test_teams_that_are_too_deep() -> None:
    agent = CodeAgent([], parts.model(), name="a0", description="d")
    for number in range(1, 9):
        agent = CodeAgent([], parts.model(), name=f"a{number}", description="d", managed_agents=[agent])
    with pytest.raises(AgentError, match="a team of more than 8 levels"):
        agent.to_dict()
    assert agent.managed_agents["a7"].to_dict()["name"] == "a7"


def test_what_is_given_must_be_settings(tmp_path: Path) -> None:
    CodeAgent([], parts.model(), compaction=ShortenOldest()).save(tmp_path)
    with pytest.raises(AgentError, match=r"CodeAgent has no setting max_tool_threads; there are .*max_steps"):
        CodeAgent.from_folder(tmp_path, max_tool_threads=3)
    with pytest.raises(ToolError):
        CodeAgent.from_folder(tmp_path, model=Mine(), tools=[3])


def test_a_lent_sandbox_at_loading(tmp_path: Path) -> None:
    agent = CodeAgent([], Mine(), additional_authorized_imports=["numpy"])  # type: ignore[arg-type]
    agent.save(tmp_path, leave_out=["model"])
    lent = AsyncSandbox(final_answer=True, authorized_imports=["pandas"])
    loaded = CodeAgent.from_folder(tmp_path, model=Mine(), sandbox=lent)
    assert "pandas" in loaded.authorized_imports
    assert "numpy" not in loaded.authorized_imports


def test_a_program_that_is_run_is_no_module(tmp_path: Path) -> None:
    from orchestrator.agents.sharing.functions import path_of

    def main(step: Any) -> None:
        pass

    main.__module__, main.__qualname__ = "__main__", "main"
    with pytest.raises(AgentError, match="main is in the program that is run, which cannot be imported"):
        path_of(main, "a step callback")


def test_texts_that_no_file_can_hold(tmp_path: Path) -> None:
    assert "cannot be written down: surrogates not allowed" in refused(
        CodeAgent([], parts.model(), description="\ud800"), tmp_path
    )
