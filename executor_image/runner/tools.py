"""Host tools as plain functions: a call goes up as a frame, blocks its thread, and comes back as a value or exception.

Calls may come from several threads; the channel sees to who reads.
"""

from __future__ import annotations

import builtins
import itertools
import json
import keyword
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from executor_image import frames
from executor_image.runner.channel import Channel
from executor_image.runner.values import decode, encode_arguments


class ToolError(Exception):
    """A host tool failed with an exception that has no counterpart among the builtins."""


class Calls:
    """The tool calls that one process makes, in one execution after the other."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._numbers = itertools.count(1)  # never used twice, so that a late caller cannot take another's result
        self.nonce = b""  # of the execution under way

    def end(self) -> None:
        """The execution is over: whoever still waits for a result will get none."""
        self.nonce = b""
        self._channel.wake()

    def call(self, name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """Calls the host's ``name`` and waits for what it gives.

        Raises:
            NotPortable: an argument cannot travel.
            ToolError: there is no execution for which it could be called.
            Exception: what the host's tool raised, by type name and message.
        """
        nonce = self.nonce
        if not nonce:
            raise ToolError(f"{name} was called after the end of the execution")
        arguments, number, encoded = encode_arguments(args, kwargs), next(self._numbers), name.encode()
        head = frames.CALL_HEAD.pack(nonce, number, len(encoded))
        self._channel.send(frames.TOOL_CALL, head, encoded, arguments)
        body = self._channel.receive_result(number, lambda: self.nonce == nonce)
        if body is None:
            raise ToolError(f"the execution that called {name} has ended")
        return _unpack(body)


def _unpack(body: bytes) -> Any:
    _, failed = frames.TOOL_HEAD.unpack_from(body)
    rest = body[frames.TOOL_HEAD.size :]
    if not failed:
        return decode(memoryview(rest))
    name, message = json.loads(rest)
    raise _exception(name, message)


def _exception(name: str, message: str) -> Exception:
    """An ordinary builtin exception of that name, else ToolError; never a class the host or a package names by path."""
    found = getattr(builtins, name, None)
    if isinstance(found, type) and issubclass(found, Exception) and found is not StopIteration:
        with suppress(TypeError):  # UnicodeError's kinds and ExceptionGroup want more than a message
            return found(message)
    return ToolError(f"{name}: {message}" if name != "ToolError" else message)


class _Shown:
    """Prints as the given text: annotations and defaults of a host function in its signature here."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def make_function(spec: dict[str, Any], current: Callable[[], Calls]) -> Callable[..., Any]:
    """A function with the host tool's name, signature and docstring. ``current`` gives the execution's calls."""
    name = spec["name"]

    def blocking(*args: object, **kwargs: object) -> Any:
        return current().call(name, args, kwargs)

    def adaptive(*args: object, **kwargs: object) -> Any:
        # Inside a running event loop an async host function is awaited, elsewhere it is called like any other.
        # (_asyncio is what the loop itself asks; importing asyncio would make every fork a fifth dearer.)
        loop = _asyncio._get_running_loop() if (_asyncio := sys.modules.get("_asyncio")) else None
        if loop is None:
            return blocking(*args, **kwargs)
        return loop.run_in_executor(None, partial(blocking, *args, **kwargs))

    function = adaptive if spec["awaitable"] else blocking
    function.__name__ = function.__qualname__ = name
    function.__doc__ = spec["doc"]
    function.__module__ = "__main__"
    function.__signature__ = _signature(spec)  # type: ignore[attr-defined]
    return function


def _signature(spec: dict[str, Any]) -> Any:
    import inspect  # slow to import, and only needed where there are tools

    kinds = list(inspect._ParameterKind)
    parameters = [
        inspect.Parameter(
            p["name"] if not keyword.iskeyword(p["name"]) else p["name"] + "_",
            kinds[p["kind"] - 1],
            default=_Shown(p["default"]) if p["default"] is not None else inspect.Parameter.empty,
            annotation=_Shown(p["annotation"]) if p["annotation"] else inspect.Parameter.empty,
        )
        for p in spec["parameters"]
    ]
    returns = _Shown(spec["returns"]) if spec["returns"] else inspect.Signature.empty
    return inspect.Signature(parameters, return_annotation=returns)
