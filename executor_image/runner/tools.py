"""Host tools as plain functions: a call goes up as a frame, blocks its thread, and comes back as a value or exception.

Calls may come from several threads. Whoever finds nobody reading the channel reads it, and hands results to the others
(leader and followers), so a lone call, the usual case, costs no thread switch.
"""

from __future__ import annotations

import builtins
import itertools
import json
import keyword
import sys
import threading
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
    """The tool calls of the execution under way on one channel."""

    def __init__(self, channel: Channel, nonce: bytes) -> None:
        self._channel = channel
        self._nonce = nonce
        self._numbers = itertools.count(1)
        self._results: dict[int, bytes] = {}
        self._changed = threading.Condition()
        self._reading = False

    def call(self, name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> Any:
        """Calls the host's ``name`` and waits for what it gives.

        Raises:
            NotPortable: an argument cannot travel.
            Exception: what the host's tool raised, by type name and message.
        """
        arguments = encode_arguments(args, kwargs)
        number = next(self._numbers)
        encoded = name.encode()
        head = frames.CALL_HEAD.pack(self._nonce, number, len(encoded))
        self._channel.send(frames.TOOL_CALL, head, encoded, arguments)
        return _unpack(self._wait(number))

    def _wait(self, number: int) -> bytes:
        while True:
            with self._changed:
                while number not in self._results and self._reading:
                    self._changed.wait()
                if number in self._results:
                    return self._results.pop(number)
                self._reading = True
            self._lead()

    def _lead(self) -> None:
        try:
            kind, body = self._channel.receive()
            if kind == frames.TOOL_RESULT:
                self._results[frames.U32.unpack_from(body)[0]] = body
        finally:
            with self._changed:
                self._reading = False
                self._changed.notify_all()


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
