"""A fake sandbox for tests of the agent loop: no container, executions by script.

It is held to the same behaviours as the real one by tests/e2e/test_agent_sandbox_contract.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.agents import SandboxSettings
from orchestrator.config import Config
from orchestrator.errors import SandboxClosed
from orchestrator.events import (
    Execution,
    ExecutionError,
    ExecutionEvent,
    FinalAnswer,
    Finished,
    Logs,
    Output,
    State,
    Status,
)
from orchestrator.sandbox import AsyncSandbox
from orchestrator.tools import Tool

HANG = "HANG"  # in a script: prints "on" and runs until it is interrupted or cancelled
Scripted = Execution | Exception | Sequence[ExecutionEvent] | str


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
    """Gives the executions of ``script`` in order, and keeps the code that it was to run."""

    def __init__(
        self, script: Iterable[Scripted] = (), *, tools: Sequence[Callable[..., Any]] = (), **more: Any
    ) -> None:
        super().__init__(tools=tools, config=Config(), **({"final_answer": True} | more))
        self.script = list(script)
        self.codes: list[str] = []
        self.running = asyncio.Event()
        self.starts = 0
        self.closes = 0
        self.cancelled = 0
        self._interrupted = asyncio.Event()

    async def start(self) -> None:
        """Counts; a closed one cannot start."""
        if self.closes:
            raise SandboxClosed("this sandbox has been closed")
        self.starts += 1

    async def close(self) -> None:
        """Counts."""
        self.closes += 1

    async def interrupt(self) -> None:
        """Ends a HANG."""
        if self.running.is_set():
            self._interrupted.set()

    async def stream(self, code: str, *, timeout: float | None = None) -> AsyncGenerator[ExecutionEvent, None]:
        """The events of the next execution in the script."""
        self.codes.append(code)
        match self.script.pop(0):
            case Exception() as error:
                raise error
            case Execution() as execution:
                if execution.logs.stdout:
                    yield Output("stdout", execution.logs.stdout)
                yield Finished(execution)
            case str():
                yield Output("stdout", "on\n")
                yield Finished(await self._hang())
            case events:
                for event in events:
                    yield event

    async def _hang(self) -> Execution:
        self._interrupted.clear()
        self.running.set()
        try:
            await self._interrupted.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running.clear()
        return Execution(Status.INTERRUPTED, State.KEPT, 1, error=ExecutionError("KeyboardInterrupt", ""))


@dataclass(frozen=True)
class FakeSettings(SandboxSettings):
    """Makes fake sandboxes for an agent to own, one of each of ``scripts``, and keeps them in ``made``."""

    scripts: list[Sequence[Scripted]] = field(default_factory=list)
    made: list[FakeSandbox] = field(default_factory=list)

    def make(self, tools: Sequence[Tool], authorized_imports: Sequence[str]) -> FakeSandbox:
        """The next one."""
        sandbox = FakeSandbox(self.scripts.pop(0), tools=tools, authorized_imports=authorized_imports)
        self.made.append(sandbox)
        return sandbox
