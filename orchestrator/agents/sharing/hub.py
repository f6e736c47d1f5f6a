"""The files of agents from the Hugging Face Hub, each of which is a Space."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.agents.sharing.folder import MAX_TOTAL
from orchestrator.agents.sharing.layout import AGENT, PROMPTS
from orchestrator.agents.sharing.saved import MAX_AGENTS, MAX_TOOLS
from orchestrator.errors import AgentError
from orchestrator.hub import hub_api, hub_failures
from orchestrator.sanitise import one_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MAX_LISTED = 10_000  # entries of a Space that are looked at
MAX_FILES = MAX_AGENTS * 2 + MAX_TOOLS  # of an agent with its team
_NAME = r"[^\W\d]\w*"
# What an agent is read from. Nothing else is fetched: no app, no picture, no model.
_WANTED = re.compile(rf"(?:managed_agents/{_NAME}/)*(?:{re.escape(AGENT)}|{re.escape(PROMPTS)}|tools/{_NAME}\.py)")


@contextmanager
def fetched(repo_id: str, token: str | None, revision: str | None) -> Iterator[Path]:
    """A new folder, of this user alone, with the agent's files of one commit. It is removed in the end.

    Raises:
        ConfigError: huggingface_hub is missing.
        AgentError: they are too many or too large.
        ToolUnavailable: there is no such Space or revision, or the hub cannot be reached.
    """
    api = hub_api(token)
    from huggingface_hub import snapshot_download

    with tempfile.TemporaryDirectory(prefix="cellblock-agent-") as folder:
        with hub_failures(repo_id):
            commit = api.repo_info(repo_id, repo_type="space", revision=revision).sha
            wanted = _wanted(api, repo_id, commit)
            snapshot_download(
                repo_id,
                repo_type="space",
                revision=commit,  # what was looked at is what is fetched, whatever is pushed meanwhile
                local_dir=folder,
                allow_patterns=wanted,
                token=token,
            )
        yield Path(folder)


def _wanted(api: HfApi, repo_id: str, commit: str | None) -> list[str]:
    """Their paths. None of them has a letter that means something in a pattern."""
    found: list[str] = []
    size = 0
    for number, entry in enumerate(api.list_repo_tree(repo_id, recursive=True, revision=commit, repo_type="space")):
        if number >= MAX_LISTED:
            raise AgentError(f"the Space {one_line(repo_id, 100)} has more than {MAX_LISTED:,} files")
        if _WANTED.fullmatch(entry.path) and hasattr(entry, "size"):  # a folder has none
            found.append(entry.path)
            size += entry.size
    if AGENT not in found:
        raise AgentError(f"the Space {one_line(repo_id, 100)} has no {AGENT}: there is no agent in it")
    if len(found) > MAX_FILES or size > MAX_TOTAL:
        raise AgentError(f"an agent has {MAX_FILES:,} files of {MAX_TOTAL:,} bytes at most; this one has more")
    return found
