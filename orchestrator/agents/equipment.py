"""What an agent may call: its tools and the members of its team, each by a name of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from orchestrator.agents.managed import TeamMember
from orchestrator.agents.settings import check_list
from orchestrator.errors import AgentError
from orchestrator.models import ToolSchema
from orchestrator.tools import FinalAnswerTool, Tool, as_tool

if TYPE_CHECKING:
    from orchestrator.agents.loop import MultiStepAgent


@dataclass(frozen=True, slots=True)
class Equipment:
    """``tools`` and ``team``, by name."""

    tools: dict[str, Tool]
    team: dict[str, TeamMember]

    @classmethod
    def of(
        cls,
        tools: Sequence[Tool | Callable[..., Any]],
        agents: Sequence[MultiStepAgent],
        add_base_tools: bool,
        own_name: str | None,
    ) -> Self:
        """Of what an agent is made with.

        Raises:
            ToolError: a tool's definition is wrong.
            AgentError: a name is there twice, or an agent cannot be a member of a team.
        """
        check_list("tools", tools)
        check_list("managed_agents", agents)
        given = [as_tool(tool) for tool in tools if not isinstance(tool, FinalAnswerTool)]  # every agent has one
        names = {tool.name for tool in given}
        given += [tool for tool in _base_tools(add_base_tools) if tool.name not in names]
        team = [TeamMember(agent) for agent in agents]
        _check_names([tool.name for tool in (*given, *team)] + ([own_name] if own_name else []))
        return cls({tool.name: tool for tool in given}, {member.name: member for member in team})

    def copy(self) -> Self:
        """The same tools and members, in mappings of its own."""
        return replace(self, tools=dict(self.tools), team=dict(self.team))

    @property
    def callables(self) -> Mapping[str, Tool]:
        """Tools and members."""
        return {**self.tools, **self.team}

    def schemas(self) -> list[ToolSchema]:
        """All of them as a model with native tool calling is told of them."""
        return [ToolSchema(tool.name, tool.description, tool.parameters) for tool in self.callables.values()]


def _base_tools(wanted: bool) -> list[Tool]:
    if not wanted:
        return []
    from orchestrator.tools.base_tools import base_tools  # brings an HTTP client along

    made = base_tools()
    return [made["web_search"](), made["visit_webpage"]()]


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise AgentError(f"two tools or agents are named {name!r}; the model could call only one of them")
