"""How a tool was made, and what of it was changed since, for whoever writes it down to make it again elsewhere.

An argument of ``__init__`` that is kept as the attribute of its name is a setting: its present value is what the tool
is to be made with. A change of any other public attribute is told by no argument. What the tool itself writes while it
works is its state, and begins anew elsewhere; so does what begins with an underscore.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import FunctionType
from typing import TYPE_CHECKING, Any

from orchestrator.made_with import all_arguments, made_with

if TYPE_CHECKING:
    from orchestrator.tools.tool import Tool

# What a tool says of itself: never its state.
SAID = ("name", "description", "inputs", "output_type", "output_schema", "timeout", "expose_errors", "stops_clock")
_GONE = object()
_PLAIN = (bool, int, float, str, bytes, list, tuple, dict, set, frozenset)


@dataclass(frozen=True, slots=True)
class AsMade:
    """A tool as its ``__init__`` left it.

    Attributes:
        attributes: of the object, the public ones.
        arguments: of ``__init__`` by name, defaults included.
        settings: names of those that are kept as attributes.
        before_setup: settings that ``setup`` has put something else in the place of, as they were before.
    """

    attributes: Mapping[str, Any]
    arguments: Mapping[str, Any]
    settings: frozenset[str]
    before_setup: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, tool: Tool) -> AsMade:
        """Of a tool that was made just now."""
        arguments = all_arguments(tool)
        kept = (name for name, value in arguments.items() if _same(_present(tool, name), value))
        return cls(_public(vars(tool)), arguments, frozenset(kept))

    def after_setup(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> AsMade:
        """The same, as ``setup`` does its work elsewhere, too."""
        written = {name: value for name, value in _public(now).items() if before.get(name, _GONE) is not value}
        settings = {name: before[name] for name in written if name in self.settings and name in before}
        return replace(self, attributes={**self.attributes, **written}, before_setup=settings)


def present_arguments(tool: Tool) -> dict[str, Any]:
    """What the tool would be made with to be as it is now. Arguments that are still their defaults are not among it."""
    given, made = made_with(tool), tool._as_made
    if made is None:
        return given
    for name in sorted(made.settings):
        now = _present(tool, name)
        if name in made.before_setup and now is made.attributes[name]:  # what setup made of it
            now = made.before_setup[name]
        if now is not _GONE and not _same(now, made.arguments[name]):
            given[name] = now
    return given


def changed_besides(tool: Tool) -> list[str]:
    """What was changed from outside and is told by no argument."""
    made = tool._as_made
    if made is None:
        return []
    now, then = _public(vars(tool)), made.attributes
    changed = [name for name in then if not _same(now.get(name, _GONE), then[name])]
    changed += [name for name in now if name not in then and hasattr(type(tool), name)]
    open_ = [name for name in changed if name not in made.settings]
    state = _written_at_work(type(tool)).difference(SAID) if open_ else ()
    return [name for name in open_ if name not in state]


def _public(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if not name.startswith("_")}


def _present(tool: Tool, name: str) -> Any:
    """The attribute; a property only if it can be set: another one may be slow to ask, and cannot be changed."""
    if name in vars(tool):
        return vars(tool)[name]
    found = inspect.getattr_static(type(tool), name, _GONE)
    if isinstance(found, property) and found.fset is None:
        return _GONE
    try:
        return getattr(tool, name, _GONE)
    except Exception:  # noqa: BLE001 - code of the tool's own, which can raise anything
        return _GONE


def _same(one: Any, other: Any) -> bool:
    """Objects of classes of their own only if they are one: what their ``==`` says, and costs, is not known."""
    if one is other:
        return True
    if type(one) is not type(other) or not isinstance(one, _PLAIN):
        return False
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001 - there may be such objects inside
        return False


def _written_at_work(kind: type) -> set[str]:
    """Attributes that its calls write: in ``forward`` and in methods that are not for others."""
    return {name for method in _methods_at_work(kind) for name in _written(method)}


def _methods_at_work(kind: type) -> Iterator[FunctionType]:
    for one in kind.__mro__:
        for name, value in vars(one).items():
            own = name == "forward" or (name.startswith("_") and name != "__init__")
            if own and isinstance(value, FunctionType):
                yield value


def _written(method: FunctionType) -> Iterator[str]:
    try:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(method))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return
    itself = next(iter(inspect.signature(method).parameters), "")
    for node in ast.walk(definition):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute, ctx=ast.Store()) if name == itself:
                yield attribute
