"""The system prompt: what it says, and how long it is."""

from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from orchestrator.agents.parsing import CodeAction, CodeTags, extract_code
from orchestrator.agents.prompts import _TEMPLATES, code_agent_prompt, last_answer_prompt
from orchestrator.policy import import_rules
from orchestrator.tools import tool


@tool
def weather(city: str) -> str:
    """Weather now.

    Args:
        city: the city's name, {{ not a template }}
    """
    return city


def test_it_names_everything_the_model_needs() -> None:
    prompt = code_agent_prompt(
        tools=[weather],
        imports=["math", "numpy.*"],
        tags=CodeTags(),
        name="planner",
        description="parties",
        instructions="Answer in Danish. {% raw %}",
    )
    assert prompt.startswith("You are planner.")
    assert "Your field: parties" in prompt
    assert 'def weather(city: str) -> str:\n    """Weather now.' in prompt
    assert "{{ not a template }}" in prompt
    assert "math, numpy.*" in prompt
    assert "Answer in Danish. {% raw %}" in prompt
    assert "final_answer(" in prompt


@pytest.mark.parametrize("tags", [CodeTags(), CodeTags.of("markdown"), CodeTags("[PY]", "[/PY]")])
def test_its_examples_are_in_the_form_that_the_parser_takes(tags: CodeTags) -> None:
    prompt = code_agent_prompt(tools=[], imports=[], tags=tags)
    example = prompt[prompt.index("Thought: I compare") :]
    action = extract_code(example, tags)
    assert isinstance(action, CodeAction)
    assert action.code.splitlines()[-1].startswith("final_answer(")
    assert "<code>" not in prompt or tags == CodeTags()


def test_everything_may_be_imported_with_a_star() -> None:
    assert "any package" in code_agent_prompt(tools=[], imports=["*", "math"], tags=CodeTags())


def test_it_is_short_and_has_no_gaps() -> None:
    prompt = code_agent_prompt(tools=[], imports=import_rules(), tags=CodeTags())
    assert len(prompt) < 4_000  # smolagents' has 8,480; every step of every run pays for it
    assert "\n\n\n" not in prompt
    assert "None\n\n" not in prompt


def test_a_forgotten_name_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        _TEMPLATES.get_template("code_agent.j2").render()


def test_the_last_question_asks_for_plain_text() -> None:
    assert "plain text" in last_answer_prompt()
