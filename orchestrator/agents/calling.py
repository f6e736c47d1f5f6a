"""Carries out the tool calls of one reply of a ``ToolCallingAgent``, at the same time, on the host.

One failure fails one call: each has its own result, in the order in which the model made them.
"""

from __future__ import annotations

import asyncio
import copy
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from orchestrator.agents.interruption import Interruption
from orchestrator.agents.observation import MAX_ERROR_LENGTH, MAX_VALUE_LENGTH, shown
from orchestrator.agents.steps import CallResult
from orchestrator.agents.written_calls import MAX_CALLS
from orchestrator.audit.chain import digest
from orchestrator.audit.records import Happening, ToolBegun, ToolEnded
from orchestrator.errors import AgentError
from orchestrator.events import Ending, ToolCall, ToolOutcome
from orchestrator.media import AgentImage, Media, is_picture
from orchestrator.models import ChatToolCall
from orchestrator.policy import MAX_RUNNING, ToolCallRequest
from orchestrator.sandbox.approval import Approver, decided
from orchestrator.sandbox.foreign import Foreign, Overdue, Raised, words_of
from orchestrator.sanitise import in_words
from orchestrator.tools import Tool

DEFAULT_THREADS = 16  # calls of one reply at the same time
_NO_EXECUTION = 0  # in requests and records: these calls are made by no code
_EFFECT_UNKNOWN = "whether it took effect is not known"


@dataclass(frozen=True, slots=True)
class Callables:
    """What the calls of an agent are made with.

    Attributes:
        tools: by name, members of the team among them.
        approver: asked before each call.
        record: writes into the audit log, if there is one.
        timeout: seconds for one call of a tool that sets none of its own.
        at_once: calls at the same time.
        state: values by name: pictures and sound that tools gave, and the run's additional arguments. An argument that
            is the name of one stands for it.
        foreign: where they run; it knows of those that were given up and still run.
    """

    tools: Mapping[str, Tool]
    approver: Approver
    record: Callable[[Happening], Awaitable[None]]
    timeout: float
    at_once: int
    state: MutableMapping[str, Any]
    foreign: Foreign = field(default_factory=Foreign)


class _Refused(Exception):
    """The call is not made; the text, for the model, says why."""

    def __init__(self, why: str, rule: str) -> None:
        super().__init__(why)
        self.rule = rule


@dataclass(slots=True, eq=False)
class _Call:
    """One call, as far as it has come. ``is_made`` once the tool may have been called."""

    number: int
    made: ChatToolCall
    sha256: str  # of its arguments
    size: int  # of them, in bytes
    started: float
    is_made: bool = False
    result: CallResult | None = None  # once it has ended

    @classmethod
    def of(cls, number: int, made: ChatToolCall) -> _Call:
        """One that begins now."""
        arguments = _as_bytes(made.arguments)
        return cls(number, made, digest(arguments), len(arguments), time.monotonic())

    @property
    def name(self) -> str:
        return self.made.name


@dataclass(frozen=True, slots=True)
class _End:
    """How a call ended; the text is for the model."""

    text: str
    ending: Ending = Ending.OK
    rule: str = ""


async def carried_out(
    calls: Sequence[ChatToolCall], host: Callables, interruption: Interruption
) -> AsyncGenerator[ToolCall | ToolOutcome | CallResult, None]:
    """Events as they happen, and in the end one ``CallResult`` for each of ``calls``, in their order.

    Calls that still run are given up when this is closed or the run is interrupted; the audit log says so.

    Raises:
        AuditError: one cannot be recorded.
    """
    turns = asyncio.Semaphore(host.at_once)
    tasks: dict[_Call, asyncio.Task[ToolOutcome]] = {}
    try:
        for number, made in enumerate(calls, 1):
            yield ToolCall(number, made.name, (), made.arguments if isinstance(made.arguments, dict) else {})
            call = _Call.of(number, made)
            tasks[call] = asyncio.create_task(_carry_out(call, host, turns))
        left = set(tasks.values())
        while left:
            done, left = await interruption.guard(asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED))
            for outcome in sorted((task.result() for task in done), key=lambda outcome: outcome.id):
                yield outcome
    finally:
        await _given_up(tasks, host)
    for call in tasks:
        assert call.result  # all have ended
        yield call.result


