"""``cellblock config check`` and ``cellblock config show``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from orchestrator.config import Config
from orchestrator.configured.checking import Checked, check
from orchestrator.configured.models import text_of
from orchestrator.configured.settings import ServiceSettings
from orchestrator.configured.showing import as_toml
from orchestrator.configured.tables import AgentTable, ModelTable
from orchestrator.credentials import without_queries
from orchestrator.models.by_name import provider_of
from orchestrator.sanitise import sanitise

FAILED = 1


def add_commands(commands: Any) -> None:
    """Adds ``config`` to the commands of a parser, with its actions.

    They read the settings by themselves, for they are there for settings that cannot be loaded: hence ``load``.
    """
    actions = commands.add_parser("config", help="the settings").add_subparsers(required=True, metavar="ACTION")
    checking = actions.add_parser("check", help="whether the settings are right, and what they name is there")
    checking.set_defaults(command=_check, load=Config)
    showing = actions.add_parser("show", help="the settings that are in force, as TOML")
    showing.set_defaults(command=_show, load=Config)
    for action in (checking, showing):
        action.add_argument(
            "path",
            nargs="?",
            default="",
            help="the file (default: CELLBLOCK_CONFIG, else cellblock.toml if it is here)",
        )


def _show(options: argparse.Namespace, config: Config) -> int:
    print(sanitise(as_toml(ServiceSettings.load(options.path or None))), end="")
    return 0


def _check(options: argparse.Namespace, config: Config) -> int:
    found = check(options.path or None)
    for line in _told(found):
        print(sanitise(without_queries(line)))
    for problem in found.problems:
        print(f"cellblock: {sanitise(without_queries(problem))}", file=sys.stderr)
    return FAILED if found.problems else 0


def _told(found: Checked) -> Iterator[str]:
    """What was found, one line each; nothing of settings that could not be read."""
    settings = found.settings
    if found.problems:
        number = len(found.problems)
        yield f"{settings.file or 'the environment'}: {number} problem{'s' if number > 1 else ''}"
        return
    yield f"{settings.file or 'no file: defaults and the environment'}"
    yield f"service: listens at {settings.service.listen}, console at {settings.service.console or 'no address'}"
    yield from (_model_line(name, table) for name, table in settings.models.items())
    yield from (f"MCP server {name}: {table.url or table.command}" for name, table in settings.mcp.items())
    yield from (_agent_line(name, table, settings) for name, table in settings.agents.items())
    yield from (f"pool {name}: {table.size} of {_listed(table.imports)}" for name, table in settings.pools.items())
    for number, rule in enumerate(settings.policy):
        what = "executions" if rule.execution else f"calls of {rule.tool}" if rule.tool != "*" else "calls of any tool"
        yield f"policy[{number}]: {rule.action} {what}{f' by {rule.agent}' if rule.agent else ''}"
    yield from (f"note: {note}" for note in found.notes)
    yield "all right"


def _model_line(name: str, table: ModelTable) -> str:
    place = f" at {table.api_base}" if table.api_base else ""
    key = f", key of {table.api_key_env}" if table.api_key_env else ""
    return f"model {name}: {':'.join(provider_of(table.model))}{place}{key}"


def _agent_line(name: str, table: AgentTable, settings: ServiceSettings) -> str:
    team = f", team {_listed(table.managed_agents)}" if table.managed_agents else ""
    servers = f", MCP servers {_listed(table.mcp)} (not connected)" if table.mcp else ""
    return f"agent {name}: {table.kind}, model {text_of(settings, name)}, tools {_listed(table.tools)}{servers}{team}"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"
