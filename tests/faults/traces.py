"""Everything that a session may leave on a machine: containers, folders, mounts, control groups, processes."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import docker.errors

from orchestrator import Config
from orchestrator.sandbox import lockdown
from orchestrator.sandbox.engine import engine
from orchestrator.sandbox.leftovers import collect_garbage
from tests.waiting import eventually

DEADLINE = 30.0  # seconds


@dataclass(frozen=True)
class Made:
    """A session that has been begun: what tells its traces from those of others."""

    session: str
    supervisor_uid: int
    runner_uid: int
    places: tuple[str, ...] = ()  # mounts and control groups that the engine has made for it

    @classmethod
    def of(cls, session: lockdown.Session) -> Made:
        return cls(session.id, session.supervisor_uid, session.runner_uid)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def containers(config: Config, session: str) -> list[str]:
    """The ids of what the engine has of a session."""
    label = f"{lockdown.LABEL_SESSION}={session}"
    return [found["Id"] for found in engine(config).containers(all=True, filters={"label": label})]


def places(config: Config, session: str) -> tuple[str, ...]:
    """Where the engine has put what belongs to a session, as long as it says so."""
    found: list[str] = []
    for container in containers(config, session):
        with suppress(docker.errors.NotFound):  # it ends this moment
            inspected = engine(config).inspect_container(container)
            found += [container, inspected["GraphDriver"]["Data"]["MergedDir"]]
            found += filter(None, [inspected["NetworkSettings"]["SandboxKey"]])
    return tuple(found)


def traces(config: Config, made: Made) -> list[str]:
    """What is left of a session, for people."""
    left = [f"container {found[:12]} {_state(config, found)}" for found in containers(config, made.session)]
    left += [f"folder {path}" for path in Path(config.runtime_dir).glob(f"*{made.session}*")]
    mounts = Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines()
    ours = [made.session, *made.places]
    left += [f"mount {line}" for line in mounts if any(place in line for place in ours)]
    left += [f"cgroup {path}" for place in made.places for path in _cgroups(place)]
    return left + [f"process {pid} of uid {uid}" for pid, uid in _processes({made.supervisor_uid, made.runner_uid})]


def _state(config: Config, container: str) -> str:
    """What the engine says of one that it lists, for whoever has to find out why it is there."""
    try:
        return str(engine(config).inspect_container(container)["State"])
    except docker.errors.APIError as error:
        return f"is listed, and {error.explanation}"


def _cgroups(container: str) -> list[str]:
    if "/" in container:
        return []
    patterns = ("docker/", "*/docker/", "system.slice/docker-", "*/system.slice/docker-")
    return [path for pattern in patterns for path in glob.glob(f"/sys/fs/cgroup/{pattern}{container}*")]


def _processes(uids: set[int]) -> Iterator[tuple[int, int]]:
    """An ordinary user's supervisor has that user's uid; then it is told by its container alone."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        if (uid := uid_of(int(name))) in uids - {os.getuid()}:
            yield int(name), uid


def uid_of(pid: int) -> int:
    """The real user of a process; -1 if it has ended. The owner of its folder would be root: nobody may inspect it."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("Uid:"):
                return int(line.split()[1])
    return -1


def reaped(config: Config, *sessions: Made) -> None:
    """Collects garbage until nothing is left of these; fails with what stays."""

    def left() -> list[str]:
        return [trace for made in sessions for trace in traces(config, made)]

    def gone() -> bool:
        collect_garbage(config)
        return not left()

    eventually(gone, lambda: "left behind: " + "; ".join(left()))


def nothing_left(config: Config, *sessions: Made) -> None:
    """The same without any garbage collector: whoever made them has cleaned up."""
    eventually(
        lambda: not any(traces(config, made) for made in sessions),
        lambda: "left behind: " + "; ".join(trace for made in sessions for trace in traces(config, made)),
    )
