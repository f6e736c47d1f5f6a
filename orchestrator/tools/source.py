"""A tool's own code, as a file that stands by itself: what is saved, and loaded elsewhere.

Written out are the class or function, whatever of its own module it uses, and the imports that all that needs. What
cannot be written down so that it means the same elsewhere is refused, with the reason.
"""

from __future__ import annotations

import ast
import inspect
import math
import symtable
import sys
import textwrap
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.credentials import secrets_in
from orchestrator.errors import ToolError
from orchestrator.tools.as_made import changed_besides
from orchestrator.tools.schema import function_schema
from orchestrator.tools.tool import FunctionTool, Tool
from orchestrator.tools.tool import tool as tool_decorator

MAX_PARTS = 100  # definitions of one file: a tool that needs more is a package, and is to be installed as one
PACKAGE = "cellblock"  # what the file needs in any case
_OURS = {"Tool": Tool, "tool": tool_decorator}
_SAID_BY_FUNCTION = ("name", "description", "inputs", "output_type", "returns")


@dataclass(frozen=True, slots=True)
class ToolSource:
    """A tool as a file.

    Attributes:
        entry: the class or function in it.
        is_class: whether ``entry`` has to be called to give the tool.
        code: the file.
        requirements: what has to be installed for it, by the names that pip knows.
    """

    entry: str
    is_class: bool
    code: str
    requirements: tuple[str, ...]


def tool_source(tool: Tool) -> ToolSource:
    """The source of a tool that is written in Python.

    Raises:
        ToolError: it comes from elsewhere, its source is not to be found, or it needs what cannot be written down: an
            argument to be made, a variable of a function around it, an object of its module, a module that is not
            installed.
    """
    origin = getattr(tool, "origin", None)
    if origin is not None:
        raise ToolError(f"tool {tool.name} cannot be saved: it is from {origin}, and its code is there, not here")
    writer = _Writer(tool.name)
    if isinstance(tool, FunctionTool):
        return writer.source(writer.add_function_tool(tool), is_class=False)
    kind = type(tool)
    _check_default_construction(tool.name, kind)
    writer.add(kind)
    return writer.source(kind.__name__, is_class=True)


def changed_since_made(tool: Tool) -> list[str]:
    """What of an object is neither as its code says nor told by an argument of it, by its names."""
    if isinstance(tool, FunctionTool):
        said = function_schema(inspect.unwrap(tool.forward))
        if changed := [name for name in _SAID_BY_FUNCTION if getattr(tool, name) != getattr(said, name)]:
            return changed
    return changed_besides(tool)


def _check_default_construction(name: str, kind: type) -> None:
    """It is made without arguments where it is loaded."""
    if kind.__init__ is object.__init__:  # type: ignore[misc]
        return
    for parameter in list(inspect.signature(kind.__init__).parameters.values())[1:]:  # type: ignore[misc]
        variable = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and not variable:
            raise ToolError(
                f"tool {name} cannot be saved: {kind.__name__} needs the argument {parameter.name!r} to be made; "
                "give it a default"
            )


