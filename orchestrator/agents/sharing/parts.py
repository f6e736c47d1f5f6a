"""Models, tools and compactions as they are written down. What cannot be written is an error that says so."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from orchestrator.agents.sharing.functions import path_of
from orchestrator.agents.sharing.plain_data import as_json
from orchestrator.agents.sharing.registry import COMPACTIONS, MODELS, TOOLS, Entry, name_of
from orchestrator.agents.sharing.saved import Made, SavedTool
from orchestrator.credentials import secrets_in
from orchestrator.errors import AgentError
from orchestrator.made_with import MadeWith, made_with
from orchestrator.models import REMOVE_PARAMETER, RetryPolicy
from orchestrator.tools import FunctionTool, Tool
from orchestrator.tools.as_made import present_arguments
from orchestrator.tools.source import changed_since_made, tool_source


def saved_model(model: object, place: str) -> Made:
    """A model of a class that comes along, without its keys.

    Raises:
        AgentError: it is of another class, or an argument cannot be written down or may be a credential.
    """
    kind = name_of(model, MODELS)
    if kind is None or not isinstance(model, MadeWith):
        raise AgentError(
            f"{place} is of the class {type(model).__name__}; models are saved by name and settings, and only those "
            f"that come along: {', '.join(MODELS)}"
        )
    given = made_with(model)
    removed = tuple(name for name, value in given.items() if value is REMOVE_PARAMETER)
    kept = {name: value for name, value in given.items() if name not in removed}
    return Made(kind, _arguments(kept, MODELS[kind], place), removed)


def saved_tool(tool: Tool, place: str) -> SavedTool:
    """A tool by its class if it comes along, any other with its code.

    Raises:
        AgentError, ToolError: it cannot be written down.
    """
    _check_unchanged(tool, place)
    kind = name_of(tool, TOOLS)
    if kind is not None:
        return SavedTool(tool.name, kind, data=_arguments(present_arguments(tool), TOOLS[kind], place))
    source = tool_source(tool)
    given = {} if isinstance(tool, FunctionTool) else present_arguments(tool)
    data = _arguments(given, Entry(type(tool).__module__, type(tool).__name__), place)
    return SavedTool(tool.name, None, source.code, data, source.requirements)


def saved_compaction(compaction: Any, place: str) -> Made | str | None:
    """One that comes along with its settings, or the import path of a function.

    Raises:
        AgentError: it is neither.
    """
    if compaction is None:
        return None
    kind = name_of(compaction, COMPACTIONS)
    if kind is None:
        return path_of(compaction, place)
    return Made(kind, as_json(dataclasses.asdict(compaction), place))


def _arguments(given: Mapping[str, Any], entry: Entry, place: str) -> dict[str, Any]:
    """As JSON, and without what has the name of a key and what is None, which says nothing."""
    kept = {name: value for name, value in given.items() if name not in entry.keys and value is not None}
    if isinstance(kept.get("retry"), RetryPolicy):
        kept["retry"] = dataclasses.asdict(kept["retry"])
    data = {name: as_json(value, f"{place}: {name}") for name, value in kept.items()}
    for name, value in data.items():
        check_no_secret(value, f"{place}: {name}")
    return data


def check_no_secret(value: Any, place: str) -> None:
    """Nothing in ``value`` may be a credential.

    Raises:
        AgentError: by its name or its form, something may be one.
    """
    for found in secrets_in(value, place):
        raise AgentError(f"{found} may be a credential, and those are not saved; let it come from the environment")


def _check_unchanged(tool: Tool, place: str) -> None:
    if changed := changed_since_made(tool):
        raise AgentError(
            f"{place}: its {changed[0]} was changed after it was made; change it in its code, or let its __init__ take "
            "it as an argument and keep it by that name"
        )
