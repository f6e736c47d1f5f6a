"""The tools that ``add_base_tools`` adds and that the command line knows by name, made only when they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

from orchestrator.errors import ConfigError
from orchestrator.tools.tool import Tool


def _web_search() -> Tool:
    from orchestrator.tools.builtin.web_search import WebSearchTool  # needs an extra, and an HTTP client

    return WebSearchTool()


def _visit_webpage() -> Tool:
    from orchestrator.tools.builtin.visit_webpage import VisitWebpageTool  # the same

    return VisitWebpageTool()


def _user_input() -> Tool:
    from orchestrator.tools.builtin.user_input import UserInputTool

    return UserInputTool()


def base_tools() -> dict[str, Callable[[], Tool]]:
    """Name -> what makes the tool of that name. Making one raises ConfigError where its extra is not installed."""
    return dict(_MAKERS)


def base_tool(name: str) -> Tool:
    """The tool of that name.

    Raises:
        ConfigError: there is none, or its extra is not installed.
    """
    if name not in _MAKERS:
        raise ConfigError(f"there is no tool {name!r}; there are {', '.join(_MAKERS)}")
    return _MAKERS[name]()


_MAKERS = MappingProxyType({"web_search": _web_search, "visit_webpage": _visit_webpage, "user_input": _user_input})
