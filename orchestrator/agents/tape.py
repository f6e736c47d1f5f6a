"""Tool calls of an agent's code written down as they happen, and given back when that code is run again.

Which of both, or neither, is said by a context variable: branches share their parent's tools, but not its record.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import json
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from orchestrator.agents.value_json import read, written
from orchestrator.errors import AgentError, ValueNotPortable
from orchestrator.sandbox.encoding import encode
from orchestrator.sandbox.invocation import told_of
from orchestrator.sandbox.values import decode
from orchestrator.tools import Tool

MAX_NAME = 200  # characters of the type of an error


@dataclass(frozen=True, slots=True)
class CallEnd:
    """How a call of a tool ended.

    Attributes:
        kind: ``value``, ``error`` (the tool raised), ``unportable`` (its result could not enter the sandbox), or
            ``left_out`` (it was not written down: too much was already).
        value: of the kind ``value``: the result as the sandbox got it.
        error: else the exception's type.
        message: and what it says.
    """

    kind: str
    value: Any = None
    error: str = ""
    message: str = ""


LEFT_OUT = CallEnd("left_out")
KINDS = ("value", "error", "unportable", "left_out")


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """A call of a tool by an agent's code, as it was written down. ``end`` is None if nobody knows how it ended."""

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    end: CallEnd | None = None

    @property
    def key(self) -> str:
        """The same for the same call: threads may make calls in another order when the code is run again."""
        return json.dumps([self.name, written(self.args), written(dict(self.kwargs))], sort_keys=True)


