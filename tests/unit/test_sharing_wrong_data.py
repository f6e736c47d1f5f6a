"""Damaged and hostile data: an error of ours, with the place, whatever it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator import CodeAgent
from orchestrator.errors import AgentError, CellblockError
from tests.unit.sharing_parts import good_data, model_data, put


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of whoever loads."""
    monkeypatch.setenv("OPENAI_API_KEY", "the-loaders-key")
    monkeypatch.setenv("BRAVE_API_KEY", "the-loaders-key")


@pytest.fixture
def good() -> dict[str, Any]:
    return good_data()


Change = Callable[[dict[str, Any]], Any]


def without(data: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != name}


WRONG: list[tuple[Change, str]] = [
    (lambda d: [], "an agent must be a mapping, not list"),
    (lambda d: put(d, cellblock=2), "written by a later cellblock"),
    (lambda d: put(d, cellblock=True), "cellblock, the number of the format"),
    (lambda d: without(d, "class"), "class is missing"),
    (lambda d: put(d, **{"class": "os.system"}), "class: 'os.system' is none of CodeAgent, ToolCallingAgent"),
    (lambda d: put(d, **{"class": ["CodeAgent"]}), "class is missing"),
    (lambda d: put(d, unknown=1), "unknown is not known; there are"),
    (lambda d: put(d, max_tool_threads=3), "max_tool_threads is not known"),
    (lambda d: put(d, **{"x\x1b[2J\u202e": 1}), r"x\\u202e is not known"),
    (lambda d: put(d, max_steps=0), "max_steps cannot be 0"),
    (lambda d: put(d, max_steps=True), "max_steps cannot be True"),
    (lambda d: put(d, max_steps=10**9), "max_steps cannot be 1000000000"),
    (lambda d: put(d, name="../x"), "name cannot be ../x"),
    (lambda d: put(d, name="class"), "name cannot be class"),
    (lambda d: put(d, description=3), "description cannot be 3"),
    (lambda d: put(d, instructions="x" * 1_000_001), "instructions cannot be x"),
    (lambda d: put(d, on_error="explode"), "on_error cannot be explode"),
    (lambda d: put(d, on_error=["keep"]), "on_error cannot be"),
    (lambda d: put(d, code_block_tags=["a"]), "code_block_tags cannot be"),
    (lambda d: put(d, additional_authorized_imports="numpy"), "additional_authorized_imports cannot be numpy"),
    (lambda d: put(d, additional_authorized_imports=["a b"]), "is not a module name"),
    (lambda d: put(d, sandbox={"config": {}}), "sandbox.config is not known"),
    (lambda d: put(d, sandbox={"approve": "os:system"}), "sandbox.approve is not known"),
    (lambda d: put(d, sandbox={"limits": {"gpu": 1}}), "sandbox.limits.gpu is not known"),
    (lambda d: put(d, sandbox={"limits": {"pids": "many"}}), "sandbox.limits.pids cannot be many"),
    (lambda d: put(d, sandbox={"limits": {"pids": 1}}), "limits.pids"),
    (lambda d: put(d, sandbox={"timeout": -1}), "sandbox.timeout cannot be -1"),
    (lambda d: put(d, sandbox={"env": {"A": 1}}), "sandbox.env cannot be"),
    (lambda d: put(d, model={"class": "subprocess.Popen", "data": {}}), "model.class: 'subprocess.Popen' is none of"),
    (lambda d: put(d, model={"class": "ScriptedModel", "data": {}}), "model.class: 'ScriptedModel' is none of"),
    (lambda d: put(d, model={"data": {}}), "model.class is missing"),
    (lambda d: put(d, model={"class": "OpenAIServerModel", "module": "os"}), "model.module is not known"),
    (lambda d: put(d, model={"class": "OpenAIServerModel", "data": {"tools": []}}), "model cannot be made|model m"),
    (lambda d: put(d, model=None), "model was not saved; pass model="),
    (lambda d: put(d, model=model_data(retry={"attempts": 0})), "attempts must be at least 1"),
    (
        lambda d: put(d, model=model_data(retry={"tries": 1})),
        "retry cannot be made of what was saved: TypeError",
    ),
    (lambda d: put(d, model=model_data(timeout=1) | {"removed": "stop"}), "model.removed cannot be stop"),
    (lambda d: put(d, tools={"a": 1}), "tools cannot be"),
    (lambda d: put(d, tools=[{"name": "../../etc/x", "code": ""}]), r"tools\.name cannot be \.\./\.\./etc/x"),
    (lambda d: put(d, tools=[{"code": ""}]), r"tools\.name is missing"),
    (lambda d: put(d, tools=[{"name": "x"}]), "tools.x must be of a class that there is, or have its code"),
    (lambda d: put(d, tools=[{"name": "x", "code": "", "class": "WebSearchTool"}]), "tools.x must be of a class"),
    (lambda d: put(d, tools=[{"name": "x", "class": "os.system"}]), r"tools\.x\.class: 'os\.system' is none of"),
    (lambda d: put(d, tools=[{"name": "x", "class": "UserInputTool"}]), "the tool calls itself 'user_input'"),
    (lambda d: put(d, tools=[{"name": "x", "code": "y" * ((1 << 20) + 1)}]), r"tools\.code cannot be"),
    (lambda d: put(d, tools=[{"name": "x", "code": "1/0"}]), "the tool's code fails: ZeroDivisionError"),
    (lambda d: put(d, tools=[{"name": "x", "code": "import os"}]), "exactly one tool"),
    (lambda d: put(d, tools=[d["tools"][0] | {"data": {"code": "x"}}]), "cannot take an argument of the name code"),
    (lambda d: put(d, tools=[d["tools"][0] | {"data": {"times": "x"}, "name": "other"}]), "calls itself 'repeat'"),
    (lambda d: put(d, tools=[d["tools"][0]] * 2), "tools: repeat is there twice"),
    (lambda d: put(d, tools=[{"name": f"t{n}", "code": ""} for n in range(257)]), "tools cannot be"),
    (lambda d: put(d, step_callbacks=[{"step": "SystemPromptStep", "function": "a:b"}]), "step cannot be"),
    (lambda d: put(d, step_callbacks=[{"step": ["ActionStep"], "function": "a:b"}]), "step cannot be"),
    (lambda d: put(d, model={"class": ["x"], "data": {}}), "model.class cannot be"),
    (lambda d: put(d, step_callbacks=[{"step": "ActionStep"}]), "each needs step and function"),
    (lambda d: put(d, step_callbacks=[{"step": "ActionStep", "function": "a.b"}]), "function cannot be a.b"),
    (lambda d: put(d, final_answer_checks=["a:b.c"]), "final_answer_checks cannot be"),
    (lambda d: put(d, final_answer_checks=["no_such_module:x"]), "no_such_module:x cannot be imported: ModuleNotFound"),
    (lambda d: put(d, final_answer_checks=["os:name"]), "os:name cannot be called"),
    (lambda d: put(d, compaction="not a path"), "compaction cannot be not a path"),
    (lambda d: put(d, compaction={"class": "Popen"}), r"compaction\.class: 'Popen' is none of"),
    (lambda d: put(d, compaction={"class": "ShortenOldest", "data": {"max_tokens": 1}}), "max_tokens is 1"),
    (lambda d: put(d, compaction={"class": "ShortenOldest", "data": {"max_tokens": "x"}}), "cannot be made of what"),
    (lambda d: put(d, prompt_templates=[]), "prompt_templates cannot be"),
    (lambda d: put(d, prompt_templates={"other": "x"}), "prompt_templates has no part 'other'"),
    (lambda d: put(d, prompt_templates={"system_prompt": "{{ name"}), "cannot be rendered"),
    (
        lambda d: put(d, prompt_templates={"system_prompt": "{{ name | length }}"}),
        "a prompt template cannot be rendered: object of type",
    ),
    (lambda d: put(d, managed_agents=[3]), "managed_agents cannot be"),
    (lambda d: put(d, managed_agents=[put(d["managed_agents"][0], name=None)]), "None is no name of an agent"),
    (
        lambda d: put(d, managed_agents=[put(d["managed_agents"][0], secret=1)]),
        "managed_agents.member.secret is not known",
    ),
    (lambda d: put(d, managed_agents=d["managed_agents"] * 2), "named 'member'"),
    (
        lambda d: put(d, managed_agents=[without(d["managed_agents"][0], "description")]),
        "each needs a name, which its manager calls, and a description",
    ),
    (lambda d: put(d, left_out=["anything"]), "anything was left out when the agent was saved"),
    (lambda d: put(d, left_out=[["x"]]), "left_out cannot be"),
    (lambda d: put(d, description=float("nan")), "which cannot be written down"),
    (lambda d: put(d, description=b"bytes"), "agent.'description'. is of the type bytes"),
    (lambda d: put(d, model=model_data(a={1: 2})), "of the type dict"),
]


