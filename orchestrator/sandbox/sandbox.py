"""The sandbox: run Python, statefully, in its own container. ``blocking.Sandbox`` is the face of it that blocks."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Self

from executor_api.v1 import executor_pb2 as pb

from orchestrator.audit import Journal
from orchestrator.audit.records import SandboxEnded, SandboxRefused
from orchestrator.config import Config, Limits
from orchestrator.errors import (
    AuditError,
    CheckpointError,
    EngineError,
    ProtocolViolation,
    SandboxClosed,
    SandboxDied,
    SandboxError,
)
from orchestrator.events import Execution, ExecutionEvent, Finished, Output
from orchestrator.policy import Approve, import_rules, top_level
from orchestrator.sandbox.approval import Approver
from orchestrator.sandbox.calls import ToolHost
from orchestrator.sandbox.environment import budgets, checked_env
from orchestrator.sandbox.execution import MAX_NESTED, Conversation, serving, with_ledger
from orchestrator.sandbox.files import AsyncFiles
from orchestrator.sandbox.foreign import Foreign
from orchestrator.sandbox.gate import Gate
from orchestrator.sandbox.grants import HostTools
from orchestrator.sandbox.isolation import Isolation
from orchestrator.sandbox.leftovers import sweep
from orchestrator.sandbox.link import Link
from orchestrator.sandbox.session import Phase
from orchestrator.sandbox.state import Which, forked_of, target
from orchestrator.sandbox.states import States
from orchestrator.stack.image import image_tag

HOST_MARGIN = 20.0  # seconds that the executor may take beyond timeout and grace before it counts as dead
ABANDON_DEADLINE = 10.0  # seconds to stop an execution that nobody waits for any more
_FAILURES = (SandboxDied, ProtocolViolation, TimeoutError)

OnText = Callable[[str], object]


class AsyncSandbox(States):
    """One container for one user's session; used once, never handed on.

    Args:
        authorized_imports: added to the default list. ``"pkg"`` allows pkg alone, ``"pkg.*"`` its submodules too,
            ``"*"`` everything that is installed.
        tools: host callables, sync or async; the code sees them as plain functions. They run on the host.
        limits: of the container. Default: ``config.limits``.
        timeout: seconds for one execution. Default: ``config.timeout`` (30).
        env: environment variables of the code. No place for secrets: the code can read them.
        config: all other settings. Default: ``Config.load()``.
        final_answer: ``final_answer(value)`` exists in the sandbox and ends the execution.
        tool_timeout: seconds for one call of a tool that sets none of its own. Default: ``config.tool_timeout`` (60).
        approve: asked before each execution with an ``ExecutionRequest`` and before each tool call with a
            ``ToolCallRequest``, sync or async. Gives True, False, or ``Verdict(False, "why")``; whatever else it does
            (it raises, it takes longer than ``config.approval_timeout``) counts as no.

    Raises:
        ConfigError: an argument is out of range or of the wrong form.
        ToolError: a tool cannot be used as one.

    With ``config.audit`` set, what happens is recorded there first; every method that would do something which cannot
    be recorded raises AuditError instead.

    The container is started by ``async with``, ``start()`` or the first use, and removed by ``close()``; without either
    it ends with this process. Variables persist from one ``run_code`` to the next.
    """

    def __init__(
        self,
        *,
        authorized_imports: Iterable[str] = (),
        tools: Iterable[Callable[..., Any]] = (),
        limits: Limits | None = None,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        config: Config | None = None,
        final_answer: bool = False,
        tool_timeout: float | None = None,
        approve: Approve | None = None,
    ) -> None:
        config = config or Config.load()
        self._config = config = replace(
            config,
            limits=limits or config.limits,
            timeout=config.timeout if timeout is None else timeout,
            tool_timeout=config.tool_timeout if tool_timeout is None else tool_timeout,
        )
        self._tools = HostTools(tools, config)
        self._approver = Approver(approve, config.approval_timeout)
        self._foreign = Foreign()  # where tools run
        self._journal = Journal.at(config.audit)
        self._gate = Gate(self._approver)
        self._rules = import_rules(authorized_imports)
        self._final_answer = final_answer
        self._settings = {
            "import_rules": self._rules,
            "tools": self._tools.specs(),
            "final_answer": final_answer,
            "env": checked_env(env or {}),
            **budgets(self._config),
        }
        self._link: Link | None = None
        self._conversation: Conversation | None = None
        self._lock = asyncio.Lock()  # one execution or file request at a time
        self._not_starting = _set_event()
        self._closed = False
        self._lost = False
        self._forkable = True
        self._is_branch = False
        self._family: list[Self] = []  # all open branches of the container; one list for all of them
        self.files = AsyncFiles(self._use)

    # -------------------------------------------------------------------------------------------------------- life

    async def start(self) -> None:
        """Starts the container; does nothing if it runs.

        Raises:
            EngineUnavailable, EnginePermission, ImageMissing: the engine cannot.
            SandboxStartError: the container did not come up, or came up without a restriction (IsolationError).
        """
        async with self._lock:
            await self._started()

    async def close(self) -> None:
        """Removes the container, and closes every branch in it. Of a branch, ends that branch alone.

        A start under way is waited for, and fails with SandboxClosed. A second time does nothing.
        """
        self._closed = True
        if self in self._family:
            self._family.remove(self)
        await self._not_starting.wait()
        await self._discard("closed")

    async def reset(self) -> None:
        """A fresh container: variables, files, checkpoints and branches are gone.

        Raises:
            CheckpointError: this is a branch; its container is that of the sandbox that it was forked from.
        """
        if self._is_branch:
            raise CheckpointError("a branch has no container of its own to replace; fork another")
        async with self._lock:
            self._require_open()
            await self._discard("reset")
            self._lost = False
            await self._started()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def is_running(self) -> bool:
        """True if the container has been started and nothing has ended it."""
        return self._link is not None

    @property
    def has_final_answer(self) -> bool:
        """True if ``final_answer(value)`` exists in this sandbox."""
        return self._final_answer

    @property
    def tool_names(self) -> frozenset[str]:
        """The names of the host tools that this sandbox may call."""
        return self._tools.names

    @property
    def authorized_imports(self) -> tuple[str, ...]:
        """The whole allowlist: the default and what was added."""
        return self._rules

    async def _started(self) -> Link:
        self._require_open()
        if self._lost and not self._is_branch:
            raise SandboxDied("this sandbox's container is gone; reset() gives it a new one, with no variables")
        if self._link is None:
            if self._is_branch:
                raise SandboxDied("the container of this branch is gone; fork another from a sandbox that runs")
            self._not_starting.clear()
            try:
                await self._start()
            finally:
                self._not_starting.set()
        assert self._link
        return self._link

    async def _start(self) -> None:
        sweeping = asyncio.create_task(sweep(self._config))
        try:
            await self._keep(await self._new_link())
            await sweeping
            self._require_open()  # it may have been closed while it started
        except BaseException as error:  # also cancelled: nobody may know of it who would close it
            await self._discard_quietly(_reason(error))
            raise

    async def _new_link(self) -> Link:
        try:
            image, packages = self._config.image or image_tag(), top_level(self._rules)
            return await Link.start(self._config, image, packages, self._settings)
        except (EngineError, SandboxError) as error:
            await self._journal.record(SandboxRefused(type(error).__name__))
            raise

    async def _keep(self, link: Link) -> None:
        """From now on this is its container; or it is removed again, if that cannot be recorded or nobody wants it."""
        self._link = link
        parent = self._journal.sandbox if link.is_branch else ""
        self._journal = self._journal.named(link.name)
        try:
            await self._journal.record(link.started(parent))
            self._require_open()
        except BaseException as error:
            await self._discard_quietly(_reason(error))
            raise

    def _require_open(self) -> None:
        if self._closed:
            raise SandboxClosed("this sandbox has been closed")

    async def _discard(self, reason: str, *, patiently: bool = True) -> None:
        link, self._link = self._link, None
        self._forkable = True
        try:
            if not self._is_branch:
                for branch in list(self._family):
                    await branch.close()
        finally:
            if link:
                await self._end(link, reason, patiently)

    async def _end(self, link: Link, reason: str, patiently: bool) -> None:
        try:
            await (link.close() if patiently else link.abandon())
        finally:
            await self._journal.record(SandboxEnded(reason))

    async def _discard_quietly(self, reason: str) -> None:
        """What the engine fails to remove is removed later, and is no answer to what the caller asked for."""
        with suppress(EngineError):
            await self._discard(reason, patiently=False)

    @asynccontextmanager
    async def _use(self) -> AsyncIterator[Link]:
        """The running link, alone. A failure of the executor removes the container and is told as what it is."""
        if self._link and self._link.channel in serving.get():
            raise RuntimeError("a tool cannot use the sandbox whose code waits for it; give it another sandbox")
        if len(serving.get()) >= MAX_NESTED:
            raise RuntimeError(f"{MAX_NESTED} tools wait for each other's sandboxes; they may use no further one")
        async with self._lock:
            link = await self._started()
            if link.channel.session.phase is not Phase.IDLE:  # whoever should have seen to that was cancelled there
                await self._abandon(link)
                link = await self._started()
            try:
                yield link
            except _FAILURES as error:
                await self._lose()
                self._require_open()  # closed meanwhile: that is why
                if isinstance(error, TimeoutError):
                    error = SandboxDied("the executor did not answer in time; its container has been removed")
                raise error from None
            finally:
                if self._link is link and link.channel.session.phase is not Phase.IDLE:
                    await self._abandon(link)

    async def isolation(self) -> Isolation:
        """What was found in force, from inside, when the container came up."""
        async with self._use() as link:
            return link.isolation

    # --------------------------------------------------------------------------------------------------- executing

    async def run_code(
        self,
        code: str,
        *,
        timeout: float | None = None,
        on_stdout: OnText | None = None,
        on_stderr: OnText | None = None,
    ) -> Execution:
        """Runs one action and waits for its end. ``on_stdout`` and ``on_stderr`` get text as it is written.

        A failure of the code is in the result (``error``, ``status``), not raised; so is the refusal of an approver.

        Raises:
            SandboxDied: the container went away meanwhile; what the code did is unknown, and it is not run again.
            OutcomeUnknown: the same, while tools ran for the code; its ``tool_calls`` say which.
            AuditError: something could not be recorded. If that was the beginning, nothing was run; else the execution
                was stopped, or its outcome is lost.
        """
        handlers = {"stdout": on_stdout, "stderr": on_stderr}
        events = self.stream(code, timeout=timeout)
        try:
            async for event in events:
                match event:
                    case Output(stream, text) if handler := handlers[stream]:
                        handler(text)
                    case Finished(execution):
                        return execution
        finally:
            await events.aclose()
        raise SandboxDied("the execution ended without a result")

    async def stream(self, code: str, *, timeout: float | None = None) -> AsyncGenerator[ExecutionEvent, None]:
        """Runs one action and yields what happens: Output, ToolCall, ToolOutcome, at last Finished.

        Closing the generator early interrupts the execution.
        """
        config = self._config if timeout is None else replace(self._config, timeout=timeout)
        source = await self._gate.passed(code, config.timeout, self._journal.record)
        if isinstance(source, Execution):
            yield Finished(source)
            return
        talk: Conversation | None = None
        try:
            async with self._use() as link:
                host = ToolHost(self._tools, self._approver, self._foreign, self._journal.record)
                self._conversation = talk = Conversation(link.channel, host, config, HOST_MARGIN)
                try:
                    async with aclosing(talk.events(source)) as events:
                        async for event in events:
                            if isinstance(event, Finished):
                                self._forkable = talk.forkable
                                if talk.spent:
                                    await self._discard_quietly("spent")  # the next execution begins in a new container
                            yield event
                finally:
                    self._conversation = None
        except (SandboxError, AuditError) as error:
            raise with_ledger(error, talk.calls) if talk else error  # noqa: B904 - it has its cause already

    async def _abandon(self, link: Link) -> None:
        """Nobody waits for this operation any more: it is stopped, and what it still says is read and dropped."""
        channel = link.channel
        try:
            async with asyncio.timeout(ABANDON_DEADLINE + self._config.grace):
                channel.write(pb.HostMessage(interrupt=pb.Interrupt(id=channel.session.execution)))
                while channel.session.phase is not Phase.IDLE:
                    message = await channel.read()
                if message.HasField("finished"):
                    self._forkable = message.finished.forkable
                if message.finished.spent:
                    await self._discard_quietly("spent")
        except _FAILURES:
            await self._lose()

    # ---------------------------------------------------------------------------------------------------- branches

    @property
    def branches(self) -> tuple[Self, ...]:
        """Every open branch in this sandbox's container, whoever forked it, but this one itself."""
        return tuple(branch for branch in self._family if branch is not self)

    async def fork(self, at: Which | None = None) -> Self:
        """A branch: a sandbox of its own in the same container, which begins in the present state or in a checkpoint.

        It has its own variables, its own copy of the workspace, its own checkpoints and executions, and runs at the
        same time as its parent. Memory, processors and processes are shared with it. Whoever forks it closes it.

        Args:
            at: a checkpoint to begin in; as for ``rollback``.

        Raises:
            CheckpointError: there is no such checkpoint, threads of the code are alive, the workspace is too large to
                be copied, or there is no room for another branch.
            SandboxDied: the container went away.
        """
        async with self._use() as link:
            request = pb.Fork(at=target(at, link.container.id) if at is not None else None)
            reply = await self._change(link, "fork()", fork=request)
            branch = copy.copy(self)
            branch._become_branch()
            await branch._keep(await link.branch(forked_of(reply)))
        self._family.append(branch)
        return branch

    def _become_branch(self) -> None:
        """This copy of a sandbox gets what is its own."""
        self._is_branch = True
        self._forkable = True
        self._conversation = None
        self._gate = Gate(self._approver)
        self._lock = asyncio.Lock()
        self._not_starting = _set_event()
        self.files = AsyncFiles(self._use)

    async def _lose(self) -> None:
        self._lost = True
        await self._discard_quietly("lost")

    async def interrupt(self) -> None:
        """Stops the execution under way, if there is one; it ends with status INTERRUPTED.

        One that waits for its approval is refused.
        """
        self._gate.interrupt()
        if self._conversation and self._link:
            self._conversation.interrupt()


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


def _reason(error: BaseException) -> str:
    """Why a sandbox ended, for records."""
    return "closed" if isinstance(error, SandboxClosed) else type(error).__name__