@dataclass(slots=True)
class _Writer:
    """Collects definitions, those that others need first."""

    tool: str
    imports: set[str] = field(default_factory=set)
    parts: list[str] = field(default_factory=list)
    requirements: set[str] = field(default_factory=lambda: {PACKAGE})
    done: set[str] = field(default_factory=set)
    tools: int = 0

    def source(self, entry: str, *, is_class: bool) -> ToolSource:
        imports = "\n".join(sorted(self.imports, key=lambda line: (line.startswith("from"), line)))
        head = f"from __future__ import annotations\n\n{imports}".rstrip()
        if self.tools > 1:  # which of them is meant
            head += f'\n\n__all__ = ["{entry}"]'
        code = "\n\n\n".join([head, *self.parts]) + "\n"
        compile(code, f"<{self.tool}>", "exec")  # what is written is Python, or this says so now
        return ToolSource(entry, is_class, code, tuple(sorted(self.requirements)))

    def add_function_tool(self, tool: FunctionTool) -> str:
        """A function with ``@tool`` before it, however it was made a tool. Gives its name."""
        function = inspect.unwrap(tool.forward)
        if not isinstance(function, types.FunctionType):
            raise self._refusal("it is a method of an object, which cannot be written down")
        text, tree = self._text(function)
        definition = tree.body[0]
        assert isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef)
        if definition.decorator_list and not _is_only_tool(definition.decorator_list, function.__globals__):
            raise self._refusal("it has other decorators than @tool, and what they made of it cannot be written down")
        bare = "\n".join(text.splitlines()[definition.lineno - 1 :])
        text = f"{_decorator(tool)}\n{bare}"  # with what it says now, which may have been changed
        tree = ast.parse(text)
        self.imports.add("from orchestrator import tool")
        self._add_needs(function.__name__, function, text, tree)
        self.parts.append(text)
        self.tools += 1
        return function.__name__

    def add(self, thing: Any) -> None:
        """A class or function with all that it needs."""
        text, tree = self._text(thing)
        self._add_needs(thing.__name__, thing, text, tree)
        self.parts.append(text)
        self.tools += isinstance(thing, type) and issubclass(thing, Tool)

    def _text(self, thing: Any) -> tuple[str, ast.Module]:
        try:
            text = textwrap.dedent(inspect.getsource(thing)).rstrip()
            tree = ast.parse(text)
        except (OSError, TypeError, SyntaxError):
            raise self._refusal(f"the source of {thing.__qualname__} is not to be found; write it in a file") from None
        if not isinstance(tree.body[0], ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            raise self._refusal(f"{thing.__qualname__} is no class and no def")
        return text, tree

    def _add_needs(self, name: str, thing: Any, text: str, tree: ast.Module) -> None:
        self.done.add(name)
        if len(self.done) > MAX_PARTS:
            raise self._refusal(f"it needs more than {MAX_PARTS} definitions of its module; make a package of that")
        for function in _functions(thing, tree):
            around = set(function.__code__.co_freevars) - {"__class__"}
            if around:
                raise self._refusal(f"it uses {sorted(around)[0]!r} of the function around it; make that an argument")
        for node in ast.walk(tree):
            self._add_import_inside(node)
        module = sys.modules.get(thing.__module__)
        known = getattr(thing, "__globals__", None) or (vars(module) if module else {})
        for used in sorted(_globals_in(text)):
            if used in known and used not in self.done:
                self._need(used, known[used], thing.__module__)

    def _add_import_inside(self, node: ast.AST) -> None:
        match node:
            case ast.Import(names=names):
                for alias in names:
                    self._require(alias.name)
            case ast.ImportFrom(level=0, module=str(module)):
                self._require(module)
            case ast.ImportFrom():
                raise self._refusal("it imports from its own package ('from . import …')")

    def _need(self, name: str, value: Any, home: str) -> None:
        """Whatever ``name`` stands for in the tool's module is made to stand for it in the file."""
        ours = next((known for known, thing in _OURS.items() if thing is value), None)
        if ours is not None:
            self.imports.add(f"from orchestrator import {ours}" + ("" if ours == name else f" as {name}"))
        elif isinstance(value, types.ModuleType):
            self._require(value.__name__)
            self.imports.add(_import(value.__name__, name))
        elif isinstance(value, FunctionTool) and value.__module__ == home:
            self._alias(name, self.add_function_tool(value))
        elif isinstance(value, type | types.FunctionType) and value.__module__ == home:
            if value.__name__ not in self.done:
                self.add(value)
            self._alias(name, value.__name__)
        elif _is_importable(value, home):
            self._require(value.__module__)
            alias = "" if value.__name__ == name else f" as {name}"
            self.imports.add(f"from {value.__module__} import {value.__name__}{alias}")
        elif _is_literal(value):
            self._add_constant(name, value, home)
        else:
            self._need_from_typing(name, value)

    def _add_constant(self, name: str, value: Any, home: str) -> None:
        """What the module says it is. One that was made when the program ran may hold what nobody wrote down."""
        if not _is_written_so(name, home):
            raise self._refusal(
                f"the value of {name!r} is made when its module runs, and may be a secret; read it inside the tool"
            )
        if any(secrets_in(as_plain(value), name)):
            raise self._refusal(f"{name!r} looks like a credential; read it inside the tool, from the environment, say")
        self.done.add(name)
        self.parts.append(f"{name} = {value!r}")

    def _alias(self, name: str, defined: str) -> None:
        if name != defined:
            self.done.add(name)
            self.parts.append(f"{name} = {defined}")

    def _need_from_typing(self, name: str, value: Any) -> None:
        """``Any``, ``Literal`` and their like have no module that they all tell."""
        import typing

        if getattr(typing, name, None) is not value:
            kind = type(value).__name__
            raise self._refusal(
                f"it uses {name!r} of its module, a {kind}, which cannot be written down; make it inside"
            )
        self.imports.add(f"from typing import {name}")

    def _require(self, module: str) -> None:
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or top == "orchestrator":
            return
        distributions = _distributions().get(top)
        if not distributions:
            raise self._refusal(f"it needs the module {top!r}, which is not of an installed package")
        self.requirements.add(sorted(distributions)[0])

    def _refusal(self, why: str) -> ToolError:
        return ToolError(f"tool {self.tool} cannot be saved: {why}")


def _is_only_tool(decorators: list[ast.expr], known: Mapping[str, Any]) -> bool:
    """Whether there is one, ``@tool`` or ``@module.tool``, perhaps with settings."""
    only = decorators[0].func if isinstance(decorators[0], ast.Call) else decorators[0]
    match only:
        case ast.Name(id=name):
            meant = known.get(name)
        case ast.Attribute(value=ast.Name(id=name), attr=attribute):
            meant = getattr(known.get(name), attribute, None)
        case _:
            return False
    return len(decorators) == 1 and meant is tool_decorator


def _decorator(tool: FunctionTool) -> str:
    settings = [] if tool.expose_errors else ["expose_errors=False"]
    settings += [] if tool.timeout is None else [f"timeout={tool.timeout!r}"]
    return f"@tool({', '.join(settings)})" if settings else "@tool"


def _distributions() -> Mapping[str, list[str]]:
    from importlib.metadata import packages_distributions  # reads all that is installed: only to save

    return packages_distributions()


def _functions(thing: Any, tree: ast.Module) -> Iterator[types.FunctionType]:
    """Itself, or the methods of a class that are written there: those that a decorator makes are made again."""
    written = _names_given(tree)
    found = [thing]
    if not isinstance(thing, types.FunctionType):
        found = [value for name, value in vars(thing).items() if name in written]
    for one in found:
        one = getattr(one, "__func__", None) or getattr(one, "fget", None) or one
        if isinstance(one, types.FunctionType):
            yield one


def _names_given(tree: ast.Module) -> set[str]:
    """Every name that is given to something anywhere in a definition."""
    defined = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = list(ast.walk(tree))
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return stored | {node.name for node in nodes if isinstance(node, defined)}


def _globals_in(text: str) -> set[str]:
    """The names in a definition that stand for something outside of it, those of annotations included."""
    found: set[str] = set()
    tables = [symtable.symtable(text, "<tool>", "exec")]
    top = tables[0]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        found |= {s.get_name() for s in table.get_symbols() if s.is_referenced() and (table is top or s.is_global())}
    return found | _quoted(ast.parse(text))


def _quoted(tree: ast.AST) -> set[str]:
    """Names in annotations that are written as texts."""
    names: set[str] = set()
    for node in ast.walk(tree):
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
                names |= {part.id for part in ast.walk(ast.parse(annotation.value)) if isinstance(part, ast.Name)}
    return names


def _import(module: str, name: str) -> str:
    return f"import {module}" if module == name else f"import {module} as {name}"


def _is_importable(value: Any, home: str) -> bool:
    """Whether its module gives it by its name."""
    module, name = getattr(value, "__module__", None), getattr(value, "__name__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module in ("__main__", home):
        return False
    return getattr(sys.modules.get(module), name, None) is value


def _is_written_so(name: str, home: str) -> bool:
    """Whether the module assigns a literal to ``name``, once, and nothing else."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[home]))
    except (OSError, TypeError, SyntaxError, KeyError):
        return False
    stored = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name]
    written = [node for node in stored if not isinstance(node.ctx, ast.Load)]
    values = [_assigned(statement, name) for statement in tree.body]
    found = [value for value in values if value is not None]
    return len(written) == 1 and len(found) == 1 and _is_constant(found[0])


def _assigned(statement: ast.stmt, name: str) -> ast.expr | None:
    match statement:
        case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
            return value
        case ast.AnnAssign(target=ast.Name(id=target), value=value) if target == name:
            return value
    return None


def _is_constant(node: ast.expr) -> bool:
    match node:
        case ast.Constant():
            return True
        case ast.UnaryOp(operand=operand):
            return _is_constant(operand)
        case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
            return all(map(_is_constant, parts))
        case ast.Dict(keys=keys, values=values):
            return all(key is not None and _is_constant(key) for key in keys) and all(map(_is_constant, values))
        case ast.Call(func=ast.Name(id="frozenset" | "set" | "tuple" | "list" | "dict"), args=parts, keywords=[]):
            return all(map(_is_constant, parts))
    return False


def as_plain(value: Any) -> Any:
    """``value`` with lists for other containers, and text for bytes."""
    if isinstance(value, dict):
        return {str(key): as_plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [as_plain(part) for part in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _is_literal(value: Any) -> bool:
    if type(value) in (list, tuple, set, frozenset):
        return bool(value or type(value) in (list, tuple)) and all(_is_literal(part) for part in value)
    if type(value) is dict:
        return all(_is_literal(part) for pair in value.items() for part in pair)
    if type(value) is float:
        return math.isfinite(value)
    return value is None or type(value) in (bool, int, str, bytes)
