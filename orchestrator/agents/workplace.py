"""The sandbox that an agent works in: the caller's own, or one of the agent's that lives as long as the agent.

An agent's own is a container, or a branch of another agent's.
"""

from __future__ import annotations

import asyncio
import atexit
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.config import Config, Limits
from orchestrator.errors import AgentError
from orchestrator.policy import Approve
from orchestrator.sandbox import AsyncSandbox
from orchestrator.tools import Tool

_EXIT_SECONDS = 10.0  # for closing at the end of the process; the container's lease ends it if this does not


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """How an agent makes its own sandbox; each as the argument of ``Sandbox`` of that name, None for its default."""

    limits: Limits | None = None
    timeout: float | None = None
    env: Mapping[str, str] | None = None
    config: Config | None = None
    tool_timeout: float | None = None
    approve: Approve | None = None

    def make(self, tools: Sequence[Tool], authorized_imports: Sequence[str]) -> AsyncSandbox:
        """A sandbox of these settings for an agent."""
        return AsyncSandbox(
            authorized_imports=authorized_imports,
            tools=tools,
            limits=self.limits,
            timeout=self.timeout,
            env=self.env,
            config=self.config,
            tool_timeout=self.tool_timeout,
            approve=self.approve,
            final_answer=True,
        )


class BorrowedWorkplace:
    """A sandbox of the caller's: used, never closed. Its owner started it, or it starts at the first run.

    Raises:
        AgentError: the sandbox lacks ``final_answer``, or a tool that the agent tells its model of.
    """

    def __init__(self, sandbox: AsyncSandbox, tools: frozenset[str]) -> None:
        if not sandbox.has_final_answer:
            raise AgentError("an agent's sandbox must be made with final_answer=True, or no run could end")
        missing = sorted(tools - sandbox.tool_names)
        if missing:
            raise AgentError(f"the sandbox was made without these tools of the agent: {', '.join(missing)}")
        self._sandbox = sandbox
        self.authorized_imports = sandbox.authorized_imports

    async def open(self) -> AsyncSandbox:
        """The sandbox, started."""
        await self._sandbox.start()
        return self._sandbox

    async def discard(self) -> None:
        """Nothing: what to do about a sandbox that failed is for its owner to say."""

    async def close(self) -> None:
        """Nothing: its owner closes it."""

    def check_blocking(self) -> None:
        """Nothing: closing takes no time."""


class OwnWorkplace:
    """A sandbox that is made at the first use, kept, and closed with its agent.

    Without ``close()`` it is closed when the agent is garbage, and at the latest when the process ends.
    """

    def __init__(self, make: Callable[[], AsyncSandbox]) -> None:
        self._make = make
        self._sandbox: AsyncSandbox | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._release: weakref.finalize[[AsyncSandbox, asyncio.AbstractEventLoop], OwnWorkplace] | None = None
        self._closed = False
        self._parent: Workplace | None = None  # of a branch

    @classmethod
    def of_branch(cls, branch: AsyncSandbox, parent: Workplace) -> OwnWorkplace:
        """Owns ``branch``, which runs on this event loop. If it fails, there is no other.

        ``parent`` is the workplace it was forked in. It is kept alive, for it would take its branches along when it is
        garbage; closing it by hand still does.
        """

        workplace = cls(_no_other)
        workplace._parent = parent
        workplace._keep(branch, asyncio.get_running_loop())
        return workplace

    async def open(self) -> AsyncSandbox:
        """The sandbox, made and started if it is not yet.

        Raises:
            AgentError: closed, or the sandbox lives on another event loop, or it was a branch and has failed.
            SandboxError, EngineError: it cannot be started.
        """
        loop = asyncio.get_running_loop()
        if self._closed:
            raise AgentError("this agent is closed; make a new one")
        if self._sandbox is None:
            self._keep(self._make(), loop)
        if self._sandbox is None or loop is not self._loop:
            raise AgentError("this agent's sandbox lives on another event loop: use run() only, or one loop only")
        await self._sandbox.start()
        return self._sandbox

    async def discard(self) -> None:
        """Closes the sandbox; the next use makes another, with no variables."""
        sandbox, loop = self._sandbox, self._loop
        self._forget()
        if sandbox is None or loop is None or loop.is_closed():
            return
        if loop is asyncio.get_running_loop():
            await sandbox.close()
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(sandbox.close(), loop))

    async def close(self) -> None:
        """Closes the sandbox for good. Idempotent."""
        self._closed = True
        await self.discard()

    def check_blocking(self) -> None:
        """Raises if waiting here for ``close()`` would wait for oneself.

        Raises:
            AgentError: it would.
        """
        if self._loop is not None and _running_loop() is self._loop:
            raise AgentError("close() would block the event loop that the sandbox lives on; use 'await agent.aclose()'")

    def _keep(self, sandbox: AsyncSandbox, loop: asyncio.AbstractEventLoop) -> None:
        self._sandbox, self._loop = sandbox, loop
        self._release = weakref.finalize(self, _close_from_anywhere, sandbox, loop)
        # Registered by hand, so that it runs before the exit handlers of what was there first: the loop's thread.
        self._release.atexit = False
        atexit.register(self._release)

    def _forget(self) -> None:
        if self._release is not None:
            self._release.detach()
            atexit.unregister(self._release)
        self._sandbox = self._loop = self._release = self._parent = None


def _no_other() -> AsyncSandbox:
    raise AgentError("the branch that this agent worked in has failed; make another of the agent it came from")


def _close_from_anywhere(sandbox: AsyncSandbox, loop: asyncio.AbstractEventLoop) -> None:
    """Closes from any thread, the loop's own included: garbage is collected wherever it happens to be noticed."""
    if not loop.is_running():  # an ended asyncio.run: nobody can speak to that sandbox any more; its lease ends it
        return
    closing = asyncio.run_coroutine_threadsafe(sandbox.close(), loop)
    if _running_loop() is not loop:
        closing.result(_EXIT_SECONDS)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


Workplace = BorrowedWorkplace | OwnWorkplace
