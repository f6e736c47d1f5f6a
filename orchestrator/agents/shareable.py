"""Agents to and from elsewhere, as methods. What they do is in sharing/, and imported when it is needed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from orchestrator.made_with import MadeWith

if TYPE_CHECKING:
    from orchestrator.agents.loop import MultiStepAgent


class Shareable(MadeWith):
    """An agent that can be saved and loaded. Everything that defines it and its team is saved, but for secrets."""

    def save(self, output_dir: str | Path, *, leave_out: Collection[str] = ()) -> tuple[Path, ...]:
        """Writes the agent and its team into a folder, laid out as smolagents does. Gives the files written.

        ``agent.json``, ``prompts.yaml``, ``tools/<name>.py``, ``managed_agents/<name>/…``, ``requirements.txt``, and
        ``app.py``, which shows it in a browser. Not saved are its memory, the state of its sandbox, and keys: who loads
        it has keys of their own in the environment.

        Args:
            output_dir: the folder; made if it is missing. Files of the same names are written over.
            leave_out: parts to go without, which who loads it has to give: ``"model"``, ``"approve"``, ``"logger"``,
                ``"record"``, ``"config"``, ``"sandbox"`` (one that the agent was lent), ``"sandbox.config"``,
                ``"sandbox.env"``, ``"step_callbacks"``, ``"final_answer_checks"``, ``"compaction"``, ``"tools.name"``.
                Of every agent of the team; ``"managed_agents.name.model"`` is that of one member alone.

        Raises:
            AgentError: something cannot be saved: a model of a class of your own, an approver, a logger of your own, a
                sandbox that was lent, a tool from elsewhere, a callback that cannot be imported, what may be a secret.
                The message lists all of it. Nothing has been written.
        """
        from orchestrator.agents import sharing

        return sharing.save(_agent(self), output_dir, leave_out)

    def to_dict(self, *, leave_out: Collection[str] = ()) -> dict[str, Any]:
        """The same as plain data, fit for JSON, with the code of tools in it. Arguments and errors as of ``save``."""
        from orchestrator.agents import sharing

        return sharing.to_dict(_agent(self), leave_out)

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str = "Upload agent",
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
        *,
        leave_out: Collection[str] = (),
    ) -> str:
        """Saves it as a Space of the Hugging Face Hub. Gives the commit's address. Needs ``cellblock[hf]``.

        Args:
            repo_id: "owner/name", or "name" for one's own; made if it is not there.
            commit_message: of the commit.
            private: whether only its owner sees it, if it is made; None for what is usual for the owner.
            token: None for the one that is stored on this machine.
            create_pr: whether the files go into a pull request.
            leave_out: as of ``save``.

        Raises:
            AgentError: as ``save``. Nothing has been sent.
            ConfigError: huggingface_hub is missing.
            ToolUnavailable: the hub refuses or cannot be reached.
        """
        from orchestrator.agents import sharing

        return sharing.push_to_hub(_agent(self), repo_id, commit_message, private, token, create_pr, leave_out)

    @classmethod
    def from_folder(cls, folder: str | Path, trust_remote_code: bool = False, **overrides: Any) -> Self:
        """The agent that ``save``, or smolagents' ``save``, has written into a folder.

        Without trust nothing is run, imported or asked that the folder chose; a folder that wants that is refused. Only
        what it says by name and setting counts then: tools that come along, models with their usual endpoints.

        Args:
            folder: read without following links.
            trust_remote_code: True lets code of the folder run on this host: its tools, the modules of its callbacks;
                and lets it say where requests go that carry this machine's keys.
            overrides: arguments of the class, in the place of what was saved. ``model`` is used for the whole team;
                ``tools`` replace those of the same name, or are added; what was left out of a member is taken from
                here, too. What was left out has to be given; None is allowed.

        Raises:
            ConfigError: it needs trust, and the message lists for what; or a model or tool lacks its key or extra.
            AgentError: it is no agent, not of this class, damaged or too large, or something that was left out is
                missing.
            ToolError: a tool's code does not define it.
        """
        from orchestrator.agents import sharing

        return cast(Self, sharing.from_folder(_kind(cls), folder, trust_remote_code, overrides))

    @classmethod
    def from_dict(cls, agent_dict: Mapping[str, Any], trust_remote_code: bool = False, **overrides: Any) -> Self:
        """The agent of what ``to_dict`` gave. Arguments and errors as of ``from_folder``."""
        from orchestrator.agents import sharing

        return cast(Self, sharing.from_dict(_kind(cls), agent_dict, trust_remote_code, overrides))

    @classmethod
    def from_hub(
        cls,
        repo_id: str,
        token: str | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        **overrides: Any,
    ) -> Self:
        """The agent in a Space of the Hugging Face Hub. Needs ``cellblock[hf]``.

        Args:
            repo_id: "owner/name".
            token: None for the one that is stored on this machine.
            trust_remote_code: as of ``from_folder``.
            revision: a branch or commit. A branch may hold another agent tomorrow; a commit's id does not.
            overrides: as of ``from_folder``.

        Raises:
            ConfigError, AgentError, ToolError: as ``from_folder``; or huggingface_hub is missing.
            ToolUnavailable: there is no such Space or revision, or the hub cannot be reached.
        """
        from orchestrator.agents import sharing

        return cast(Self, sharing.from_hub(_kind(cls), repo_id, token, trust_remote_code, revision, overrides))


def _agent(shareable: Shareable) -> MultiStepAgent:
    return cast("MultiStepAgent", shareable)


def _kind(shareable: type[Shareable]) -> type[MultiStepAgent]:
    return cast("type[MultiStepAgent]", shareable)
