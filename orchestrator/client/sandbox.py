"""A sandbox at an orchestrator service, with the face of ``AsyncSandbox``."""

from __future__ import annotations

import asyncio
import contextvars
import copy
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Self

from orchestrator_api.v1 import orchestrator_pb2 as pb

from orchestrator.client import sandbox_messages as messages
from orchestrator.client.connection import START_SECONDS, TURN_SECONDS, AsyncConnection, new_key
from orchestrator.client.files import RemoteFiles
from orchestrator.client.ledger import Ledger
from orchestrator.client.tools import Served, ToolStream, specs_of
from orchestrator.config import Config, Limits
from orchestrator.errors import (
    AuditError,
    CellblockError,
    CheckpointError,
    NotFound,
    ProtocolViolation,
    SandboxClosed,
    SandboxDied,
    SandboxError,
    ServiceUnavailable,
)
from orchestrator.events import Execution, ExecutionEvent, Finished
from orchestrator.policy import Approve, import_rules
from orchestrator.sandbox.any_sandbox import AnySandbox
from orchestrator.sandbox.approval import Approver
from orchestrator.sandbox.environment import checked_env
from orchestrator.sandbox.execution import MAX_NESTED, encoded, serving
from orchestrator.sandbox.grants import HostTools
from orchestrator.sandbox.isolation import Isolation
from orchestrator.sandbox.state import Checkpoint, Rollback, Which, name_bytes
from orchestrator.sandbox.variables import encoded_variables

_DEFAULTS = Config()  # of the ranges that arguments are held to; the settings are the service's
_LONGEST_ANSWER = 86400.0  # seconds for an approver: the service has its own bound


