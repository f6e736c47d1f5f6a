"""What is recorded of the service's own doing, as frozen dataclasses: tokens, runs, decisions. See ``records``.

``token`` and ``by`` are names of tokens; ``local`` is the user of the socket.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from orchestrator.audit.chain import digest
from orchestrator.audit.records import Happening


@dataclass(frozen=True, slots=True)
class ServiceStarted(Happening):
    """It is about to serve. After another one without a ``service_stopped`` between them: that one was killed."""

    version: str


@dataclass(frozen=True, slots=True)
class ServiceStopped(Happening):
    """It has ended in good order."""


@dataclass(frozen=True, slots=True)
class TokenCreated(Happening):
    """One was made, and is about to be shown. What is None is not limited."""

    token: str
    by: str
    scopes: tuple[str, ...]
    sandboxes: int | None
    cpu_ms: int | None
    run_ms: int | None
    lifetime_ms: int | None


@dataclass(frozen=True, slots=True)
class TokenRevoked(Happening):
    """One is about to be good for nothing."""

    token: str
    by: str


@dataclass(frozen=True, slots=True)
class TokenUsedUp(Happening):
    """What it may use of something today is used up; told once a day and quota, when something is first refused."""

    token: str
    quota: str


@dataclass(frozen=True, slots=True)
class RunBegun(Happening):
    """An agent is about to work. ``steps``: that it goes on after; more than 0 after a resumption or a crash."""

    run: str
    owner: str
    agent: str
    task_sha256: str
    task_bytes: int
    steps: int

    @classmethod
    def of(cls, run: str, owner: str, agent: str, task: str, steps: int) -> Self:
        """Of a run as it is in the store."""
        data = task.encode("utf-8", "surrogatepass")
        return cls(run, owner, agent, digest(data), len(data), steps)


@dataclass(frozen=True, slots=True)
class RunInterrupted(Happening):
    """Somebody asks for that. It is done whether it can be recorded or not."""

    run: str
    by: str


@dataclass(frozen=True, slots=True)
class RunResumed(Happening):
    """Somebody asks for that, of a run that can be gone on with."""

    run: str
    by: str


@dataclass(frozen=True, slots=True)
class RunEnded(Happening):
    """It has. ``reason``: who or what interrupted it, or the name of the error that it failed with."""

    run: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class QuestionDecided(Happening):
    """What the policy wanted to be asked about, is about to be done or refused. ``by`` is empty if nobody answered."""

    run: str
    question: str
    approved: bool
    by: str
