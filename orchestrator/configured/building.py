"""An agent of the settings, for one run: with its tools, its team, its MCP servers, and whoever is asked."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.agents import (
    CodeAgent,
    LogLevel,
    MultiStepAgent,
    SandboxSettings,
    ShortenOldest,
    SummariseOldest,
    ToolCallingAgent,
)
from orchestrator.agents.compaction import Compaction
from orchestrator.agents.watching import Watcher
from orchestrator.config import Config
from orchestrator.configured.models import Models
from orchestrator.configured.policy_rules import Ask, approver
from orchestrator.configured.servers import server_of
from orchestrator.configured.settings import DEFAULT_AGENT, ServiceSettings
from orchestrator.configured.tables import AgentTable
from orchestrator.errors import AgentError, ConfigError, ToolError
from orchestrator.models import Model
from orchestrator.policy import Approve
from orchestrator.sandbox import AsyncSandbox
from orchestrator.tools import Tool
from orchestrator.tools.by_name import tool_by_name

Tools = Sequence[Tool | Callable[..., Any]]
Watch = Callable[[str], Watcher]  # of the sandboxes of that member of a team; empty: of the agent itself
_COMPACTIONS: Mapping[str, Callable[[], Compaction | None]] = {
    "shorten": ShortenOldest,
    "summarise": SummariseOldest,
    "none": lambda: None,
}


@asynccontextmanager
async def build_agent(
    settings: ServiceSettings,
    name: str = DEFAULT_AGENT,
    *,
    config: Config | None = None,
    ask: Ask | None = None,
    record: str | Path | None = None,
    tools: Tools = (),
    models: Models | None = None,
    ready: Callable[[AsyncSandbox], None] | None = None,
    watch: Watch | None = None,
) -> AsyncIterator[MultiStepAgent]:
    """A new agent of that name, for one run. It and the MCP servers of its family are open until the block ends.

    Args:
        settings: where the agent is described.
        name: which one; empty for the default agent.
        config: for its sandbox and its tools; default that of ``settings``.
        ask: is asked what the policy says to ask about, for the agent and its team; without one that is refused. What
            no rule is about is allowed without asking anybody.
        record: the file that its runs are recorded in; see ``MultiStepAgent``. Its team is not recorded.
        tools: further ones, for this agent and not for its team.
        models: where models are kept from run to run; default: nowhere.
        ready: is given the sandbox of this agent, before it is started; not those of its team.
        watch: who is told of the sandboxes that are made for it and its team.

    Raises:
        NotFound: there is no such agent.
        ConfigError: it cannot be made as it is described, or with these ``tools``; the message names what is wrong.
        ToolUnavailable: an MCP server or a Space cannot be reached.
    """
    name = name or DEFAULT_AGENT
    async with AsyncExitStack() as stack:
        found: dict[str, Tools] = {}
        for member in settings.family(name):
            found[member] = await stack.enter_async_context(_mcp_tools(settings, member))
        kept = models or Models()
        maker = Maker(
            settings, config or settings.config, lambda member: kept.of(settings, member), ask, found, ready, watch
        )
        # Apart from the event loop: modules of the operator's are imported, and a model may be loaded.
        agent = await asyncio.to_thread(maker.agent, name, tools, record=record)
        stack.push_async_callback(agent.aclose)
        yield agent


@asynccontextmanager
async def _mcp_tools(settings: ServiceSettings, name: str) -> AsyncIterator[Tools]:
    """The tools of an agent's MCP servers, while they are connected."""
    servers = settings.agent(name).mcp
    if not servers:
        yield ()
        return
    from orchestrator.tools.mcp import MCPClient  # needs an extra

    with _named(name):
        client = MCPClient([server_of(settings, text, os.environ) for text in servers])
    async with client as found:
        yield found


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes agents.

    Attributes:
        model: of the agent of that name.
        mcp: the tools of MCP servers by the names of the agents that have them.
    """

    settings: ServiceSettings
    config: Config
    model: Callable[[str], Model]
    ask: Ask | None
    mcp: Mapping[str, Tools]
    ready: Callable[[AsyncSandbox], None] | None = None
    watch: Watch | None = None

    def agent(
        self, name: str, tools: Tools = (), *, member: bool = False, record: str | Path | None = None
    ) -> MultiStepAgent:
        """The agent, with its team. Blocks.

        Raises:
            NotFound, ConfigError, ToolUnavailable: as ``build_agent``.
        """
        table = self.settings.agent(name)
        model = self.model(name)
        with _named(name):
            own = [tool_by_name(text, self.settings.folder) for text in table.tools]
        team = [self.agent(other, member=True) for other in table.managed_agents]
        with _named(name):
            more = self._arguments(table, team) | {"record": record, "approve": self._approver(name)}
            ready = None if member else self.ready
            return self._made(
                table, [*own, *self.mcp.get(name, ()), *tools], model, ready, more | ({"name": name} if member else {})
            )

    def _approver(self, name: str) -> Approve | None:
        return approver(self.settings.policy, name, self.ask)

    def _arguments(self, table: AgentTable, team: Sequence[MultiStepAgent]) -> dict[str, Any]:
        """Those of every kind of agent."""
        templates = table.prompt_templates
        return {
            "prompt_templates": self.settings.beside(templates) if templates else None,
            "instructions": table.instructions or None,
            "description": table.description or None,
            "max_steps": table.max_steps,
            "planning_interval": table.planning_interval,
            "managed_agents": team,
            "provide_run_summary": table.provide_run_summary,
            "stream_outputs": table.stream_outputs,
            "compaction": _COMPACTIONS[table.compaction](),
            "verbosity_level": LogLevel.OFF,
        }

    def _made(
        self,
        table: AgentTable,
        tools: Tools,
        model: Model,
        ready: Callable[[AsyncSandbox], None] | None,
        more: dict[str, Any],
    ) -> MultiStepAgent:
        if table.kind == "tool_calling":
            return ToolCallingAgent(
                tools,
                model,
                max_tool_threads=table.max_tool_threads,
                tool_timeout=table.tool_timeout,
                config=self.config,
                **more,
            )
        sandbox = SandboxSettings(
            table.limits,
            table.timeout,
            config=self.config,
            tool_timeout=table.tool_timeout,
            ready=ready,
            watcher=self.watch(more.get("name", "")) if self.watch else None,
        )
        return CodeAgent(
            tools,
            model,
            additional_authorized_imports=table.imports,
            sandbox=sandbox,
            use_structured_outputs_internally=table.use_structured_outputs_internally,
            max_print_outputs_length=table.max_print_outputs_length,
            on_error=table.on_error,
            **more,
        )


@contextmanager
def _named(name: str) -> Iterator[None]:
    """What goes wrong inside is told with the name of the agent that it is about."""
    try:
        yield
    except (AgentError, ConfigError, ToolError) as error:
        raise ConfigError(f"agents.{name}: {error}") from None