async def _given_up(tasks: Mapping[_Call, asyncio.Task[ToolOutcome]], host: Callables) -> None:
    """Calls that have not ended are given up; the audit log says so."""
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    for call in tasks:
        if call.result is None:
            await _end(call, _over(call), host)


def _over(call: _Call) -> _End:
    if not call.is_made:
        return _End(f"{call.name} was not called: the run ended before", Ending.REFUSED, "execution_ended")
    return _End(f"the run ended before {call.name} did; {_EFFECT_UNKNOWN}", Ending.CANCELLED)


async def _carry_out(call: _Call, host: Callables, turns: asyncio.Semaphore) -> ToolOutcome:
    async with turns:
        try:
            end = _End(_told(await _made(call, host), host.state))
        except _Refused as refused:
            end = _End(str(refused), Ending.REFUSED, refused.rule)
        except Raised as raised:
            end = _End(_failure(host.tools[call.name], raised.error), Ending.FAILED)
        except Overdue:
            end = _End(f"{call.name} did not end in time; {_EFFECT_UNKNOWN}", Ending.TIMED_OUT)
    return await _end(call, end, host)


async def _end(call: _Call, end: _End, host: Callables) -> ToolOutcome:
    failed = end.ending is not Ending.OK
    call.result = CallResult(call.made, end.text, failed)
    outcome = ToolOutcome(
        id=call.number,
        name=call.name,
        error=end.text if failed else None,
        seconds=time.monotonic() - call.started,
        ending=end.ending,
        refused_by=end.rule,
        arguments_sha256=call.sha256,
        arguments_bytes=call.size,
        result_bytes=0 if failed else len(end.text.encode("utf-8", "surrogatepass")),
    )
    await host.record(ToolEnded.of(_NO_EXECUTION, outcome))
    return outcome


async def _made(call: _Call, host: Callables) -> Any:
    tool = host.tools.get(call.name)
    if tool is None:
        raise _Refused(f"there is no tool {call.name!r}; there are {', '.join(sorted(host.tools))}", "not_granted")
    if call.number > MAX_CALLS:
        raise _Refused(f"more than {MAX_CALLS} calls in one reply; this one was not made", "max_calls")
    if host.foreign.left >= MAX_RUNNING:
        raise _Refused(f"{host.foreign.left} earlier calls, given up, still run; wait for some to end", "max_running")
    given = _named(call.made, tool, host.state)
    await _check(tool, given, host)
    await _approve(call, given, host)
    await host.record(ToolBegun(_NO_EXECUTION, call.number, tool.name, call.sha256, call.size))
    call.is_made = True
    seconds = None if tool.timeout is None and tool.stops_clock else _seconds(tool, host)
    return await host.foreign.run(partial(tool, **given), is_async=tool.is_async, seconds=seconds)


def _seconds(tool: Tool, host: Callables) -> float:
    return host.timeout if tool.timeout is None else tool.timeout