class RemoteSandbox(AnySandbox):
    """A sandbox that a service has for this app: the arguments, methods and errors of ``AsyncSandbox``.

    There is no ``config``: all other settings are the service's. Made by ``AsyncClient.sandbox``. Tools and the
    approver run here, in the app. With ``pool``, the name of a pool of the service's, it is one that may be ready
    already: its settings are the pool's, and known once it has been started. Its errors are those of ``AsyncSandbox``,
    and besides

    Raises:
        ServiceUnavailable: the service has been gone for longer than the client is patient.
        AccessDenied: the token may not do this.
        Overloaded: the service has no room now.
        NotFound: it has no such pool.
        ConfigError: with ``pool`` there are other arguments than ``final_answer``, or the pool has none.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        *,
        authorized_imports: Iterable[str] = (),
        tools: Iterable[Callable[..., Any]] = (),
        limits: Limits | None = None,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        final_answer: bool = False,
        tool_timeout: float | None = None,
        approve: Approve | None = None,
        pool: str = "",
    ) -> None:
        additional = (authorized_imports,) if isinstance(authorized_imports, str) else tuple(authorized_imports)
        self._rules = import_rules(authorized_imports if isinstance(authorized_imports, str) else additional)
        _check_times(timeout, tool_timeout)
        self._connection = connection
        self._tools = HostTools(tools, replace(_DEFAULTS, limits=limits or _DEFAULTS.limits))
        self._approver = Approver(approve, _LONGEST_ANSWER)
        self._final_answer = final_answer
        self._request = pb.CreateSandbox(
            authorized_imports=additional,
            tools=specs_of(self._tools),
            limits=messages.limits_message(limits),
            timeout_seconds=timeout,
            env=checked_env(env or {}),
            final_answer=final_answer,
            tool_timeout_seconds=tool_timeout,
            approve=self._approver.asks,
            pool=pool,
        )
        messages.require_no_settings(self._request)
        self._stream: ToolStream | None = None
        self._is_branch = False
        self._family: list[Self] = []  # all open branches of the container; one list for all of them
        self._renew()

    def _renew(self) -> None:
        """What a branch has of its own, and its parent had before it."""
        self._id = ""
        self._closed = False
        self._forkable = True
        self._running = False
        self._lock = asyncio.Lock()  # one start or end at a time; executions wait for each other at the service
        self._served = Served(self._tools, self._approver)
        self.files = RemoteFiles(self._connection, self._use)

    @property
    def id(self) -> str:
        """Its name at the service; empty until it has been started."""
        return self._id

    @property
    def is_branch(self) -> bool:
        """It was forked from another one."""
        return self._is_branch

    @property
    def has_final_answer(self) -> bool:
        """True if ``final_answer(value)`` exists in this sandbox."""
        return self._final_answer

    @property
    def tool_names(self) -> frozenset[str]:
        """The names of the app's tools that this sandbox may call."""
        return self._tools.names

    @property
    def authorized_imports(self) -> tuple[str, ...]:
        """The whole allowlist: the default and what was added."""
        return self._rules

    @property
    def is_running(self) -> bool:
        """True if the container has been started and nothing is known to have ended it."""
        return bool(self._id) and self._running

    @property
    def forkable(self) -> bool:
        """As it was at the end of the last execution."""
        return self._forkable

    @property
    def branches(self) -> tuple[Self, ...]:
        """Every open branch in this sandbox's container that this app has forked, but this one itself."""
        return tuple(branch for branch in self._family if branch is not self)

    # -------------------------------------------------------------------------------------------------------- life

    async def start(self) -> None:
        """See ``AsyncSandbox.start``."""
        async with self._lock:
            await self._started()

    async def _started(self) -> str:
        self._require_open()
        if not self._id:
            if self._is_branch:
                raise SandboxDied("the container of this branch is gone; fork another from a sandbox that runs")
            self._stream = await self._connection.tools.open()  # also without tools: it says that the app is there
            self._request.tool_host = self._stream.host
            self._request.key = new_key()
            made = await self._made("Create", self._request, START_SECONDS)
            if self._closed:
                await self._close_at_service(made.id)
            self._require_open()
            self._keep(made)
        return self._id

    async def _made(self, method: str, request: Any, seconds: float) -> pb.Sandbox:
        """A new sandbox or branch; if nobody waits for it any more, it is closed as soon as it is there."""
        asking = asyncio.ensure_future(self._connection.sandboxes(method, request, seconds=seconds))
        try:
            made: pb.Sandbox = await asyncio.shield(asking)
        except asyncio.CancelledError:
            with suppress(CellblockError):
                await self._close_at_service((await asking).id)
            raise
        return made

    def _keep(self, made: pb.Sandbox) -> None:
        self._id, self._running, self._forkable = made.id, True, made.forkable
        if self._request.pool:
            self._rules, self._final_answer = tuple(made.authorized_imports), made.has_final_answer
        self._connection.open_sandboxes.add(self)
        if self._stream:
            self._stream.sandboxes[made.id] = self._served

    async def close(self) -> None:
        """See ``AsyncSandbox.close``. If it is given up, the next one goes on with it."""
        self._closed, self._running = True, False
        async with self._lock:  # a start under way is waited for
            try:
                if self._id:
                    await self._close_at_service(self._id)
            except CellblockError:  # the service closes it when this app is gone
                self._forget_all()
                raise
            self._forget_all()

    async def _close_at_service(self, id: str) -> None:
        with suppress(NotFound):  # the service has been started again since, and has none of before
            await self._connection.sandboxes("Close", pb.SandboxId(id=id), seconds=TURN_SECONDS)

    def _forget(self) -> None:
        if self in self._family:
            self._family.remove(self)
        self._connection.open_sandboxes.discard(self)
        if self._stream:
            self._stream.sandboxes.pop(self._id, None)
        self._id, self._running = "", False

    def _forget_all(self) -> None:
        self._forget()
        if not self._is_branch:
            self._forget_branches()

    def _forget_branches(self) -> None:
        for branch in list(self._family):
            branch._closed = True
            branch._forget()

    async def reset(self) -> None:
        """See ``AsyncSandbox.reset``."""
        if self._is_branch:
            raise CheckpointError("a branch has no container of its own to replace; fork another")
        async with self._lock:
            self._require_open()
            self._forget_branches()
            if self._id:
                await self._reset()
            await self._started()

    async def _reset(self) -> None:
        self._running = False
        metadata = ((messages.KEY_METADATA, new_key()),)
        try:
            request = pb.SandboxId(id=self._id)
            await self._connection.sandboxes("Reset", request, seconds=TURN_SECONDS, metadata=metadata)
            self._running = self._forkable = True
        except NotFound:
            self._forget()

    async def isolation(self) -> Isolation:
        """See ``AsyncSandbox.isolation``."""
        return messages.isolation_of((await self._ask("Isolation", lambda id: pb.SandboxId(id=id))).json)

    def _require_open(self) -> None:
        if self._closed:
            raise SandboxClosed("this sandbox has been closed")

    @asynccontextmanager
    async def _use(self) -> AsyncIterator[str]:
        """The id of the sandbox, started. What the service says of a lost one is told as what it is."""
        if self in serving.get():
            raise RuntimeError("a tool cannot use the sandbox whose code waits for it; give it another sandbox")
        if len(serving.get()) >= MAX_NESTED:
            raise RuntimeError(f"{MAX_NESTED} tools wait for each other's sandboxes; they may use no further one")
        async with self._lock:
            id = await self._started()
        try:
            yield id
        except (SandboxDied, ProtocolViolation, NotFound) as error:
            self._running = False
            self._forkable = True
            self._require_open()  # closed meanwhile: that is why
            if isinstance(error, NotFound):
                raise SandboxDied("the service does not have this sandbox any more; reset() makes another") from None
            raise

    async def _ask(self, method: str, request: Callable[[str], Any]) -> Any:
        """One request that waits for its turn; with a key, so that it is done once."""
        metadata = ((messages.KEY_METADATA, new_key()),)
        async with self._use() as id:
            return await self._connection.sandboxes(method, request(id), seconds=TURN_SECONDS, metadata=metadata)

    # --------------------------------------------------------------------------------------------------- executing

    async def stream(
        self, code: str, *, timeout: float | None = None, variables: Mapping[str, Any] | None = None
    ) -> AsyncGenerator[ExecutionEvent, None]:
        """Runs one action and yields what happens: Output, ToolCall, ToolOutcome, at last Finished.

        Closing the generator early interrupts the execution. Arguments and errors as of ``run_code``.
        """
        _check_times(timeout, None)
        given = encoded_variables(variables, self.tool_names)
        source = encoded(code)
        if isinstance(source, Execution):
            yield Finished(source)
            return
        self._approver.require_free()
        async with self._use() as id:
            execution = pb.Execution(sandbox=id, key=new_key(), code=source, timeout_seconds=timeout, variables=given)
            async with aclosing(self._executed(execution)) as events:
                async for event in events:
                    yield event

    async def _executed(self, execution: pb.Execution) -> AsyncGenerator[ExecutionEvent, None]:
        def request(after: int) -> pb.Execution:
            execution.after = after
            return execution

        self._lend_context()
        ledger, last, is_over = Ledger(), None, False
        events = self._connection.follow("Sandboxes", "Execute", request, on_end=self._note)
        try:
            async for event in events:
                if isinstance(event, Finished):
                    last = event  # whoever has it goes on at once, and the end of the stream has more to say
                    continue
                ledger.add(event)
                yield event
            is_over = True
        except (SandboxError, AuditError, NotFound) as error:
            is_over = True
            raise ledger.told(error) from error.__cause__
        except ServiceUnavailable:
            is_over = True
            if last is None:
                raise
        finally:
            await events.aclose()
            if not is_over:
                await self._abandon(execution)
        if last is None:
            raise SandboxDied("the execution ended without a result")
        yield last

    def _lend_context(self) -> None:
        """Tools and the approver run in the context of whoever runs code, and know whose code waits for them."""
        context = contextvars.copy_context()
        context.run(serving.set, (*serving.get(), self))
        self._served.context = context

    def _note(self, metadata: Mapping[str, Any]) -> None:
        """What the end of an execution says of the sandbox."""
        if forkable := metadata.get(messages.FORKABLE_METADATA):
            self._forkable = forkable == "1"
        if running := metadata.get(messages.RUNNING_METADATA):
            self._running = running == "1"

    async def _abandon(self, execution: pb.Execution) -> None:
        """Nobody waits for it any more: it is stopped, and has stopped after this."""
        metadata = ((messages.EXECUTION_METADATA, execution.key),)
        asking = self._connection.sandboxes("Interrupt", pb.SandboxId(id=execution.sandbox), metadata=metadata)
        with suppress(CellblockError):  # the service interrupts what nobody reads
            await asyncio.shield(asking)

    async def interrupt(self) -> None:
        """See ``AsyncSandbox.interrupt``."""
        if self._id:
            await self._connection.sandboxes("Interrupt", pb.SandboxId(id=self._id))

    # ------------------------------------------------------------------------------------------------------- state

    async def checkpoint(self, name: str = "") -> Checkpoint:
        """See ``AsyncSandbox.checkpoint``."""
        given = name_bytes(name).decode()
        made = await self._ask("Checkpoint", lambda id: pb.MakeCheckpoint(sandbox=id, key=new_key(), name=given))
        return messages.checkpoint_of(made)

    async def checkpoints(self) -> list[Checkpoint]:
        """See ``AsyncSandbox.checkpoints``."""
        kept = await self._ask("ListCheckpoints", lambda id: pb.SandboxId(id=id))
        return [messages.checkpoint_of(info) for info in kept.checkpoints]

    async def rollback(self, to: Which) -> Rollback:
        """See ``AsyncSandbox.rollback``."""
        return await self._rollback(which=messages.which_message(to, ""))

    async def undo(self, execution: int | None = None) -> Rollback:
        """See ``AsyncSandbox.undo``."""
        return await (self._rollback(before_last=True) if execution is None else self._rollback(undo=execution))

    async def _rollback(self, **to: Any) -> Rollback:
        request = pb.RollbackTo(key=new_key(), **to)

        def named(id: str) -> pb.RollbackTo:
            request.sandbox = id
            return request

        rollback = messages.rollback_of(await self._ask("Rollback", named))
        self._forkable = True  # a checkpoint has no threads
        return rollback

    async def drop(self, checkpoint: Which) -> None:
        """See ``AsyncSandbox.drop``."""
        messages.which_message(checkpoint, "")
        await self._ask("DropCheckpoint", lambda id: messages.which_message(checkpoint, id))

    async def fork(self, at: Which | None = None) -> Self:
        """See ``AsyncSandbox.fork``."""
        which = None if at is None else messages.which_message(at, "")
        async with self._use() as id:
            request = pb.ForkAt(sandbox=id, key=new_key(), at=which)
            made = await self._made("Fork", request, TURN_SECONDS)
        branch = copy.copy(self)
        branch._is_branch = True
        branch._renew()
        branch._keep(made)
        self._family.append(branch)
        return branch


def _check_times(timeout: float | None, tool_timeout: float | None) -> None:
    """Raises ConfigError if one is out of range."""
    replace(
        _DEFAULTS,
        timeout=_DEFAULTS.timeout if timeout is None else timeout,
        tool_timeout=_DEFAULTS.tool_timeout if tool_timeout is None else tool_timeout,
    )
