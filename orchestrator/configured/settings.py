"""``cellblock.toml`` as one frozen tree: the settings of ``Config``, and the tables of the service."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from orchestrator.config import Config, read_toml, settings_file
from orchestrator.configured.tables import (
    NO_SECRETS,
    AgentTable,
    McpTable,
    ModelTable,
    PolicyRule,
    PoolTable,
    ServiceTable,
    check_name,
)
from orchestrator.credentials import secrets_in
from orchestrator.errors import ConfigError, NotFound
from orchestrator.models.by_name import PROVIDERS
from orchestrator.stack.places import STORE, state_dir
from orchestrator.typed_tables import build, instead

DEFAULT_AGENT = "default"
Table = TypeVar("Table")
_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """Everything that is set. ``file`` is where from; None if there are only defaults and the environment.

    Without any ``[agents.NAME]`` there is one, ``default``: a ``CodeAgent`` with the setting ``model``.
    """

    config: Config = field(default_factory=Config)
    service: ServiceTable = field(default_factory=ServiceTable)
    models: Mapping[str, ModelTable] = field(default_factory=lambda: _NONE)
    mcp: Mapping[str, McpTable] = field(default_factory=lambda: _NONE)
    agents: Mapping[str, AgentTable] = field(default_factory=lambda: MappingProxyType({DEFAULT_AGENT: AgentTable()}))
    pools: Mapping[str, PoolTable] = field(default_factory=lambda: _NONE)
    policy: tuple[PolicyRule, ...] = ()
    file: Path | None = None

    @classmethod
    def load(cls, path: str | Path | None = None, env: Mapping[str, str] | None = None) -> ServiceSettings:
        """From the same file and environment as ``Config.load``.

        Raises:
            ConfigError: the file cannot be read, or something in it is wrong: the message tells all of it.
        """
        found, problems = read(settings_file(path, env), env)
        if problems:
            raise ConfigError("\n".join(problems))
        return found

    @property
    def folder(self) -> Path:
        """Where relative paths begin and modules of tools are looked for first: the folder of the file, or this one."""
        return (self.file.parent if self.file else Path()).absolute()

    def beside(self, path: str) -> Path:
        """A path that was written in the file."""
        return self.folder / Path(path).expanduser()

    @property
    def store(self) -> Path:
        """The file of the service's store."""
        return self.beside(self.service.store) if self.service.store else state_dir() / STORE

    def agent(self, name: str) -> AgentTable:
        """The table of the agent called so; an empty name is that of the default agent.

        Raises:
            NotFound: there is none.
        """
        name = name or DEFAULT_AGENT
        if name not in self.agents:
            raise NotFound(f"there is no agent {name!r}{instead(name, self.agents)}")
        return self.agents[name]

    def pool(self, name: str) -> PoolTable:
        """The table of the pool called so.

        Raises:
            NotFound: there is none.
        """
        if name not in self.pools:
            raise NotFound(f"there is no pool {name!r}{instead(name, self.pools)}")
        return self.pools[name]

    def family(self, name: str) -> tuple[str, ...]:
        """The agent and all who are in its team, in theirs, and so on; each once, the agent first.

        Raises:
            NotFound: there is no such agent.
        """
        found = {name or DEFAULT_AGENT: self.agent(name)}
        waiting = list(found)
        while waiting:
            for member in self.agent(waiting.pop()).managed_agents:
                if member not in found:
                    found[member] = self.agent(member)
                    waiting.append(member)
        return tuple(found)


def read(file: Path | None, env: Mapping[str, str] | None = None) -> tuple[ServiceSettings, tuple[str, ...]]:
    """The settings, and what is wrong with them: problems with their places. With problems, only these count."""
    reader = _Reader()
    values: dict[str, Any] = reader.tried(lambda: read_toml(file), {}) if file else {}
    config = reader.tried(lambda: Config.of(values, env), Config())
    settings = ServiceSettings(
        config,
        reader.table(ServiceTable, values.get("service", {}), "service", ServiceTable()),
        reader.tables(ModelTable, values.get("models", {}), "models"),
        reader.tables(McpTable, values.get("mcp", {}), "mcp"),
        reader.tables(AgentTable, _with_limits(values.get("agents", {}), config), "agents"),
        reader.tables(PoolTable, _with_limits(values.get("pools", {}), config), "pools"),
        reader.rules(values.get("policy", [])),
        file.absolute() if file else None,
    )
    if not settings.agents:
        settings = dataclasses.replace(settings, agents=ServiceSettings().agents)
    # What one table says of another: of tables that are not there for being wrong, nothing could be said rightly.
    return settings, tuple(reader.problems or _unresolved(settings))


