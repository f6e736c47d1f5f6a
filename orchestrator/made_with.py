"""What something was made with, for whoever writes it down to make it again elsewhere."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Self


class MadeWith:
    """Remembers the arguments of its ``__init__``; ``made_with`` gives them. A subclass has nothing to do for it."""

    _made_with: tuple[tuple[Any, ...], Mapping[str, Any]] = ((), {})

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        made = super().__new__(cls)
        if args or kwargs:  # a copy is made without any, and then gets those of the original
            made._made_with = (args, kwargs)
        return made


def made_with(thing: MadeWith) -> dict[str, Any]:
    """The arguments by name, those that were left to their defaults not among them."""
    args, kwargs = thing._made_with
    signature = inspect.signature(type(thing).__init__)
    named: dict[str, Any] = {}
    for name, value in signature.bind(thing, *args, **kwargs).arguments.items():
        kind = signature.parameters[name].kind
        named |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    del named[next(iter(signature.parameters))]  # itself
    return named


def all_arguments(thing: MadeWith) -> dict[str, Any]:
    """The arguments by name, defaults included; without those that have no name of their own."""
    args, kwargs = thing._made_with
    try:
        signature = inspect.signature(type(thing).__init__)
    except ValueError:  # of one that is not written in Python
        return {}
    bound = signature.bind(thing, *args, **kwargs)
    bound.apply_defaults()
    named = (
        one for one in list(signature.parameters.values())[1:] if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    )
    return {one.name: bound.arguments[one.name] for one in named}
