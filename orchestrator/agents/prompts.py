"""Renders the prompts in templates/. A name that a template asks for and is not given is an error, not a blank."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

from orchestrator.agents.parsing import CodeTags
from orchestrator.tools import Tool

# Sandboxed: instructions and tool descriptions are data here, but templates may one day come from a user's file.
_TEMPLATES = SandboxedEnvironment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    undefined=StrictUndefined,
    autoescape=False,  # the reader is a model, no browser
    trim_blocks=True,
    lstrip_blocks=True,
)


def code_agent_prompt(
    *,
    tools: Sequence[Tool],
    imports: Sequence[str],
    tags: CodeTags,
    name: str | None = None,
    description: str | None = None,
    instructions: str | None = None,
) -> str:
    """The system prompt of a ``CodeAgent``. The tags are those its replies are searched for."""
    return _TEMPLATES.get_template("code_agent.j2").render(
        tools=[tool.to_code_prompt() for tool in tools],
        imports=None if "*" in imports else list(imports),
        opening=tags.opening,
        closing=tags.closing,
        name=name,
        description=description,
        instructions=instructions,
    )


def last_answer_prompt() -> str:
    """Asks for the answer when the steps are used up."""
    return _TEMPLATES.get_template("last_answer.j2").render()
