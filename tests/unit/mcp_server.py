"""MCP servers as programs of their own: ``python mcp_server.py honest|hostile-…``. The honest one is the mcp package's.

The hostile ones speak JSON-RPC by hand over standard streams, as no server's class would say what they say.
"""

import asyncio
import base64
import json
import os
import sys
import time
from typing import Any

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def honest() -> Any:
    from mcp.server.mcpserver import Context, MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp_types import AudioContent, CallToolResult, ImageContent, TextContent

    server = MCPServer("honest")

    @server.tool(name="get-weather")
    def get_weather(city: str, days: int = 1, units: str | None = None) -> str:
        """The weather in a city."""
        return f"{city}: sun for {days} days{f' in {units}' if units else ''}"

    @server.tool()
    def add(numbers: list[float]) -> float:
        """The sum."""
        return sum(numbers)

    @server.tool()
    def person(name: str) -> dict[str, Any]:
        """Who it is."""
        return {"name": name, "age": 7}

    @server.tool()
    def fail(reason: str) -> str:
        """Fails."""
        raise ToolError(f"no: {reason}")

    @server.tool()
    def mixed() -> CallToolResult:
        """A text, a picture and a sound."""
        sound = base64.b64encode(b"RIFF\x04\0\0\0WAVE").decode()
        return CallToolResult(
            content=[
                TextContent(text="look"),
                ImageContent(data=base64.b64encode(PNG).decode(), mime_type="image/png"),
                AudioContent(data=sound, mime_type="audio/wav"),
            ]
        )

    @server.tool()
    async def slow() -> str:
        """Never ends."""
        await asyncio.Event().wait()
        return ""

    @server.tool()
    def die() -> str:
        """Ends the server."""
        print("out of cheese", file=sys.stderr, flush=True)
        os._exit(3)

    @server.tool()
    def pid() -> int:
        """Its process."""
        return os.getpid()

    @server.tool()
    def environment() -> str:
        """What it sees of the environment."""
        return json.dumps(dict(os.environ))

    @server.tool()
    async def grow(context: Context) -> str:
        """Adds a tool."""
        server.add_tool(get_weather, name="late", description="New.")
        await context.notify_tools_changed()
        return "grown"

    return server


def tools_of(mode: str) -> list[dict[str, Any]]:
    def listed(name: str, schema: Any, **more: Any) -> dict[str, Any]:
        return {"name": name, "inputSchema": schema, **more}

    plain = {"type": "object", "properties": {"x": {"type": "string"}}}
    match mode:
        case "hostile-wide":
            many = {f"p{number}": {"type": "string"} for number in range(100_000)}
            return [listed("wide", {"type": "object", "properties": many})]
        case "hostile-many":
            return [listed(f"t{number}", plain) for number in range(5000)]
        case "hostile-twins":
            return [listed("get-x", plain), listed("get_x", plain)]
        case "hostile-regex":  # takes longer than the universe has if it is matched
            slow = {"type": "object", "properties": {"x": {"type": "string", "pattern": "^(a+)+$"}}}
            return [listed("slow", plain, outputSchema=slow)]
        case "hostile-escape":
            return [listed("esc", plain, description="\x1b[2J" + "long " * 100_000)]
        case _:
            return [listed("get", plain), listed("final_answer", plain), listed("class", plain)]


def answer(mode: str, request: dict[str, Any]) -> dict[str, Any]:
    match request["method"]:
        case "initialize":
            version = request["params"]["protocolVersion"]
            capabilities: dict[str, Any] = {"tools": {}}
            return {
                "protocolVersion": version,
                "capabilities": capabilities,
                "serverInfo": {"name": "h", "version": "1"},
            }
        case "tools/list" if mode == "hostile-endless":
            return {"tools": [], "nextCursor": "again"}
        case "tools/list":
            return {"tools": tools_of(mode)}
        case "tools/call" if mode == "hostile-huge":
            return {"content": [{"type": "text", "text": "x" * (33 << 20)}]}
        case "tools/call" if mode == "hostile-parts":
            return {"content": [{"type": "text", "text": ""}] * 5000}
        case "tools/call" if mode == "hostile-picture":
            return {"content": [{"type": "image", "data": "QUJD", "mimeType": "image/png"}]}
        case "tools/call" if mode == "hostile-base64":
            return {"content": [{"type": "image", "data": "!!", "mimeType": "image/png"}]}
        case "tools/call" if mode == "hostile-nonsense":
            return {"content": "what?", "isError": 17}
        case "tools/call" if mode == "hostile-regex":
            return {"content": [], "structuredContent": {"x": "a" * 40 + "!"}}
        case _:
            return {"content": [{"type": "text", "text": json.dumps(request["params"])}]}


def hostile(mode: str) -> None:
    if mode == "hostile-mute":
        time.sleep(3600)
    if mode == "hostile-exit":
        sys.exit("cannot find my configuration \x1b[31m")
    for line in sys.stdin:
        request = json.loads(line)
        if "id" not in request:
            continue
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": request["id"]}
        if request["method"] == "server/discover":
            reply["error"] = {"code": -32601, "message": "no such method"}
        elif request["method"] == "tools/call" and mode == "hostile-refuses":
            reply["error"] = {"code": -32602, "message": "not today\x1b[2J " + "z" * 100_000}
        else:
            reply["result"] = answer(mode, request)
        print("this is no JSON" if mode == "hostile-noise" else "", flush=True)
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "honest":
        honest().run("stdio")
    else:
        hostile(sys.argv[1])
