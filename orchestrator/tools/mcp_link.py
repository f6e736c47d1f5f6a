"""The session with one MCP server: a task on the process's background loop, which opens and closes it.

One task, because the scopes that the mcp package opens have to be left by the task that entered them; that loop,
because a session outlives the loop of whoever calls its tools.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.credentials import without_queries
from orchestrator.errors import ToolError, ToolUnavailable
from orchestrator.sanitise import one_line
from orchestrator.tools.mcp_logs import make_logs_safe
from orchestrator.tools.mcp_transport import Server

if TYPE_CHECKING:
    import mcp

T = TypeVar("T")

MAX_TOOLS = 256  # of one server: as many as a sandbox takes
MAX_PAGES = 64  # of its list: one that never ends must not keep us
CLOSE_TIMEOUT = 10.0  # seconds: mcp gives a program 4.5 to end before it kills it
MAX_MESSAGE = 2000  # characters of what a server says went wrong


class Link:
    """To be used on the background loop only.

    Args:
        server: which.
        connect_timeout: seconds for connecting, and for listing the tools.
        call_timeout: seconds for a call.
    """

    def __init__(self, server: Server, connect_timeout: float, call_timeout: float) -> None:
        self.server = server
        self.stale = True  # its list of tools has not been read, or has changed
        self._connect_timeout = connect_timeout
        self._call_timeout = call_timeout
        self._client: mcp.Client | None = None
        self._task: asyncio.Task[None] | None = None
        self._opened = asyncio.Event()
        self._leave = asyncio.Event()
        self._scope: Any = None
        self._deaf = False  # nobody tells of changes any more: the list is read each time it is asked for

    async def open(self) -> None:
        """Connects.

        Raises:
            ToolUnavailable: it cannot be reached, ended, or did not answer in time.
        """
        self._task = asyncio.create_task(self._live())
        opened = asyncio.create_task(self._opened.wait())
        try:
            await asyncio.wait({self._task, opened}, timeout=self._connect_timeout, return_when=asyncio.FIRST_COMPLETED)
            if self._client is None:
                raise self._not_connected()
        except BaseException:
            await self.close()
            raise
        finally:
            opened.cancel()

    def _not_connected(self) -> ToolUnavailable:
        if self._task is not None and self._task.done():
            return ToolUnavailable(f"{self.server.name} cannot be connected to: {self._ended()}")
        return ToolUnavailable(f"{self.server.name} did not answer within {self._connect_timeout:g} s")

    def _ended(self) -> str:
        """Why the session is over, as far as anybody has said."""
        assert self._task is not None
        error = None if self._task.cancelled() else self._task.exception()
        said = self.server.last_words()
        return _told(error) + (f"; it wrote: {said}" if said else "") if error else said or "its session has ended"

    async def _live(self) -> None:
        """The session, from its beginning to its end."""
        import anyio
        import mcp
        import mcp.client.sse
        import mcp.client.stdio
        import mcp.client.streamable_http

        make_logs_safe()
        with anyio.CancelScope() as self._scope:
            transport = self.server.transport()
            async with mcp.Client(transport, message_handler=self._hear, cache=None) as client:
                # Checking results against the server's own schema would run its regular expressions on this loop.
                client.session.validate_tool_result = _unchecked  # type: ignore[method-assign]
                listener = asyncio.create_task(self._listen(client))
                listener.add_done_callback(self._no_news)
                self._client = client
                self._opened.set()
                try:
                    await self._leave.wait()
                finally:
                    listener.cancel()

    async def _hear(self, message: Any) -> None:
        if getattr(message, "method", "") == "notifications/tools/list_changed":
            self.stale = True

    async def _listen(self, client: mcp.Client) -> None:
        """The same from servers of protocol 2026-07-28 on, which tell only those that listen."""
        from mcp.client.subscriptions import ListenNotSupportedError

        capabilities = client.server_capabilities.tools
        if capabilities is None or not capabilities.list_changed:
            return
        with suppress(ListenNotSupportedError):  # an older protocol: it tells unasked
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self.stale = True
            self._deaf = True

    def _no_news(self, listener: asyncio.Future[None]) -> None:
        """No news from a server is no reason to end its session."""
        self._deaf = self._deaf or (not listener.cancelled() and listener.exception() is not None)

    async def close(self) -> None:
        """Ends the session: politely, then by force. Raises nothing of the server's."""
        task = self._task
        if task is None:
            return
        self._leave.set()
        if self._client is None and self._scope is not None:
            self._scope.cancel()  # it is still connecting
        self._client = None
        for stop in (self._cancel_scope, task.cancel, task.cancel):
            await asyncio.wait({task}, timeout=CLOSE_TIMEOUT)
            if task.done():
                break
            stop()
        if task.done() and not task.cancelled():
            task.exception()  # has been told, or nobody asks any more

    def _cancel_scope(self) -> None:
        if self._scope is not None:
            self._scope.cancel()

    async def tools(self) -> tuple[Any, ...]:
        """What it lists, as the mcp package has it.

        Raises:
            ToolError: it lists more than ``MAX_TOOLS``, or does not come to an end.
            ToolUnavailable: it is gone, or refuses.
            TimeoutError: it did not answer in time.
        """
        self.stale = self._deaf
        try:
            return await self._within(self._listed(self._alive()), self._connect_timeout, "its list of tools")
        except BaseException:
            self.stale = True
            raise

    async def _listed(self, client: mcp.Client) -> tuple[Any, ...]:
        found: list[Any] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            page = await client.list_tools(cursor=cursor)
            found += page.tools
            if len(found) > MAX_TOOLS:
                raise ToolError(f"{self.server.name} has more than {MAX_TOOLS} tools")
            cursor = page.next_cursor
            if not cursor:
                return tuple(found)
        raise ToolError(f"{self.server.name} lists its tools on more than {MAX_PAGES} pages")

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Calls one of its tools; gives the ``CallToolResult``.

        Raises:
            RuntimeError: it refuses the call.
            ToolUnavailable: it is gone.
            TimeoutError: it did not answer in time; what the call did is not known.
        """
        work = self._alive().call_tool(name, dict(arguments), read_timeout_seconds=self._call_timeout)
        return await self._within(work, self._call_timeout, f"{one_line(name, 80)}()")

    def _alive(self) -> mcp.Client:
        if self._client is None:
            raise ToolUnavailable(f"{self.server.name} is not connected")
        if self._task is not None and self._task.done():
            raise ToolUnavailable(f"{self.server.name} is gone: {self._ended()}")
        return self._client

    async def _within(self, work: Awaitable[T], seconds: float, what: str) -> T:
        """The result of ``work``, unless the session ends or the time is over before. What is given up is cancelled."""
        assert self._task is not None
        done = asyncio.ensure_future(work)
        done.add_done_callback(_looked_at)
        try:
            await asyncio.wait({done, self._task}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            done.cancel()
        if done.done() and not done.cancelled():
            error = done.exception()
            if error is None:
                return done.result()
            raise self._translated(error, seconds, what) from None
        if self._task.done():
            raise ToolUnavailable(f"{self.server.name} went away before {what} was answered: {self._ended()}")
        raise TimeoutError(_overdue(self.server, what, seconds))

    def _translated(self, error: BaseException, seconds: float, what: str) -> BaseException:
        from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT

        match getattr(error, "code", None):
            case _ if isinstance(error, ToolError):
                return error
            case code if code == REQUEST_TIMEOUT or isinstance(error, TimeoutError):
                return TimeoutError(_overdue(self.server, what, seconds))
            case code if code == CONNECTION_CLOSED or type(error).__module__.startswith(("anyio", "httpx2")):
                said = self.server.last_words()
                why = f"; it wrote: {said}" if said else ""
                return ToolUnavailable(f"{self.server.name} went away before {what} was answered{why}")
            case _:
                return RuntimeError(f"{self.server.name} refuses {what}: {_told(error)}")


def _overdue(server: Server, what: str, seconds: float) -> str:
    return f"{server.name} did not answer {what} within {seconds:g} s. Whether it took effect is not known"


async def _unchecked(name: str, result: Any) -> None:
    """In the place of ``ClientSession.validate_tool_result``."""


def _looked_at(done: asyncio.Future[Any]) -> None:
    if not done.cancelled():
        done.exception()


def _told(error: BaseException) -> str:
    """The first real cause in words: anyio raises groups of groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = getattr(error, "message", None) or str(error) or type(error).__name__
    return one_line(without_queries(str(text)), MAX_MESSAGE)  # httpx tells the whole URL, where a key may be
