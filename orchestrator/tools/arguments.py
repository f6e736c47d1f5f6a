"""The arguments of one call, bound to the tool's signature, checked and converted."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.tools.conversion import converted
from orchestrator.tools.mismatch import mismatch
from orchestrator.tools.schema import Schema


def checked_arguments(
    name: str,
    signature: inspect.Signature,
    inputs: Mapping[str, Schema],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> inspect.BoundArguments:
    """The arguments bound to the signature, each as its hint says: an Enum's member, a dataclass, an image of Pillow.

    What stands for it in data, such as the member's value or a dict of the fields, is what is checked and comes from
    the sandbox: no class travels. A single dict whose keys are names of arguments stands for these.

    Raises:
        TypeError: one is missing, unknown, or of another type than the schema says. The model sees the message.
        ValueError: a class of the tool's own refuses its values.
    """
    args, kwargs = _spread(signature, inputs, args, kwargs)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{name}(): {error}") from None
    for argument, value in bound.arguments.items():
        parameter = signature.parameters[argument]
        if value is parameter.default:
            continue
        problem = mismatch(inputs.get(argument, {}), value)
        if problem:
            raise TypeError(f"{name}(): argument {argument!r} {problem}")
        bound.arguments[argument] = converted(f"{name}(): argument {argument!r}", parameter.annotation, value)
    return bound


def _spread(
    signature: inspect.Signature, inputs: Mapping[str, Schema], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Positional and keyword arguments, after a single dict of them has been taken apart, as smolagents does.

    A dict that the first argument would take as it is stays one.
    """
    if len(args) != 1 or kwargs or not isinstance(args[0], dict) or not args[0]:
        return args, kwargs
    first = next(iter(signature.parameters), "")
    if not all(key in inputs for key in args[0]) or not mismatch(inputs.get(first, {}), args[0]):
        return args, kwargs
    return (), args[0]
