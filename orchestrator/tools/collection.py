"""Several tools that come together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.tools.tool import Tool


class ToolCollection:
    """Tools of one origin; ``tools`` is the list that an agent takes: ``CodeAgent(tools=[*collection.tools], …)``."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self.tools = list(tools)

    @classmethod
    def from_hub(
        cls, collection_slug: str, token: str | None = None, trust_remote_code: bool = False
    ) -> ToolCollection:
        """Those of the Spaces in a collection of the Hugging Face Hub. Their code runs on the host.

        Args:
            collection_slug: as in the collection's address.
            token: None for the one that is stored on this machine.
            trust_remote_code: has to be True.

        Raises:
            ConfigError: it is not trusted, or huggingface_hub is missing.
            ToolError: the code of one does not define one tool.
            ToolUnavailable: there is no such collection, or the hub cannot be reached.
        """
        from orchestrator.tools.hub import collection

        return cls(collection(collection_slug, token, trust_remote_code))

    @classmethod
    @contextmanager
    def from_mcp(
        cls, server_parameters: Any, trust_remote_code: bool = False, structured_output: bool | None = None
    ) -> Iterator[ToolCollection]:
        """Those of MCP servers, while they are connected. ``MCPClient`` does the same, and asynchronously, too.

        Args:
            server_parameters: as for ``MCPClient``.
            trust_remote_code: has to be True for a server that is a program (``StdioServerParameters``): it is started
                on the host, outside of any sandbox. A server at an address runs nothing here.
            structured_output: as for ``MCPClient``.

        Raises:
            ConfigError: a program is to be started and not trusted; or as for ``MCPClient``.
            ToolUnavailable: a server cannot be reached.
        """
        from orchestrator.tools.mcp import MCPClient
        from orchestrator.tools.mcp_transport import Program, servers

        programs = [server.name for server in servers(server_parameters) if isinstance(server, Program)]
        if programs and trust_remote_code is not True:
            raise ConfigError(
                f"{programs[0]} is a program that would be started on the host, outside of any sandbox, with "
                "everything that this process may do. If you trust it, pass trust_remote_code=True"
            )
        with MCPClient(server_parameters, structured_output=structured_output) as tools:
            yield cls(tools)
