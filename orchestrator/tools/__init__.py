"""Host tools that agent code may call."""

from orchestrator.tools.tool import FunctionTool, Tool, as_tool, tool

__all__ = ["FunctionTool", "Tool", "as_tool", "tool"]
