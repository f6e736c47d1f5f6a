"""The sandbox: run Python, statefully, in its own container. ``blocking.Sandbox`` is the face of it that blocks."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Self

from executor_api.v1 import executor_pb2 as pb

from orchestrator.config import Config, Limits
from orchestrator.errors import AuditError, SandboxError
from orchestrator.events import Execution, ExecutionEvent, Finished
from orchestrator.policy import Approve, ExecutionRequest, import_rules
from orchestrator.sandbox.approval import Approver
from orchestrator.sandbox.calls import ToolHost
from orchestrator.sandbox.environment import budgets, checked_env
from orchestrator.sandbox.execution import Conversation, with_ledger
from orchestrator.sandbox.foreign import Foreign
from orchestrator.sandbox.gate import Gate
from orchestrator.sandbox.grants import HostTools
from orchestrator.sandbox.life import Life
from orchestrator.sandbox.state import Which, forked_of, target
from orchestrator.sandbox.variables import encoded_variables

# Seconds that the executor may take beyond timeout and grace before it counts as dead; its own deadlines come to 17.
HOST_MARGIN = 25.0


class AsyncSandbox(Life):
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
        config = replace(
            config,
            limits=limits or config.limits,
            timeout=config.timeout if timeout is None else timeout,
            tool_timeout=config.tool_timeout if tool_timeout is None else tool_timeout,
        )
        self._tools = HostTools(tools, config)
        self._approver = Approver(approve, config.approval_timeout)  # before super().__init__, which calls _renew
        self._foreign = Foreign()  # where tools run
        self._final_answer = final_answer
        rules = import_rules(authorized_imports)
        settings = {
            "import_rules": rules,
            "tools": self._tools.specs(),
            "final_answer": final_answer,
            "env": checked_env(env or {}),
            **budgets(config),
        }
        super().__init__(config, rules, settings)

    def _renew(self) -> None:
        super()._renew()
        self._gate = Gate(self._approver)
        self._conversation: Conversation | None = None

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

    # --------------------------------------------------------------------------------------------------- executing

    @property
    def is_executing(self) -> bool:
        """True while code runs in it."""
        return self._conversation is not None

    async def stream(
        self, code: str, *, timeout: float | None = None, variables: Mapping[str, Any] | None = None
    ) -> AsyncGenerator[ExecutionEvent, None]:
        """Runs one action and yields what happens: Output, ToolCall, ToolOutcome, at last Finished.

        Closing the generator early interrupts the execution. Arguments and errors as of ``run_code``.
        """
        config = self._config if timeout is None else replace(self._config, timeout=timeout)
        given = encoded_variables(variables, self.tool_names)
        request = ExecutionRequest(code, config.timeout, variables or {})
        if self._approver.asks:
            async with self._use():  # nobody is asked about code that has nowhere to run; and records name the place
                pass
        source = await self._gate.passed(request, self._journal.record)
        if isinstance(source, Execution):
            yield Finished(source)
            return
        talk: Conversation | None = None
        try:
            async with self._use() as link:
                host = ToolHost(self._tools, self._approver, self._foreign, self._journal.record)
                self._conversation = talk = Conversation(link.channel, host, config, HOST_MARGIN)
                try:
                    async with aclosing(talk.events(source, given)) as events:
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
            branch._is_branch = True
            branch._renew()
            await branch._keep(await link.branch(forked_of(reply)))
        self._family.append(branch)
        return branch

    def revoke_tools(self) -> None:
        """From now on its code may call none: each call is refused. Of a branch, of that branch alone."""
        self._tools = HostTools((), self._config)

    async def interrupt(self) -> None:
        """Stops the execution under way, if there is one; it ends with status INTERRUPTED.

        One that waits for its approval is refused.
        """
        self._gate.interrupt()
        if self._conversation and self._link:
            self._conversation.interrupt()
