"""A ``Tool`` by a JSON schema: for what is defined elsewhere and has no Python signature."""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.tools.definition import check_inputs, check_texts
from orchestrator.tools.foreign_schema import (
    MAX_DESCRIPTION,
    MAX_RETURNS,
    arguments_of,
    described,
    python_name,
)
from orchestrator.tools.tool import RESERVED_NAMES, Tool

MAX_ARGUMENT_DEPTH = 32  # of lists and dicts in an argument

# A tool stands before the builtin of its name: one that a server names "print" would be sent what code prints.
_TAKEN = RESERVED_NAMES | frozenset(dir(builtins))


class SchemaTool(Tool):
    """A tool that was described in words and JSON schema, and is called with one mapping of arguments.

    Its name and those of its arguments become Python identifiers as ``python_name`` says; descriptions are cut.
    It never stands in the place of a builtin: "print" becomes ``print_``, and "__name__" ``name__``.

    Args:
        name: its name where it comes from.
        description: what it does.
        schema: JSON schema of an object, each property of which is an argument.
        call: takes the arguments by their names there, those left out missing, and gives the result or a coroutine.
            A plain function may block: it is called in a thread.
        origin: where it is from, in words, for messages such as why it cannot be saved.
        output_type: as in ``Tool``.
        returns: what it returns, in words.
        timeout: seconds for one call from a sandbox; None for the sandbox's.

    Raises:
        ToolError: the schema is not that of an object, or names collide.
    """

    def __init__(
        self,
        name: str,
        description: str,
        schema: Any,
        call: Callable[[Mapping[str, Any]], Any],
        *,
        origin: str,
        output_type: str = "any",
        returns: str = "",
        timeout: float | None = None,
    ) -> None:
        self.name = _tool_name(name)
        self.description = described(description, MAX_DESCRIPTION) or f"{self.name} (it does not say what it does)"
        arguments = arguments_of(self.name, schema)
        self.inputs = arguments.inputs
        self.output_type = output_type
        self.returns = described(returns, MAX_RETURNS)
        self.timeout = timeout
        self.origin = origin
        self._call = call
        self._remote = arguments.remote
        self._signature = arguments.signature

    def forward(self, /, *args: Any, **kwargs: Any) -> Any:
        """Calls it where it comes from."""
        given = self._signature.bind(*args, **kwargs).arguments
        return self._call(
            {self._remote[name]: value for name, value in given.items() if not self._left_out(name, value)}
        )

    def _left_out(self, name: str, value: Any) -> bool:
        """None for what may be left out stands for leaving it out, where null would not be taken."""
        optional = self._signature.parameters[name].default is None
        return value is None and optional and not self.inputs[name].get("nullable")

    def _complete(self) -> None:
        check_texts(self)
        check_inputs(self.name, self.inputs)
        self.__signature__ = self._signature
        self.is_async = inspect.iscoroutinefunction(self._call)


def _tool_name(name: str) -> str:
    made = python_name(name)
    if made.startswith("__") and made.endswith("__"):
        made = made.lstrip("_")
    return python_name(made, _TAKEN)


def as_json(value: Any, place: str, depth: int = 0) -> Any:
    """An argument as JSON has it; tuples become lists.

    Raises:
        TypeError: a part of it is nothing that JSON has. ``place`` and its path are named.
    """
    if depth > MAX_ARGUMENT_DEPTH:
        raise TypeError(f"{place} is nested deeper than {MAX_ARGUMENT_DEPTH} levels")
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (list, tuple)):
        return [as_json(item, f"{place}[{index}]", depth + 1) for index, item in enumerate(value)]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: as_json(item, f"{place}[{key!r}]", depth + 1) for key, item in value.items()}
    raise TypeError(f"{place} is a {type(value).__name__}; it must be of what JSON has: texts, numbers, lists, dicts")
