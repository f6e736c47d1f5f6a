"""A sandbox for tests that runs code in this process, tools and variables included. For code of the tests alone."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import io
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.agents import SandboxSettings
from orchestrator.events import Execution, ExecutionError, ExecutionEvent, FinalAnswer, Logs, State, Status
from orchestrator.sandbox.encoding import encode
from orchestrator.sandbox.grants import HostTool
from orchestrator.sandbox.values import decode
from orchestrator.tools import Tool
from tests.unit.fake_sandbox import FakeSandbox


class LocalSandbox(FakeSandbox):
    """Each action runs whole, in a thread; what the tools are called with and give travels as it would."""

    def __init__(self, tools: Sequence[Callable[..., Any]] = (), **more: Any) -> None:
        super().__init__(tools=tools, **more)
        self._functions = [HostTool.of(tool) for tool in tools]
        self.names: dict[str, Any] = {}
        self.answers: list[FinalAnswer] = []

    async def stream(
        self, code: str, *, timeout: float | None = None, variables: Mapping[str, Any] | None = None
    ) -> AsyncGenerator[ExecutionEvent, None]:
        self._check_open()
        self.codes.append(code)
        self.names |= {name: decode(encode(value, name)) for name, value in (variables or {}).items()}
        yield self._finished(await asyncio.to_thread(self._run, code))

    def _run(self, code: str) -> Execution:
        names = self.names | {tool.name: self._function(tool) for tool in self._functions}
        names["final_answer"] = lambda value: self.answers.append(FinalAnswer(value))
        self.names, self.answers, out = names, [], io.StringIO()
        tree = ast.parse(code)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        try:
            with contextlib.redirect_stdout(out):
                exec(compile(tree, "code", "exec"), names)
                value = eval(compile(ast.Expression(last.value), "code", "eval"), names) if last else None
        except Exception as error:  # noqa: BLE001 - whatever the code raises
            told = ExecutionError(type(error).__name__, str(error))
            return Execution(Status.ERROR, State.KEPT, 1, logs=Logs(out.getvalue()), error=told)
        answer = self.answers[0] if self.answers else None
        plain = value if isinstance(value, int | str | list) else None
        text = None if value is None else repr(value)
        return Execution(Status.OK, State.KEPT, 1, plain, text, Logs(out.getvalue()), final_answer=answer)

    def _function(self, tool: HostTool) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            value = tool.call(*args, **kwargs)
            if tool.awaitable:
                value = asyncio.run(value)
            return decode(encode(value, f"the result of {tool.name}()"))

        return call


@dataclass(frozen=True)
class LocalSettings(SandboxSettings):
    """Makes them for an agent to own, and keeps them in ``made``."""

    made: list[LocalSandbox] = field(default_factory=list)

    def make(self, tools: Sequence[Tool], authorized_imports: Sequence[str]) -> LocalSandbox:
        self.made.append(LocalSandbox(tools, authorized_imports=authorized_imports))
        return self.made[-1]
