"""An agent as a ``SavedAgent``. What cannot be saved is never left out silently: it is an error, or asked for."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from orchestrator.agents.callbacks import STEPS_BY_NAME
from orchestrator.agents.sharing.functions import path_of, requirements_of
from orchestrator.agents.sharing.parts import check_no_secret, saved_compaction, saved_model, saved_tool
from orchestrator.agents.sharing.registry import AGENTS, name_of
from orchestrator.agents.sharing.saved import MAX_DEPTH, SavedAgent, SavedCallback, SavedTool
from orchestrator.agents.workplace import SandboxSettings
from orchestrator.config import Config, Limits
from orchestrator.errors import AgentError, ToolError
from orchestrator.made_with import made_with
from orchestrator.policy import DEFAULT_AUTHORIZED_IMPORTS

if TYPE_CHECKING:
    from orchestrator.agents.code import CodeAgent
    from orchestrator.agents.loop import MultiStepAgent
    from orchestrator.agents.tool_calling import ToolCallingAgent

Part = TypeVar("Part")
_STEP_NAMES = {kind: name for name, kind in STEPS_BY_NAME.items()}
_COMMON = (
    "name",
    "description",
    "instructions",
    "max_steps",
    "planning_interval",
    "provide_run_summary",
    "return_full_result",
    "stream_outputs",
)


def describe(agent: MultiStepAgent, leave_out: Collection[str] = ()) -> SavedAgent:
    """Everything that defines the agent and its team.

    Args:
        agent: which.
        leave_out: parts to go without; see ``save``.

    Raises:
        AgentError: a part cannot be saved. The message lists all of them, and says how to go without.
    """
    if isinstance(leave_out, str):
        raise AgentError(f"leave_out must be a list of names, not the text {leave_out!r}")
    describing = _Describing(leave_out)
    saved = describing.agent(agent, "", 1)
    describing.check()
    return saved


class _Describing:
    """Collects what cannot be saved, so that all of it is told at once."""

    def __init__(self, leave_out: Collection[str]) -> None:
        self._leave_out = leave_out
        self._used: set[str] = set()
        self._problems: dict[str, str] = {}

    def check(self) -> None:
        if self._problems:
            told = "".join(f"\n- {part}: {why}" for part, why in self._problems.items())
            raise AgentError(
                f"not everything of this agent can be saved:{told}\nTo save it without them, pass "
                f"leave_out={sorted(self._problems)!r}; who loads it has to give them."
            )
        unused = set(self._leave_out) - self._used
        if unused:
            raise AgentError(f"leave_out: there is no {', '.join(map(repr, sorted(unused)))} in this agent")

    def agent(self, agent: MultiStepAgent, place: str, depth: int) -> SavedAgent:
        if depth > MAX_DEPTH:
            raise AgentError(f"a team of more than {MAX_DEPTH} levels cannot be saved")
        kind = name_of(agent, AGENTS)
        if kind is None:
            raise AgentError(
                f"{place.rstrip('.') or 'the agent'} is of the class {type(agent).__name__}; "
                f"those of {', '.join(AGENTS)} can be saved"
            )
        parts = _Parts(self, agent, place)
        callbacks, checks = parts.step_callbacks(), parts.final_answer_checks()
        compaction = parts.of("compaction", lambda: saved_compaction(agent.compaction, "compaction"))
        settings = parts.settings(kind)
        model = parts.of("model", lambda: saved_model(agent.model, "model"))
        tools = tuple(parts.tool(tool) for tool in agent.tools.values())
        members = tuple(
            self.agent(member, f"{place}managed_agents.{name}.", depth + 1)
            for name, member in agent.managed_agents.items()
        )
        functions = [
            *(one.function for one in callbacks),
            *checks,
            *([compaction] if isinstance(compaction, str) else []),
        ]
        return SavedAgent(
            kind,
            settings,
            cast(Mapping[str, Any], copy.deepcopy(agent.prompt_templates)),
            model,
            tools,
            members,
            callbacks,
            checks,
            compaction,
            "compaction" not in parts.left_out,
            requirements_of(functions),
            tuple(parts.left_out),
        )

    def may_leave_out(self, part: str) -> bool:
        """Whether that was said, of this part or of all of its kind: ``model`` is every agent's."""
        for name in self._leave_out:
            if part == name or part.endswith(f".{name}"):
                self._used.add(name)
                return True
        return False

    def refuse(self, part: str, why: str) -> None:
        self._problems[part] = why


