"""The import allowlist, as a policy with clear errors. The kernel's layers are the wall; this is the sign on the door.

Two layers. ``check_source`` walks the syntax tree before anything runs, so a denied import fails the action as a whole
and nothing is half done. ``Guard`` replaces ``builtins.__import__`` and puts a finder first on ``sys.meta_path``; both
judge by who imports: user code is held to the list, an allowed library may import what it needs.

A rule ``"pkg"`` allows pkg alone, ``"pkg.*"`` its submodules too, ``"*"`` whatever is installed.
"""

from __future__ import annotations

import ast
import builtins
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import FrameType, ModuleType
from typing import Any

PACKAGES = f"{sys.prefix}/site-packages"  # third-party ones
USER_FILE = "<execution "  # every file name that user code is compiled under starts so
_IMPORT_ERRORS = ("ImportError", "ModuleNotFoundError", "Exception", "BaseException")
_MACHINERY = ("importlib", "<frozen importlib")


class ImportNotAllowed(ImportError):
    """An import that is not on the sandbox's allowlist."""


class Allowlist:
    """Which module names user code may import."""

    def __init__(self, rules: Sequence[str]) -> None:
        self._rules = frozenset(rules)

    def allows(self, name: str) -> bool:
        """True if ``import name`` is on the list."""
        if "*" in self._rules or name in self._rules or f"{name}.*" in self._rules:
            return True
        parts = name.split(".")
        return any(".".join(parts[:n]) + ".*" in self._rules for n in range(1, len(parts)))

    def allows_below(self, name: str) -> bool:
        """True if something in the package ``name`` is on the list, so that the package itself has to be loaded."""
        return any(rule.startswith(f"{name}.") for rule in self._rules)

    def check(self, name: str) -> None:
        """Raises ImportNotAllowed, or ModuleNotFoundError where the module is not in the image at all."""
        if name not in sys.modules and not is_installed(name.partition(".")[0]):
            raise ModuleNotFoundError(f"No module named {name!r}: it is not installed in this sandbox", name=name)
        if self.allows(name):
            return
        raise ImportNotAllowed(f"Import of {name!r} is not allowed. {self._advice(name)}", name=name)

    def _advice(self, name: str) -> str:
        top = name.partition(".")[0]
        near = sorted(rule for rule in self._rules if rule.partition(".")[0] == top)
        if near:
            return f"Of {top}, these are allowed: {', '.join(near)}."
        return f"Allowed imports: {', '.join(sorted(self._rules))}."


def is_installed(top: str) -> bool:
    """True if a top-level module of that name can be found. Nothing is imported to find out."""
    return top in sys.builtin_module_names or top in sys.modules or PathFinder.find_spec(top) is not None


def check_source(tree: ast.AST, allowlist: Allowlist) -> None:
    """Checks every import statement of an action, also those inside functions, before any of it runs.

    An import that a ``try`` guards with a handler for ImportError is left to the moment it runs.
    """
    for node in _unguarded(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                allowlist.check(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            allowlist.check(node.module)


def _unguarded(tree: ast.AST) -> list[ast.AST]:
    found, waiting = [], [tree]
    while waiting:
        node = waiting.pop()
        found.append(node)
        if isinstance(node, ast.Try) and any(_catches_import_error(handler) for handler in node.handlers):
            waiting += [*node.handlers, *node.orelse, *node.finalbody]
        else:
            waiting += ast.iter_child_nodes(node)
    return found[::-1]


def _catches_import_error(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or (isinstance(kind, ast.Name) and kind.id in _IMPORT_ERRORS) for kind in caught)


class Guard:
    """Holds user code to the allowlist while it runs."""

    def __init__(self, allowlist: Allowlist, on_import: Callable[[], None]) -> None:
        self._allowlist = allowlist
        self._on_import = on_import  # called after each import statement
        self._finders = tuple(sys.meta_path)
        self._import: Callable[..., ModuleType] = builtins.__import__

    def install(self) -> None:
        """Puts the guard in force; called again before each execution, because user code may have removed it."""
        builtins.__import__ = self.import_module  # type: ignore[assignment] # only user code is held to more
        if type(sys.meta_path) is not list:
            sys.meta_path = list(self._finders)
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def import_module(
        self,
        name: str,
        globals: dict[str, Any] | None = None,
        locals: dict[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """What ``import`` calls, with its signature.

        A ``fromlist`` that is a list comes from PyImport_Import, the C interface: in the frame of user code, but a
        library's own need (datetime.strptime wants _strptime). User code could write that too: a sign on the door.
        """
        by_user = level == 0 and type(fromlist) is not list and _is_user(sys._getframe(1))
        if by_user:
            self._allowlist.check(name)
        module = self._import(name, globals, locals, fromlist, level)
        self._on_import()
        if by_user:
            for part in fromlist or ():
                self._check_submodule(name, part, getattr(module, part, None))
        return module

    def _check_submodule(self, package: str, part: str, value: object) -> None:
        if type(value) is ModuleType and not self._allowlist.allows(value.__name__):
            self._allowlist.check(f"{package}.{part}")

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """First on meta_path: sees ``importlib.import_module`` too. Never finds, only refuses."""
        frame: FrameType | None = sys._getframe(1)
        while frame and not _is_user(frame) and str(frame.f_globals["__name__"]).startswith(_MACHINERY):
            frame = frame.f_back
        while frame and frame.f_code is Guard.import_module.__code__:
            frame = frame.f_back
        if frame and _is_user(frame) and not self._allowlist.allows_below(name):
            self._allowlist.check(name)
        if path is None:
            _require_readable(name)
        return None


def _require_readable(top: str) -> None:
    """A package that is installed and not granted is not there, for a library that would like to have it.

    The kernel refuses its files, which Python would tell as a PermissionError, and no library expects that.
    """
    for file in (f"{PACKAGES}/{top}/__init__.py", f"{PACKAGES}/{top}.py"):
        try:
            os.close(os.open(file, os.O_RDONLY))
        except PermissionError:
            raise ModuleNotFoundError(f"No module named {top!r}: it is not granted to this sandbox", name=top) from None
        except OSError:
            continue


def _is_user(frame: FrameType) -> bool:
    """User code, also where it was given to ``exec`` with its own or with empty globals."""
    in_user_namespace = frame.f_globals.get("__name__") in (None, "__main__")
    return in_user_namespace or frame.f_code.co_filename.startswith(USER_FILE)
