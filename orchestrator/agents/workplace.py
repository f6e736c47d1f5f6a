"""The sandbox that an agent works in: the caller's own, or one of the agent's that lives as long as the agent.

An agent's own is a container, or a branch of another agent's.
"""

from __future__ import annotations

import asyncio
import atexit
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace

from orchestrator.agents.record import Recorder
from orchestrator.agents.tape import taped
from orchestrator.agents.watching import TakenBack, Watched, Watcher
from orchestrator.config import Config, Limits
from orchestrator.errors import AgentError
from orchestrator.policy import Approve, import_rules
from orchestrator.sandbox import AsyncSandbox, Sandbox
from orchestrator.sandbox.any_sandbox import AnySandbox
from orchestrator.tools import Tool

_EXIT_SECONDS = 10.0  # for closing at the end of the process; the container's lease ends it if this does not


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """How an agent makes its own sandbox; each as the argument of ``Sandbox`` of that name, None for its default.

    ``ready`` is given each that is made, before it is started; ``watcher`` is told of it when it is up.
    """

    limits: Limits | None = None
    timeout: float | None = None
    env: Mapping[str, str] | None = None
    config: Config | None = None
    tool_timeout: float | None = None
    approve: Approve | None = None
    ready: Callable[[AsyncSandbox], None] | None = None
    watcher: Watcher | None = None

    def make(self, tools: Sequence[Tool], authorized_imports: Sequence[str]) -> AnySandbox:
        """A sandbox of these settings for an agent."""
        sandbox = AsyncSandbox(
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
        if self.ready:
            self.ready(sandbox)
        return sandbox


class BorrowedWorkplace:
    """A sandbox of the caller's: used, never closed. Its owner started it, or it starts at the first run.

    Raises:
        AgentError: the sandbox lacks ``final_answer``, or a tool that the agent tells its model of.
    """

    def __init__(self, sandbox: AnySandbox, tools: frozenset[str]) -> None:
        if not sandbox.has_final_answer:
            raise AgentError("an agent's sandbox must be made with final_answer=True, or no run could end")
        missing = sorted(tools - sandbox.tool_names)
        if missing:
            raise AgentError(f"the sandbox was made without these tools of the agent: {', '.join(missing)}")
        self._sandbox = sandbox
        self.authorized_imports = sandbox.authorized_imports
        self.tool_names = sandbox.tool_names

    async def open(self) -> AnySandbox:
        """The sandbox, started."""
        await self._sandbox.start()
        return self._sandbox

    @property
    def is_open(self) -> bool:
        """True: nobody here has closed it."""
        return True

    async def discard(self) -> None:
        """Nothing: what to do about a sandbox that failed is for its owner to say."""

    async def close(self) -> None:
        """Nothing: its owner closes it."""

    def another(self) -> BorrowedWorkplace:
        """The same: there is only this one."""
        return self

    def enter(self) -> None:
        """Nothing: nobody watches it through the agent."""

    def ran(self, count: int) -> None:
        """The same."""

    def recorded_by(self, recorder: Recorder) -> None:
        """The same."""

    def news(self) -> list[TakenBack]:
        """None: what its owner does with it, the owner knows."""
        return []

    def check_blocking(self) -> None:
        """Nothing: closing takes no time."""


class OwnWorkplace:
    """A sandbox that is made at the first use, kept, and closed with its agent.

    Without ``close()`` it is closed when the agent is garbage, and at the latest when the process ends.
    """

    def __init__(
        self,
        make: Callable[[], AnySandbox],
        authorized_imports: tuple[str, ...],
        tool_names: frozenset[str],
        watcher: Watcher | None = None,
    ) -> None:
        self._make = make
        self._watcher = watcher
        self._watched: Watched | None = None  # the sandbox, once the watcher has been told of it
        self.authorized_imports = authorized_imports
        self.tool_names = tool_names
        self._sandbox: AnySandbox | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._release: weakref.finalize[[_AtExit, AnySandbox, asyncio.AbstractEventLoop], OwnWorkplace] | None = None
        self._at_exit: _AtExit | None = None
        self._closed = False
        self._parent: Workplace | None = None  # of a branch

    @classmethod
    def of_branch(cls, branch: AnySandbox, parent: Workplace) -> OwnWorkplace:
        """Owns ``branch``, which runs on this event loop. If it fails, there is no other.

        ``parent`` is the workplace it was forked in. It is kept alive, for it would take its branches along when it is
        garbage; closing it by hand still does.
        """

        workplace = cls(_no_other, parent.authorized_imports, parent.tool_names)
        workplace._parent = parent
        workplace._keep(branch, asyncio.get_running_loop())
        return workplace

    async def open(self) -> AnySandbox:
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
        sandbox = self._sandbox
        await sandbox.start()
        await self._show(sandbox)
        return sandbox

    async def _show(self, sandbox: AnySandbox) -> None:
        """Tells the watcher of it, once. One that it does not want is not used."""
        if self._watched is None:
            self._watched = Watched(sandbox)
            try:
                if self._watcher:
                    await self._watcher.opened(self._watched)
            except BaseException:
                await self.discard()
                raise

    def enter(self) -> None:
        """An execution is about to begin, in this context."""
        if self._watched:
            self._watched.entered()

    def ran(self, count: int) -> None:
        """An execution has ended, the ``count``-th one; 0: it never began."""
        if self._watched:
            self._watched.count = max(self._watched.count, count)

    def recorded_by(self, recorder: Recorder) -> None:
        """From now on ``recorder`` writes down what is done to the sandbox from outside: its record tells of it."""
        if self._watched:
            self._watched.recorded = recorder.taken_back

    def news(self) -> list[TakenBack]:
        """What was done to the sandbox from outside since the last time that this was asked for."""
        if self._watched is None:
            return []
        news, self._watched.news = self._watched.news, []
        return news

    @property
    def is_open(self) -> bool:
        """Whether there is a sandbox."""
        return self._sandbox is not None

    def another(self) -> OwnWorkplace:
        """Another of the same settings.

        Raises:
            AgentError: this is a branch, which cannot be made again.
        """
        if self._parent is not None:
            raise AgentError("a branch of an agent cannot be a member of a team; give its team the agent itself")
        return OwnWorkplace(self._make, self.authorized_imports, self.tool_names, self._watcher)

    async def discard(self) -> None:
        """Closes the sandbox; the next use makes another, with no variables."""
        sandbox, loop, watched = self._sandbox, self._loop, self._watched
        self._forget()
        if sandbox is None or loop is None or loop.is_closed():
            return
        if loop is asyncio.get_running_loop():
            await self._end(sandbox, watched)
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._end(sandbox, watched), loop))

    async def _end(self, sandbox: AnySandbox, watched: Watched | None) -> None:
        try:
            await sandbox.close()
        finally:
            if self._watcher and watched:
                await self._watcher.closed(watched)

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

    def _keep(self, sandbox: AnySandbox, loop: asyncio.AbstractEventLoop) -> None:
        self._sandbox, self._loop = sandbox, loop
        # Registered by hand, so that it runs before the exit handlers of what was there first: the loop's thread.
        self._at_exit = _AtExit(sandbox, loop)
        self._release = weakref.finalize(self, _close_as_garbage, self._at_exit, sandbox, loop)
        self._release.atexit = False

    def _forget(self) -> None:
        if self._release is not None:
            self._release.detach()
        if self._at_exit is not None:
            self._at_exit.unregister()
        self._sandbox = self._loop = self._release = self._at_exit = self._parent = self._watched = None


