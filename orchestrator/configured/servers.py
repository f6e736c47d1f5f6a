"""The MCP servers of the settings, as ``MCPClient`` takes them, with what they need of the environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.configured.settings import ServiceSettings
from orchestrator.configured.tables import McpTable
from orchestrator.errors import ConfigError
from orchestrator.tools.by_name import mcp_server_by_name


def server_of(settings: ServiceSettings, text: str, env: Mapping[str, str]) -> Any:
    """The parameters of the server that an agent calls ``text``: NAME of a table, a URL, or a command.

    Raises:
        ConfigError: it is none of these, the environment lacks a variable, or the mcp package is missing.
    """
    table = settings.mcp.get(text)
    if table is None:
        return mcp_server_by_name(text)
    try:
        return _of_table(table, env)
    except ConfigError as error:
        raise ConfigError(f"mcp.{text}: {error}") from None


def _of_table(table: McpTable, env: Mapping[str, str]) -> Any:
    if table.url:
        headers = {header: _value("headers_env", name, env) for header, name in table.headers_env.items()}
        return {"url": table.url, "transport": table.transport, "headers": headers}
    program = mcp_server_by_name(table.command)
    return program.model_copy(update={"env": {name: _value("env", name, env) for name in table.env}})


def _value(key: str, variable: str, env: Mapping[str, str]) -> str:
    if not (value := env.get(variable, "")):
        raise ConfigError(f"{key}: the environment has no {variable}")
    return value
