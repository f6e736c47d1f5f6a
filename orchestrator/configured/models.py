"""The models of the settings, each made once: what paces its requests, or holds its weights, is one for all runs."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from orchestrator.configured.settings import ServiceSettings
from orchestrator.configured.tables import ModelTable
from orchestrator.errors import CellblockError, ConfigError
from orchestrator.models import Model
from orchestrator.models.by_name import model_by_name

# Of a ModelTable, what is not passed on under its name.
_OWN = ("model", "api_base", "api_key_env", "parameters")


class Models:
    """Models by the texts that agents have for them. From any thread.

    Args:
        env: where keys are looked for; default the environment of the process. A key that a provider's model finds by
            itself comes from the process's.
    """

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self._env = os.environ if env is None else env
        self._made: dict[str, tuple[ModelTable | None, Model]] = {}
        self._making = threading.Lock()  # loading weights twice would be worse than waiting

    def of(self, settings: ServiceSettings, agent: str) -> Model:
        """The model of that agent. Blocks as long as it takes to load one that runs in this process.

        One whose table has changed since is made anew; one that no agent has any more is forgotten.

        Raises:
            NotFound: there is no such agent.
            ConfigError: the model's key is not in the environment, an extra is missing, or an argument is wrong.
        """
        text = text_of(settings, agent)
        with self._making:
            used = {text_of(settings, name) for name in settings.agents}
            self._made = {kept: made for kept, made in self._made.items() if kept in used}
            table = settings.models.get(text)
            if text not in self._made or self._made[text][0] != table:
                self._made[text] = (table, new_model(text, table, self._env))
            return self._made[text][1]


def new_model(text: str, table: ModelTable | None, env: Mapping[str, str]) -> Model:
    """A model of that table, whose name is ``text``; without a table of ``provider:name``.

    Raises:
        ConfigError: as ``Models.of``.
    """
    if table is None:
        return model_by_name(text)
    try:
        return _of_table(table, env)
    except CellblockError as error:
        raise ConfigError(f"models.{text}: {error}") from None


def _of_table(table: ModelTable, env: Mapping[str, str]) -> Model:
    given: dict[str, Any] = {known.name: getattr(table, known.name) for known in fields(table)}
    named = {name: value for name, value in given.items() if name not in _OWN and value is not None}
    key = _key(table.api_key_env, env)
    return model_by_name(table.model, api_base=table.api_base, api_key=key, **named, **table.parameters)


def _key(variable: str, env: Mapping[str, str]) -> str:
    if not variable:
        return ""
    key = env.get(variable, "")
    if not key:
        raise ConfigError(f"api_key_env: the environment has no {variable}")
    return key


def text_of(settings: ServiceSettings, agent: str) -> str:
    """What the model of an agent is called: a name of ``settings.models``, or ``provider:name``.

    Raises:
        NotFound: there is no such agent.
    """
    return settings.agent(agent).model or settings.config.model
