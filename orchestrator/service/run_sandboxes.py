"""The sandboxes that a run's agents work in, among all others of the service, from their start to their end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from orchestrator.agents.watching import Watched, Watcher
from orchestrator.config import parse_size
from orchestrator.sandbox.sandbox import AsyncSandbox
from orchestrator.service.app_tools import Place, place
from orchestrator.service.executions import Counted
from orchestrator.service.registry import Held, Registry


@dataclass(frozen=True, slots=True)
class RunSandboxes:
    """Those of one run.

    Attributes:
        registry: where all are.
        run: its id.
        owner: whose it is.
        counted: as of ``Executions``, for code that somebody runs in a branch.
        told: of each that is open: the agent's name, empty for the run's own, and the sandbox's id.
    """

    registry: Registry
    run: str
    owner: str
    counted: Counted
    told: Callable[[str, str], None]

    def watcher(self, agent: str) -> Watcher:
        """For the sandboxes of that member of the team; empty: of the run's own agent."""
        return _Watcher(self, agent)


@dataclass(eq=False, slots=True)
class _Watcher:
    """Of one agent and its copies, of which each call of a member is one."""

    all: RunSandboxes
    agent: str
    open: dict[int, Held] = field(default_factory=dict)  # by the ids of the objects that are watched

    async def opened(self, watched: Watched) -> None:
        """It is listed from now on; what is logged by whoever works in it, has its id."""
        sandbox, run = watched.sandbox, self.all
        assert isinstance(sandbox, AsyncSandbox)  # agents of settings make no others
        disk = parse_size(sandbox.limits.disk)
        held = Held(sandbox, run.owner, disk, run=run.run, counted=run.counted, watched=watched)
        self.open[id(watched)] = run.registry.add(held)
        watched.entered = partial(place.set, Place(held.id, run.run))
        run.told(self.agent, held.id)

    async def closed(self, watched: Watched) -> None:
        """It is not, and its branches are not."""
        held = self.open.pop(id(watched), None)
        if held:
            await self.all.registry.forget(held)
