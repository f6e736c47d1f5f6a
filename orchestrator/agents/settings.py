"""The arguments that every kind of agent takes."""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, TypedDict

from orchestrator.agents.callbacks import FinalAnswerCheck, StepCallbacks
from orchestrator.agents.compaction import Compaction
from orchestrator.agents.logger import AgentLogger
from orchestrator.errors import AgentError

if TYPE_CHECKING:
    from orchestrator.agents.loop import MultiStepAgent


# Arguments of smolagents' agents that have no counterpart here, and what there is in their place.
_GONE: Mapping[str, str] = {
    "executor": "code always runs in a sandbox; give one, or settings for one, as sandbox=",
    "executor_type": "code always runs in a sandbox; see sandbox=",
    "executor_kwargs": "code always runs in a sandbox; its limits are set by sandbox=SandboxSettings(…)",
    "grammar": "use_structured_outputs_internally=True holds the model to a form",
    "planning_prompt_template": "prompt_templates={'planning': {…}} has them",
    "system_prompt": "instructions= adds to it, prompt_templates={'system_prompt': …} replaces it",
}


def checked_settings(kind: type[Any], settings: Mapping[str, Any]) -> None:
    """That an agent of ``kind`` knows all of ``settings``.

    Raises:
        AgentError: it does not know one; the message says what there is instead.
    """
    for name in settings:
        if name not in AgentSettings.__annotations__:
            instead = _GONE.get(name) or f"there are {', '.join(sorted(AgentSettings.__annotations__))} and its own"
            raise AgentError(f"{kind.__name__} has no argument {name!r}: {instead}")


_TEXT = ((str, NoneType), "a text")
_FLAG = ((bool,), "True or False")
_KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "name": _TEXT,
    "description": _TEXT,
    "instructions": _TEXT,
    "record": ((str, Path, NoneType), "the path of a file"),
    "add_base_tools": _FLAG,
    "provide_run_summary": _FLAG,
    "return_full_result": _FLAG,
    "stream_outputs": _FLAG,
    "use_structured_outputs_internally": _FLAG,
    "reset": _FLAG,
}


def check_kinds(**given: object) -> None:
    """That arguments are of the types that they must have: nothing is begun with a wrong one.

    Raises:
        AgentError: one is not.
    """
    for name, value in given.items():
        kinds, words = _KINDS[name]
        if not isinstance(value, kinds):
            raise AgentError(f"{name} must be {words}, not {value!r}")


def checked_name(name: str | None) -> str | None:
    """The name of an agent.

    Raises:
        AgentError: it is none.
    """
    if name is not None and (not name.isidentifier() or keyword.iskeyword(name)):
        raise AgentError(f"name {name!r} must be a Python identifier: managers call agents by it")
    return name


def check_list(name: str, given: object) -> None:
    """That it is something to go through, and no text.

    Raises:
        AgentError: it is not.
    """
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise AgentError(f"{name} is a list, also for a single one, not {given!r}")


class AgentSettings(TypedDict, total=False):
    """The arguments that every kind of agent takes; see ``MultiStepAgent``."""

    instructions: str | None
    max_steps: int
    add_base_tools: bool
    verbosity_level: int
    managed_agents: Sequence[MultiStepAgent] | None
    step_callbacks: StepCallbacks | None
    planning_interval: int | None
    name: str | None
    description: str | None
    provide_run_summary: bool
    final_answer_checks: Sequence[FinalAnswerCheck] | None
    return_full_result: bool
    logger: AgentLogger | None
    stream_outputs: bool
    compaction: Compaction | None
    record: str | Path | None
