"""A fake sandbox for tests of the agent loop: no container, executions by script.

It is held to the same behaviours as the real one by tests/e2e/test_agent_sandbox_contract.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.agents import SandboxSettings
from orchestrator.config import Config
from orchestrator.errors import CheckpointError, SandboxClosed
from orchestrator.events import (
    Execution,
    ExecutionError,
    ExecutionEvent,
    Files,
    FinalAnswer,
    Finished,
    Logs,
    Output,
    State,
    Status,
)
from orchestrator.sandbox import AsyncSandbox
from orchestrator.sandbox.state import Checkpoint, Rollback
from orchestrator.sandbox.variables import encoded_variables
from orchestrator.tools import Tool

HANG = "HANG"  # in a script: prints "on" and runs until it is interrupted or cancelled; in forks: never comes
Plays = Callable[[Mapping[str, Any]], Execution]  # with the variables that the sandbox has
Scripted = Execution | Exception | Sequence[ExecutionEvent] | str | Plays


def ran(text: str | None = None, *, stdout: str = "", value: Any = None) -> Execution:
    """An execution that went well."""
    return Execution(Status.OK, State.KEPT, 1, value=value, text=text, logs=Logs(stdout))


def failed(name: str = "ZeroDivisionError", text: str = "division by zero", *, stdout: str = "") -> Execution:
    """One that raised."""
    return Execution(Status.ERROR, State.KEPT, 1, logs=Logs(stdout), error=ExecutionError(name, text))


def answered(value: Any) -> Execution:
    """One that called ``final_answer(value)``."""
    return Execution(Status.OK, State.KEPT, 1, final_answer=FinalAnswer(value))


class FakeSandbox(AsyncSandbox):
    """Gives the executions of ``script`` in order, and keeps the code that it was to run.

    ``forks`` are its branches in order. ``undos`` is what its first calls of ``undo()`` give or raise; a text is the
    reason why the files were kept. After them everything is restored. Counts of executions are given by the sandbox,
    those in the script only say whether one ran (1) or not (0).
    """

    def __init__(
        self,
        script: Iterable[Scripted] = (),
        *,
        forks: Iterable[Sequence[Scripted] | Exception | FakeSandbox] = (),
        undos: Iterable[Rollback | Exception | str] = (),
        tools: Sequence[Callable[..., Any]] = (),
        **more: Any,
    ) -> None:
        self._settings_given = {"tools": tools, "config": Config(), "final_answer": True} | more
        super().__init__(**self._settings_given)
        self.script = list(script)
        self.forks = list(forks)
        self.undos = list(undos)
        self.codes: list[str] = []
        self.running = asyncio.Event()
        self.forking = asyncio.Event()
        self.starts = 0
        self.closes = 0
        self.cancelled = 0
        self.undone = 0  # calls of undo(), those that raised included
        self.forked: list[FakeSandbox] = []
        self._is_executing = False
        self.count = 0  # of executions
        self.line = [0]  # the executions whose ends are the states that led to the present one, oldest first
        self.given: list[dict[str, Any]] = []  # the variables of each execution
        self.variables: dict[str, Any] = {}  # that it was given, as far as they are there
        self.kept: dict[int, dict[str, Any]] = {0: {}}  # those of each execution's end
        self._interrupted = asyncio.Event()

    async def start(self) -> None:
        """Counts; a closed one cannot start."""
        self._check_open()
        self.starts += 1

    async def close(self) -> None:
        """Counts, and closes the branches that are open."""
        self.closes += 1
        for branch in self.branches:
            await branch.close()

    def _check_open(self) -> None:
        if self.closes:
            raise SandboxClosed("this sandbox has been closed")

    async def interrupt(self) -> None:
        """Ends a HANG."""
        if self.running.is_set():
            self._interrupted.set()

    async def stream(
        self, code: str, *, timeout: float | None = None, variables: Mapping[str, Any] | None = None
    ) -> AsyncGenerator[ExecutionEvent, None]:
        """The events of the next execution in the script."""
        self._check_open()
        encoded_variables(variables, self.tool_names)
        self.codes.append(code)
        self.given.append(dict(variables or {}))
        self.variables |= variables or {}
        self._is_executing = True
        try:
            async with aclosing(self._played(self.script.pop(0))) as events:
                async for event in events:
                    yield event
        finally:
            self._is_executing = False

    @property
    def is_executing(self) -> bool:
        """From the beginning of its events to their end."""
        return self._is_executing

    async def _played(self, scripted: Scripted) -> AsyncGenerator[ExecutionEvent, None]:
        match scripted(self.variables) if callable(scripted) else scripted:
            case Exception() as error:
                raise error
            case Execution() as execution:
                if execution.logs.stdout:
                    yield Output("stdout", execution.logs.stdout)
                yield self._finished(execution)
            case str():
                self._interrupted.clear()
                self.running.set()
                try:
                    yield Output("stdout", "on\n")
                    execution = await self._hang()
                finally:
                    self.running.clear()
                yield self._finished(execution)
            case events:
                for event in events:
                    yield self._finished(event.execution) if isinstance(event, Finished) else event

    def _finished(self, execution: Execution) -> Finished:
        if execution.execution_count == 0:
            return Finished(execution)
        self.count += 1
        match execution.state:
            case State.KEPT:
                self.line.append(self.count)
                self.kept[self.count] = dict(self.variables)
            case State.LOST:
                self.line = [execution.restored_to or 0]
                self.variables = dict(self.kept[self.line[-1]])
        return Finished(replace(execution, execution_count=self.count))

    async def _hang(self) -> Execution:
        try:
            await self._interrupted.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return Execution(Status.INTERRUPTED, State.KEPT, 1, error=ExecutionError("KeyboardInterrupt", ""))

    async def undo(self, execution: int | None = None) -> Rollback:
        """Goes back one execution, or does what ``undos`` says."""
        self._check_open()
        self.undone += 1
        outcome = self.undos.pop(0) if self.undos else ""
        if isinstance(outcome, Exception):
            raise outcome
        if isinstance(outcome, Rollback):
            return outcome
        if execution not in (None, self.line[-1]):
            raise CheckpointError(f"the present state is not that of execution {execution} any more")
        if len(self.line) == 1:
            raise CheckpointError("there is no state before this one")
        self.line.pop()
        self.variables = dict(self.kept[self.line[-1]])
        return Rollback(
            Checkpoint(number=len(self.line), name="", execution_count=self.line[-1], is_current=True),
            Files.KEPT if outcome else Files.RESTORED,
            outcome,
        )

    async def fork(self, at: Checkpoint | str | int | None = None) -> FakeSandbox:
        """The next of ``forks``, in the present state."""
        self._check_open()
        outcome = self.forks.pop(0) if self.forks else ()
        if isinstance(outcome, Exception):
            raise outcome
        if outcome == HANG:
            self.forking.set()
            await asyncio.Event().wait()
        branch = outcome if isinstance(outcome, FakeSandbox) else FakeSandbox(outcome, **self._settings_given)
        branch.starts, branch.count, branch.line = 1, self.count, list(self.line)
        branch.variables, branch.kept = dict(self.variables), dict(self.kept)
        self.forked.append(branch)
        return branch

    @property
    def branches(self) -> tuple[FakeSandbox, ...]:
        """The branches that are open."""
        return tuple(branch for branch in self.forked if not branch.closes)


@dataclass(frozen=True)
class FakeSettings(SandboxSettings):
    """Makes fake sandboxes for an agent to own, one of each of ``scripts``, and keeps them in ``made``.

    ``more`` are further arguments of each ``FakeSandbox``.
    """

    scripts: list[Sequence[Scripted]] = field(default_factory=list)
    made: list[FakeSandbox] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)

    def make(self, tools: Sequence[Tool], authorized_imports: Sequence[str]) -> FakeSandbox:
        """The next one."""
        sandbox = FakeSandbox(self.scripts.pop(0), tools=tools, authorized_imports=authorized_imports, **self.more)
        self.made.append(sandbox)
        return sandbox
