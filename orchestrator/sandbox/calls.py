"""Host callables as tools of a sandbox: what the sandbox is told of them, and running one call.

The policy is asked before each call. A failure goes back as a type name and a message, never as a traceback.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import keyword
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from executor_api.v1 import executor_pb2 as pb

from orchestrator.errors import ToolError, ValueNotPortable
from orchestrator.events import ToolCall, ToolOutcome
from orchestrator.policy import ToolPolicy
from orchestrator.sandbox.values import encode

MAX_TOOLS = 256
MAX_NAME = 256  # bytes
MAX_DOC = 64 << 10
MAX_RUNNING = 64  # calls of one execution at the same time: as many threads of the host, and their arguments
MAX_SPECS = 2 << 20  # bytes of all that the sandbox is told of its tools: it has to fit into one message
MAX_MESSAGE = 8 << 10  # of a failure
_MAX_TEXT = 1000  # of an annotation or a default, as text
_KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: pb.Parameter.KIND_POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD: pb.Parameter.KIND_POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL: pb.Parameter.KIND_VAR_POSITIONAL,
    inspect.Parameter.KEYWORD_ONLY: pb.Parameter.KIND_KEYWORD_ONLY,
    inspect.Parameter.VAR_KEYWORD: pb.Parameter.KIND_VAR_KEYWORD,
}


@dataclass(frozen=True, slots=True)
class HostTool:
    """One callable: a plain function, or an object with ``name``, ``description`` and perhaps ``expose_errors``."""

    name: str
    doc: str
    signature: inspect.Signature
    awaitable: bool
    expose_errors: bool
    call: Callable[..., Any]

    @classmethod
    def of(cls, tool: Callable[..., Any]) -> HostTool:
        """Raises ToolError if it is not callable, has no usable name, or its signature cannot be read."""
        if not callable(tool):
            raise ToolError(f"a tool must be callable; {type(tool).__name__} is not")
        name = getattr(tool, "name", None) or getattr(tool, "__name__", None)
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
            raise ToolError(f"a tool needs a name that is a Python identifier; {name!r} is not")
        if len(name.encode()) > MAX_NAME:
            raise ToolError(f"a tool's name takes at most {MAX_NAME} bytes; {name[:40]!r}… takes more")
        try:
            signature = inspect.signature(tool)
        except (TypeError, ValueError) as error:
            raise ToolError(f"tool {name}: its signature cannot be read ({error}); wrap it in a function") from None
        doc = getattr(tool, "description", None) or inspect.getdoc(tool) or ""
        return cls(name, str(doc)[:MAX_DOC], signature, _is_async(tool), getattr(tool, "expose_errors", True), tool)

    def spec(self) -> pb.ToolSpec:
        """What the sandbox is told."""
        parameters = [
            pb.Parameter(
                name=p.name,
                kind=_KINDS[p.kind],
                annotation=_annotation(p.annotation),
                has_default=p.default is not inspect.Parameter.empty,
                default_repr="" if p.default is inspect.Parameter.empty else _plain_repr(p.default),
            )
            for p in self.signature.parameters.values()
        ]
        returns = _annotation(self.signature.return_annotation)
        return pb.ToolSpec(
            name=self.name, doc=self.doc, parameters=parameters, returns=returns, awaitable=self.awaitable
        )


def _is_async(tool: Callable[..., Any]) -> bool:
    inner = getattr(tool, "__call__", None)  # noqa: B004 (not asking whether it can be called, but how)
    return (
        inspect.iscoroutinefunction(tool)
        or inspect.iscoroutinefunction(inner)
        or bool(getattr(tool, "is_async", False))
    )


def _annotation(annotation: Any) -> str:
    if annotation is inspect.Signature.empty:
        return ""
    return (
        inspect.formatannotation(annotation)[:_MAX_TEXT] if not isinstance(annotation, str) else annotation[:_MAX_TEXT]
    )


def _plain_repr(default: object) -> str:
    """Plain values as they print. Anything else, such as an address, a path or a client, is the host's business."""
    return repr(default)[:_MAX_TEXT] if _is_plain(default) else "..."


def _is_plain(value: object) -> bool:
    if type(value) in (tuple, list, set, frozenset):
        return all(_is_plain(item) for item in value)  # type: ignore[attr-defined]
    if type(value) is dict:
        return all(_is_plain(part) for pair in value.items() for part in pair)
    return type(value) in (type(None), bool, int, float, str, bytes)


