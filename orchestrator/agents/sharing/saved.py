"""An agent as it is written down: plain data, and nothing that has been imported, made or run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FORMAT = 1  # of agent.json, under the key "cellblock"

MAX_TOOLS = 256  # as many as a sandbox takes
MAX_MEMBERS = 64  # of one team
MAX_DEPTH = 8  # teams of teams
MAX_AGENTS = 256  # all of them together


@dataclass(frozen=True, slots=True)
class Made:
    """Something that is made by a class of a fixed list.

    Attributes:
        kind: the class's name.
        data: the arguments.
        removed: those whose value is ``REMOVE_PARAMETER``, which JSON does not know.
    """

    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SavedTool:
    """A tool that comes along (``kind``), one with its code, or one that was left out (neither)."""

    name: str
    kind: str | None = None
    code: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    requirements: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SavedCallback:
    """A step callback: the name of the type of step, and ``module:name`` of the function."""

    step: str
    function: str


@dataclass(frozen=True, slots=True)
class SavedAgent:
    """One agent with its team.

    Attributes:
        kind: its class's name.
        settings: arguments of the class that are plain data as they are; see schema.py.
        prompt_templates: all of them.
        model: None if it was left out.
        tools: without ``final_answer``, which every agent has.
        members: its team.
        step_callbacks, final_answer_checks: by import path.
        compaction: one that comes along, an import path, or None for none.
        compaction_is_set: False: as if nothing had been said of it.
        requirements: what has to be installed besides what the tools need.
        left_out: the parts that whoever loads it has to give: ``model``, ``approve``, ``tools.name``, …
    """

    kind: str
    settings: Mapping[str, Any]
    prompt_templates: Mapping[str, Any] | None = None
    model: Made | None = None
    tools: tuple[SavedTool, ...] = ()
    members: tuple[SavedAgent, ...] = ()
    step_callbacks: tuple[SavedCallback, ...] = ()
    final_answer_checks: tuple[str, ...] = ()
    compaction: Made | str | None = None
    compaction_is_set: bool = True
    requirements: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Empty for one that has none."""
        return self.settings.get("name") or ""

    def all_requirements(self) -> list[str]:
        """What has to be installed for all of it, by the names that pip knows."""
        own = {*self.requirements, *(one for tool in self.tools for one in tool.requirements)}
        return sorted(own.union(*(member.all_requirements() for member in self.members)))
