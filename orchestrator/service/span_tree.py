"""What spans are made with: a bounded tree of them, and what may be said in one. See spans.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.events import Ending, Finished, Status, ToolCall, ToolOutcome
from orchestrator.models import TokenUsage

MAX_SPANS = 2000  # of one run, or of one execution of an app's: nobody reads more
MAX_CALLS = 1000  # tool calls among them: code may make them without end, and the steps behind it are to be seen
MAX_ATTRIBUTES = 16  # of one span: more than any of them has
MAX_TEXT = 100  # characters of a name or an id
MAX_NUMBER = 10**12  # more is nonsense
DROPPED = "cellblock.spans.dropped"
SANDBOX = "cellblock.sandbox.id"
CALL = "execute_tool"
OTHER = "other"  # for a value that a newer version has
INPUT, OUTPUT = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
OPERATION, ERROR = "gen_ai.operation.name", "error.type"


class Tree:
    """What the spans of one run or execution have in common."""

    def __init__(self, tracer: Any, clock: Callable[[], float], ids: dict[str, str]) -> None:
        from opentelemetry import context, trace  # there is a provider, so they are there

        self.trace = trace
        self.now = clock
        self.dropped = 0
        self._nobody = context.Context()  # whatever span the caller is in, these are no part of it
        self._tracer = tracer
        self._ids = ids
        self._left = MAX_SPANS
        self._calls_left = MAX_CALLS

    def begin(self, name: str, parent: Any, kind: str, at: float | None, attributes: dict[str, Any]) -> Any:
        """A span; None if there are too many."""
        is_call = name == CALL
        if self._left == 0 or (is_call and self._calls_left == 0):
            self.dropped += 1
            return None
        self._left -= 1
        self._calls_left -= is_call
        return self._tracer.start_span(
            name,
            context=self.trace.set_span_in_context(parent, self._nobody) if parent else self._nobody,
            kind=self.trace.SpanKind[kind],
            attributes=_bounded(self._ids | attributes),
            start_time=_nanoseconds(self.now() if at is None else at),
        )


class Span:
    """A span that has begun; or one too many, of which there is nothing, nor of those below it."""

    def __init__(self, tree: Tree, made: Any, sandbox: str = "") -> None:
        self._tree = tree
        self._made = made
        self._sandbox = sandbox  # where what is below it happens

    @classmethod
    def root(cls, tree: Tree, name: str, **attributes: Any) -> Span:
        """The one that has all others below it."""
        return cls(tree, tree.begin(name, None, "INTERNAL", None, attributes))

    def child(
        self,
        name: str,
        attributes: dict[str, Any],
        kind: str = "INTERNAL",
        start: float | None = None,
        sandbox: str | None = None,
    ) -> Span:
        """One below it, which begins now or has begun at ``start``; in another sandbox, or in none if that is empty."""
        if self._made is None:
            self._tree.dropped += 1
            return self
        there = self._sandbox if sandbox is None else sandbox
        here = {SANDBOX: there} if there else {}
        return Span(self._tree, self._tree.begin(name, self._made, kind, start, here | attributes), there)

    def works_in(self, sandbox: str) -> None:
        """It happens in that sandbox, by its id, and so does what is below it from now on."""
        self._sandbox = sandbox
        self.set({SANDBOX: sandbox})

    def set(self, attributes: dict[str, Any], name: str = "") -> None:
        """Says more of it."""
        if self._made is not None:
            self._made.set_attributes(_bounded(attributes))
            if name:
                self._made.update_name(name[:MAX_TEXT])

    def end(self, error: str = "", at: float | None = None) -> None:
        """It ends now, or has ended at ``at``. ``error`` is the class of what went wrong; empty: nothing did."""
        if self._made is None:
            return
        if error:
            self.set({ERROR: error})
            self._made.set_status(self._tree.trace.Status(self._tree.trace.StatusCode.ERROR))
        self._made.end(_nanoseconds(self._tree.now() if at is None else at))


class Calls:
    """Tool calls under way, of one execution or of one reply of a model."""

    def __init__(self) -> None:
        self._open: dict[int, Span] = {}

    def has(self, id: int) -> bool:
        """It is under way."""
        return id in self._open

    def begin(self, call: ToolCall, parent: Span) -> None:
        """The name is not told yet: there may be no such tool."""
        if call.id not in self._open and len(self._open) < MAX_SPANS:
            self._open[call.id] = parent.child(CALL, {OPERATION: CALL})

    def end(self, outcome: ToolOutcome) -> None:
        """A call that was made has a name that the host knows; a refused one has whatever code or a model wrote."""
        span = self._open.pop(outcome.id, None)
        if span is None:
            return
        ending = _among(outcome.ending, Ending)
        span.set({"cellblock.tool.ending": ending})
        if ending not in (Ending.REFUSED, OTHER):
            span.set({"gen_ai.tool.name": outcome.name}, f"{CALL} {outcome.name}")
        span.end("" if ending == Ending.OK else ending)

    def end_all(self, error: str) -> None:
        """Those that have not ended never will."""
        for span in self._open.values():
            span.end(error)
        self._open.clear()


def finished(span: Span, event: Finished) -> str:
    """Says of an execution how it ended. Gives what went wrong: the exception's name is the code's, and is not told."""
    execution = event.execution
    status = _among(execution.status, Status)
    span.set(
        {
            "cellblock.execution.status": status,
            "cellblock.execution.cpu_seconds": float(_number(execution.usage.cpu_seconds)),
            "cellblock.execution.tool_calls": int(_number(execution.usage.tool_calls)),
        }
    )
    return "" if status == Status.OK else status


def tokens(usage: TokenUsage | None) -> dict[str, Any]:
    """Nothing where nobody has counted."""
    if usage is None or usage == TokenUsage(0, 0):
        return {}
    return {INPUT: int(_number(usage.input_tokens)), OUTPUT: int(_number(usage.output_tokens))}


def dropped(tree: Tree) -> dict[str, Any]:
    """Says how many there are not, if any."""
    return {DROPPED: tree.dropped} if tree.dropped else {}


def _among(value: str, known: type[Status] | type[Ending]) -> str:
    return str(value) if value in [*known] else OTHER


def _number(value: float) -> float:
    return min(max(value, 0), MAX_NUMBER) if value == value else 0


def _bounded(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value[:MAX_TEXT] if isinstance(value, str) else value for name, value in attributes.items()}


def _nanoseconds(seconds: float) -> int:
    return int(_number(seconds) * 1e9)
