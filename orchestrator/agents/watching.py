"""Agents' own sandboxes, seen from outside: who is told of them, and what may be done to them there.

Whoever watches may look at a sandbox, stop what runs in it, and take it back to an earlier state. Of the latter the
agent is told: its model would go on with variables that are not there any more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.agents.steps import ActionStep, KeptStep, NoteStep
from orchestrator.events import Files
from orchestrator.sandbox.any_sandbox import AnySandbox
from orchestrator.sandbox.state import Rollback


@dataclass(frozen=True, slots=True)
class TakenBack:
    """A sandbox was, while its agent was not looking.

    Attributes:
        to: the execution whose end's state it has again; 0 for the first one.
        at: the last execution until then. What came after ``to``, up to it, is not in the state any more.
        files: whether the workspace went back, too.
    """

    to: int
    at: int
    files: bool


@dataclass(slots=True)
class Watched:
    """An agent's sandbox as a watcher has it, from its start to its end.

    Attributes:
        sandbox: it; to be closed by its agent alone.
        count: the number of the last execution.
        news: what the agent has not been told yet.
        recorded: writes down that it was taken back, where the agent's record tells of it.
        entered: called before each execution, in its context: for what is to be known in its tools and logs.
    """

    sandbox: AnySandbox
    count: int = 0
    news: list[TakenBack] = field(default_factory=list)
    recorded: Callable[[TakenBack], Awaitable[None]] | None = None
    entered: Callable[[], object] = lambda: None

    async def take_back(self, back: Callable[[], Awaitable[Rollback]]) -> Rollback:
        """Has ``back``, a rollback of the sandbox's, done; the agent is told before its model is asked again.

        It is in the agent's record when this returns: who goes on with that after a crash does not undo it.
        """
        done = await back()
        taken = TakenBack(done.checkpoint.execution_count, self.count, done.files is Files.RESTORED)
        self.news.append(taken)
        if self.recorded:
            await self.recorded(taken)
        return done


class Watcher(Protocol):
    """Is told of the sandboxes that an agent makes for itself. What it raises, the agent's run raises."""

    async def opened(self, watched: Watched) -> None:
        """It is up, and nothing has run in it."""

    async def closed(self, watched: Watched) -> None:
        """It is gone. Not told where nobody can wait for it: of an agent that was left to the garbage collector."""


@dataclass(slots=True)
class Handed:
    """The variables that a sandbox's executions were given, by the executions' numbers."""

    by_count: dict[int, Mapping[str, Any]] = field(default_factory=dict)

    def taken_back(self, back: TakenBack) -> dict[str, Any]:
        """Those that went with what was taken back; they are forgotten here."""
        gone = [count for count in sorted(self.by_count) if back.to < count <= back.at]
        return {name: value for count in gone for name, value in self.by_count.pop(count).items()}


def told_of(back: TakenBack, steps: Iterable[KeptStep]) -> NoteStep:
    """What the model is told of it. ``steps`` are those that it remembers of this very sandbox."""
    found = [step for step in steps if isinstance(step, ActionStep) and step.execution]
    step = next((step for step in found if step.execution and step.execution.execution_count == back.to), None)
    when = f"after step {step.step_number}" if step else "after an earlier step" if back.to else "in the beginning"
    state = "Variables and files are" if back.files else "Variables are"
    files = "" if back.files else " Files are as later steps have left them."
    return NoteStep(
        f"Somebody else has taken the Python state back. {state} as they were {when}: what later code did to them is "
        f"gone.{files} Do again what you need of it."
    )
