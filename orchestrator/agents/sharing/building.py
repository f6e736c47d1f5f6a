"""An agent made of a ``SavedAgent`` and of what whoever loads it gives."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.agents.callbacks import STEPS_BY_NAME
from orchestrator.agents.settings import AgentSettings
from orchestrator.agents.sharing.functions import imported
from orchestrator.agents.sharing.registry import AGENTS, COMPACTIONS, MODELS, TOOLS
from orchestrator.agents.sharing.saved import Made, SavedAgent, SavedTool
from orchestrator.agents.sharing.trust import check_trust
from orchestrator.agents.workplace import SandboxSettings
from orchestrator.config import Config, Limits
from orchestrator.errors import AgentError, CellblockError
from orchestrator.models import REMOVE_PARAMETER, RetryPolicy
from orchestrator.tools import Tool, as_tool
from orchestrator.tools.loading import from_code

if TYPE_CHECKING:
    from orchestrator.agents.loop import MultiStepAgent

# What members of a team get, too, if their own was left out. The model is every agent's in any case.
_SHARED = ("approve", "logger", "sandbox", "step_callbacks", "final_answer_checks", "compaction", "tools")


def build(saved: SavedAgent, kind: type[MultiStepAgent], trusted: bool, overrides: Mapping[str, Any]) -> MultiStepAgent:
    """The agent.

    Args:
        saved: as it was read.
        kind: the class that was asked to load it.
        trusted: whether its code may run on this host.
        overrides: arguments of the class, in the place of what was saved; see ``from_folder``.

    Raises:
        ConfigError: it needs trust, or a model or tool lacks a key or an extra.
        AgentError: something was left out when it was saved and is not given, or it does not fit together.
    """
    made = _checked_class(saved, kind)
    given = _checked_overrides(made, overrides)
    check_trust(saved, given, Config.load().limits, trusted)
    return _Builder(saved, given, "").build(made)


def _checked_class(saved: SavedAgent, kind: type[MultiStepAgent]) -> type[MultiStepAgent]:
    made: type[MultiStepAgent] = AGENTS[saved.kind].load()
    if issubclass(kind, made):  # a class of the user's own that builds on it
        return kind
    if not issubclass(made, kind):
        raise AgentError(f"what was saved is a {saved.kind}; load it with {saved.kind}, not with {kind.__name__}")
    return made


def _checked_overrides(kind: type[MultiStepAgent], overrides: Mapping[str, Any]) -> dict[str, Any]:
    takes = inspect.signature(kind.__init__).parameters
    own = {name for name, one in takes.items() if one.kind is not one.VAR_KEYWORD}
    known = own | AgentSettings.__annotations__.keys()
    known.discard("self")
    if unknown := overrides.keys() - known:
        raise AgentError(
            f"{kind.__name__} has no setting {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}"
        )
    given = dict(overrides)
    if given.get("tools") is not None:
        given["tools"] = [as_tool(tool) for tool in given["tools"]]
    return given


@dataclass(frozen=True, slots=True)
class _Builder:
    """``given`` comes first; what it says nothing of is as saved."""

    saved: SavedAgent
    given: Mapping[str, Any]
    place: str

    def build(self, kind: type[MultiStepAgent]) -> MultiStepAgent:
        self._check_left_out()
        arguments: dict[str, Any] = {
            **self._settings(),
            "prompt_templates": self.saved.prompt_templates,
            "managed_agents": [] if "managed_agents" in self.given else self._members(),
            **self._callbacks(),
            **self.given,
            "model": self._model(),
            "tools": self._tools(),
        }
        made: MultiStepAgent = _called(kind, arguments, self.place.rstrip(".") or "the agent")
        return made

    def _check_left_out(self) -> None:
        """None is an answer; silence is not: an agent must not have lost its approver by accident."""
        tools = {f"tools.{tool.name}" for tool in self.given.get("tools") or ()}
        answered = {*self.given, *tools, *(["approve"] if _has_own_approver(self.given.get("sandbox")) else [])}
        for part in self.saved.left_out:
            top = part.partition(".")[0]
            if (part if top == "tools" else top) not in answered:
                example = "tools=[…] with it" if top == "tools" else f"{top}=…"
                raise AgentError(f"{self.place}{part} was left out when the agent was saved; pass {example}")

    def _settings(self) -> dict[str, Any]:
        settings = dict(self.saved.settings)
        tags = settings.get("code_block_tags")
        if tags is not None:
            settings["code_block_tags"] = tuple(tags)
        if "sandbox" in settings:
            settings["sandbox"] = _sandbox(settings["sandbox"])
        if self.given.get("sandbox") is not None and not isinstance(self.given["sandbox"], SandboxSettings):
            settings.pop("additional_authorized_imports", None)  # a sandbox that is lent has its own
        return settings

    def _callbacks(self) -> dict[str, Any]:
        """Imported only if nothing is given in their place."""
        made: dict[str, Any] = {}
        if "step_callbacks" not in self.given:
            by_step: dict[type[Any], list[Any]] = {}
            for one in self.saved.step_callbacks:
                function = imported(one.function, f"{self.place}step_callbacks")
                by_step.setdefault(STEPS_BY_NAME[one.step], []).append(function)
            made["step_callbacks"] = by_step
        if "final_answer_checks" not in self.given:
            place = f"{self.place}final_answer_checks"
            made["final_answer_checks"] = [imported(path, place) for path in self.saved.final_answer_checks]
        if "compaction" not in self.given and self.saved.compaction_is_set:
            made["compaction"] = self._compaction()
        return made

    def _compaction(self) -> Any:
        match self.saved.compaction:
            case Made(kind, data):
                return _called(COMPACTIONS[kind].load(), data, f"{self.place}compaction")
            case str(path):
                return imported(path, f"{self.place}compaction")
        return None

    def _model(self) -> Any:
        if "model" in self.given:
            return self.given["model"]
        saved = self.saved.model
        if saved is None:
            raise AgentError(f"{self.place}model was not saved; pass model=…")
        data = {**saved.data, **dict.fromkeys(saved.removed, REMOVE_PARAMETER)}
        if isinstance(data.get("retry"), dict):
            data["retry"] = _called(RetryPolicy, data["retry"], f"{self.place}model: retry")
        return _called(MODELS[saved.kind].load(), data, f"{self.place}model")

    def _tools(self) -> list[Tool]:
        """Those that are given take the place of those of the same name; others come after the saved ones."""
        given = {tool.name: tool for tool in self.given.get("tools") or ()}
        saved = [given.pop(tool.name) if tool.name in given else self._tool(tool) for tool in self.saved.tools]
        return [*saved, *given.values()]

    def _tool(self, saved: SavedTool) -> Tool:
        place = f"{self.place}tools.{saved.name}"
        if saved.code is not None:
            made: Tool = _called(
                from_code, {"code": saved.code, "trust_remote_code": True} | _own(saved.data, place), place
            )
        else:
            assert saved.kind is not None  # what was left out is given
            made = _called(TOOLS[saved.kind].load(), saved.data, place)
        if made.name != saved.name:
            raise AgentError(f"{place}: the tool calls itself {made.name!r}")
        return made

    def _members(self) -> list[MultiStepAgent]:
        return [self._member(member) for member in self.saved.members]

    def _member(self, saved: SavedAgent) -> MultiStepAgent:
        left_out = {part.partition(".")[0] for part in saved.left_out}
        given = {name: self.given[name] for name in _SHARED if name in self.given and name in left_out}
        if "tools" in given:  # only those that it lacks
            lacking = {part.partition(".")[2] for part in saved.left_out}
            given["tools"] = [tool for tool in given["tools"] if tool.name in lacking]
        if "model" in self.given:
            given["model"] = self.given["model"]
        if "record" in left_out:  # its manager's calls are not recorded, and a file is for one agent
            given["record"] = None
        if "config" in left_out:  # a manager that writes code has none to pass on: then it is this machine's
            given["config"] = self.given.get("config")
        return _Builder(saved, given, f"{self.place}managed_agents.{saved.name}.").build(AGENTS[saved.kind].load())


def _has_own_approver(sandbox: object) -> bool:
    """Whether a sandbox, or settings for one, says who is asked; of a lent one its owner has decided that."""
    return sandbox.approve is not None if isinstance(sandbox, SandboxSettings) else sandbox is not None


def _own(data: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Arguments of a tool's class."""
    if wrong := data.keys() & {"code", "trust_remote_code"}:
        raise AgentError(f"{place}: its class cannot take an argument of the name {sorted(wrong)[0]}")
    return dict(data)


def _sandbox(saved: Mapping[str, Any] | None) -> SandboxSettings | None:
    if saved is None:
        return None
    limits = saved.get("limits")
    made = None if limits is None else _called(Limits, limits, "sandbox.limits")
    return SandboxSettings(made, saved.get("timeout"), saved.get("env"), tool_timeout=saved.get("tool_timeout"))


def _called(kind: Any, arguments: Mapping[str, Any], place: str) -> Any:
    """What ``kind`` makes of arguments from a file, which may be of any type."""
    try:
        return kind(**arguments)
    except CellblockError:
        raise
    except Exception as error:  # of constructors that were given the wrong types, which can be anything
        raise AgentError(f"{place} cannot be made of what was saved: {type(error).__name__}: {error}") from error
