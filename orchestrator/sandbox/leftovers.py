"""What dead orchestrators left behind, and this one itself where the engine failed it: found and removed."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from orchestrator.config import Config
from orchestrator.errors import EngineError, SandboxStartError
from orchestrator.sandbox import lockdown
from orchestrator.sandbox.engine import engine, engine_errors, remove_container, within
from orchestrator.sandbox.folders import is_session_of_this_process, own_runtime_dir, owner_of, remove_leftover_folders

SWEEP_SECONDS = 5.0  # that a start waits at most for the removal of what dead owners left


@dataclass(frozen=True, slots=True)
class Listed:
    """A sandbox's container, as ``cellblock ps`` shows it.

    One that is ``lasting`` and runs is not removed when its owner has ended: it ends by itself if no other process
    comes for it within its lease. Who that is, its session's folder says.
    """

    id: str
    session: str
    owner: str
    owner_alive: bool
    age_seconds: float
    overdue: bool
    status: str
    lasting: bool = False


def list_containers(config: Config) -> list[Listed]:
    """Every sandbox's container on this engine, whoever made it."""
    with engine_errors(config):
        found = engine(config).containers(all=True, filters={"label": lockdown.LABEL_OWNER})
    now = time.monotonic()
    owner = partial(_owner, config)
    return [_listed(entry["Id"], entry["Labels"], entry["Status"], now, owner) for entry in found]


def _owner(config: Config, labels: dict[str, str]) -> str:
    """Who has it now. A label cannot be changed, the folder of a session can."""
    owner = labels[lockdown.LABEL_OWNER]
    if lockdown.LABEL_LASTING not in labels or _owner_lives(owner):
        return owner
    with suppress(OSError, SandboxStartError):
        return owner_of(own_runtime_dir(config, make=False) / labels.get(lockdown.LABEL_SESSION, "")) or owner
    return owner


def _owner_lives(owner: str) -> bool:
    try:
        return lockdown.owner_is_alive(owner)
    except OSError:  # that cannot be told: then nothing is removed
        return True


def _listed(
    container: str, labels: dict[str, str], status: str, now: float, owner_of: Callable[[dict[str, str]], str]
) -> Listed:
    owner = owner_of(labels)
    age = max(0.0, now - _seconds(labels, lockdown.LABEL_CREATED, now))
    overdue = now > _seconds(labels, lockdown.LABEL_DEADLINE, now)
    alive = _owner_lives(owner)
    lasting = lockdown.LABEL_LASTING in labels
    return Listed(container, labels.get(lockdown.LABEL_SESSION, ""), owner, alive, age, overdue, status, lasting)


def _seconds(labels: dict[str, str], name: str, default: float) -> float:
    try:
        return float(labels[name])
    except (KeyError, ValueError):  # whoever may make containers writes labels as well
        return default


def collect_garbage(config: Config) -> list[str]:
    """Removes what dead owners left: containers, then session folders. Gives the names of what it removed.

    What this process has left itself, as it does when the engine fails, is removed too.

    Raises:
        EngineError: the engine failed, or could not remove a container. Whatever else can be removed has been.
        SandboxStartError: the folder of session folders cannot be used.
    """
    removed: list[str] = []
    failure: EngineError | None = None
    try:
        for container in list_containers(config):
            if not _is_wanted(container):
                try:
                    if remove_container(config, container.id):
                        removed.append(f"container {container.id[:12]}")
                except EngineError as error:
                    failure = error
    finally:
        removed += [f"folder {name}" for name in remove_leftover_folders(own_runtime_dir(config, make=False))]
    if failure:
        raise failure
    return removed


def _is_wanted(container: Listed) -> bool:
    if container.overdue or not container.owner_alive:
        return container.lasting and not container.overdue and container.status.startswith("Up")
    try:
        return container.owner != str(lockdown.Owner.me()) or is_session_of_this_process(container.session)
    except OSError:
        return True


async def sweep(config: Config) -> None:
    """Collects garbage beside a start, which is no reason for it to fail, or to wait for an engine that hangs."""
    await within(SWEEP_SECONDS, collect_garbage, config)
