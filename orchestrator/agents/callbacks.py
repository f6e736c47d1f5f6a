"""Calls what the developer hung into the loop: step callbacks, checks of the final answer, a judge; sync or async.

Sync ones run in a worker thread, one after the other: one that blocks (a prompt to a human, a database) must not stop
the event loop on which the sandbox's connection lives.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator.agents.memory import ActionStep, AgentMemory, FinalAnswerStep, TaskStep
from orchestrator.errors import AgentError

Callback = Callable[..., Any]
StepCallbacks = Sequence[Callback] | Mapping[type[Any], Callback | Sequence[Callback]]
FinalAnswerCheck = Callable[..., Any]
_STEPS = (TaskStep, ActionStep, FinalAnswerStep)


class CallbackRegistry:
    """Step callbacks by the type of step: a list is for ``ActionStep``, a dict says which for which.

    Raises:
        AgentError: neither, or something in it is no callable or no type of step.
    """

    def __init__(self, given: StepCallbacks | None) -> None:
        by_type = given if isinstance(given, Mapping) else {ActionStep: given or ()}
        self._callbacks: list[tuple[type[Any], Callback]] = []
        for step_type, callbacks in by_type.items():
            if step_type not in _STEPS:
                known = ", ".join(step.__name__ for step in _STEPS)
                raise AgentError(f"step_callbacks: {step_type!r} is no type of step; there are {known}")
            for callback in [callbacks] if callable(callbacks) else callbacks:
                if not callable(callback):
                    raise AgentError(f"step_callbacks: {callback!r} cannot be called")
                self._callbacks.append((step_type, callback))

    async def __call__(self, step: TaskStep | ActionStep | FinalAnswerStep, agent: object) -> None:
        """Calls those for this step, in the order they were given. What one raises ends the run."""
        for step_type, callback in self._callbacks:
            if isinstance(step, step_type):
                await _call(callback, (step,), agent)


async def failed_check(
    checks: Sequence[FinalAnswerCheck], answer: Any, memory: AgentMemory, agent: object
) -> str | None:
    """Why ``answer`` is not accepted, by the first check that says False or raises; None if all accept it."""
    for check in checks:
        name = getattr(check, "__name__", type(check).__name__)
        try:
            accepted = await _call(check, (answer, memory), agent)
        except Exception as error:  # noqa: BLE001 - a check may say no by any exception, as in smolagents
            return f"Check {name} failed with error: {error}"
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
    """Calls it, sync or async; a sync one in a worker thread."""
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        return await function(*arguments, **named)
    result = await asyncio.to_thread(function, *arguments, **named)
    return await result if inspect.isawaitable(result) else result


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
