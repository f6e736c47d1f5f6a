"""Agents to and from folders, plain data and the hub. ``MultiStepAgent`` has these as methods; see there.

describing.py   agent -> SavedAgent, or what cannot be saved
reading.py      SavedAgent <-> plain data, strict
layout.py, folder.py, hub.py   plain data <-> files
trust.py        what of it nobody may do without being trusted
building.py     SavedAgent -> agent
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.agents.sharing import hub
from orchestrator.agents.sharing.building import build
from orchestrator.agents.sharing.describing import describe
from orchestrator.agents.sharing.folder import encoded, read_folder, write
from orchestrator.agents.sharing.layout import files_of, readme
from orchestrator.agents.sharing.reading import read_agent, written_agent
from orchestrator.agents.sharing.saved import SavedAgent
from orchestrator.agents.sharing.smolagents import is_smolagents, translated
from orchestrator.hub import push_space

if TYPE_CHECKING:
    from orchestrator.agents.loop import MultiStepAgent

__all__ = ["from_dict", "from_folder", "from_hub", "push_to_hub", "save", "to_dict"]


def to_dict(agent: MultiStepAgent, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """See ``MultiStepAgent.to_dict``."""
    return written_agent(_saved(agent, leave_out))


def save(agent: MultiStepAgent, output_dir: str | Path, leave_out: Collection[str] = ()) -> tuple[Path, ...]:
    """See ``MultiStepAgent.save``."""
    files = encoded(files_of(_saved(agent, leave_out)))
    folder = Path(output_dir)
    write(files, folder)
    return tuple(folder / path for path in files)


def push_to_hub(
    agent: MultiStepAgent,
    repo_id: str,
    commit_message: str = "Upload agent",
    private: bool | None = None,
    token: str | None = None,
    create_pr: bool = False,
    leave_out: Collection[str] = (),
) -> str:
    """See ``MultiStepAgent.push_to_hub``."""
    saved = _saved(agent, leave_out)
    files = encoded(files_of(saved) | {"README.md": readme(saved)})
    return push_space(files, repo_id, commit_message, private, token, create_pr)


def from_dict(
    kind: type[MultiStepAgent], agent_dict: Mapping[str, Any], trusted: bool, overrides: Mapping[str, Any]
) -> MultiStepAgent:
    """See ``MultiStepAgent.from_dict``."""
    data = agent_dict
    if isinstance(agent_dict, Mapping) and is_smolagents(agent_dict):
        data = translated(agent_dict, kind.__name__, model_is_given="model" in overrides)
    return build(read_agent(data), kind, trusted, overrides)


def from_folder(
    kind: type[MultiStepAgent], folder: str | Path, trusted: bool, overrides: Mapping[str, Any]
) -> MultiStepAgent:
    """See ``MultiStepAgent.from_folder``."""
    return from_dict(kind, read_folder(Path(folder)), trusted, overrides)


def from_hub(
    kind: type[MultiStepAgent],
    repo_id: str,
    token: str | None,
    trusted: bool,
    revision: str | None,
    overrides: Mapping[str, Any],
) -> MultiStepAgent:
    """See ``MultiStepAgent.from_hub``."""
    with hub.fetched(repo_id, token, revision) as folder:
        return from_folder(kind, folder, trusted, overrides)


def _saved(agent: MultiStepAgent, leave_out: Collection[str]) -> SavedAgent:
    """What can be read again: the bounds of reading are those of writing."""
    saved = describe(agent, leave_out)
    read_agent(written_agent(saved))
    return saved
