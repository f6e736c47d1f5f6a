"""The Hugging Face Hub, where tools and agents are kept, each as a Space. Needs ``pip install 'cellblock[hf]'``.

The one place that says how the hub's client is made, how files get there, and what its failures are called here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from orchestrator.errors import CellblockError, ToolUnavailable, missing_extra
from orchestrator.sanitise import one_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def hub_api(token: str | None) -> HfApi:
    """The hub's client. ``token``: None for the one that is stored on this machine.

    Raises:
        ConfigError: huggingface_hub is missing.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise missing_extra("the hub", "huggingface_hub", "hf") from None
    return HfApi(token=token, library_name="cellblock")


@contextmanager
def hub_failures(what: str) -> Iterator[None]:
    """Around calls of the client. ``what``: the repository's or collection's name, for the message.

    Raises:
        ToolUnavailable: the hub refuses, has no such thing, or cannot be reached.
    """
    try:
        yield
    except CellblockError:  # of what is done with the hub's answers
        raise
    except Exception as error:  # of the hub's client and of its HTTP library, in many kinds
        said = one_line(str(error) or type(error).__name__, 1000)
        raise ToolUnavailable(f"the hub, {one_line(what, 100)}: {said}") from error


def push_space(
    files: Mapping[str, bytes],
    repo_id: str,
    commit_message: str,
    private: bool | None = None,
    token: str | None = None,
    create_pr: bool = False,
) -> str:
    """Commits ``files`` to a Space, which is made if it is not there. Gives the commit's address.

    Args:
        files: contents by their paths in the Space; others that are there stay.
        repo_id: "owner/name", or "name" for one's own.
        commit_message: of the commit.
        private: whether only its owner sees it, if it is made; None for what is usual for the owner.
        token: None for the one that is stored on this machine.
        create_pr: whether the files go into a pull request.

    Raises:
        ConfigError: huggingface_hub is missing.
        ToolUnavailable: the hub refuses or cannot be reached.
    """
    api = hub_api(token)
    from huggingface_hub import CommitOperationAdd

    with hub_failures(repo_id):
        made = api.create_repo(repo_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
        done = api.create_commit(
            made.repo_id,
            [CommitOperationAdd(path, data) for path, data in files.items()],
            repo_type="space",
            commit_message=commit_message,
            create_pr=create_pr,
        )
    return done.pr_url or done.commit_url
