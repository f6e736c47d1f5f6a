"""A tool of a text of Python code. That code runs on the host, with all that this process may do."""

from __future__ import annotations

import ast
import hashlib
import linecache
import sys
import types
from typing import Any

from orchestrator.errors import ConfigError, ToolError
from orchestrator.tools.tool import FunctionTool, Tool

MAX_CODE = 1 << 20  # bytes
_SMOLAGENTS = frozenset({"Tool", "tool"})  # what a tool's file may import of it, as we have the same


def trust_error(what: str) -> ConfigError:
    """What is raised where code from elsewhere would run and nobody has said that it may."""
    return ConfigError(
        f"{what} runs its code on the host, outside of any sandbox, with everything that this process may do. Read the "
        "code, and if you trust it, pass trust_remote_code=True"
    )


def from_code(code: str, trust_remote_code: bool = False, **kwargs: Any) -> Tool:
    """The one tool that a text of Python code defines: a subclass of ``Tool``, or a function with ``@tool``.

    Of several, ``__all__`` names the one that is meant; a class that another one builds on does not count.

    It is run as a module with a name of its own, which no import finds. Code that was written for smolagents and
    imports ``Tool`` and ``tool`` from it gets those of here.

    Args:
        code: the text.
        trust_remote_code: has to be True, as the code runs on the host.
        kwargs: the arguments of the class.

    Raises:
        ConfigError: it is not trusted.
        ToolError: it is no Python, fails, or does not define exactly one tool.
    """
    if trust_remote_code is not True:
        raise trust_error("making a tool of a text")
    if len(code) > MAX_CODE:
        raise ToolError(f"a tool's code has {len(code):,} characters; at most {MAX_CODE:,}")
    module = _run(code)
    found = _tools_in(module)
    if len(found) != 1:
        names = ", ".join(sorted(found)) or "none"
        raise ToolError(f"the code has to define exactly one tool, as a subclass of Tool or by @tool; it has {names}")
    (only,) = found.values()
    if isinstance(only, Tool):
        if kwargs:
            raise ToolError(f"tool {only.name} is a function, and takes no {', '.join(sorted(kwargs))} to be made")
        return only
    return _made(only, kwargs)


def _made(kind: type[Tool], kwargs: dict[str, Any]) -> Tool:
    try:
        return kind(**kwargs)
    except ToolError:
        raise
    except Exception as error:  # its own code, which can raise anything
        raise ToolError(f"{kind.__name__}() fails: {type(error).__name__}: {error}") from error


def _run(code: str) -> types.ModuleType:
    """Its module. The text is kept where tracebacks and ``inspect`` look: a loaded tool can be saved again."""
    name = f"_cellblock_tool_{hashlib.sha256(code.encode('utf-8', 'replace')).hexdigest()[:16]}"
    file = f"<{name}>"
    module = types.ModuleType(name)
    module.__file__ = file
    try:
        compiled = compile(_translated(ast.parse(code)), file, "exec")
    except (SyntaxError, ValueError) as error:
        raise ToolError(f"the tool's code is no Python: {error}") from None
    linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
    sys.modules[name] = module  # type hints and dataclasses look their module up there
    try:
        exec(compiled, module.__dict__)  # noqa: S102 - it is trusted: that has been said
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ToolError(f"the tool's code fails: {type(error).__name__}: {error}") from error
    return module


def _translated(tree: ast.Module) -> ast.Module:
    """``from smolagents… import Tool`` made an import of ours: theirs would be no ``Tool`` here."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "smolagents":
            other = sorted({alias.name for alias in node.names} - _SMOLAGENTS)
            if other:
                raise ToolError(f"the tool's code imports {', '.join(other)} from smolagents, which is not here")
            node.module = "orchestrator"
    return tree


def _tools_in(module: types.ModuleType) -> dict[str, Tool | type[Tool]]:
    """Those that it defines: not what it imports, and no class that is there for another to build on."""
    kinds = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Tool) and value.__module__ == module.__name__
    }
    bases = {base for kind in kinds.values() for base in kind.__mro__[1:]}
    found: dict[str, Tool | type[Tool]] = {name: kind for name, kind in kinds.items() if kind not in bases}
    for name, value in vars(module).items():
        if isinstance(value, FunctionTool) and value.__module__ == module.__name__:
            found[name] = value
    told = getattr(module, "__all__", None)  # which of several is meant
    return {name: one for name, one in found.items() if name in told} if isinstance(told, list) else found