def _named(call: ChatToolCall, tool: Tool, state: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by name; a copy, as the tool may change what it is given, and the history may not."""
    given = call.arguments
    if isinstance(given, str) and given.lstrip()[:1] in ("{", "["):
        raise _Refused(f"the arguments of {call.name} are JSON that is broken or was cut off", "arguments")
    if not isinstance(given, dict) and len(tool.inputs) == 1 and given not in ("", None):
        given = {next(iter(tool.inputs)): given}  # models leave out the name of the only one
    if not isinstance(given, dict):
        expected = ", ".join(tool.inputs) or "nothing"
        raise _Refused(f"the arguments of {call.name} are no JSON object of {expected}", "arguments")
    return {name: stands_for(value, state) for name, value in _copied(given, call.name).items()}


def _copied(given: dict[str, Any], name: str) -> dict[str, Any]:
    try:
        return copy.deepcopy(given)
    except RecursionError:  # a model's endpoint may take JSON that is nested deeper than Python can follow
        raise _Refused(f"the arguments of {name} are nested too deeply", "arguments") from None


async def _check(tool: Tool, given: Mapping[str, Any], host: Callables) -> None:
    """Refuses what the tool does not take.

    Where somebody will be asked about it, it is checked whole, in a thread, as to look at a picture takes its time; so
    it is for a tool that hides its errors: what is wrong with the arguments is none of them. Otherwise the tool does
    that itself when it is called.
    """
    seconds = _seconds(tool, host)
    try:
        if host.approver.asks or not tool.expose_errors:
            await host.foreign.run(partial(tool.check_arguments, **given), is_async=False, seconds=seconds)
        else:
            tool.__signature__.bind(**given)
    except TypeError as error:
        raise _wrong(f"{tool.name}(): {error}") from None
    except Raised as raised:
        if isinstance(raised.error, TypeError):
            raise _wrong(words_of(raised.error)) from None
        raise  # its own checks have failed, and may tell what is not for the model
    except Overdue:
        raise _wrong(f"{tool.name}(): its arguments could not be checked within {seconds:g} s") from None


def _wrong(what: str) -> _Refused:
    return _Refused(shown(what, MAX_ERROR_LENGTH), "arguments")


async def _approve(call: _Call, given: Mapping[str, Any], host: Callables) -> None:
    if not host.approver.asks:
        return
    question = host.approver.ask(ToolCallRequest(call.name, given, _NO_EXECUTION))
    verdict = await decided(question, call.name, call.sha256, host.record)
    if not verdict.allowed:
        raise _Refused(f"the call of {call.name} was {verdict.reason}", verdict.rule)


def stands_for(value: Any, state: Mapping[str, Any]) -> Any:
    """What ``value`` names in ``state``, else itself."""
    return state.get(value, value) if isinstance(value, str) else value


def _as_bytes(arguments: Any) -> bytes:
    try:
        return json.dumps(arguments, sort_keys=True, default=repr).encode("utf-8", "surrogatepass")
    except (TypeError, ValueError, RecursionError):  # of a model of somebody's own
        return in_words(arguments).encode("utf-8", "surrogatepass")


def _failure(tool: Tool, error: BaseException) -> str:
    """In words for the model. A tool that hides its errors says only what kind it was."""
    told = f"{type(error).__name__}: {words_of(error)}" if tool.expose_errors else type(error).__name__
    return shown(f"{tool.name} failed: {told}", MAX_ERROR_LENGTH)


def _told(value: Any, state: MutableMapping[str, Any]) -> str:
    """The result in words for the model."""
    try:
        value = AgentImage.of(value) if is_picture(type(value)) else value
        if isinstance(value, Media):
            return f"Stored as {_stored(value, state)!r}; give that name as an argument to pass it on."
        return shown(value if isinstance(value, str) else _as_text(value), MAX_VALUE_LENGTH)
    except Exception as error:  # noqa: BLE001 - its repr is the tool's, and can do anything
        return f"a {type(value).__name__} that cannot be shown ({type(error).__name__})"


def _as_text(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=repr)
    except (TypeError, ValueError, RecursionError):
        return repr(value)


def _stored(media: Media, state: MutableMapping[str, Any]) -> str:
    kind, _, suffix = media.mime.partition("/")
    number = 1
    while (name := f"{kind}_{number}.{suffix}") in state:
        number += 1
    state[name] = media
    return name


def checked_threads(max_tool_threads: int | None) -> int:
    """The setting of that name.

    Raises:
        AgentError: it allows no call.
    """
    if max_tool_threads is not None and (type(max_tool_threads) is not int or max_tool_threads < 1):
        raise AgentError(f"max_tool_threads is {max_tool_threads!r}; it must be a whole number, at least 1")
    return max_tool_threads or DEFAULT_THREADS
