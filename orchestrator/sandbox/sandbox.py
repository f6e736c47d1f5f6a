"""The sandbox: run Python, statefully, in its own container. ``blocking.Sandbox`` is the face of it that blocks."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Self

from executor_api.v1 import executor_pb2 as pb

from orchestrator.config import Config, Limits
from orchestrator.errors import (
    CheckpointError,
    EngineError,
    ProtocolViolation,
    SandboxClosed,
    SandboxDied,
)
from orchestrator.events import Execution, ExecutionEvent, Finished, Output
from orchestrator.policy import import_rules
from orchestrator.sandbox.calls import HostTools
from orchestrator.sandbox.container import collect_garbage, in_engine_thread
from orchestrator.sandbox.environment import budgets, checked_env
from orchestrator.sandbox.execution import Conversation, encoded, serving
from orchestrator.sandbox.files import AsyncFiles
from orchestrator.sandbox.isolation import Isolation
from orchestrator.sandbox.link import Link
from orchestrator.sandbox.session import Phase
from orchestrator.sandbox.state import (
    Checkpoint,
    Rollback,
    Which,
    ask,
    checkpoint_of,
    name_bytes,
    only,
    rollback_of,
    target,
)
from orchestrator.stack.image import image_tag

HOST_MARGIN = 20.0  # seconds that the executor may take beyond timeout and grace before it counts as dead
ABANDON_DEADLINE = 10.0  # seconds to stop an execution that nobody waits for any more
_FAILURES = (SandboxDied, ProtocolViolation, TimeoutError)

OnText = Callable[[str], object]


class AsyncSandbox:
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

    Raises:
        ConfigError: an argument is out of range or of the wrong form.
        ToolError: a tool cannot be used as one.

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
    ) -> None:
        config = config or Config.load()
        seconds = config.timeout if timeout is None else timeout
        self._config = replace(config, limits=limits or config.limits, timeout=seconds)
        self._tools = HostTools(tools)
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

        A second time does nothing.
        """
        self._closed = True
        if self in self._family:
            self._family.remove(self)
        await self._discard()

    async def reset(self) -> None:
        """A fresh container: variables, files, checkpoints and branches are gone.

        Raises:
            CheckpointError: this is a branch; its container is that of the sandbox that it was forked from.
        """
        if self._is_branch:
            raise CheckpointError("a branch has no container of its own to replace; fork another")
        async with self._lock:
            self._require_open()
            await self._discard()
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
            sweeping = asyncio.ensure_future(in_engine_thread(collect_garbage, self._config))
            try:
                self._link = await Link.start(self._config, self._config.image or image_tag(), self._settings)
                if self._closed:  # while it started
                    await self._discard()
                    self._require_open()
            finally:
                with suppress(EngineError):  # what dead owners left is swept beside the start, and is no reason to fail
                    await sweeping
        return self._link

    def _require_open(self) -> None:
        if self._closed:
            raise SandboxClosed("this sandbox has been closed")

    async def _discard(self) -> None:
        link, self._link = self._link, None
        self._forkable = True
        if not self._is_branch:
            for branch in list(self._family):
                await branch.close()
        if link:
            await link.close()

    @asynccontextmanager
    async def _use(self) -> AsyncIterator[Link]:
        """The running link, alone. A failure of the executor removes the container and is told as what it is."""
        if self._link and self._link.channel in serving.get():
            raise RuntimeError("a tool cannot use the sandbox whose code waits for it; give it another sandbox")
        async with self._lock:
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

        A failure of the code is in the result (``error``, ``status``), not raised.

        Raises:
            SandboxDied: the container went away meanwhile; what the code did is unknown, and it is not run again.
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
        seconds = replace(self._config, timeout=timeout).timeout if timeout is not None else self._config.timeout
        source = encoded(code)
        if isinstance(source, Execution):
            yield Finished(source)
            return
        async with self._use() as link:
            deadline = asyncio.get_running_loop().time() + seconds + self._config.grace + HOST_MARGIN
            talk = Conversation(link.channel, self._tools, seconds, deadline)
            self._conversation = talk
            try:
                async with aclosing(talk.events(source)) as events:
                    async for event in events:
                        if isinstance(event, Finished):
                            self._forkable = talk.forkable
                            if talk.spent:
                                await self._discard()  # the next execution begins in a new container
                        yield event
            finally:
                self._conversation = None

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
                    await self._discard()
        except _FAILURES:
            await self._lose()

    # ------------------------------------------------------------------------------------------------------ states

    @property
    def forkable(self) -> bool:
        """False while threads of the code are alive: no checkpoint and no branch can be made of such a process."""
        return self._forkable

    @property
    def branches(self) -> tuple[Self, ...]:
        """Every open branch in this sandbox's container, whoever forked it, but this one itself."""
        return tuple(branch for branch in self._family if branch is not self)

    async def checkpoint(self, name: str = "") -> Checkpoint:
        """Keeps the present state until it is dropped, also when newer ones push older ones out.

        Args:
            name: to go back by; not used by another one; at most 200 bytes. Without, the answer or the count will do.

        Raises:
            CheckpointError: the name is used, threads of the code are alive, or there is no room.
            SandboxDied: the container went away.
        """
        request = pb.Checkpoint(name=name_bytes(name))
        async with self._use() as link:
            return checkpoint_of(only(await ask(link, f"checkpoint({name!r})", checkpoint=request)), link.container.id)

    async def rollback(self, to: Which) -> Rollback:
        """Goes back to a checkpoint, as often as wanted: variables, and the workspace if it is part of it.

        Args:
            to: a ``Checkpoint``, a name, or an execution's count: the state at that execution's end, 0 the first one.

        Raises:
            CheckpointError: there is no such checkpoint (the message lists what there is), or it cannot be woken.
            SandboxDied: the container went away.
        """
        named = to if isinstance(to, Checkpoint) else repr(to)
        return await self._rollback(lambda container: pb.Rollback(to=target(to, container)), f"rollback({named})")

    async def undo(self, execution: int | None = None) -> Rollback:
        """Goes back to the state that the present one came from: before the last execution.

        Args:
            execution: the count of the execution to take back, where others may have run code since: nothing happens
                if the present state is another's.

        Raises:
            CheckpointError: that state is not kept any more (the message lists what there is), there is none, or the
                present one is of another execution.
            SandboxDied: the container went away.
        """
        request = pb.Rollback(to=pb.Target(before_last=True), only_from=execution)
        return await self._rollback(lambda _: request, "undo()")

    async def _rollback(self, request: Callable[[str], pb.Rollback], what: str) -> Rollback:
        async with self._use() as link:
            container = link.container.id
            rollback = rollback_of(await ask(link, what, rollback=request(container)), container)
            self._forkable = True  # a checkpoint has no threads
            return rollback

    async def checkpoints(self) -> list[Checkpoint]:
        """Every state that is kept, oldest first, with the memory that it alone holds. Takes some milliseconds each."""
        async with self._use() as link:
            reply = await ask(link, "checkpoints", list_checkpoints=pb.ListCheckpoints())
            return [checkpoint_of(info, link.container.id) for info in reply.checkpoints]

    async def drop(self, checkpoint: Which) -> None:
        """Lets a checkpoint go, and with it the memory that it alone holds.

        That of the present state stays, unnamed, until newer ones push it out: a killed execution goes back to it.

        Raises:
            CheckpointError: there is no such checkpoint.
            SandboxDied: the container went away.
        """
        async with self._use() as link:
            request = pb.DropCheckpoint(target=target(checkpoint, link.container.id))
            await ask(link, f"drop({checkpoint!r})", drop_checkpoint=request)

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
            reply = await ask(link, "fork()", fork=request)
            branch = copy.copy(self)
            branch._become_branch(await link.branch(reply.forked))
        self._family.append(branch)
        return branch

    def _become_branch(self, link: Link) -> None:
        """This copy of a sandbox gets what is its own."""
        self._link = link
        self._is_branch = True
        self._forkable = True
        self._conversation = None
        self._lock = asyncio.Lock()
        self.files = AsyncFiles(self._use)

    async def _lose(self) -> None:
        self._lost = True
        await self._discard()

    async def interrupt(self) -> None:
        """Stops the execution under way, if there is one; it ends with status INTERRUPTED."""
        if self._conversation and self._link:
            self._link.channel.write(pb.HostMessage(interrupt=pb.Interrupt(id=self._conversation.id)))
