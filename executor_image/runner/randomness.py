"""Random numbers of a copy: other ones than those of the process it was copied from, unless the code fixed them.

``random`` and ``numpy.random`` have one hidden generator each, and a fork copies it: two branches would draw the same
numbers. So a copy that becomes a head seeds them anew, but not one that user code has seeded: ``random.seed(1)`` holds
until somebody seeds again, over kills, rollbacks and branches. Generators that the code makes itself are its own.

Whether the code has seeded is heard by a wrapper around ``seed`` and ``setstate``, put there when the module appears.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any

# Module -> the functions of it that fix its generator; with None as their argument they do the opposite.
_FIXING = {"random": ("seed", "setstate"), "numpy.random": ("seed", "set_state")}
_WHAT_FIXES = ("a", "state", "seed")  # names of the first parameter of those functions


class Randomness:
    """Listens, and seeds anew."""

    def __init__(self) -> None:
        self._fixed: set[str] = set()  # modules whose generator user code has fixed
        self._original: dict[str, dict[str, Callable[..., Any]]] = {}

    def begin(self) -> None:
        """Listens to ``random`` before user code can have it by any way of importing."""
        importlib.import_module("random")
        self.listen()

    def listen(self) -> None:
        """Called after every import: a module that has just appeared is listened to before user code can use it."""
        for name, functions in _FIXING.items():
            module = sys.modules.get(name)
            if module is not None and name not in self._original and all(hasattr(module, f) for f in functions):
                self._original[name] = {f: getattr(module, f) for f in functions}
                for function in functions:
                    setattr(module, function, self._wrapped(name, module, function))

    def _wrapped(self, name: str, module: ModuleType, function: str) -> Callable[..., Any]:
        original = self._original[name][function]

        @functools.wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            given = args[0] if args else next((kwargs[key] for key in _WHAT_FIXES if key in kwargs), None)
            (self._fixed.discard if given is None else self._fixed.add)(name)
            return result

        return wrapper

    def renew(self) -> None:
        """In a copy that becomes a head: what the code has not fixed is new."""
        for name in self._original.keys() - self._fixed:
            with suppress(Exception):  # user code may have broken it, and has what it broke
                self._original[name]["seed"]()
