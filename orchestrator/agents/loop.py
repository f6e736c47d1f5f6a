"""The step loop: read it top to bottom.

    memory -> messages -> model -> reply -> action -> outcome -> memory, until an answer or the end of the steps

What an action is, and how it is carried out, is the subclass's part (``_act``). Nothing here does I/O by itself.
"""

from __future__ import annotations

import contextlib
import keyword
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, TypeVar, overload

from orchestrator.agents.callbacks import CallbackRegistry, FinalAnswerCheck, StepCallbacks, failed_check
from orchestrator.agents.interruption import Interruption
from orchestrator.agents.memory import ActionStep, AgentMemory, FinalAnswerStep, StepError, Stopwatch, TaskStep
from orchestrator.agents.prompts import last_answer_prompt
from orchestrator.agents.run import AgentEvent, StepStarted, run_result
from orchestrator.errors import AgentError
from orchestrator.events import Execution, FinalAnswer
from orchestrator.models import ChatMessage, Model, ModelReply, TokenUsage
from orchestrator.sandbox import Portal
from orchestrator.sanitise import sanitise

Step = TypeVar("Step", TaskStep, ActionStep)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What carrying out a reply came to; the fields are those of ``ActionStep``."""

    model_output: str
    code_action: str | None = None
    observations: str | None = None
    remarks: str = ""
    error: StepError | None = None
    execution: Execution | None = None
    action_output: Any = None
    final_answer: FinalAnswer | None = None


class MultiStepAgent(ABC):
    """Works on a task in steps until it has an answer.

    ``run`` blocks, ``arun`` is awaited, ``astream`` yields typed events; one run at a time. With ``reset=False`` a run
    continues the conversation of the one before. Close it, or use it as a context manager: it may own a sandbox.

    Args:
        model: continues the conversation.
        system_prompt: the first message of every conversation.
        max_steps: steps of one run; after them the model is asked once for its answer.
        step_callbacks: a list of callables for each ``ActionStep``, or a dict from type of step to such. Called as
            ``f(step)`` or ``f(step, agent=agent)`` once the step is in memory; one that raises ends the run.
        final_answer_checks: called as ``f(answer, memory)`` or ``f(answer, memory, agent=agent)``; if one gives a false
            value or raises, the answer is not taken, the model is told, and the run goes on.
        return_full_result: ``run`` gives a ``RunResult`` instead of the answer alone.
        name: what the agent is called, a Python identifier.
        description: what it is good at.

    Attributes:
        memory: everything that happened; kept when a run raises, so that it can go on with ``reset=False``.
    """

    def __init__(
        self,
        model: Model,
        *,
        system_prompt: str,
        max_steps: int = 20,
        step_callbacks: StepCallbacks | None = None,
        final_answer_checks: Sequence[FinalAnswerCheck] | None = None,
        return_full_result: bool = False,
        name: str | None = None,
        description: str | None = None,
    ) -> None:
        if name is not None and (not name.isidentifier() or keyword.iskeyword(name)):
            raise AgentError(f"name {name!r} must be a Python identifier: managers call agents by it")
        self.model = model
        self.max_steps = checked_max_steps(max_steps)
        self.name = name
        self.description = description
        self.return_full_result = return_full_result
        self.memory = AgentMemory(system_prompt)
        self._callbacks = CallbackRegistry(step_callbacks)
        self._checks = tuple(final_answer_checks or ())
        self._interruption: Interruption | None = None  # of the run under way

    # The loop.

    async def astream(
        self, task: str, *, reset: bool = True, max_steps: int | None = None
    ) -> AsyncGenerator[AgentEvent, None]:
        """Works on ``task`` and yields what happens as it happens; the last event is a ``FinalAnswerStep``.

        Leaving it early (``aclosing``, a cancelled task) stops the model call or the execution under way.

        Args:
            task: what to do, in words.
            reset: forget the conversation so far. Variables in the sandbox stay either way.
            max_steps: for this run instead of the agent's own.

        Raises:
            AgentInterrupted: ``interrupt()`` was called.
            AgentError: another run is under way, or the agent is closed.
            ModelError: the model failed, after retries. The memory is kept.
            SandboxError, EngineError: the sandbox failed, not the code in it. The memory is kept.
        """
        limit = self.max_steps if max_steps is None else checked_max_steps(max_steps)
        with self._one_run() as interruption:
            await interruption.guard(self._open())
            if reset:
                self.memory.reset()
            yield await self._remember(TaskStep(checked_task(task)))
            async with aclosing(self._steps(limit, interruption)) as events:
                async for event in events:
                    yield event

    async def _steps(self, limit: int, interruption: Interruption) -> AsyncGenerator[AgentEvent, None]:
        for number in range(1, limit + 1):
            interruption.check()
            yield StepStarted(number, limit)
            async with aclosing(self._step(number, interruption)) as events:
                async for event in events:
                    yield event
                    if isinstance(event, ActionStep) and event.is_final_answer:
                        yield await self._finish(FinalAnswerStep(event.action_output))
                        return
        interruption.check()
        last = await self._remember(await self._last_answer(limit + 1, interruption))
        yield last
        yield await self._finish(FinalAnswerStep(last.action_output, "max_steps_error"))

    async def _step(self, number: int, interruption: Interruption) -> AsyncGenerator[AgentEvent, None]:
        """One turn. Its ``ActionStep``, already in memory, is the last event."""
        watch = Stopwatch()
        reply = await self._ask(self.write_memory_to_messages(), self._stop_sequences(), interruption)
        async with aclosing(self._act(reply.text, interruption)) as events:
            async for event in events:
                if isinstance(event, Outcome):
                    outcome = await self._checked(event)
                    yield await self._remember(_action_step(number, watch, outcome, reply.token_usage))
                else:
                    yield event

    async def _ask(
        self, messages: Sequence[ChatMessage], stop_sequences: Sequence[str], interruption: Interruption
    ) -> ModelReply:
        return await interruption.guard(self.model.generate(messages, stop_sequences))

    async def _checked(self, outcome: Outcome) -> Outcome:
        """The outcome; its final answer is turned into an error if a check does not accept it."""
        if outcome.final_answer is None:
            return outcome
        problem = await failed_check(self._checks, outcome.final_answer.value, self.memory, self)
        if problem is None:
            return outcome
        return replace(outcome, final_answer=None, error=StepError("final_answer_check", sanitise(problem)))

    async def _last_answer(self, number: int, interruption: Interruption) -> ActionStep:
        """The steps are used up: what the model says when asked once, in plain text. No check is applied to it."""
        watch = Stopwatch()
        question = ChatMessage("user", last_answer_prompt())
        reply = await self._ask([*self.write_memory_to_messages(), question], (), interruption)
        outcome = Outcome(reply.text, action_output=reply.text.strip())
        return _action_step(number, watch, outcome, reply.token_usage)

    async def _remember(self, step: Step) -> Step:
        self.memory.append(step)
        await self._callbacks(step, self)
        return step

    async def _finish(self, step: FinalAnswerStep) -> FinalAnswerStep:
        await self._callbacks(step, self)
        return step

    # What a kind of agent adds.

    @abstractmethod
    async def _open(self) -> None:
        """Makes ready what the run needs, before the model is asked: what cannot start should cost no tokens."""

    @abstractmethod
    def _stop_sequences(self) -> Sequence[str]:
        """Where a reply of the model ends."""

    @abstractmethod
    def _act(self, reply: str, interruption: Interruption) -> AsyncGenerator[AgentEvent | Outcome, None]:
        """Carries out the model's reply: yields what happens, and one ``Outcome`` in the end."""

    # The faces of a run.

    def write_memory_to_messages(self) -> list[ChatMessage]:
        """The conversation so far, as the model is shown it."""
        return self.memory.to_messages()

    def interrupt(self) -> None:
        """Ends the run under way: it raises ``AgentInterrupted``, a model call is cancelled, an execution stopped.

        From any thread. Without a run under way it does nothing.
        """
        interruption = self._interruption
        if interruption is not None:
            interruption.ask()

    async def arun(
        self,
        task: str,
        *,
        reset: bool = True,
        max_steps: int | None = None,
        return_full_result: bool | None = None,
    ) -> Any:
        """Works on ``task`` and gives the final answer, or a ``RunResult``. Arguments and errors as in ``run``."""
        watch = Stopwatch()
        async with aclosing(self.astream(task, reset=reset, max_steps=max_steps)) as stream:
            events = [event async for event in stream if isinstance(event, (ActionStep, FinalAnswerStep))]
        result = run_result(events, self.memory, watch.timing())
        full = self.return_full_result if return_full_result is None else return_full_result
        return result if full else result.output

    @overload
    def run(
        self, task: str, stream: Literal[True], reset: bool = True, *, max_steps: int | None = None
    ) -> Iterator[AgentEvent]: ...
    @overload
    def run(
        self,
        task: str,
        stream: bool = False,
        reset: bool = True,
        *,
        max_steps: int | None = None,
        return_full_result: bool | None = None,
    ) -> Any: ...
    def run(
        self,
        task: str,
        stream: bool = False,
        reset: bool = True,
        *,
        max_steps: int | None = None,
        return_full_result: bool | None = None,
    ) -> Any:
        """Works on ``task`` and gives the final answer. Blocks; from a coroutine, await ``arun`` instead.

        Args:
            task: what to do, in words.
            stream: give an iterator over the run's events instead; closing it ends the run.
            reset: forget the conversation so far. Variables in the sandbox stay either way.
            max_steps: for this run instead of the agent's own.
            return_full_result: give a ``RunResult`` instead of the answer alone; default as the agent was made.

        Raises:
            AgentInterrupted: ``interrupt()`` was called.
            AgentError: another run is under way, or the agent is closed.
            ModelError: the model failed, after retries. The memory is kept.
            SandboxError, EngineError: the sandbox failed, not the code in it. The memory is kept.
        """
        if stream:
            return Portal.iterate(self.astream(task, reset=reset, max_steps=max_steps))
        return Portal.run(self.arun(task, reset=reset, max_steps=max_steps, return_full_result=return_full_result))

    @contextlib.contextmanager
    def _one_run(self) -> Iterator[Interruption]:
        if self._interruption is not None:
            raise AgentError("this agent is at work already; make one agent for each run at a time")
        self._interruption = Interruption()
        try:
            yield self._interruption
        finally:
            self._interruption = None

    # Closing.

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


def _action_step(number: int, watch: Stopwatch, outcome: Outcome, token_usage: TokenUsage | None) -> ActionStep:
    final = outcome.final_answer
    return ActionStep(
        step_number=number,
        timing=watch.timing(),
        model_output=outcome.model_output,
        code_action=outcome.code_action,
        observations=outcome.observations,
        remarks=outcome.remarks,
        error=outcome.error,
        execution=outcome.execution,
        token_usage=token_usage,
        is_final_answer=final is not None,
        action_output=outcome.action_output if final is None else final.value,
    )


def checked_max_steps(max_steps: int) -> int:
    """``max_steps``, if it allows a step.

    Raises:
        AgentError: it does not.
    """
    if max_steps < 1:
        raise AgentError(f"max_steps is {max_steps}; it must be at least 1")
    return max_steps


def checked_task(task: object) -> str:
    """``task``, if it is a text that says something.

    Raises:
        AgentError: it is not.
    """
    if not isinstance(task, str) or not task.strip():
        raise AgentError(f"a task is a text that says what to do, not {task!r}")
    return task
