"""The faces of a run: what blocks, what is awaited; and closing. Everything is written once, in ``astream``."""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Literal, Self, overload

from orchestrator.agents.interruption import Interruption
from orchestrator.agents.logger import AgentLogger
from orchestrator.agents.memory import AgentMemory
from orchestrator.agents.run import AgentEvent, RunResult, Tally
from orchestrator.agents.settings import check_kinds
from orchestrator.agents.steps import Stopwatch
from orchestrator.errors import AgentError
from orchestrator.sandbox import Portal

_beginning = threading.Lock()  # two runs may be begun in two threads; held for two lines, so one for all agents will do


class Faces(ABC):
    """Something that works on tasks, one run at a time, and streams what happens."""

    memory: AgentMemory
    logger: AgentLogger
    return_full_result: bool
    _interruption: Interruption | None = None  # of the run under way

    @abstractmethod
    def astream(
        self,
        task: str,
        *,
        reset: bool = True,
        images: Sequence[Any] | None = None,
        additional_args: Mapping[str, Any] | None = None,
        max_steps: int | None = None,
    ) -> AsyncGenerator[AgentEvent, None]:
        """Works on ``task`` and yields what happens."""

    async def arun(
        self,
        task: str,
        *,
        reset: bool = True,
        images: Sequence[Any] | None = None,
        additional_args: Mapping[str, Any] | None = None,
        max_steps: int | None = None,
        return_full_result: bool | None = None,
    ) -> Any:
        """Works on ``task`` and gives the final answer, or a ``RunResult``. Arguments and errors as in ``run``."""
        events = self.astream(task, reset=reset, images=images, additional_args=additional_args, max_steps=max_steps)
        return await self._result_of(events, return_full_result)

    async def _result_of(self, run: AsyncGenerator[AgentEvent, None], return_full_result: bool | None) -> Any:
        """The final answer of ``run``, or its ``RunResult``."""
        full = self.return_full_result if return_full_result is None else return_full_result
        check_kinds(return_full_result=full)
        watch, tally = Stopwatch(), Tally()
        async with aclosing(run) as events:
            async for event in events:
                tally.add(event)
        result: RunResult = tally.result(self.memory, watch.timing())
        return result if full else result.output

    async def _shown(self, run: AsyncGenerator[AgentEvent, None]) -> AsyncGenerator[AgentEvent, None]:
        """The events of ``run``, each once the logger has shown it."""
        async with aclosing(run) as events:
            async for event in events:
                self.logger.show(event)
                yield event

    @overload
    def run(
        self,
        task: str,
        stream: Literal[True],
        reset: bool = True,
        images: Sequence[Any] | None = None,
        additional_args: Mapping[str, Any] | None = None,
        max_steps: int | None = None,
    ) -> Iterator[AgentEvent]: ...
    @overload
    def run(
        self,
        task: str,
        stream: bool = False,
        reset: bool = True,
        images: Sequence[Any] | None = None,
        additional_args: Mapping[str, Any] | None = None,
        max_steps: int | None = None,
        return_full_result: bool | None = None,
    ) -> Any: ...
    def run(
        self,
        task: str,
        stream: bool = False,
        reset: bool = True,
        images: Sequence[Any] | None = None,
        additional_args: Mapping[str, Any] | None = None,
        max_steps: int | None = None,
        return_full_result: bool | None = None,
    ) -> Any:
        """Works on ``task`` and gives the final answer. Blocks; from a coroutine, await ``arun`` instead.

        Args:
            task: what to do, in words.
            stream: give an iterator over the run's events instead; closing it ends the run.
            reset: forget the conversation so far. Variables in the sandbox stay either way.
            images: shown to the model with the task: images of Pillow, ``AgentImage``, paths, or encoded bytes.
            additional_args: name -> value. They become variables in the sandbox; the model is told their names.
            max_steps: for this run instead of the agent's own.
            return_full_result: give a ``RunResult`` instead of the answer alone; default as the agent was made.

        Raises:
            AgentInterrupted: ``interrupt()`` was called.
            AnswerRefused: the steps were used up, and the answer asked for then did not pass ``final_answer_checks``.
            AgentError: another run is under way, the agent is closed, or an argument cannot be right.
            ValueNotPortable: one of ``additional_args`` cannot enter the sandbox.
            ModelError: the model failed, after retries. The memory is kept.
            SandboxError, EngineError: the sandbox failed, not the code in it. The memory is kept.
            AuditError: something could not be recorded, and was not done.
        """
        given: dict[str, Any] = {
            "reset": reset,
            "images": images,
            "additional_args": additional_args,
            "max_steps": max_steps,
        }
        if stream:
            return Portal.iterate(self.astream(task, **given))
        return Portal.run(self.arun(task, return_full_result=return_full_result, **given))

    def interrupt(self) -> None:
        """Ends the run under way: it raises ``AgentInterrupted``, a model call is cancelled, an execution stopped.

        From any thread. Without a run under way it does nothing.
        """
        interruption = self._interruption
        if interruption is not None:
            interruption.ask()

    @property
    def is_at_work(self) -> bool:
        """True while a run is under way."""
        return self._interruption is not None

    @contextlib.contextmanager
    def _one_run(self) -> Iterator[Interruption]:
        interruption = Interruption()
        with _beginning:
            if self._interruption is not None:
                raise AgentError("this agent is at work already; make one agent for each run at a time")
            self._interruption = interruption
        try:
            yield interruption
        finally:
            self._interruption = None

    @abstractmethod
    async def aclose(self) -> None:
        """Releases what the agent owns. Idempotent; it cannot run afterwards if it owned a sandbox."""

    def close(self) -> None:
        """``aclose()``, blocking."""
        Portal.run(self.aclose())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
