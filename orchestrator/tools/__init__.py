"""Host tools that agent code may call, and those that come along.

The latter and those from elsewhere are looked up when they are first used: what some need takes a while to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.lazily import lazily
from orchestrator.tools.base_tools import base_tool, base_tools
from orchestrator.tools.json_schema import parameters_schema
from orchestrator.tools.tool import FunctionTool, Tool, as_tool, tool

if TYPE_CHECKING:
    from orchestrator.tools.builtin.final_answer import FinalAnswerTool
    from orchestrator.tools.builtin.user_input import UserInputTool
    from orchestrator.tools.builtin.visit_webpage import VisitWebpageTool
    from orchestrator.tools.builtin.web_search import (
        ApiWebSearchTool,
        DuckDuckGoSearchTool,
        GoogleSearchTool,
        WebSearchTool,
    )
    from orchestrator.tools.builtin.wikipedia_search import WikipediaSearchTool
    from orchestrator.tools.collection import ToolCollection
    from orchestrator.tools.hub import load_tool
    from orchestrator.tools.mcp import MCPClient

__all__ = [
    "ApiWebSearchTool",
    "DuckDuckGoSearchTool",
    "FinalAnswerTool",
    "FunctionTool",
    "GoogleSearchTool",
    "MCPClient",
    "Tool",
    "ToolCollection",
    "UserInputTool",
    "VisitWebpageTool",
    "WebSearchTool",
    "WikipediaSearchTool",
    "as_tool",
    "base_tool",
    "base_tools",
    "load_tool",
    "parameters_schema",
    "tool",
]

_LAZY = {
    "FinalAnswerTool": "builtin.final_answer",
    "UserInputTool": "builtin.user_input",
    "VisitWebpageTool": "builtin.visit_webpage",
    "ApiWebSearchTool": "builtin.web_search",
    "DuckDuckGoSearchTool": "builtin.web_search",
    "GoogleSearchTool": "builtin.web_search",
    "WebSearchTool": "builtin.web_search",
    "WikipediaSearchTool": "builtin.wikipedia_search",
    "MCPClient": "mcp",
    "ToolCollection": "collection",
    "load_tool": "hub",
}

__getattr__ = lazily(__name__, _LAZY)