class HostTools:
    """The tools granted to one sandbox."""

    def __init__(self, tools: Iterable[Callable[..., Any]]) -> None:
        made = [HostTool.of(tool) for tool in tools]
        self._tools = {tool.name: tool for tool in made}
        if len(self._tools) != len(made):
            raise ToolError("two tools have the same name")
        if len(made) > MAX_TOOLS:
            raise ToolError(f"{len(made)} tools; at most {MAX_TOOLS}")
        self._specs = [tool.spec() for tool in made]
        if (size := sum(spec.ByteSize() for spec in self._specs)) > MAX_SPECS:
            raise ToolError(f"the tools' signatures and descriptions take {size:,} bytes; at most {MAX_SPECS:,}")
        self._policy = ToolPolicy(frozenset(self._tools))

    @property
    def names(self) -> frozenset[str]:
        """Exactly the names that may be called."""
        return self._policy.granted

    def specs(self) -> list[pb.ToolSpec]:
        """What the sandbox is told of them."""
        return self._specs

    def refusal(self, name: str, calls_before: int, calls_running: int) -> str:
        """Why a call is not made: the policy's reason, or that too many run already. Empty if it is."""
        if calls_running >= MAX_RUNNING:
            return f"{calls_running} tool calls of this execution run already; wait for some to end"
        return self._policy.review(name, calls_before).reason

    async def run(self, call: ToolCall, execution: int) -> tuple[pb.ToolResult, ToolOutcome]:
        """One call that is not refused, to the message that answers it. Raises nothing of the tool's."""
        started = time.monotonic()
        result = pb.ToolResult(id=execution, call=call.id)
        await _attempt(self._tools[call.name], call, result)
        failed = result.failure if result.HasField("failure") else None
        text = f"{failed.type_name}: {failed.message}" if failed else None
        return result, ToolOutcome(call.id, call.name, text, time.monotonic() - started)


async def _attempt(tool: HostTool, call: ToolCall, result: pb.ToolResult) -> None:
    try:
        result.value = encode(await _call(tool, call), f"the result of {tool.name}()")
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():  # the execution has ended; otherwise the tool itself raised it
            raise
        result.failure.CopyFrom(_failure(tool, error))
    except BaseException as error:  # noqa: BLE001 — whatever a tool raises belongs to the code that called it
        result.failure.CopyFrom(_failure(tool, error))


async def _call(tool: HostTool, call: ToolCall) -> Any:
    tool.signature.bind(*call.args, **call.kwargs)  # the same TypeError that a local function would give
    if tool.awaitable:
        return await tool.call(*call.args, **call.kwargs)
    value = await _in_thread(lambda: tool.call(*call.args, **call.kwargs))
    return await value if isinstance(value, Awaitable) else value


async def _in_thread(call: Callable[[], Any]) -> Any:
    """Runs ``call`` in a daemon thread: a tool that hangs must neither use up a pool nor hold up the program's exit."""
    loop = asyncio.get_running_loop()
    # A pair, because a future refuses some exceptions (StopIteration) and its loop acts on others (SystemExit).
    done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def finish(value: Any, error: BaseException | None) -> None:
        if not done.cancelled():
            done.set_result((value, error))

    def work() -> None:
        value, failure = None, None
        try:
            value = call()
        except BaseException as error:  # noqa: BLE001 — SystemExit in a tool must not vanish with its thread
            failure = error
        with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
            loop.call_soon_threadsafe(finish, value, failure)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name="cellblock-tool", daemon=True).start()
    value, error = await done
    if isinstance(error, StopIteration):  # cannot leave a coroutine as itself
        raise _Stopped(*error.args)
    if error is not None:
        raise error
    return value


class _Stopped(Exception):
    """StopIteration of a tool, on its way through coroutines."""


def _failure(tool: HostTool, error: BaseException) -> pb.ToolFailure:
    if isinstance(error, ValueNotPortable):  # says what came back, which hiding would make a riddle
        return pb.ToolFailure(type_name="TypeError", message=str(error)[:MAX_MESSAGE])
    if not tool.expose_errors:
        return pb.ToolFailure(type_name="ToolError", message=f"{tool.name} failed")
    name = "StopIteration" if isinstance(error, _Stopped) else type(error).__name__
    return pb.ToolFailure(type_name=_bounded(name, 200), message=_bounded(_message(error), MAX_MESSAGE))


def _message(error: BaseException) -> str:
    if isinstance(error, KeyError) and len(error.args) == 1 and isinstance(error.args[0], str):
        return error.args[0]  # its str is a repr, which would be quoted again where it is raised
    try:
        return str(error)
    except Exception:  # noqa: BLE001 — the text of a tool's own exception is the tool's code
        return "(its text could not be made)"


def _bounded(text: str, limit: int) -> str:
    """At most ``limit`` bytes of it, and nothing that is not UTF-8."""
    return text.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")
