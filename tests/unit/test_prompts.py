"""The prompts: what they say, how long they are, and what users put in their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.agents import CodeAgent, ToolCallingAgent
from orchestrator.agents.parsing import CodeAction, CodeTags, FormatError, extract_code
from orchestrator.agents.prompts import MAX_PROMPT, default_templates, overlaid_templates, render
from orchestrator.agents.structured import structured_action
from orchestrator.errors import AgentError
from orchestrator.models import ScriptedModel
from orchestrator.tools import tool

KINDS = ("code_agent", "tool_calling_agent")


@tool
def weather(city: str) -> str:
    """Weather now.

    Args:
        city: the city's name, {{ not a template }}
    """
    return city


def agent(tools: Any = (), **more: Any) -> CodeAgent:
    return CodeAgent(tools, ScriptedModel([]), **more)


def member() -> CodeAgent:
    return agent(name="cook", description="Knows {{ food }}.")


def test_it_names_everything_the_model_needs() -> None:
    prompt = agent(
        [weather],
        additional_authorized_imports=["numpy.*"],
        name="planner",
        description="parties",
        instructions="Answer in Danish. {% raw %}",
        managed_agents=[member()],
    ).system_prompt
    assert prompt.startswith("You are planner.")
    assert "Your field: parties" in prompt
    assert 'def weather(city: str) -> str:\n    """Weather now.' in prompt
    assert "{{ not a template }}" in prompt
    assert "json, math, numpy.*, operator" in prompt
    assert "Answer in Danish. {% raw %}" in prompt
    assert "final_answer(" in prompt
    assert "def cook(task: str" in prompt
    assert "Knows {{ food }}." in prompt


def test_a_tool_calling_agent_is_told_tools_and_team_in_words() -> None:
    made = ToolCallingAgent([weather], ScriptedModel([]), managed_agents=[member()], instructions="In Danish.")
    for said in ("weather", "the city's name, {{ not a template }}", "cook", "In Danish.", "final_answer"):
        assert said in made.system_prompt
    assert "def weather" not in made.system_prompt


@pytest.mark.parametrize("tags", [None, "markdown", ("[PY]", "[/PY]")])
def test_its_examples_are_in_the_form_that_the_parser_takes(tags: Any) -> None:
    prompt = agent(code_block_tags=tags).system_prompt
    example = prompt[prompt.index("Thought: I compare") :]
    action = extract_code(example, CodeTags.of(tags))
    assert isinstance(action, CodeAction)
    assert action.code.splitlines()[-1].startswith("final_answer(")
    assert "<code>" not in prompt or tags is None


def test_the_structured_examples_are_in_the_form_that_the_parser_takes() -> None:
    prompt = agent(use_structured_outputs_internally=True).system_prompt
    examples = [line for line in prompt.splitlines() if line.startswith('{"thought"')]
    actions = [structured_action(line, CodeTags()) for line in examples]
    assert [type(action) for action in actions] == [CodeAction, CodeAction]
    assert "<code>" not in prompt


def test_everything_may_be_imported_with_a_star() -> None:
    assert "any package" in agent(additional_authorized_imports=["*"]).system_prompt


@pytest.mark.parametrize("structured", [False, True])
def test_it_is_short_and_has_no_gaps(structured: bool) -> None:
    prompt = agent(use_structured_outputs_internally=structured).system_prompt
    assert len(prompt) < 4_000  # smolagents' has 8,480; every step of every run pays for it
    assert "\n\n\n" not in prompt
    assert "None\n\n" not in prompt


def test_templates_of_ones_own_take_the_place_of_the_default_ones(tmp_path: Path) -> None:
    own = {
        "system_prompt": "Be {{ custom_instructions }} with {{ tools.keys() | join }}.",
        "planning": {"initial_plan": "P"},
    }
    made = agent([weather], prompt_templates=own, instructions="brief")
    assert made.system_prompt == "Be brief with weather."
    assert made.prompt_templates["planning"]["initial_plan"] == "P"
    assert made.prompt_templates["final_answer"] == default_templates("code_agent")["final_answer"]
    file = tmp_path / "prompts.yaml"
    file.write_text(yaml.safe_dump(own))
    assert agent([weather], prompt_templates=file).prompt_templates == made.prompt_templates


def test_a_changed_template_counts_from_the_next_run_on() -> None:
    made = agent()
    made.prompt_templates["system_prompt"] += "\nAnd smile."
    assert made.system_prompt.endswith("\nAnd smile.")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sytem_prompt": "x"}, "no part 'sytem_prompt'"),
        ({"planning": {"plan": "x"}}, "no part 'plan'"),
        ({"planning": "x"}, "must be a mapping"),
        ({"system_prompt": 3}, "must be a text"),
        ("/no/such/file.yaml", "cannot be read"),
    ],
)
def test_wrong_templates_are_refused_with_what_is_wrong(wrong: Any, said: str) -> None:
    with pytest.raises(AgentError, match=said):
        overlaid_templates(wrong, "code_agent")


@pytest.mark.parametrize("text", ["a: [", "- 1", "!!python/object/apply:os.system ['true']"])
def test_a_file_of_no_templates_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(AgentError):
        overlaid_templates(tmp_path / "p.yaml", "code_agent")


@pytest.mark.parametrize(
    "template",
    [
        "{{ forgotten }}",
        "{% if %}",
        "{{ ''.__class__.__mro__ }}",
        "{% for i in range(100000) %}{% for j in range(1000) %}xxxxxxxxxx{% endfor %}{% endfor %}",
    ],
)
def test_a_template_that_goes_wrong_is_an_error(template: str) -> None:
    with pytest.raises(AgentError):
        render(template)


def test_templates_cannot_call_tools() -> None:
    with pytest.raises(AgentError):
        agent([weather], prompt_templates={"system_prompt": "{{ tools.weather.forward('x') }}"})


@pytest.mark.parametrize("kind", KINDS)
def test_every_default_template_can_be_rendered(kind: str) -> None:
    made = default_templates(kind)  # type: ignore[arg-type]
    planning, managed, final = made["planning"], made["managed_agent"], made["final_answer"]
    for part in planning.values():
        text = render(part, task="t", tools={}, managed_agents={}, remaining_steps=7)
        assert "{" not in text
    assert "7" in render(planning["initial_plan"], task="t", tools={}, managed_agents={}, remaining_steps=7)
    assert "the task" in render(managed["task"], name="n", task="the task")
    assert "the answer" in render(managed["report"], name="n", final_answer="the answer")
    assert "plain text" in render(final["post_messages"], task="t")
    assert len(made["system_prompt"]) < MAX_PROMPT


@pytest.mark.parametrize(
    "reply",
    [
        '{"thought": "I add.", "code": "1 + 1",}',
        "{'thought': 'I add.', 'code': '1 + 1'}",
        'Here it is:\n```json\n{"thought": "I add.", "code": "1 + 1"}\n```',
    ],
)
def test_a_structured_reply_is_read_as_models_write_json(reply: str) -> None:
    assert structured_action(reply, CodeTags()) == CodeAction("1 + 1", "I add.")


@pytest.mark.parametrize("reply", ['{"code": "1"} and more', '{"code": "1"}{"code": "2"}', 'So: {"code": "1"} {}'])
def test_a_structured_reply_with_more_than_an_object_is_told_the_form(reply: str) -> None:
    assert isinstance(structured_action(reply, CodeTags()), FormatError)
