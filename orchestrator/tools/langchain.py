"""Tools of LangChain as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.errors import ToolError, missing_extra
from orchestrator.tools.schema_tool import SchemaTool


def from_langchain(langchain_tool: Any) -> SchemaTool:
    """A ``BaseTool`` of langchain-core as a tool: its name, description and argument schema, its ``ainvoke``.

    Its arguments are checked here by what its schema says, and then by LangChain. The result is what it gives.

    Raises:
        ConfigError: langchain-core is missing.
        ToolError: it is no such tool, or its arguments cannot be described.
    """
    try:
        from langchain_core.tools import BaseTool
    except ImportError:
        raise missing_extra("from_langchain", "langchain-core", "langchain") from None
    if not isinstance(langchain_tool, BaseTool):
        raise ToolError(f"from_langchain takes a tool of langchain-core, not {type(langchain_tool).__name__}")

    async def call(arguments: Mapping[str, Any]) -> Any:
        return await langchain_tool.ainvoke(dict(arguments))

    return SchemaTool(
        langchain_tool.name,
        langchain_tool.description,
        _schema(langchain_tool),
        call,
        origin=f"the LangChain tool {langchain_tool.name!r}",
    )


def _schema(langchain_tool: Any) -> Any:
    """What the model may give: without what LangChain itself injects."""
    if langchain_tool.args_schema is None:  # of a function that takes one text, or of _run's signature
        arguments = langchain_tool.args
        needed = [name for name, schema in arguments.items() if "default" not in schema]
        return {"type": "object", "properties": arguments, "required": needed}
    schema = langchain_tool.tool_call_schema
    try:
        return schema if isinstance(schema, dict) else schema.model_json_schema()
    except Exception as error:  # pydantic has no schema for every type, and says so in several ways
        raise ToolError(f"the LangChain tool {langchain_tool.name!r} has no JSON schema: {error}") from error
