"""An agent of plain data, which may come from anybody, as a ``SavedAgent``. Strict and bounded; no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.agents.callbacks import STEPS_BY_NAME
from orchestrator.agents.sharing.plain_data import as_json
from orchestrator.agents.sharing.registry import AGENTS, COMPACTIONS, MODELS, TOOLS, entry_of
from orchestrator.agents.sharing.saved import (
    FORMAT,
    MAX_AGENTS,
    MAX_DEPTH,
    MAX_MEMBERS,
    MAX_TOOLS,
    Made,
    SavedAgent,
    SavedCallback,
    SavedTool,
)
from orchestrator.agents.sharing.schema import (
    Check,
    checked_mapping,
    checked_settings,
    is_function,
    is_name,
    is_short,
    list_of,
    shown,
)
from orchestrator.errors import AgentError
from orchestrator.tools.loading import MAX_CODE

MAX_CALLBACKS = 64
_PARTS: Mapping[str, Check] = {
    "cellblock": lambda value: type(value) is int,
    "class": is_short,
    "prompt_templates": lambda value: isinstance(value, dict),
    "model": lambda value: value is None or isinstance(value, dict),
    "tools": list_of(lambda value: isinstance(value, dict), MAX_TOOLS),
    "managed_agents": list_of(lambda value: isinstance(value, dict), MAX_MEMBERS),
    "step_callbacks": list_of(lambda value: isinstance(value, dict), MAX_CALLBACKS),
    "final_answer_checks": list_of(is_function, MAX_CALLBACKS),
    "compaction": lambda value: value is None or is_function(value) or isinstance(value, dict),
    "requirements": list_of(is_short),
    "left_out": list_of(is_short),
}
_MADE: Mapping[str, Check] = {
    "class": is_short,
    "data": lambda value: isinstance(value, dict),
    "removed": list_of(is_short),
}
_TOOL: Mapping[str, Check] = {
    "name": is_name,
    "class": is_short,
    "code": lambda value: isinstance(value, str) and len(value) <= MAX_CODE,
    "data": lambda value: isinstance(value, dict),
    "requirements": list_of(is_short),
}
_CALLBACK: Mapping[str, Check] = {
    "step": lambda value: isinstance(value, str) and value in STEPS_BY_NAME,
    "function": is_function,
}


def read_agent(data: object) -> SavedAgent:
    """What ``to_dict`` gave.

    Raises:
        AgentError: it is not of that form, or too large; the message names the place.
    """
    return _Reading().agent(data, "", 1)


class _Reading:
    """Counts what there may not be too much of."""

    def __init__(self) -> None:
        self._agents = 0

    def agent(self, data: object, place: str, depth: int) -> SavedAgent:
        """One agent with its team; ``place`` leads the names in errors."""
        self._agents += 1
        if depth > MAX_DEPTH or self._agents > MAX_AGENTS:
            raise AgentError(f"a team may have {MAX_AGENTS} agents, and {MAX_DEPTH} levels")
        given = _mapping(data, place)
        _check_format(given, place)
        kind = given.get("class")
        if not isinstance(kind, str):
            raise AgentError(f"{place}class is missing")
        entry_of(kind, AGENTS, f"{place}class")
        parts = checked_mapping({key: given[key] for key in given if key in _PARTS}, _PARTS, place)
        settings = checked_settings({key: given[key] for key in given if key not in _PARTS}, kind, place)
        left_out = tuple(parts.get("left_out", ()))
        return SavedAgent(
            kind,
            settings,
            parts.get("prompt_templates"),
            _model(parts.get("model"), f"{place}model."),
            _tools(parts.get("tools", []), left_out, place),
            self._members(parts.get("managed_agents", []), place, depth),
            tuple(_callback(entry, f"{place}step_callbacks.") for entry in parts.get("step_callbacks", [])),
            tuple(parts.get("final_answer_checks", ())),
            _compaction(parts.get("compaction"), f"{place}compaction."),
            "compaction" in parts,
            tuple(parts.get("requirements", ())),
            left_out,
        )

    def _members(self, given: Sequence[Any], place: str, depth: int) -> tuple[SavedAgent, ...]:
        members = []
        for data in given:
            name = data.get("name")
            if not is_name(name):
                raise AgentError(f"{place}managed_agents: {shown(name)} is no name of an agent")
            members.append(self.agent(data, f"{place}managed_agents.{name}.", depth + 1))
        return tuple(members)


def _mapping(data: object, place: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise AgentError(f"{place.rstrip('.') or 'an agent'} must be a mapping, not {type(data).__name__}")
    plain: dict[str, Any] = as_json(data, place.rstrip(".") or "agent")
    return plain


def _check_format(given: Mapping[str, Any], place: str) -> None:
    number = given.get("cellblock")
    if type(number) is not int or number < 1:
        raise AgentError(f"{place}cellblock, the number of the format, is missing")
    if number > FORMAT:
        raise AgentError(f"{place}cellblock is {number}: it was written by a later cellblock; this one reads {FORMAT}")


def _made(given: Any, place: str) -> Made:
    checked = checked_mapping(given, _MADE, place)
    if "class" not in checked:
        raise AgentError(f"{place}class is missing")
    return Made(checked["class"], checked.get("data", {}), tuple(checked.get("removed", ())))


def _model(given: Any, place: str) -> Made | None:
    if given is None:
        return None
    made = _made(given, place)
    entry_of(made.kind, MODELS, f"{place}class")
    return made


def _compaction(given: Any, place: str) -> Made | str | None:
    if given is None or isinstance(given, str):
        return given
    made = _made(given, place)
    entry_of(made.kind, COMPACTIONS, f"{place}class")
    return made


def _callback(given: Any, place: str) -> SavedCallback:
    checked = checked_mapping(given, _CALLBACK, place)
    if checked.keys() != _CALLBACK.keys():
        raise AgentError(f"{place.rstrip('.')}: each needs {' and '.join(_CALLBACK)}")
    return SavedCallback(checked["step"], checked["function"])


def _tools(given: Sequence[Any], left_out: Sequence[str], place: str) -> tuple[SavedTool, ...]:
    tools = tuple(_tool(entry, f"{place}tools.", left_out) for entry in given)
    names = [tool.name for tool in tools]
    for name in names:
        if names.count(name) > 1:
            raise AgentError(f"{place}tools: {name} is there twice")
    return tools


def _tool(given: Any, place: str, left_out: Sequence[str]) -> SavedTool:
    checked = checked_mapping(given, _TOOL, place)
    name = checked.get("name")
    if name is None:
        raise AgentError(f"{place}name is missing")
    kind, code = checked.get("class"), checked.get("code")
    ways = [kind is not None, code is not None, f"tools.{name}" in left_out]
    if sum(ways) != 1:
        raise AgentError(f"{place}{name} must be of a class that there is, or have its code, or have been left out")
    if kind is not None:
        entry_of(kind, TOOLS, f"{place}{name}.class")
    return SavedTool(name, kind, code, checked.get("data", {}), tuple(checked.get("requirements", ())))


def written_agent(saved: SavedAgent) -> dict[str, Any]:
    """What ``read_agent`` reads."""
    data: dict[str, Any] = {
        "cellblock": FORMAT,
        "class": saved.kind,
        **saved.settings,
        "prompt_templates": saved.prompt_templates,
        "model": saved.model and _written_made(saved.model),
        "tools": [_written_tool(tool) for tool in saved.tools],
        "managed_agents": [written_agent(member) for member in saved.members],
        "step_callbacks": [{"step": one.step, "function": one.function} for one in saved.step_callbacks],
        "final_answer_checks": list(saved.final_answer_checks),
        "requirements": list(saved.requirements),
        "left_out": list(saved.left_out),
    }
    if saved.prompt_templates is None:
        del data["prompt_templates"]
    if saved.compaction_is_set:
        made = saved.compaction
        data["compaction"] = _written_made(made) if isinstance(made, Made) else made
    return data


def _written_made(made: Made) -> dict[str, Any]:
    data: dict[str, Any] = {"class": made.kind, "data": dict(made.data)}
    return data | ({"removed": list(made.removed)} if made.removed else {})


def _written_tool(tool: SavedTool) -> dict[str, Any]:
    data: dict[str, Any] = {"name": tool.name}
    data |= {} if tool.kind is None else {"class": tool.kind}
    data |= {} if tool.code is None else {"code": tool.code}
    data |= {"data": dict(tool.data)} if tool.data else {}
    return data | ({"requirements": list(tool.requirements)} if tool.requirements else {})
