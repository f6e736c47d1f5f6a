"""Any settings, and any text of a prompt, survive."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import CodeAgent, Limits, OpenAIServerModel, SandboxSettings, ToolCallingAgent
from orchestrator.agents.compaction import ShortenOldest
from orchestrator.agents.loop import MultiStepAgent
from orchestrator.agents.sharing.folder import parsed_yaml
from orchestrator.agents.sharing.layout import files_of
from orchestrator.agents.sharing.saved import SavedAgent
from orchestrator.made_with import made_with


@pytest.fixture(autouse=True, scope="module")
def _a_key_of_the_loader() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OPENAI_BASE_URL", raising=False)
        patch.setenv("OPENAI_API_KEY", "the-loaders")
        yield


texts = st.text(st.characters(codec="utf-8"), max_size=40)
names = st.from_regex(r"[a-z_][a-z0-9_]{0,10}x", fullmatch=True)
common = {
    "instructions": st.none() | texts,
    "max_steps": st.integers(1, 10_000),
    "verbosity_level": st.integers(-1, 2),
    "planning_interval": st.none() | st.integers(1, 100),
    "name": st.none() | names,
    "description": st.none() | texts,
    "provide_run_summary": st.booleans(),
    "return_full_result": st.booleans(),
    "stream_outputs": st.booleans(),
    "compaction": st.none()
    | st.builds(ShortenOldest, st.integers(1_000, 10**6), st.floats(0.1, 0.9), st.integers(1, 9)),
    "prompt_templates": st.none() | st.fixed_dictionaries({"system_prompt": texts.filter(lambda t: "{" not in t)}),
}
limits = st.builds(Limits, memory=st.sampled_from(["64m", "1g"]), cpus=st.floats(0.01, 8), pids=st.integers(24, 100))
variables = st.dictionaries(names, texts, max_size=3)
sandboxes = st.builds(
    SandboxSettings,
    limits=st.none() | limits,
    timeout=st.none() | st.floats(0.1, 100),
    env=st.none() | variables,
    tool_timeout=st.none() | st.floats(0.1, 100),
)
of_code = common | {
    "additional_authorized_imports": st.lists(st.sampled_from(["numpy", "a.b", "c.*", "*"]), max_size=3),
    "max_print_outputs_length": st.none() | st.integers(1, 10**6),
    "use_structured_outputs_internally": st.booleans(),
    "code_block_tags": st.sampled_from([None, "markdown", ("<<", ">>")]),
    "on_error": st.sampled_from(["keep", "rollback"]),
    "sandbox": st.none() | sandboxes,
}
of_calling = common | {
    "max_tool_threads": st.none() | st.integers(1, 64),
    "tool_timeout": st.none() | st.floats(0.1, 1000),
}


@given(
    st.fixed_dictionaries({}, optional=of_code),
    st.dictionaries(names, st.none() | st.floats(-9, 9) | st.lists(st.booleans())),
)
def test_any_settings_of_a_code_agent(arguments: dict[str, Any], parameters: dict[str, Any]) -> None:
    _check_same(CodeAgent, arguments, parameters)


@given(st.fixed_dictionaries({}, optional=of_calling))
def test_any_settings_of_a_tool_calling_agent(arguments: dict[str, Any]) -> None:
    _check_same(ToolCallingAgent, arguments, {})


@given(
    st.text(st.characters(codec="utf-8"), max_size=200) | st.text("ab \n\t\r\x85\u2028\ufeff:#'\"|>-%{}\\", max_size=30)
)
def test_any_text_of_a_prompt_survives_its_file(text: str) -> None:
    saved = SavedAgent("CodeAgent", {}, {"system_prompt": text, "planning": {"initial_plan": text}})
    assert parsed_yaml(files_of(saved)["prompts.yaml"], "it") == saved.prompt_templates


def _check_same(kind: type[MultiStepAgent], arguments: dict[str, Any], parameters: dict[str, Any]) -> None:
    """Compared by what the agents have, not by what was written of them."""
    agent = kind([], OpenAIServerModel("m", **{f"x_{name}": value for name, value in parameters.items()}), **arguments)
    loaded = kind.from_dict(json.loads(json.dumps(agent.to_dict())), trust_remote_code=True)
    assert _state(loaded) == _state(agent)
    asked, given_ = made_with(loaded), made_with(agent)
    assert asked.get("sandbox") == given_.get("sandbox")
    kept = {name: value for name, value in made_with(agent.model).items() if value is not None}  # type: ignore[arg-type]
    assert made_with(loaded.model) == kept  # type: ignore[arg-type]


def _state(agent: MultiStepAgent) -> dict[str, Any]:
    unlike = {
        "model",
        "memory",
        "equipment",
        "logger",
        "step_callbacks",
        "_made_with",
        "_workplace",
        "_callables",
        "_meter",
    }
    state = {name: value for name, value in vars(agent).items() if name not in unlike}
    return state | {"level": agent.logger.level, "system_prompt": agent.system_prompt}