@dataclasses.dataclass
class _Parts:
    """Of one agent. ``left_out``: names of parts as the agent itself calls them."""

    describing: _Describing
    agent_: MultiStepAgent
    place: str
    left_out: list[str] = dataclasses.field(default_factory=list)

    def of(self, name: str, saved: Callable[[], Part]) -> Part | None:
        """What ``saved`` gives, unless the part is left out, or cannot be saved."""
        if self.describing.may_leave_out(f"{self.place}{name}"):
            self.left_out.append(name)
            return None
        try:
            return saved()
        except (AgentError, ToolError) as error:
            self.describing.refuse(f"{self.place}{name}", str(error))
            return None

    def without(self, name: str, why: str) -> None:
        """A part that is never saved."""
        if self.describing.may_leave_out(f"{self.place}{name}"):
            self.left_out.append(name)
        else:
            self.describing.refuse(f"{self.place}{name}", why)

    def tool(self, tool: Any) -> SavedTool:
        saved: SavedTool | None = self.of(f"tools.{tool.name}", lambda: saved_tool(tool, f"tool {tool.name}"))
        return saved or SavedTool(tool.name)

    def step_callbacks(self) -> tuple[SavedCallback, ...]:
        given = self.agent_.step_callbacks.registered
        if not given:
            return ()
        return (
            self.of(
                "step_callbacks",
                lambda: tuple(SavedCallback(_STEP_NAMES[kind], path_of(one, "a step callback")) for kind, one in given),
            )
            or ()
        )

    def final_answer_checks(self) -> tuple[str, ...]:
        given = self.agent_.final_answer_checks
        if not given:
            return ()
        return self.of("final_answer_checks", lambda: tuple(path_of(one, "a check") for one in given)) or ()

    def settings(self, kind: str) -> dict[str, Any]:
        agent, given = self.agent_, made_with(self.agent_)
        if given.get("logger") is not None:
            self.without("logger", "it is an object of this process")
        if given.get("approve") is not None or getattr(given.get("sandbox"), "approve", None) is not None:
            self.without("approve", "whoever is asked before things are done is a matter of where they are done")
        if given.get("record") is not None:
            self.without("record", "it is a file of this machine")
        if given.get("config") is not None:
            self.without("config", "it says where the engine of this machine is, and the like")
        settings: dict[str, Any] = {name: getattr(agent, name) for name in _COMMON}
        settings["verbosity_level"] = int(agent.logger.level)
        if kind == "CodeAgent":
            return settings | self._code_settings(cast("CodeAgent", agent), given.get("sandbox"))
        calling = cast("ToolCallingAgent", agent)
        usual = Config.load().tool_timeout
        timeout = None if calling.tool_timeout == usual and given.get("tool_timeout") is None else calling.tool_timeout
        return settings | {"max_tool_threads": calling.max_tool_threads, "tool_timeout": timeout}

    def _code_settings(self, agent: CodeAgent, sandbox: object) -> dict[str, Any]:
        tags = agent.code_block_tags
        return {
            "additional_authorized_imports": sorted(set(agent.authorized_imports) - set(DEFAULT_AUTHORIZED_IMPORTS)),
            "max_print_outputs_length": agent.max_print_outputs_length,
            "use_structured_outputs_internally": agent.use_structured_outputs_internally,
            "code_block_tags": [tags.opening, tags.closing],
            "on_error": agent.on_error,
            "sandbox": self._sandbox(sandbox),
        }

    def _sandbox(self, given: object) -> dict[str, Any] | None:
        if given is None:
            return None
        if not isinstance(given, SandboxSettings):
            self.without("sandbox", "a sandbox that the agent was lent is of this machine; SandboxSettings are saved")
            return None
        if given.config is not None:
            self.without("sandbox.config", "it says where the engine of this machine is, and the like")
        if given.ready is not None:
            self.without("sandbox.ready", "it is called in this program")
        if given.watcher is not None:
            self.without("sandbox.watcher", "it is told of what happens in this program")
        env = self.of("sandbox.env", lambda: _env(given.env)) if given.env else given.env
        return {
            "limits": _limits(given.limits),
            "timeout": given.timeout,
            "env": env,
            "tool_timeout": given.tool_timeout,
        }


def _limits(limits: Limits | None) -> dict[str, Any] | None:
    return None if limits is None else dataclasses.asdict(limits)


def _env(env: Mapping[str, str] | None) -> dict[str, str]:
    for name, value in (env or {}).items():
        check_no_secret(value, name)
    return dict(env or {})
