"""One call of one tool, to what the code is told of it. A failure is a type name and a message, never a traceback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from executor_api.v1 import executor_pb2 as pb

from orchestrator.errors import ValueNotPortable
from orchestrator.events import Ending, ToolCall
from orchestrator.sandbox.foreign import Foreign, Overdue, Raised, words_of
from orchestrator.sandbox.grants import HostTool
from orchestrator.sandbox.values import encode

MAX_MESSAGE = 8 << 10  # bytes of a failure
_MAX_TYPE_NAME = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """What the code gets: an encoded value, or a failure."""

    ending: Ending
    value: bytes = b""
    failure: pb.ToolFailure | None = None
    refused_by: str = ""

    @property
    def error(self) -> str | None:
        """The failure in one line."""
        return f"{self.failure.type_name}: {self.failure.message}" if self.failure else None


def refused(reason: str, rule: str) -> Answer:
    """Of a call that is not made."""
    return Answer(Ending.REFUSED, failure=failure("PermissionError", reason), refused_by=rule)


def refused_arguments(reason: str) -> Answer:
    """Of a call that is not made, as its arguments are not what the tool takes. Hides nothing: they are the code's."""
    return Answer(Ending.REFUSED, failure=failure("TypeError", reason), refused_by="arguments")


async def invoke(tool: HostTool, made: ToolCall, seconds: float | None, weight: int, foreign: Foreign) -> Answer:
    """Calls the tool and waits ``seconds`` for its end, or as long as it takes. Raises nothing of the tool's."""

    def call() -> Any:
        return tool.call(*made.args, **made.kwargs)

    try:
        value = await foreign.run(call, is_async=tool.awaitable, seconds=seconds, weight=weight)
    except Overdue:
        return Answer(Ending.TIMED_OUT, failure=failure("TimeoutError", _overdue(tool, seconds)))
    except Raised as raised:
        return failed(tool, raised.error)
    try:
        return Answer(Ending.OK, encode(value, f"the result of {tool.name}()"))
    except Exception as error:  # noqa: BLE001 — encoding walks the tool's own objects, whose code can raise anything
        return failed(tool, error)


def _overdue(tool: HostTool, seconds: float | None) -> str:
    return (
        f"{tool.name}() had not ended after {seconds:g} s. Whether it took effect is not known: find out before you "
        "call it again"
    )


def failed(tool: HostTool, error: BaseException) -> Answer:
    """Of a call whose tool raised, or gave what cannot travel."""
    if isinstance(error, ValueNotPortable):  # says what came back, which hiding would make a riddle
        told = failure("TypeError", str(error))
    else:
        told = failure(*told_of(tool.name, error, tool.expose_errors))
    return Answer(Ending.FAILED, failure=told)


def told_of(name: str, error: BaseException, expose_errors: bool) -> tuple[str, str]:
    """The type and the message that code is told of what the tool ``name`` raised."""
    return (type(error).__name__, words_of(error)) if expose_errors else ("ToolError", f"{name} failed")


def failure(type_name: str, message: str) -> pb.ToolFailure:
    """What is raised at the call."""
    return pb.ToolFailure(type_name=_bounded(type_name, _MAX_TYPE_NAME), message=_bounded(message, MAX_MESSAGE))


def _bounded(text: str, limit: int) -> str:
    """At most ``limit`` bytes of it, and nothing that is not UTF-8."""
    return text.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")
