"""Tools of MCP servers (Model Context Protocol). Their calls go to the server from the host, whoever makes them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from orchestrator.errors import ConfigError, ToolError, missing_extra
from orchestrator.portal import Portal
from orchestrator.tools.foreign_schema import reduced_schema
from orchestrator.tools.mcp_content import error_text, result_value
from orchestrator.tools.mcp_link import Link
from orchestrator.tools.mcp_transport import servers
from orchestrator.tools.schema_tool import SchemaTool, as_json
from orchestrator.tools.tool import Tool

CONNECT_TIMEOUT = 30.0  # seconds: a program such as npx may have to fetch itself first
CALL_TIMEOUT = 120.0  # seconds for one call; a sandbox's tool_timeout may be over before


class MCPClient:
    """The tools of one or more MCP servers, while they are connected::

        with MCPClient({"url": "http://127.0.0.1:8000/mcp"}) as tools:
            CodeAgent(tools=tools, model=model).run("…")

    A tool's result is what the server answers: a text as str, several parts as a list, pictures as ``AgentImage``,
    sound as ``AgentAudio``; structured content as the value it is. What the server calls an error is a RuntimeError
    with its text; a server that has died is a ``ToolUnavailable``; one that takes too long a TimeoutError. Names that
    are no identifiers become some: "get-weather" is ``get_weather()`` (see ``python_name``).

    Every method has a twin to await: ``aconnect``, ``aget_tools``, ``adisconnect``, and ``async with``.

    Args:
        server_parameters: ``mcp.StdioServerParameters`` (starts that program here, with the rights of this process and
            of its environment only what mcp passes by default and ``env``); a dict with ``url``, and perhaps
            ``transport`` ("streamable-http", the default, or "sse"), ``headers``, ``timeout`` and ``sse_read_timeout``
            in seconds, ``auth`` (an ``httpx2.Auth``); or a list of these.
        adapter_kwargs: ``connect_timeout`` (seconds for connecting and for listing the tools, 30) and
            ``client_session_timeout_seconds`` (for a call, 120; a number or a timedelta).
        structured_output: True gives structured content as it came. False gives the texts beside it. None, the
            default, gives it, too, and what is only wrapped, ``{"result": value}``, without the wrapping.

    Raises:
        ConfigError: the parameters are wrong, or the mcp package is missing.
    """

    def __init__(
        self,
        server_parameters: Any,
        adapter_kwargs: Mapping[str, Any] | None = None,
        structured_output: bool | None = None,
    ) -> None:
        _needs_mcp()
        self._servers = servers(server_parameters)
        self._times = _times(adapter_kwargs or {})
        self._structured = structured_output
        self._links: tuple[Link, ...] = ()
        self._tools: list[Tool] = []
        self._lock = asyncio.Lock()  # of the background loop

    def connect(self) -> None:
        """Connects, if it is not connected.

        Raises:
            ToolUnavailable: a server cannot be reached or does not answer in time. The others are left again.
        """
        Portal.run(self._connect())

    async def aconnect(self) -> None:
        """``connect`` to await, on any loop."""
        await Portal.carried(self._connect())

    def disconnect(self, *_: object) -> None:
        """Leaves the servers, and ends the programs that were started."""
        Portal.run(self._disconnect())

    async def adisconnect(self, *_: object) -> None:
        """``disconnect`` to await, on any loop."""
        await Portal.carried(self._disconnect())

    def get_tools(self) -> list[Tool]:
        """The tools, all servers' in order; listed anew if a server has told that they changed. Connects if need be.

        Raises:
            ToolError: a tool cannot be one here (its schema is no object's, names collide), or there are too many.
            ToolUnavailable: a server is gone.
            TimeoutError: a server did not answer in time.
        """
        return Portal.run(self._get_tools())

    async def aget_tools(self) -> list[Tool]:
        """``get_tools`` to await, on any loop."""
        return await Portal.carried(self._get_tools())

    def __enter__(self) -> list[Tool]:
        try:
            return self.get_tools()
        except BaseException:
            self.disconnect()
            raise

    __exit__ = disconnect

    async def __aenter__(self) -> list[Tool]:
        try:
            return await self.aget_tools()
        except BaseException:
            await self.adisconnect()
            raise

    __aexit__ = adisconnect

    async def _connect(self) -> None:
        async with self._lock:
            if not self._links:
                self._links = await self._opened()

    async def _opened(self) -> tuple[Link, ...]:
        links = tuple(Link(server, self._times.connect, self._times.call) for server in self._servers)
        try:
            ended = await asyncio.gather(*(link.open() for link in links), return_exceptions=True)
            for error in ended:
                if isinstance(error, BaseException):
                    raise error
        except BaseException:
            await asyncio.gather(*(link.close() for link in links))
            raise
        return links

    async def _disconnect(self) -> None:
        async with self._lock:
            links, self._links, self._tools = self._links, (), []
            await asyncio.gather(*(link.close() for link in links))

    async def _get_tools(self) -> list[Tool]:
        await self._connect()
        async with self._lock:
            if any(link.stale for link in self._links):
                self._tools = await self._listed()
            return list(self._tools)

    async def _listed(self) -> list[Tool]:
        found: dict[str, Tool] = {}
        for link in self._links:
            for listed in await link.tools():
                made = _tool(link, listed, self._structured)
                if made.name in found:
                    raise ToolError(
                        f"{link.server.name} has a tool {made.name!r}, and there is one of that name already"
                    )
                found[made.name] = made
        return list(found.values())


@dataclass(frozen=True, slots=True)
class _Times:
    """In seconds."""

    connect: float = CONNECT_TIMEOUT
    call: float = CALL_TIMEOUT


def _times(given: Mapping[str, Any]) -> _Times:
    names = {"connect_timeout": "connect", "client_session_timeout_seconds": "call"}
    unknown = sorted(map(str, given.keys() - names.keys()))
    if unknown:
        raise ConfigError(f"adapter_kwargs: unknown key {', '.join(unknown)}; there are {', '.join(names)}")
    return _Times(**{names[key]: _seconds(key, value) for key, value in given.items() if value is not None})


def _seconds(key: str, value: Any) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= 86400:
        raise ConfigError(f"adapter_kwargs: {key} is {value!r}; it must be seconds, more than 0 and at most a day")
    return float(seconds)


def _needs_mcp() -> None:
    try:
        import mcp  # noqa: F401
    except ImportError:
        raise missing_extra("MCPClient", "mcp", "mcp") from None


def _tool(link: Link, listed: Any, structured: bool | None) -> SchemaTool:
    """A tool that was listed, as one of ours."""
    schema = listed.output_schema if structured is not False else None
    wrapped = structured is None and _is_wrapped(schema)

    async def ask(arguments: Mapping[str, Any]) -> Any:
        sent = {name: as_json(value, name) for name, value in arguments.items()}
        result = await link.call(listed.name, sent)
        if result.is_error:
            raise RuntimeError(error_text(result))
        return result_value(result, structured, wrapped)

    async def call(arguments: Mapping[str, Any]) -> Any:
        return await Portal.carried(ask(arguments))

    description = listed.description or listed.title or ""
    returns = _returns(schema["properties"]["result"] if wrapped else schema) if schema else ""
    return SchemaTool(
        listed.name, description, listed.input_schema, call, origin=link.server.name, returns=returns
    )  # fmt: skip


def _is_wrapped(schema: Any) -> bool:
    """Whether a value that is no object was put into one, as the Python SDK does."""
    match schema:
        case {"properties": {"result": _} as properties, "required": ["result"]}:
            return len(properties) == 1
    return False


def _returns(schema: Any) -> str:
    return f"JSON of this schema: {json.dumps(reduced_schema(schema), ensure_ascii=False)}"