class Tape(Protocol):
    """What happens at a call of a tool."""

    def call(self, tool: Tool, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Of a sync one, in its thread."""

    async def acall(self, tool: Tool, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Of an async one."""


_tape: contextvars.ContextVar[Tape | None] = contextvars.ContextVar("tape", default=None)


def use_tape(tape: Tape | None) -> None:
    """For the calls of executions that begin in this context from now on."""
    _tape.set(tape)


class TapedTool:
    """``tool``, and everything it has; its calls go by the tape of the execution that they are made in."""

    def __init__(self, tool: Tool) -> None:
        self._taped = tool

    def __getattr__(self, name: str) -> Any:
        if name == "_taped":  # of one that is being copied
            raise AttributeError(name)
        return getattr(self._taped, name)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        tape = _tape.get()
        if tape is None:
            return self._taped(*args, **kwargs)
        return (tape.acall if self._taped.is_async else tape.call)(self._taped, args, kwargs)


def taped(tools: Iterable[Tool]) -> tuple[Tool, ...]:
    """The tools as an agent's own sandbox is made with them."""
    return tuple(cast("Tool", TapedTool(tool)) for tool in tools)


@dataclass(frozen=True, slots=True)
class RecordingTape:
    """Makes the calls, and writes down each before it is made and once it has ended.

    ``begin`` raises if it cannot write; then the call is not made. ``end`` is given the call's number.
    """

    begin: Callable[[RecordedCall], int]
    end: Callable[[int, CallEnd], None]

    def call(self, tool: Tool, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Calls it."""
        number = self.begin(RecordedCall(tool.name, tuple(args), kwargs))
        try:
            value = tool(*args, **kwargs)
        except BaseException as error:
            self._write(number, _raised(tool, error))
            raise
        if inspect.isawaitable(value):
            return self._later(tool, number, value)
        self._write(number, _ended(tool, value))
        return value

    async def acall(self, tool: Tool, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Calls it. One that is cancelled has no end: what it did is not known."""
        number = await asyncio.to_thread(self.begin, RecordedCall(tool.name, tuple(args), kwargs))
        return await self._later(tool, number, tool(*args, **kwargs))

    async def _later(self, tool: Tool, number: int, value: Awaitable[Any]) -> Any:
        try:
            result = await value
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            await asyncio.to_thread(self._write, number, _raised(tool, error))
            raise
        await asyncio.to_thread(lambda: self._write(number, _ended(tool, result)))
        return result

    def _write(self, number: int, end: CallEnd) -> None:
        # The tool has done what it does: its result is the code's. What cannot be written now counts as not known, and
        # the step, which cannot be written either, ends the run.
        with contextlib.suppress(AgentError):
            self.end(number, end)


def _ended(tool: Tool, value: Any) -> CallEnd:
    try:
        return CallEnd("value", decode(encode(value, f"the result of {tool.name}()")))
    except Exception as error:  # noqa: BLE001 - encoding walks the tool's own objects, whose code can raise anything
        return _raised(tool, error)


def _raised(tool: Tool, error: BaseException) -> CallEnd:
    """What is written down is what the code is told: nothing of the errors of a tool that hides them."""
    if isinstance(error, ValueNotPortable):
        return CallEnd("unportable", message=str(error))
    kind, message = told_of(tool.name, error, tool.expose_errors)
    return CallEnd("error", error=kind[:MAX_NAME], message=message)


class ReplayingTape:
    """Gives back what was recorded of one execution's calls, and calls no tool.

    Attributes:
        misses: the names of tools that were called otherwise than then.
    """

    def __init__(self, calls: Sequence[RecordedCall]) -> None:
        self._left: dict[str, deque[RecordedCall]] = {}
        for call in calls:
            self._left.setdefault(call.key, deque()).append(call)
        self._lock = threading.Lock()  # sync tools are called from threads
        self.misses: list[str] = []

    @property
    def left(self) -> list[str]:
        """The names of tools whose recorded calls were not made again."""
        return [call.name for calls in self._left.values() for call in calls]

    def call(self, tool: Tool, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The recorded end of the call: its value, or its exception."""
        key = RecordedCall(tool.name, tuple(args), kwargs).key
        with self._lock:
            calls = self._left.get(key)
            end = calls.popleft().end if calls else None
            if end is None or end.kind == "left_out":
                self.misses.append(tool.name)
        match end:
            case CallEnd("value", value):
                return value
            case CallEnd("error", _, error, message):
                raise type(error, (Exception,), {})(message)  # only its name matters: nothing is looked up by it
            case CallEnd("unportable", _, _, message):
                raise ValueNotPortable(message)
        raise RuntimeError(f"the result of this call of {tool.name}() is not known, and it is not called again")

    async def acall(self, tool: Tool, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The same, awaited."""
        return await asyncio.to_thread(self.call, tool, args, kwargs)


def written_call(call: RecordedCall) -> dict[str, Any]:
    """For a line of a record; how it ended is another line."""
    return {"name": call.name, "args": written(call.args), "kwargs": written(dict(call.kwargs))}


def read_call(data: Mapping[str, Any]) -> RecordedCall:
    """What ``written_call`` wrote; ValueError and the like if it is none."""
    name, args, kwargs = data["name"], read(data["args"]), read(data["kwargs"])
    if not isinstance(name, str) or not isinstance(args, tuple) or not isinstance(kwargs, dict):
        raise ValueError("a call that is none")
    return RecordedCall(name, args, kwargs)


def written_end(end: CallEnd) -> dict[str, Any]:
    """For a line of a record."""
    if end.kind == "value":
        return {"end": "value", "value": written(end.value)}
    return {"end": end.kind, "error": end.error, "message": written(end.message)}


def read_end(data: Mapping[str, Any]) -> CallEnd:
    """What ``written_end`` wrote; ValueError and the like if it is none."""
    kind = data["end"]
    if kind not in KINDS:
        raise ValueError("a call that ended in a way there is not")
    if kind == "value":
        return CallEnd(kind, read(data["value"]))
    error, message = data["error"], read(data["message"])
    if not isinstance(error, str) or not isinstance(message, str) or len(error) > MAX_NAME or "\0" in error:
        raise ValueError("a call whose error is none")
    return CallEnd(kind, error=error, message=message)
