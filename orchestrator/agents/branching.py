"""Best of n: branches of one agent try the same task at the same time, a judge picks one, the others are closed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Generic, TypeVar

from orchestrator.agents.callbacks import call
from orchestrator.agents.given import checked_max_steps, checked_task
from orchestrator.agents.interruption import Interruption
from orchestrator.agents.loop import MultiStepAgent
from orchestrator.agents.run import RunResult
from orchestrator.errors import AgentError
from orchestrator.sanitise import one_line

# As many as the executor allows in one container, whose memory and cpus they share: with more they would rather take
# turns than work side by side.
MAX_BRANCHES = 16
MAX_FAILURE_LENGTH = 200  # characters of one branch's failure in a message that names them all

Agent = TypeVar("Agent", bound=MultiStepAgent)
Judge = Callable[[RunResult], float | Awaitable[float]]


@dataclass(frozen=True, slots=True)
class Best(Generic[Agent]):
    """The outcome of ``best_of``.

    Attributes:
        agent: the winner, with the memory and the variables of its run. Open; whoever got it closes it.
        result: what its run gave.
        index: its place in ``outcomes``, from 0.
        outcomes: of every branch: its result, or the exception that ended its run.
        scores: what the judge gave for each; None for a branch that came to no result.
    """

    agent: Agent
    result: RunResult
    index: int
    outcomes: tuple[RunResult | Exception, ...]
    scores: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Contest:
    """What the branches are to do; arguments as of ``CodeAgent.best_of``.

    Raises:
        AgentError: an argument cannot be right. Found here, before there is a branch that would cost something.
    """

    n: int
    task: str
    judge: Judge
    max_steps: int | None = None
    reset: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.n, bool) or not isinstance(self.n, int) or not 1 <= self.n <= MAX_BRANCHES:
            raise AgentError(f"n is {self.n!r}; it must be a whole number from 1 to {MAX_BRANCHES}")
        checked_task(self.task)
        if self.max_steps is not None:
            checked_max_steps(self.max_steps)
        if not callable(self.judge):
            raise AgentError(f"judge: {self.judge!r} cannot be called")


async def best_of(branch: Callable[[], Awaitable[Agent]], contest: Contest, interruption: Interruption) -> Best[Agent]:
    """Makes the branches with ``branch``, lets them work, and closes all but the best. In any failure closes them all.

    Raises:
        AgentError: no branch came to a result, or the judge gave no number.
        AgentInterrupted: by ``interruption``.
        Whatever ``branch`` or the judge raise.
    """
    agents: list[Agent] = []
    try:
        for _ in range(contest.n):
            agents.append(await branch())
        best = await interruption.guard(_picked(agents, contest))
        await asyncio.gather(*(agent.aclose() for agent in agents if agent is not best.agent))
    except BaseException:  # a cancelled caller, too, has no agent that it could close
        await asyncio.gather(*(agent.aclose() for agent in agents), return_exceptions=True)
        raise
    return best


async def _picked(agents: Sequence[Agent], contest: Contest) -> Best[Agent]:
    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(_outcome(agent, contest)) for agent in agents]
    outcomes = tuple(run.result() for run in runs)
    candidates = {at: outcome for at, outcome in enumerate(outcomes) if isinstance(outcome, RunResult)}
    if not candidates:
        failures = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        raise AgentError(_told(failures)) from ExceptionGroup("what ended the branches", failures)
    scores = {at: await _score(contest.judge, result) for at, result in candidates.items()}
    index = max(scores, key=lambda at: scores[at])  # the first of equals
    return Best(agents[index], candidates[index], index, outcomes, tuple(map(scores.get, range(len(agents)))))


async def _outcome(agent: MultiStepAgent, contest: Contest) -> RunResult | Exception:
    try:
        result: RunResult = await agent.arun(
            contest.task, reset=contest.reset, max_steps=contest.max_steps, return_full_result=True
        )
    except Exception as error:  # noqa: BLE001 - whatever ended this run, the others are no worse for it
        return error
    return result


async def _score(judge: Judge, result: RunResult) -> float:
    score = await call(judge, result)
    if not isinstance(score, Real) or score != score:  # NaN is the one number that is not itself, and has no rank
        raise AgentError(f"the judge gave {one_line(repr(score), MAX_FAILURE_LENGTH)}; it must give a number")
    return score  # type: ignore[return-value]  # any real number has a rank; typing knows no Real


def _told(failures: Sequence[Exception]) -> str:
    told = "; ".join(
        one_line(f"{at}: {type(failure).__name__}: {failure}", MAX_FAILURE_LENGTH)
        for at, failure in enumerate(failures)
    )
    return f"no branch came to a result: {told}"
