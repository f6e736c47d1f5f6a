"""What smolagents saved (its formats of v1.9 and later), in the form of here. No I/O.

As far as it goes: what has no counterpart is left out with a warning, and what would change what the agent does is an
error.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

from orchestrator.agents.prompts import default_templates
from orchestrator.agents.sharing.registry import AGENTS, MODELS, OTHER_NAMES
from orchestrator.agents.sharing.saved import FORMAT
from orchestrator.agents.sharing.schema import SETTINGS, shown
from orchestrator.errors import AgentError

_AS_THEY_ARE = (
    "name",
    "description",
    "instructions",
    "max_steps",
    "planning_interval",
    "verbosity_level",
    "provide_run_summary",
    "max_print_outputs_length",
    "use_structured_outputs_internally",
    "code_block_tags",
    "stream_outputs",
    "max_tool_threads",
)
_READ = frozenset(
    {
        *_AS_THEY_ARE,
        "class",
        "tools",
        "model",
        "managed_agents",
        "prompt_templates",
        "authorized_imports",
        "requirements",
    }
)
# Where its code runs: here always in a container.
_IGNORED = {
    "executor_type": "code runs in a container of this machine",
    "executor_kwargs": "pass sandbox=SandboxSettings(…) for the container's settings",
    "grammar": "pass use_structured_outputs_internally=True for structured replies",
}
_USUAL: Mapping[str, tuple[Any, ...]] = {
    "executor_type": (None, "local", "docker"),
    "executor_kwargs": (None, {}),
    "grammar": (None,),
}
# Counts of its last call, and by which keys its parser reads calls of tools, which ours does not need to be told.
_NO_SETTINGS = frozenset({"last_input_token_count", "last_output_token_count", "tool_name_key", "tool_arguments_key"})
_ALL_IMPORTS = re.compile(r"\{\{-?\s*authorized_imports\s*-?\}\}")


def is_smolagents(data: Mapping[str, Any]) -> bool:
    """Whether it is theirs: ours says of which format it is."""
    return "cellblock" not in data


def translated(
    data: Mapping[str, Any], expected: str, *, model_is_given: bool = False, place: str = ""
) -> dict[str, Any]:
    """In the form of here.

    Args:
        data: of ``to_dict`` or a folder, the tools with their code.
        expected: the class of agent that it is if it does not say so; v1.9 did not.
        model_is_given: whether another model is used, so that it does not matter which one it had.
        place: leads the names in errors and warnings.

    Raises:
        AgentError: it cannot be one of theirs.
    """
    kind = data.get("class") or ("CodeAgent" if "authorized_imports" in data else expected)
    if not isinstance(kind, str) or kind not in AGENTS:
        raise AgentError(f"{place}class: {shown(kind)} is none of {', '.join(AGENTS)}")
    if "tools" not in data or "model" not in data:
        raise AgentError(f"{place}this is no agent: neither cellblock's (no 'cellblock') nor smolagents' (no 'tools')")
    _warn_of_ignored(data, place)
    made = {name: data[name] for name in _AS_THEY_ARE if name in SETTINGS[kind] and _says(name, data.get(name))}
    if kind == "CodeAgent":
        made["additional_authorized_imports"] = data.get("authorized_imports") or []
    if data.get("prompt_templates"):
        made["prompt_templates"] = _templates(data["prompt_templates"], kind, place)
    return made | {
        "cellblock": FORMAT,
        "class": kind,
        "model": None if model_is_given else _model(data["model"], f"{place}model"),
        "tools": _tools(data["tools"], place),
        "managed_agents": _members(data.get("managed_agents"), model_is_given, place),
    }


def _says(name: str, value: Any) -> bool:
    """None is no value for what here is always one."""
    return value is not None or name in ("planning_interval", "name", "description")


def _warn_of_ignored(data: Mapping[str, Any], place: str) -> None:
    unknown = {name: "it is not known here" for name in data if name not in _READ and name not in _IGNORED}
    for name, why in {**_IGNORED, **unknown}.items():
        if name in data and data[name] not in _USUAL.get(name, (None,)):
            warnings.warn(f"{place}{shown(name)} of smolagents is ignored: {why}", UserWarning, stacklevel=2)


def _templates(given: Any, kind: str, place: str) -> Any:
    """Those that there are here, too. Where a group has others, they belong together, and all of it is left out."""
    if not isinstance(given, Mapping):
        return given
    usual: Mapping[str, Any] = default_templates("code_agent" if kind == "CodeAgent" else "tool_calling_agent")
    kept: dict[str, Any] = {}
    for name, part in given.items():
        default = usual.get(name)
        if default is None or (isinstance(default, Mapping) and not _fits(part, default)):
            warnings.warn(f"{place}prompt_templates: {shown(name)} is not as here, and ignored", stacklevel=2)
        else:
            kept[name] = part
    if isinstance(kept.get("system_prompt"), str):  # None stands for all of them here, and a text there
        every = '{{ authorized_imports or "all that are installed" }}'
        kept["system_prompt"] = _ALL_IMPORTS.sub(every, kept["system_prompt"])
    return kept


def _fits(part: Any, default: Mapping[str, Any]) -> bool:
    return isinstance(part, Mapping) and part.keys() <= default.keys()


def _model(given: Any, place: str) -> dict[str, Any]:
    match given:
        case {"class": str(kind), "data": dict(data)}:
            pass
        case _:
            raise AgentError(f"{place} must have a class and data")
    known = OTHER_NAMES.get(kind, kind)
    if known not in MODELS:
        raise AgentError(f"{place}: {shown(kind)} is none of {', '.join(MODELS)}; pass model=…")
    kept = {name: value for name, value in data.items() if name not in _NO_SETTINGS and value is not None}
    return {"class": known, "data": kept}


def _tools(given: Any, place: str) -> list[dict[str, Any]]:
    """Without ``final_answer``, which every agent has, and of which nothing is run."""
    if not isinstance(given, list) or not all(isinstance(tool, Mapping) for tool in given):
        raise AgentError(f"{place}tools must be a list of tools with their code")
    return [
        {"name": tool.get("name"), "code": tool.get("code"), "requirements": _requirements(tool.get("requirements"))}
        for tool in given
        if tool.get("name") != "final_answer"
    ]


def _requirements(given: Any) -> list[Any]:
    return sorted(given, key=str) if isinstance(given, list | set | tuple) else []


def _members(given: Any, model_is_given: bool, place: str) -> list[dict[str, Any]]:
    members = list(given.values()) if isinstance(given, Mapping) else given or []
    if not isinstance(members, list) or not all(isinstance(member, Mapping) for member in members):
        raise AgentError(f"{place}managed_agents must be a list of agents")
    places = [f"{place}managed_agents.{shown(one.get('name'))}." for one in members]
    return [
        translated(one, "ToolCallingAgent", model_is_given=model_is_given, place=where)
        for one, where in zip(members, places, strict=True)
    ]
