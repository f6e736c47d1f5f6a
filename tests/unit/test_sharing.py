"""Agents saved and loaded again: everything that defines them survives."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator import (
    ActionStep,
    CodeAgent,
    Limits,
    PlanningStep,
    SandboxSettings,
    ToolCallingAgent,
)
from orchestrator.agents.compaction import SummariseOldest
from orchestrator.agents.loop import MultiStepAgent
from orchestrator.agents.settings import AgentSettings
from orchestrator.agents.sharing.registry import AGENTS, MODELS, OTHER_NAMES, TOOLS
from orchestrator.agents.sharing.schema import SANDBOX, SETTINGS
from orchestrator.errors import CellblockError
from orchestrator.made_with import MadeWith, made_with
from orchestrator.models import REMOVE_PARAMETER, RetryPolicy
from orchestrator.tools import FinalAnswerTool, Tool, WebSearchTool, WikipediaSearchTool
from tests.unit import sharing_parts as parts

ROOT = Path(__file__).parents[2]
KEYS = {"api_key", "token"}


@pytest.fixture(autouse=True)
def _a_key_of_the_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "AZURE_OPENAI_AD_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "the-loaders")


def again(agent: MultiStepAgent, tmp_path: Path) -> MultiStepAgent:
    """By a folder; data and the folder of the loaded one are the same as of the first."""
    first, second = tmp_path / "first", tmp_path / "second"
    files = agent.save(first)
    loaded = type(agent).from_folder(first, trust_remote_code=True)
    assert type(loaded) is type(agent)
    loaded.save(second)
    for file in files:
        assert (second / file.relative_to(first)).read_text() == file.read_text()
    assert loaded.to_dict() == agent.to_dict()
    data = json.loads(json.dumps(agent.to_dict()))
    assert type(agent).from_dict(data, trust_remote_code=True).to_dict() == agent.to_dict()
    return loaded


def test_a_code_agent_with_everything(tmp_path: Path) -> None:
    sandbox = SandboxSettings(Limits(memory="256m", cpus=0.5), timeout=5.0, env={"TZ": "UTC"}, tool_timeout=7.0)
    agent = CodeAgent(
        [parts.shout, parts.Repeat(3, extra=["x"]), WikipediaSearchTool(language="de"), FinalAnswerTool()],
        parts.model(temperature=0.5),
        {"system_prompt": "You are {{ name }}.\n\n  Ünïcode: \"'\t# {{ custom_instructions }}\n"},
        instructions="Be brief.",
        max_steps=7,
        verbosity_level=2,
        planning_interval=3,
        name="boss",
        description="leads",
        provide_run_summary=True,
        return_full_result=True,
        stream_outputs=True,
        step_callbacks={ActionStep: [parts.on_step, parts.on_plan], PlanningStep: parts.on_plan},
        final_answer_checks=[parts.is_short],
        compaction=SummariseOldest(50_000, 0.25),
        additional_authorized_imports=["numpy.*", "pandas"],
        sandbox=sandbox,
        max_print_outputs_length=99,
        use_structured_outputs_internally=True,
        code_block_tags=("[py]", "[/py]"),
        on_error="rollback",
    )
    loaded: Any = again(agent, tmp_path)
    assert loaded.prompt_templates == agent.prompt_templates
    assert loaded.system_prompt == agent.system_prompt
    assert loaded.instructions == "Be brief."
    assert (loaded.max_steps, loaded.planning_interval, loaded.logger.level) == (7, 3, 2)
    assert (loaded.name, loaded.description) == ("boss", "leads")
    assert (loaded.provide_run_summary, loaded.return_full_result, loaded.stream_outputs) == (True, True, True)
    assert loaded.step_callbacks.registered == agent.step_callbacks.registered
    assert loaded.final_answer_checks == (parts.is_short,)
    assert loaded.compaction == SummariseOldest(50_000, 0.25)
    assert loaded.authorized_imports == agent.authorized_imports
    assert "numpy.*" in loaded.authorized_imports
    assert made_with(loaded)["sandbox"] == sandbox
    assert loaded.max_print_outputs_length == 99
    assert loaded.use_structured_outputs_internally is True
    assert (loaded.code_block_tags.opening, loaded.code_block_tags.closing) == ("[py]", "[/py]")
    assert loaded.on_error == "rollback"
    assert list(loaded.tools) == ["shout", "repeat", "wikipedia_search"]
    assert loaded.tools["shout"]("hey") == "HEY!"
    assert (loaded.tools["repeat"]("ab"), loaded.tools["repeat"].more) == ("ababab", {"extra": ["x"]})
    assert made_with(loaded.tools["wikipedia_search"]) == {"language": "de"}
    assert loaded.model.model_id == "m"
    assert made_with(loaded.model) == {"model_id": "m", "temperature": 0.5}


def test_a_tool_calling_agent_with_everything(tmp_path: Path) -> None:
    agent = ToolCallingAgent(
        [parts.shout],
        parts.model(),
        max_tool_threads=3,
        tool_timeout=9.5,
        compaction=None,
        step_callbacks=[parts.on_step],
    )
    loaded: Any = again(agent, tmp_path)
    assert (loaded.max_tool_threads, loaded.tool_timeout, loaded.compaction) == (3, 9.5, None)
    assert loaded.step_callbacks.registered == ((ActionStep, parts.on_step),)
    assert (
        again(ToolCallingAgent([], parts.model(), compaction=parts.nothing), tmp_path / "more").compaction
        is parts.nothing
    )


def test_every_setting_of_an_agent_is_saved_or_refused() -> None:
    """A new argument of an agent fails this until it is decided what becomes of it."""
    elsewhere = {
        "tools",
        "model",
        "prompt_templates",
        "managed_agents",
        "step_callbacks",
        "final_answer_checks",
        "compaction",
        "add_base_tools",  # its tools are saved as such
        "logger",  # these are refused
        "approve",
        "record",
    }
    given = {"config", "approve", "ready", "watcher"}  # refused, too
    assert {field.name for field in dataclasses.fields(SandboxSettings)} == {*SANDBOX, *given}
    for kind, entry in AGENTS.items():
        own = inspect.signature(entry.load().__init__).parameters
        arguments = {name for name, one in own.items() if one.kind is not one.VAR_KEYWORD} - {"self"}
        refused = {"config"} if kind == "ToolCallingAgent" else set()
        assert arguments | AgentSettings.__annotations__.keys() == SETTINGS[kind].keys() | elsewhere | refused


def test_what_was_changed_after_the_making_counts(tmp_path: Path) -> None:
    agent = CodeAgent([], parts.model())
    agent.max_steps, agent.instructions, agent.prompt_templates["system_prompt"] = 3, "new", "NEW {{ name }}"
    loaded = again(agent, tmp_path)
    assert (loaded.max_steps, loaded.instructions, loaded.system_prompt) == (3, "new", "NEW None")


def test_a_team(tmp_path: Path) -> None:
    deep = CodeAgent([parts.shout], parts.model("deep"), name="deep", description="d", provide_run_summary=True)
    middle = ToolCallingAgent([], parts.model("middle"), name="middle", description="m", managed_agents=[deep])
    other = CodeAgent([], parts.model("other"), name="other", description="o")
    loaded = again(CodeAgent([], parts.model(), managed_agents=[middle, other]), tmp_path)
    assert list(loaded.managed_agents) == ["middle", "other"]
    found = loaded.managed_agents["middle"].managed_agents["deep"]
    assert (found.model.model_id, found.provide_run_summary, type(found)) == ("deep", True, CodeAgent)  # type: ignore[attr-defined]
    assert found.tools["shout"]("a") == "A!"
    assert (tmp_path / "first/managed_agents/middle/managed_agents/deep/tools/shout.py").exists()


def test_base_tools_need_no_trust(tmp_path: Path) -> None:
    agent = CodeAgent([WebSearchTool(5)], parts.model(max_tokens=100), add_base_tools=True)
    agent.save(tmp_path)
    assert not (tmp_path / "tools").exists()
    loaded = CodeAgent.from_folder(tmp_path)
    assert [type(tool) for tool in loaded.tools.values()] == [type(tool) for tool in agent.tools.values()]
    assert made_with(loaded.tools["web_search"]) == {"max_results": 5}


def test_no_key_is_written(tmp_path: Path) -> None:
    member = CodeAgent([], parts.model(), name="member", description="m")
    for file in CodeAgent(
        [WebSearchTool(engine="brave_api", api_key="K" * 20)], parts.model(), managed_agents=[member]
    ).save(tmp_path):
        assert "must-not" not in file.read_text()
        assert "K" * 20 not in file.read_text()


LISTED = {"model_name": "g", "litellm_params": {"model": "ollama/x", "api_base": "http://127.0.0.1:9"}}
EVERYWHERE: dict[str, Any] = {
    "custom_role_conversions": {"system": "user"},
    "requests_per_minute": 30.0,
    "timeout": 9.0,
    "retry": RetryPolicy(2, 10.0, 0.5, 3.0),
    "temperature": 0.25,
}


@pytest.mark.parametrize(
    ("kind", "args", "named"),
    [
        ("OpenAIServerModel", ("gpt", "http://127.0.0.1:9/v1", "k"), {"organization": "o", "project": "p"}),
        ("AzureOpenAIServerModel", ("dep", "https://a.example", "k", "2024-10-21"), {}),
        ("LiteLLMModel", ("ollama/x",), {"flatten_messages_as_text": False}),
        ("LiteLLMRouterModel", ("g", [LISTED]), {"client_kwargs": {"routing_strategy": "simple-shuffle"}}),
        ("InferenceClientModel", ("o/m",), {"provider": "together", "bill_to": "us", "token": "t"}),
        ("AmazonBedrockModel", ("nova",), {"client_kwargs": {"region_name": "us-east-1"}}),
    ],
)
def test_models_and_their_settings(
    kind: str, args: Any, named: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "x")
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    model: Any = MODELS[kind].load()(*args, **named, **EVERYWHERE)
    loaded: Any = again(CodeAgent([], model), tmp_path).model
    assert type(loaded) is type(model)
    assert made_with(loaded) == {name: value for name, value in made_with(model).items() if name not in KEYS}
    assert loaded._retry == EVERYWHERE["retry"]
    with pytest.raises(AttributeError, match="model_id"):  # requests and files would go on with the first one
        model.model_id = "another"


def test_removed_parameters_stay_removed(tmp_path: Path) -> None:
    loaded: Any = again(CodeAgent([], parts.model(stop=REMOVE_PARAMETER, retry=False)), tmp_path).model
    assert made_with(loaded) == {"model_id": "m", "stop": REMOVE_PARAMETER, "retry": False}


def test_what_can_be_named_is_there() -> None:
    for name, entry in {**TOOLS, **AGENTS}.items():
        kind = entry.load()
        assert (kind.__name__, kind.__module__) == (name, entry.module)
    taken = {name: inspect.signature(entry.load().__init__).parameters for name, entry in TOOLS.items()}
    for name, entry in TOOLS.items():
        assert entry.harmless | entry.keys <= taken[name].keys()
    assert set(OTHER_NAMES.values()) <= MODELS.keys()


def test_arguments_by_name() -> None:
    class Thing(MadeWith):
        def __init__(self, first: int, second: int = 2, *, third: int = 3, **more: int) -> None:
            pass

    assert made_with(Thing(1, third=5, fourth=4)) == {"first": 1, "third": 5, "fourth": 4}
    assert made_with(MadeWith()) == {}


def test_a_branch_and_a_copy_are_saved_like_the_first() -> None:
    agent = CodeAgent([parts.shout], parts.model(), sandbox=SandboxSettings(timeout=3.0))
    assert agent.copy_for_call().to_dict() == agent.to_dict()


def test_overrides(tmp_path: Path) -> None:
    member = CodeAgent([], parts.model("old"), name="member", description="m")
    CodeAgent([parts.shout, parts.Repeat()], parts.model("old"), max_steps=3, managed_agents=[member]).save(tmp_path)
    model, mine = parts.model("new"), parts.Repeat(7)

    @parts.tool
    def shout(text: str) -> str:
        """Another.

        Args:
            text: what
        """
        return text

    # Nothing of the folder is run any more: what would be is replaced.
    loaded = CodeAgent.from_folder(tmp_path, model=model, max_steps=9, tools=[mine, shout, WikipediaSearchTool()])
    assert (loaded.model, loaded.max_steps) == (model, 9)
    assert list(loaded.tools) == ["shout", "repeat", "wikipedia_search"]
    assert (loaded.tools["repeat"], loaded.tools["shout"]) == (mine, shout)
    assert loaded.managed_agents["member"].model is model
    alone = CodeAgent.from_folder(tmp_path, trust_remote_code=True, managed_agents=None, name="me")
    assert (alone.managed_agents, alone.name) == ({}, "me")


def test_the_class_that_is_asked_decides(tmp_path: Path) -> None:
    class Mine(CodeAgent):
        pass

    CodeAgent([], parts.model()).save(tmp_path)
    assert type(MultiStepAgent.from_folder(tmp_path)) is CodeAgent
    assert type(Mine.from_folder(tmp_path)) is Mine
    with pytest.raises(CellblockError, match="is a CodeAgent; load it with CodeAgent, not with ToolCallingAgent"):
        ToolCallingAgent.from_folder(tmp_path)


def test_the_other_files(tmp_path: Path) -> None:
    agent = CodeAgent([parts.shout, parts.Repeat()], parts.model(), final_answer_checks=[json.dumps], name="boss")
    agent.save(tmp_path)
    assert (tmp_path / "requirements.txt").read_text().split() == ["cellblock[gradio]"]
    app = (tmp_path / "app.py").read_text()
    compile(app, "app.py", "exec")
    assert "CodeAgent.from_folder(" in app
    assert "GradioUI(agent).launch()" in app
    agent.save(tmp_path, leave_out=["tools.shout"])
    app = (tmp_path / "app.py").read_text()
    compile(app, "app.py", "exec")
    assert "Left out when it was saved; to be given here: tools" in app


def test_a_loaded_agent_is_that_of_another_process(tmp_path: Path) -> None:
    """Nothing of what loading needs is only in the process that saved."""
    CodeAgent([parts.shout], parts.model(), step_callbacks=[parts.on_step]).save(tmp_path)
    code = (
        "import sys; from orchestrator import CodeAgent; "
        f"print(CodeAgent.from_folder({str(tmp_path)!r}, trust_remote_code=True).tools['shout']('a'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}", "OPENAI_API_KEY": "x"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.returncode) == ("A!\n", 0), done.stderr


def test_a_tool_is_still_one_without_arguments() -> None:
    """Remembering the arguments changes nothing for those who write tools."""

    class Bare(Tool):
        name, description, inputs, output_type = "bare", "d", {}, "string"

        def forward(self) -> str:
            return "x"

    assert Bare()() == "x"
    assert made_with(Bare()) == {}
