"""Calls what the developer hung into the loop: step callbacks, checks of the final answer, a judge; sync or async.

Sync ones run in a thread of their own, one after the other: one that blocks (a prompt to a human, a database) must not
stop the event loop on which the sandbox's connection lives, nor use up a pool that others wait for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from orchestrator.agents.memory import AgentMemory
from orchestrator.agents.observation import MAX_ERROR_LENGTH, shown
from orchestrator.agents.steps import ActionStep, FinalAnswerStep, KeptStep, NoteStep, PlanningStep, TaskStep
from orchestrator.errors import AgentError
from orchestrator.sandbox.foreign import Foreign, Raised, words_of
from orchestrator.sandbox.grants import is_async

Callback = Callable[..., Any]
StepCallbacks = Sequence[Callback] | Mapping[type[Any], Callback | Sequence[Callback]]
FinalAnswerCheck = Callable[..., Any]
_STEPS = (TaskStep, PlanningStep, ActionStep, NoteStep, FinalAnswerStep)
STEPS_BY_NAME: Mapping[str, type[Any]] = {step.__name__: step for step in _STEPS}


class CallbackRegistry:
    """Step callbacks by the type of step: a list is for ``ActionStep``, a dict says which for which.

    Raises:
        AgentError: neither, or something in it is no callable or no type of step.
    """

    def __init__(self, given: StepCallbacks | None) -> None:
        by_type = given if isinstance(given, Mapping) else {ActionStep: () if given is None else given}
        self._callbacks: list[tuple[type[Any], Callback]] = []
        for step_type, callbacks in by_type.items():
            if step_type not in _STEPS:
                known = ", ".join(step.__name__ for step in _STEPS)
                raise AgentError(f"step_callbacks: {step_type!r} is no type of step; there are {known}")
            for callback in callables("step_callbacks", [callbacks] if callable(callbacks) else callbacks):
                self._callbacks.append((step_type, callback))

    def register(self, step_type: type[Any], callback: Callback) -> None:
        """Adds one, from the next step on.

        Raises:
            AgentError: it cannot be called, or there is no such type of step.
        """
        self._callbacks += CallbackRegistry({step_type: callback})._callbacks

    @property
    def registered(self) -> tuple[tuple[type[Any], Callback], ...]:
        """Each with the type of step that it is for, in the order they were given."""
        return tuple(self._callbacks)

    async def __call__(self, step: KeptStep | FinalAnswerStep, agent: object) -> None:
        """Calls those for this step, in the order they were given. What one raises ends the run."""
        for step_type, callback in self.registered:
            if isinstance(step, step_type):
                await _call(callback, (step,), agent)


def checked_checks(checks: Sequence[FinalAnswerCheck] | None) -> tuple[FinalAnswerCheck, ...]:
    """The ``final_answer_checks``.

    Raises:
        AgentError: they are no list, or one cannot be called.
    """
    return callables("final_answer_checks", () if checks is None else checks)


def callables(name: str, given: object) -> tuple[Callback, ...]:
    """What there is in a list of callables.

    Raises:
        AgentError: it is no list, or something else is in it.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise AgentError(f"{name} is a list, also for a single one, not {given!r}")
    found = tuple(given)
    for one in found:
        if not callable(one):
            raise AgentError(f"{name}: {one!r} cannot be called")
    return found


async def failed_check(
    checks: Sequence[FinalAnswerCheck], answer: Any, memory: AgentMemory, agent: object
) -> str | None:
    """Why ``answer`` is not accepted, by the first check that says False or raises; None if all accept it."""
    for check in checks:
        name = getattr(check, "__name__", type(check).__name__)
        try:
            accepted = bool(await _call(check, (answer, memory), agent))
        except Exception as error:  # noqa: BLE001 - a check may say no by any exception, as in smolagents
            return shown(f"Check {name} failed with error: {words_of(error)}", MAX_ERROR_LENGTH)
        if not accepted:
            return f"Check {name} did not accept the final answer."
    return None


async def _call(function: Callable[..., Any], arguments: tuple[Any, ...], agent: object) -> Any:
    """Calls it with ``arguments``, and with ``agent`` if it takes one more or has a place of that name."""
    positional, named = arguments, {}
    if _takes_agent_by_name(function):
        named = {"agent": agent}
    elif _places(function) > len(arguments):
        positional = (*arguments, agent)
    return await call(function, *positional, **named)


async def call(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Calls it, sync or async; a sync one in a thread of its own, which may block for as long as it likes.

    What it raises is raised, but for what would end the event loop or be lost in it.

    Raises:
        AgentError: it raised SystemExit, KeyboardInterrupt or StopIteration, say.
    """
    work = partial(function, *arguments, **named)
    try:
        return await Foreign().run(work, is_async=is_async(function), seconds=None)
    except Raised as raised:
        error = raised.error
        if isinstance(error, Exception) and not isinstance(error, (StopIteration, StopAsyncIteration)):
            raise error from error.__cause__
        name = getattr(function, "__qualname__", type(function).__name__)
        raise AgentError(f"{name} raised {type(error).__name__}, which only ends the run") from error


def _takes_agent_by_name(function: Callable[..., Any]) -> bool:
    parameters = _parameters(function)
    return any(p.kind is p.VAR_KEYWORD or (p.name == "agent" and p.kind is not p.POSITIONAL_ONLY) for p in parameters)


def _places(function: Callable[..., Any]) -> int:
    """How many arguments it must be given by place."""
    required = [p for p in _parameters(function) if p.default is p.empty]
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in required)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except ValueError:  # some builtins do not tell
        return []
