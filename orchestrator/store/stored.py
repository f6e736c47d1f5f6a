"""What is in the store, as frozen dataclasses. Times are in seconds since the epoch; 0 stands for "not yet"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.events import RunState


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run of an agent.

    Attributes:
        id: unique among all runs.
        agent: its name in the settings.
        task: what the agent was told.
        owner: the token's name, "local" for the user of the socket.
        state: what has become of it.
        created: when it was asked for.
        started: when its agent began.
        ended: when it ended.
        steps: how many have ended.
        events: the number of the last one; only ``Store.append`` changes it.
        input_tokens: of all model calls.
        output_tokens: the same.
        error: what ended it, in words; empty if nothing did.
        answer: the final answer as JSON; empty: none.
        record: the path of the file that the agent records itself in; empty: none.
        app_tools: names of the app's functions that it was begun with, with commas between them.
        recoveries: how often it was gone on with after a crash since a step of it has ended.
    """

    id: str
    agent: str
    task: str
    owner: str
    state: RunState = RunState.QUEUED
    created: float = 0.0
    started: float = 0.0
    ended: float = 0.0
    steps: int = 0
    events: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    error: str = ""
    answer: bytes = b""
    record: str = ""
    app_tools: str = ""
    recoveries: int = 0


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event of a run, as event_json.py writes it. ``number`` counts from 1 in each run."""

    number: int
    time: float
    json: bytes


@dataclass(frozen=True, slots=True)
class StoredToken:
    """What a caller proves its name with.

    Attributes:
        name: of whoever calls with it. One that was ever given is not given again: runs and usage belong to it.
        hash: of the token, in hexadecimal.
        scopes: what it may be used for.
        quotas: how much of what, by name.
        created: when.
        revoked: when; 0 if it is good.
    """

    name: str
    hash: str
    scopes: frozenset[str]
    quotas: Mapping[str, float] = field(default_factory=dict, hash=False)
    created: float = 0.0
    revoked: float = 0.0


@dataclass(frozen=True, slots=True)
class StoredUsage:
    """What was used under one name: processor seconds, seconds of runs."""

    cpu_seconds: float = 0.0
    run_seconds: float = 0.0
