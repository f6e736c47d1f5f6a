"""The prompts: YAML files of Jinja2 templates in templates/, and what users put in their place.

The parts and their names are smolagents'. A template that is not given is the default one. A name that a template asks
for and is not given is an error, not a blank. Templates see names, descriptions and prompts of tools, never the tools.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, cast

import yaml
from jinja2 import StrictUndefined, Template
from jinja2.sandbox import SandboxedEnvironment

from orchestrator.errors import AgentError
from orchestrator.tools import Tool

MAX_PROMPT = 1_000_000  # characters of a rendered prompt: more is a template gone wrong
_FOLDER = Path(__file__).with_name("templates")


class PlanningTemplates(TypedDict):
    """What asks for a plan. They are rendered with task, tools, managed_agents, remaining_steps."""

    initial_plan: str
    update_plan_pre_messages: str
    update_plan_post_messages: str


class ManagedAgentTemplates(TypedDict):
    """What a member of a team is given (name, task), and what its manager gets (name, final_answer)."""

    task: str
    report: str


class FinalAnswerTemplates(TypedDict):
    """What asks for an answer when the steps are used up. They are rendered with task."""

    pre_messages: str
    post_messages: str


class PromptTemplates(TypedDict):
    """All prompts of an agent. ``system_prompt`` is rendered with tools, managed_agents, authorized_imports (None for
    all), custom_instructions, structured_outputs, code_block_opening_tag, code_block_closing_tag, name, description.
    """

    system_prompt: str
    planning: PlanningTemplates
    managed_agent: ManagedAgentTemplates
    final_answer: FinalAnswerTemplates


@dataclass(frozen=True, slots=True)
class ToolText:
    """A tool as a template sees it."""

    name: str
    description: str
    inputs: Mapping[str, Any]
    output_type: str
    code_prompt: str
    tool_calling_prompt: str

    @classmethod
    def of(cls, tool: Tool) -> ToolText:
        """The texts of ``tool``."""
        prompts = tool.to_code_prompt(), tool.to_tool_calling_prompt()
        return cls(tool.name, tool.description, copy.deepcopy(dict(tool.inputs)), tool.output_type, *prompts)

    def to_code_prompt(self) -> str:
        """As the function that code calls."""
        return self.code_prompt

    def to_tool_calling_prompt(self) -> str:
        """In words."""
        return self.tool_calling_prompt


def default_templates(kind: str) -> PromptTemplates:
    """Those of ``kind``: ``code_agent`` or ``tool_calling_agent``."""
    return cast(PromptTemplates, {**_loaded(_FOLDER / f"{kind}.yaml"), **_loaded(_FOLDER / "shared.yaml")})


def overlaid_templates(given: Mapping[str, Any] | str | Path | None, kind: str) -> PromptTemplates:
    """The default templates with those of ``given`` in their place: a mapping, or the name of a YAML file of one.

    Raises:
        AgentError: there is a part of an unknown name, or one that is no text.
    """
    templates = default_templates(kind)
    if given is not None:
        loaded = _loaded(Path(given)) if isinstance(given, (str, Path)) else given
        _overlay(cast(dict[str, Any], templates), loaded, "prompt_templates")
    return templates


def _loaded(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, yaml.YAMLError, RecursionError) as error:
        raise AgentError(f"prompt_templates: {path} cannot be read: {error}") from None
    if not isinstance(loaded, dict):
        raise AgentError(f"prompt_templates: {path} must hold a mapping from part to template")
    return loaded


def _overlay(templates: dict[str, Any], given: Mapping[str, Any], place: str) -> None:
    if not isinstance(given, Mapping):
        raise AgentError(f"{place} must be a mapping from part to template, not {type(given).__name__}")
    for name, part in given.items():
        if name not in templates:
            raise AgentError(f"{place} has no part {name!r}; there are {', '.join(templates)}")
        if isinstance(templates[name], dict):
            _overlay(templates[name], part, f"{place}[{name!r}]")
        elif not isinstance(part, str):
            raise AgentError(f"{place}[{name!r}] must be a text, not {type(part).__name__}")
        else:
            templates[name] = part


def render(template: str, **variables: Any) -> str:
    """The text of ``template``.

    Raises:
        AgentError: it is no template, asks for a name that is not given, or makes more than a prompt can hold.
    """
    parts, size = [], 0
    try:
        for part in _compiled(template).generate(**variables):
            parts.append(part)
            size += len(part)
            if size > MAX_PROMPT:
                raise AgentError(f"a prompt is longer than {MAX_PROMPT:,} characters")
    except AgentError:
        raise
    except Exception as error:  # noqa: BLE001 - a template can raise anything: it computes
        raise AgentError(f"a prompt template cannot be rendered: {error}") from None
    return "".join(parts)


@functools.lru_cache(maxsize=64)
def _compiled(template: str) -> Template:
    return _environment().from_string(template)


@functools.cache
def _environment() -> SandboxedEnvironment:
    return SandboxedEnvironment(
        undefined=StrictUndefined,
        autoescape=False,  # the reader is a model, no browser
        trim_blocks=True,
        lstrip_blocks=True,
    )