@pytest.mark.parametrize(("change", "why"), WRONG)
def test_wrong_data(good: dict[str, Any], change: Change, why: str) -> None:
    """Also whoever is trusted can be damaged. Nothing but our own errors comes out."""
    with pytest.raises(CellblockError, match=why):
        CodeAgent.from_dict(change(good), trust_remote_code=True)


def test_deep_data(good: dict[str, Any]) -> None:
    nested: Any = "x"
    for _ in range(5_000):
        nested = [nested]
    with pytest.raises(AgentError, match="nested too deep"):
        CodeAgent.from_dict(good | {"model": model_data(stop=nested)})
    team = put(good["managed_agents"][0])
    for _ in range(9):
        team = put(good["managed_agents"][0], managed_agents=[team])
    with pytest.raises(AgentError, match=r"8 levels|nested too deep"):
        CodeAgent.from_dict(put(good, managed_agents=[team]))


def test_every_single_change_of_type_is_an_error_of_ours(good: dict[str, Any]) -> None:
    for name in good:
        for wrong in (object(), {"a": object()}, ["\ud800", {}], -(10**40), 1e308, "\x00" * 10):
            try:
                CodeAgent.from_dict(put(good, **{name: wrong}), trust_remote_code=True)
            except CellblockError:
                continue
            assert name in {"description", "instructions"}, (name, wrong)