def _with_limits(tables: Any, config: Config) -> Any:
    """With all limits where there are some: those that are not set are the general ones."""
    if not isinstance(tables, dict):
        return tables
    usual = dataclasses.asdict(config.limits)
    return {
        name: table | {"limits": usual | table["limits"]}
        if isinstance(table, dict) and isinstance(table.get("limits"), dict)
        else table
        for name, table in tables.items()
    }


class _Reader:
    """Reads on after a problem, so that all of them can be told at once."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def tried(self, make: Callable[[], Table], otherwise: Table) -> Table:
        """What ``make`` gives; ``otherwise`` if that is a problem."""
        try:
            return make()
        except ConfigError as error:
            self.problems.append(str(error))
            return otherwise

    def table(self, cls: type[Table], values: Any, place: str, otherwise: Table) -> Table:
        """One table."""
        return self.tried(lambda: _built(cls, values, place), otherwise)

    def tables(self, cls: type[Table], values: Any, place: str) -> Mapping[str, Table]:
        """The tables ``[place.NAME]``, without those that have a problem."""
        if not isinstance(values, dict):
            self.problems.append(f"{place} must be tables: write [{place}.NAME]")
            return _NONE
        found = {
            name: self.tried(partial(_built, cls, table, f"{place}.{name}"), None) for name, table in values.items()
        }
        return MappingProxyType({name: table for name, table in found.items() if table is not None})

    def rules(self, values: Any) -> tuple[PolicyRule, ...]:
        """The tables ``[[policy]]``."""
        if not isinstance(values, list):
            self.problems.append("policy must be a list of tables: write [[policy]]")
            return ()
        found = [
            self.tried(partial(_built, PolicyRule, table, f"policy[{number}]"), None)
            for number, table in enumerate(values)
        ]
        return tuple(rule for rule in found if rule is not None)


def _built(cls: type[Table], values: Any, place: str) -> Table:
    if not isinstance(values, dict):
        raise ConfigError(f"{place} must be a table")
    if cls in (ModelTable, McpTable):
        known = {known.name for known in dataclasses.fields(cls)}  # type: ignore[arg-type] # it is one of the two
        for key, value in values.items():
            if key not in known and any(secrets_in({key: value}, place)):
                raise ConfigError(f"{place}.{key} {NO_SECRETS}")
    return build(cls, values, place)


def _unresolved(settings: ServiceSettings) -> Iterator[str]:
    """What names something that is not there, or cannot be."""
    for name, agent in settings.agents.items():
        place = f"agents.{name}"
        try:
            check_name(name)
        except ConfigError as error:
            yield f"{place}: {error}"
        if agent.model and not _is_model(agent.model, settings):
            written = f"{instead(agent.model, settings.models)}; or write provider:name, such as openai:{agent.model}"
            yield f"{place}.model: there is no [models.{agent.model}]{written}"
        yield from (f"{place}.managed_agents: {problem}" for problem in _wrong_members(agent, settings))
        if circle := _circle(name, settings.agents):
            yield f"{place}.managed_agents: a circle: {' -> '.join(circle)}"
    for number, rule in enumerate(settings.policy):
        if rule.agent and rule.agent not in settings.agents:
            yield f"policy[{number}].agent: there is no agent {rule.agent!r}{instead(rule.agent, settings.agents)}"
    ready, most = sum(pool.size for pool in settings.pools.values()), settings.config.max_sandboxes
    if settings.pools and ready >= most:
        yield f"pools: their {ready} sandboxes leave no room for others, as max_sandboxes is {most}"


def _is_model(text: str, settings: ServiceSettings) -> bool:
    provider, colon, name = text.partition(":")
    return text in settings.models or bool(colon and name.strip() and provider in PROVIDERS)


def _wrong_members(agent: AgentTable, settings: ServiceSettings) -> Iterator[str]:
    for member in agent.managed_agents:
        if member not in settings.agents:
            yield f"there is no agent {member!r}{instead(member, settings.agents)}"
        elif not settings.agents[member].description:
            yield f"agents.{member} needs a description, by which its manager knows what it is good at"


def _circle(name: str, agents: Mapping[str, AgentTable]) -> tuple[str, ...]:
    """The way from ``name`` back to itself through teams, if there is one. Circles that it leads to are others'."""
    ways: list[tuple[str, ...]] = [(name,)]
    seen = {name}
    for way in ways:  # which grows
        for member in agents[way[-1]].managed_agents if way[-1] in agents else ():
            if member == name:
                return (*way, name)
            if member not in seen:
                seen.add(member)
                ways.append((*way, member))
    return ()
