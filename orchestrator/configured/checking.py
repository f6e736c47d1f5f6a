"""Whether what the settings speak of is there: models, their keys, tools, MCP servers, files. Asks nobody elsewhere."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from orchestrator.agents import MultiStepAgent
from orchestrator.config import settings_file
from orchestrator.configured.building import Maker
from orchestrator.configured.models import new_model, text_of
from orchestrator.configured.servers import server_of
from orchestrator.configured.settings import ServiceSettings, read
from orchestrator.errors import CellblockError, ConfigError, missing_extra
from orchestrator.models import Model, ScriptedModel
from orchestrator.models.by_name import LOCAL, provider_of
from orchestrator.tools import Tool, as_tool
from orchestrator.tools.by_name import space_tool_name, tool_by_name
from orchestrator.typed_tables import instead

Found = TypeVar("Found")
# What the models that load weights are made with; loading some takes minutes, and is no check.
_PACKAGES = {"transformers": "transformers", "vllm": "vllm", "mlx": "mlx_lm"}


@dataclass(frozen=True, slots=True)
class Checked:
    """Problems and notes are sentences that begin with a place in the file. A note may be all right."""

    settings: ServiceSettings
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def check(path: str | Path | None = None, env: Mapping[str, str] | None = None) -> Checked:
    """Reads the settings and looks for what they name. The modules of tools are imported; nothing else is run."""
    settings, problems = read(settings_file(path, env), env)
    if problems:
        return Checked(settings, problems)
    checker = _Checker(settings, os.environ if env is None else env)
    checker.check()
    return Checked(settings, tuple(checker.problems), tuple(checker.notes))


class _Checker:
    def __init__(self, settings: ServiceSettings, env: Mapping[str, str]) -> None:
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._settings = settings
        self._env = env
        self._models: dict[str, Model] = {}

    def check(self) -> None:
        """Of what is used last to what is used first, so that a problem is told where it is."""
        self.problems += _missing_files(self._settings)
        for text, place in self._model_places().items():
            self._models[text] = self._tried(place, partial(self._model, text)) or ScriptedModel([])
        before = len(self.problems)
        for name in self._settings.agents:
            self._look_at(name)
        if len(self.problems) == before:  # otherwise the same would be told again
            self._put_together()

    def _tried(self, place: str, make: Callable[[], Found]) -> Found | None:
        try:
            return make()
        except CellblockError as error:
            self.problems.append(f"{place}: {error}" if place else str(error))
            return None

    def _model_places(self) -> dict[str, str]:
        """The texts that stand for models, and where those are that are no table's name."""
        places = dict.fromkeys(self._settings.models, "")
        for name, table in self._settings.agents.items():
            places.setdefault(text_of(self._settings, name), f"agents.{name}.model" if table.model else "model")
        return places

    def _model(self, text: str) -> Model:
        table = self._settings.models.get(text)
        provider, _ = provider_of(table.model if table else text)
        if provider not in LOCAL:
            return new_model(text, table, self._env)
        if find_spec(_PACKAGES[provider]) is None:
            raise missing_extra(f"models.{text}: it", _PACKAGES[provider], provider)
        self.notes.append(f"models.{text}: it was not loaded")
        return ScriptedModel([])

    def _look_at(self, name: str) -> None:
        """At what one agent names."""
        table = self._settings.agent(name)
        for text in table.tools:
            self._tried(f"agents.{name}.tools", partial(self._tool, text))
        for text in table.mcp:
            self._tried(f"agents.{name}.mcp", partial(self._look_at_server, text))

    def _tool(self, text: str) -> Tool | None:
        if not space_tool_name(text):
            return as_tool(tool_by_name(text, self._settings.folder))
        if find_spec("gradio_client") is None:
            raise missing_extra(text, "gradio_client", "gradio")
        self.notes.append(f"tool {text}: it was not looked for in the hub")
        return None

    def _look_at_server(self, text: str) -> None:
        server = server_of(self._settings, text, self._env)
        if not isinstance(server, dict) and shutil.which(server.command) is None:
            tables = self._settings.mcp
            meant = instead(text, tables) if tables and text not in tables else ""
            raise ConfigError(f"there is no program {server.command!r}{meant}")

    def _put_together(self) -> None:
        """The agents, without tools that are elsewhere: those of MCP servers and of Spaces."""
        maker = Maker(
            _without_spaces(self._settings),
            self._settings.config,
            lambda name: self._models[text_of(self._settings, name)],
            None,
            {},
        )
        made = [self._tried("", partial(maker.agent, name)) for name in self._settings.agents]
        self.notes += _unknown_tools(self._settings, [agent for agent in made if agent])


def _without_spaces(settings: ServiceSettings) -> ServiceSettings:
    agents = {
        name: replace(table, tools=tuple(text for text in table.tools if not space_tool_name(text)))
        for name, table in settings.agents.items()
    }
    return replace(settings, agents=agents)


def _missing_files(settings: ServiceSettings) -> Iterator[str]:
    for name in ("tls_cert", "tls_key"):
        path = getattr(settings.service, name)
        if path and not os.access(settings.beside(path), os.R_OK):
            yield f"service.{name}: {settings.beside(path)} cannot be read"


def _unknown_tools(settings: ServiceSettings, agents: list[MultiStepAgent]) -> Iterator[str]:
    """Rules for tools that no agent has: a slip of the pen would allow what was to be refused."""
    spaces = {space_tool_name(text) for table in settings.agents.values() for text in table.tools}
    known = sorted({name for agent in agents for name in (*agent.tools, *agent.managed_agents)} | spaces - {""})
    for number, rule in enumerate(settings.policy):
        if rule.tool not in ("", "*", *known):
            yield (
                f"policy[{number}].tool: no agent has a tool {rule.tool!r} of its own; it may be one of an MCP server "
                f"or of an app{instead(rule.tool, known)}"
            )
