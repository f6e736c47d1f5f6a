"""Tools and MCP servers by one text each, as a command line and a settings file take them."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.errors import ConfigError, missing_extra
from orchestrator.tools.base_tools import base_tool, base_tools
from orchestrator.tools.tool import Tool

_SPACE = re.compile(r"[\w.-]+/[\w.-]+")
# The search path is the process's; held while it is another. A module may ask for further tools while it is imported.
_importing = threading.RLock()


def tool_by_name(text: str, folder: Path) -> Tool | Callable[..., Any]:
    """The tool that ``text`` names: one of those that come along, ``MODULE:NAME``, or ``OWNER/SPACE`` of the hub.

    Args:
        text: of a module, ``NAME`` is a function, a ``Tool``, or a subclass of it that is made without arguments.
        folder: where modules are looked for before the usual places. One is imported once per process.

    Raises:
        ConfigError: there is none, its module cannot be imported, or an extra is not installed.
        ToolError: the Space cannot be a tool.
        ToolUnavailable: the hub or the Space cannot be reached.
    """
    if text in base_tools():
        return base_tool(text)
    if name := space_tool_name(text):
        return Tool.from_space(text, name=name, description="")
    return _own_tool(text, folder)


def space_tool_name(text: str) -> str:
    """What the tool is called that ``OWNER/SPACE`` names; empty if ``text`` is something else. Asks nobody."""
    return re.sub(r"\W", "_", text.partition("/")[2]).lower() if _SPACE.fullmatch(text) else ""


def _own_tool(text: str, folder: Path) -> Tool | Callable[..., Any]:
    """A tool of the operator's own."""
    module, _, attribute = text.partition(":")
    try:
        found = getattr(_imported(module, folder), attribute)
        return found() if isinstance(found, type) and issubclass(found, Tool) else found
    except Exception as error:  # noqa: BLE001 - the operator's own module can raise anything
        known = ", ".join(sorted(base_tools()))
        raise ConfigError(
            f"tool {text!r}: {type(error).__name__}: {error}; write {known}, MODULE:FUNCTION or OWNER/SPACE"
        ) from None


def _imported(module: str, folder: Path) -> Any:
    with _importing:
        sys.path.insert(0, str(folder.absolute()))
        importlib.invalidate_caches()  # the module may have been written a moment ago
        try:
            return importlib.import_module(module)
        finally:
            sys.path.remove(str(folder.absolute()))


def mcp_server_by_name(text: str) -> Any:
    """The parameters of an MCP server for ``MCPClient``: of its URL, or of the command that starts it on this host.

    Raises:
        ConfigError: it is neither, or the mcp package is missing.
    """
    if text.startswith(("http://", "https://")):
        return {"url": text, "transport": "streamable-http"}
    try:
        from mcp import StdioServerParameters  # an extra
    except ImportError:
        raise missing_extra("an MCP server", "mcp", "mcp") from None
    try:
        command, *arguments = shlex.split(text)
    except ValueError as error:  # nothing at all, or a quote without its end
        raise ConfigError(f"MCP server {text!r} is no URL and no command: {error}") from None
    return StdioServerParameters(command=command, args=arguments)
