"""Agents, models, pools and policies by configuration: ``cellblock.toml``. See docs/configuration.md.

::

    settings = Settings()
    async with build_agent(settings.current(), "default", ask=ask) as agent:
        answer = await agent.arun("…")
"""

from __future__ import annotations

from orchestrator.configured.building import Watch, build_agent
from orchestrator.configured.models import Models
from orchestrator.configured.policy_rules import Ask, Asked, Decision, approver, decide
from orchestrator.configured.reloading import Settings
from orchestrator.configured.settings import DEFAULT_AGENT, ServiceSettings
from orchestrator.configured.tables import (
    AgentTable,
    McpTable,
    ModelTable,
    PolicyRule,
    PoolTable,
    ServiceTable,
    host_and_port,
)

__all__ = [
    "DEFAULT_AGENT",
    "AgentTable",
    "Ask",
    "Asked",
    "Decision",
    "McpTable",
    "ModelTable",
    "Models",
    "PolicyRule",
    "PoolTable",
    "ServiceSettings",
    "ServiceTable",
    "Settings",
    "Watch",
    "approver",
    "build_agent",
    "decide",
    "host_and_port",
]
