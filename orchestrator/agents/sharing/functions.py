"""Functions by ``module:name``: how callbacks and checks are written down. Only whoever is trusted is read."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Sequence
from typing import Any

from orchestrator.errors import AgentError


def path_of(function: object, place: str) -> str:
    """``module:name`` of a function that its module has under its name.

    Raises:
        AgentError: it is another thing; the message says what to do.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    todo = f"{place}: write it as a function at the top level of a module, which is imported where the agent is loaded"
    if not isinstance(function, types.FunctionType | types.BuiltinFunctionType) or not module or not name:
        raise AgentError(f"{todo}; it is an object of the type {type(function).__name__}")
    if module == "__main__":
        raise AgentError(f"{todo}; {name} is in the program that is run, which cannot be imported")
    if "." in name or getattr(sys.modules.get(module), name, None) is not function:
        raise AgentError(f"{todo}; {module} has no {name} at its top level")
    return f"{module}:{name}"


def requirements_of(paths: Sequence[str]) -> tuple[str, ...]:
    """What has to be installed for these, as far as their modules are of installed packages."""
    if not paths:
        return ()
    from importlib.metadata import packages_distributions  # reads all that is installed: only to save

    known = packages_distributions()
    tops = {path.partition(":")[0].partition(".")[0] for path in paths}
    return tuple(sorted({known[top][0] for top in tops if known.get(top)}))


def imported(path: str, place: str) -> Any:
    """The function. Importing its module runs the code in it.

    Raises:
        AgentError: there is no such module or function.
    """
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # the module's own code, which can raise anything
        raise AgentError(f"{place}: {path} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise AgentError(f"{place}: {path} cannot be called")
    return found