def _no_other() -> AnySandbox:
    raise AgentError("the branch that this agent worked in has failed; make another of the agent it came from")


# Begun where garbage was noticed, in whatever thread. Nobody waits there: the loop may be waiting for that very thread.
_closings: set[Future[None]] = set()


def _close_from_anywhere(sandbox: AnySandbox, loop: asyncio.AbstractEventLoop) -> None:
    """Begins to close it, from any thread, the loop's own included."""
    if not loop.is_running():  # an ended asyncio.run: nobody can speak to that sandbox any more; its lease ends it
        return
    closing = asyncio.run_coroutine_threadsafe(sandbox.close(), loop)
    _closings.add(closing)
    closing.add_done_callback(_closings.discard)


class _AtExit:
    """Closes a sandbox at the end of the process, unless it is closed before."""

    def __init__(self, sandbox: AnySandbox, loop: asyncio.AbstractEventLoop) -> None:
        self._sandbox, self._loop = sandbox, loop
        atexit.register(self._close)

    def unregister(self) -> None:
        """There is nothing left to do."""
        atexit.unregister(self._close)

    def _close(self) -> None:
        """Whatever has been begun, is waited for."""
        _close_from_anywhere(self._sandbox, self._loop)
        wait(set(_closings), _EXIT_SECONDS)


def _close_as_garbage(at_exit: _AtExit, sandbox: AnySandbox, loop: asyncio.AbstractEventLoop) -> None:
    at_exit.unregister()
    _close_from_anywhere(sandbox, loop)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


Workplace = BorrowedWorkplace | OwnWorkplace


def workplace_of(
    sandbox: AnySandbox | Sandbox | SandboxSettings | None,
    tools: Mapping[str, Tool],
    imports: Sequence[str] | None,
    approve: Approve | None,
) -> Workplace:
    """The place where an agent with these tools and additional imports works; see ``CodeAgent``.

    Raises:
        AgentError: the arguments do not fit together.
    """
    if isinstance(sandbox, AnySandbox | Sandbox):
        if approve is not None:
            raise AgentError("approve: give it to the sandbox")
        if imports:
            raise AgentError("additional_authorized_imports: give them to the sandbox, as its authorized_imports")
        lent = sandbox if isinstance(sandbox, AnySandbox) else sandbox.asynchronous
        return BorrowedWorkplace(lent, frozenset(tools))
    settings = SandboxSettings() if sandbox is None else sandbox
    if not isinstance(settings, SandboxSettings):
        raise AgentError(f"sandbox: give a Sandbox, an AsyncSandbox or SandboxSettings, not {settings!r}")
    if approve is not None and not callable(approve):
        raise AgentError(f"approve: {approve!r} cannot be called")
    if approve is not None:
        if settings.approve is not None:
            raise AgentError("approve: it is given twice, here and in the settings of the sandbox")
        settings = replace(settings, approve=approve)
    functions, rules = taped(tools.values()), import_rules(imports or ())
    return OwnWorkplace(lambda: settings.make(functions, rules), rules, frozenset(tools), settings.watcher)
