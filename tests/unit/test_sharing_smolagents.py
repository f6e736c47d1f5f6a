"""Folders and data of smolagents, as its versions 1.9, 1.10 and 1.20 write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator import CodeAgent, ToolCallingAgent
from orchestrator.agents.loop import MultiStepAgent
from orchestrator.agents.prompts import default_templates
from orchestrator.errors import AgentError, ConfigError, ToolError
from orchestrator.made_with import made_with
from tests.unit import sharing_parts as parts

FINAL_ANSWER = """from typing import Any, Optional
from smolagents.tools import Tool

class FinalAnswerTool(Tool):
    name = "final_answer"
    description = "Provides a final answer to the given problem."
    inputs = {'answer': {'type': 'any', 'description': 'The final answer to the problem'}}
    output_type = "any"

    def forward(self, answer: Any) -> Any:
        return answer

    def __init__(self, *args, **kwargs):
        self.is_initialized = False
"""
WEATHER = '''from smolagents import Tool
from typing import Any, Optional

class SimpleTool(Tool):
    name = "weather"
    description = "Weather of a city."
    inputs = {"city":{"type":"string","nullable":True,"description":"the city's name"}}
    output_type = "string"

    def forward(self, city: Optional[str] = None) -> str:
        """Weather.

        Args:
            city: the city's name
        """
        return f"sun in {city}"
'''
PROMPTS_1_9 = {
    "system_prompt": "You are {{ name or 'it' }}. Only these: {{authorized_imports}}.\n"
    "{%- for tool in tools.values() %}\n- {{ tool.name }}: {{ tool.description }}\n"
    "    Takes inputs: {{tool.inputs}} and returns an output of type: {{tool.output_type}}\n{%- endfor %}\n",
    "planning": {"initial_facts": "old", "initial_plan": "{{answer_facts}}", "update_facts_pre_messages": "old"},
    "managed_agent": {"task": "{{name}} {{task}}", "report": "{{name}} {{final_answer}}"},
    "final_answer": {"pre_messages": "a", "post_messages": "{{task}}"},
}
OF_1_9: dict[str, Any] = {
    "tools": ["weather", "final_answer"],
    "model": {
        "class": "HfApiModel",
        "data": {
            "last_input_token_count": None,
            "last_output_token_count": None,
            "model_id": "Qwen/Qwen2.5-Coder-32B-Instruct",
            "max_tokens": 2096,
            "temperature": 0.5,
            "custom_role_conversions": None,
        },
    },
    "managed_agents": {},
    "prompt_templates": PROMPTS_1_9,
    "max_steps": 6,
    "verbosity_level": 1,
    "grammar": None,
    "planning_interval": None,
    "name": None,
    "description": None,
    "authorized_imports": ["unicodedata", "stat", "datetime", "numpy"],
    "executor_type": "local",
    "executor_kwargs": {},
    "max_print_outputs_length": None,
    "requirements": ["smolagents"],
}
OF_1_20: dict[str, Any] = {
    "class": "CodeAgent",
    "tools": [
        {"name": "weather", "code": WEATHER, "requirements": ["smolagents"]},
        {"name": "final_answer", "code": FINAL_ANSWER, "requirements": ["smolagents"]},
    ],
    "model": {
        "class": "OpenAIModel",
        "data": {
            "model_id": "gpt-5-mini",
            "flatten_messages_as_text": False,
            "tool_name_key": "name",
            "tool_arguments_key": "arguments",
        },
    },
    "managed_agents": [
        {
            "class": "ToolCallingAgent",
            "tools": [{"name": "final_answer", "code": FINAL_ANSWER, "requirements": ["smolagents"]}],
            "model": {"class": "OpenAIServerModel", "data": {"model_id": "small"}},
            "managed_agents": [],
            "prompt_templates": {"system_prompt": "s"},
            "max_steps": 4,
            "verbosity_level": 0,
            "planning_interval": 2,
            "name": "helper",
            "description": "helps",
            "requirements": ["smolagents"],
        }
    ],
    "prompt_templates": {"system_prompt": "Only: {{ authorized_imports }}."},
    "max_steps": 10,
    "verbosity_level": 2,
    "planning_interval": None,
    "name": "boss",
    "description": "leads",
    "requirements": ["smolagents"],
    "authorized_imports": ["*"],
    "executor_type": "e2b",
    "executor_kwargs": {"timeout": 3},
    "max_print_outputs_length": 1000,
}


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    monkeypatch.setenv("HF_TOKEN", "hf_x")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As 1.9 writes it."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/weather.py").write_text(WEATHER)
    (tmp_path / "tools/final_answer.py").write_text("raise SystemExit('nothing of it is run')")
    (tmp_path / "prompts.yaml").write_text(yaml.safe_dump(PROMPTS_1_9))
    (tmp_path / "agent.json").write_text(json.dumps({**OF_1_9, "prompt_templates": None}))
    return tmp_path


def test_a_folder_of_1_9(folder: Path) -> None:
    with (
        pytest.warns(UserWarning, match="'?planning'? is not as here, and ignored"),
        pytest.raises(ConfigError, match=r"- tools/weather\.py: its code is run"),
    ):
        CodeAgent.from_folder(folder)
    with pytest.warns(UserWarning, match="planning"):
        agent = CodeAgent.from_folder(folder, trust_remote_code=True)
    assert (agent.max_steps, agent.max_print_outputs_length) == (
        6,
        CodeAgent([], parts.model()).max_print_outputs_length,
    )
    assert "numpy" in agent.authorized_imports
    assert list(agent.tools) == ["weather"]
    assert agent.tools["weather"](city="Rome") == "sun in Rome"
    assert "- weather: Weather of a city." in agent.system_prompt
    assert "'numpy'" in agent.system_prompt
    assert made_with(agent.model) == {  # type: ignore[arg-type]
        "model_id": "Qwen/Qwen2.5-Coder-32B-Instruct",
        "max_tokens": 2096,
        "temperature": 0.5,
    }
    assert agent.prompt_templates["planning"] == default_templates("code_agent")["planning"]
    # From here on it is one of ours.
    agent.save(folder / "ours")
    assert CodeAgent.from_folder(folder / "ours", trust_remote_code=True).to_dict() == agent.to_dict()


def test_data_of_1_20() -> None:
    with pytest.warns(UserWarning, match="of smolagents is ignored") as warned:
        agent = MultiStepAgent.from_dict(OF_1_20, trust_remote_code=True)
    told = [str(warning.message) for warning in warned]
    assert told == [
        "executor_type of smolagents is ignored: code runs in a container of this machine",
        "executor_kwargs of smolagents is ignored: pass sandbox=SandboxSettings(…) for the container's settings",
    ]
    assert isinstance(agent, CodeAgent)
    assert (agent.name, agent.description, agent.max_steps, agent.logger.level) == ("boss", "leads", 10, 2)
    assert agent.max_print_outputs_length == 1000
    assert "*" in agent.authorized_imports
    assert agent.system_prompt == "Only: all that are installed."
    helper = agent.managed_agents["helper"]
    assert type(helper) is ToolCallingAgent
    assert (helper.max_steps, helper.planning_interval, helper.system_prompt, helper.tools) == (4, 2, "s", {})
    assert made_with(helper.model) == {"model_id": "small"}  # type: ignore[arg-type]


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in OF_1_20.items() if key != name}


def test_what_it_is_if_it_does_not_say() -> None:
    data = {**without("class"), "managed_agents": [], "executor_type": "local", "executor_kwargs": {}}
    assert type(MultiStepAgent.from_dict(data, trust_remote_code=True)) is CodeAgent
    del data["authorized_imports"], data["prompt_templates"]
    assert type(ToolCallingAgent.from_dict(data, trust_remote_code=True)) is ToolCallingAgent
    with pytest.raises(AgentError, match="class: MultiStepAgent is none of"):
        MultiStepAgent.from_dict(data, trust_remote_code=True)


def test_later_settings_are_read() -> None:
    later = {
        "instructions": "Be brief.",
        "provide_run_summary": True,
        "code_block_tags": ["<py>", "</py>"],
        "use_structured_outputs_internally": True,
        "managed_agents": [],
        "executor_type": "docker",
        "executor_kwargs": {},
    }
    agent = CodeAgent.from_dict({**OF_1_20, **later}, trust_remote_code=True)
    assert (agent.instructions, agent.provide_run_summary) == ("Be brief.", True)
    assert (agent.code_block_tags.opening, agent.use_structured_outputs_internally) == ("<py>", True)
    with pytest.warns(UserWarning, match="novelty of smolagents is ignored: it is not known here"):
        CodeAgent.from_dict({**OF_1_20, **later, "novelty": 1}, trust_remote_code=True)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("changes", "error", "why"),
    [
        ({"model": {"class": "os.system", "data": {}}}, AgentError, r"model: os\.system is none of .*; pass model="),
        ({"model": {"class": "MyModel", "data": {"model_id": "m"}}}, AgentError, "model: MyModel is none of"),
        ({"model": "gpt"}, AgentError, "model must have a class and data"),
        ({"tools": None}, AgentError, "tools must be a list of tools with their code"),
        ({"tools": ["weather"]}, AgentError, "tools must be a list of tools with their code"),
        ({"tools": [{"name": "../x", "code": "1"}]}, AgentError, r"tools\.name cannot be \.\./x"),
        ({"tools": [{"name": "x", "code": None}]}, AgentError, r"tools\.code cannot be None"),
        ({"managed_agents": [3]}, AgentError, "managed_agents must be a list of agents"),
        ({"managed_agents": "x"}, AgentError, "managed_agents must be a list of agents"),
        ({"class": "subprocess.Popen"}, AgentError, r"class: subprocess\.Popen is none of"),
        ({"class": ["x"]}, AgentError, "is none of CodeAgent"),
        ({"max_steps": "many"}, AgentError, "max_steps cannot be many"),
        ({"prompt_templates": "x"}, AgentError, "prompt_templates cannot be x"),
        ({"authorized_imports": 3}, AgentError, "additional_authorized_imports cannot be 3"),
        (
            {"tools": [{"name": "x", "code": "from smolagents.local_python_executor import evaluate_python_code"}]},
            ToolError,
            "imports evaluate_python_code from smolagents, which is not here",
        ),
    ],
)
def test_what_cannot_be_loaded(changes: dict[str, Any], error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        MultiStepAgent.from_dict({**OF_1_20, **changes}, trust_remote_code=True)


def test_what_is_neither() -> None:
    for data in ({}, {"tools": []}, {"name": "x", "version": "1.0.0"}):
        with pytest.raises(AgentError, match="this is no agent: neither cellblock's"):
            CodeAgent.from_dict(data)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_model_of_ones_own_is_given() -> None:
    """The one of the file is not even looked at."""
    model = parts.model()
    data = {**OF_1_20, "model": {"class": "MyModel", "data": {}}}
    agent = MultiStepAgent.from_dict(data, trust_remote_code=True, model=model)
    assert agent.model is model


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_its_endpoints_need_trust() -> None:
    data = {
        **OF_1_20,
        "tools": [],
        "model": {"class": "OpenAIServerModel", "data": {"model_id": "m", "api_base": "http://e"}},
    }
    with pytest.raises(ConfigError, match="the model's api_base: http://e"):
        CodeAgent.from_dict(data)
