"""Spans for OpenTelemetry: run -> step -> model call, execution, tool call. Needs the extra ``otel``.

Names and attributes are those of OpenTelemetry's conventions for generative AI where there are such. There is no
content in any of them: no task, code, argument, output, answer or message, and no name that code or a model has made
up. Numbers that come from containers are bounded. docs/service.md has a table of all of it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from types import TracebackType
from typing import Any, Self

from orchestrator.agents.parsing import CodeAction
from orchestrator.agents.run import Overheard, RunEvent, StepStarted, usages_of
from orchestrator.agents.steps import ActionStep, FinalAnswerStep, PlanningStep, TaskStep
from orchestrator.errors import missing_extra
from orchestrator.events import (
    ApprovalAsked,
    ApprovalDecided,
    ExecutionEvent,
    Finished,
    RunState,
    ToolCall,
    ToolOutcome,
)
from orchestrator.models import ModelDelta, TokenUsage
from orchestrator.service.span_tree import (
    MAX_ATTRIBUTES,
    MAX_SPANS,
    MAX_TEXT,
    OPERATION,
    SANDBOX,
    Calls,
    Span,
    Tree,
    dropped,
    finished,
    tokens,
)

MAX_QUEUE = 8 * MAX_SPANS  # ended spans that wait to be sent, some 10 MB; further ones are dropped
BATCH = 512  # spans of one message: some 300 KB, and a receiver of gRPC takes 4 MB
SEND_SECONDS = 10.0  # for one message to arrive
FLUSH_SECONDS = 5.0  # for what waits to be sent, when the service stops


class Spans:
    """Makes spans and has them sent.

    Args:
        provider: of OpenTelemetry's SDK. None: nothing is made.
        clock: seconds since the epoch.
    """

    def __init__(self, provider: Any = None, clock: Callable[[], float] = time.time) -> None:
        self._provider = provider
        self._clock = clock

    @classmethod
    def to(cls, endpoint: str) -> Spans:
        """Those that are sent to an address, by OTLP over gRPC. Empty: none are made, and nothing is imported.

        What else a receiver needs, such as a token, comes from the environment: ``OTEL_EXPORTER_OTLP_HEADERS``.

        Raises:
            ConfigError: a package is missing.
        """
        if not endpoint:
            return cls()
        try:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            raise missing_extra("service.otel", "opentelemetry-exporter-otlp-proto-grpc", "otel") from None
        exporter = OTLPSpanExporter(endpoint, insecure=endpoint.startswith("http://"), timeout=SEND_SECONDS)
        provider = new_provider()
        provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=MAX_QUEUE, max_export_batch_size=BATCH))
        return cls(provider)

    def run(self, id: str, agent: str) -> RunSpans:
        """What takes the events of one run, which begins now."""
        return RunSpans(self._tree(**{"cellblock.run.id": id}), agent)

    def execution(self, sandbox: str) -> ExecutionSpans:
        """What takes those of one execution in an app's sandbox."""
        return ExecutionSpans(self._tree(**{SANDBOX: sandbox}))

    def _tree(self, **ids: str) -> Tree | None:
        if self._provider is None:
            return None
        return Tree(self._provider.get_tracer("cellblock", version("cellblock")), self._clock, ids)

    async def close(self) -> None:
        """Sends what waits, as far as that can be done within ``FLUSH_SECONDS``."""
        if self._provider is None:
            return
        # Sending cannot be given up: a thread of its own, which no end of the process waits for.
        sending = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        sending.start()
        await asyncio.to_thread(sending.join, FLUSH_SECONDS)


def new_provider() -> Any:
    """One of OpenTelemetry's SDK, which nobody else of this process sees, and whose spans are bounded.

    Raises:
        ConfigError: the package is missing.
    """
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import SpanLimits, TracerProvider
    except ImportError:
        raise missing_extra("service.otel", "opentelemetry-sdk", "otel") from None
    about = Resource.create({"service.name": "cellblock", "service.version": version("cellblock")})
    limits = SpanLimits(max_span_attributes=MAX_ATTRIBUTES, max_span_attribute_length=MAX_TEXT)
    return TracerProvider(resource=about, span_limits=limits, shutdown_on_exit=False)


class ExecutionSpans:
    """The spans of one execution that is no part of a run: itself, and the tool calls in it. Made by ``Spans``."""

    def __init__(self, tree: Tree | None) -> None:
        self._tree = tree
        self._calls = Calls()
        self._span = Span.root(tree, "execute_code") if tree else None

    def add(self, event: ExecutionEvent) -> None:
        """Takes the next event, as soon as it has happened."""
        if self._span is None:
            return
        match event:
            case ToolCall():
                self._calls.begin(event, self._span)
            case ToolOutcome():
                self._calls.end(event)
            case Finished():
                self._end(finished(self._span, event))

    def _end(self, error: str) -> None:
        if self._tree and self._span:
            self._calls.end_all(error)
            self._span.set(dropped(self._tree))
            self._span.end(error)
            self._span = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end(kind.__name__ if kind else "")


@dataclass(slots=True, eq=False)
class _Worker:
    """A run of an agent under way: the run's own, or one of a member of a team."""

    span: Span
    name: str = ""
    number: int = 0  # of the step
    step: Span | None = None
    model: Span | None = None  # it has been asked, and what it has used is not known yet
    replied: float | None = None  # when it had
    execution: Span | None = None
    calls: Calls = field(default_factory=Calls)
    team: list[_Worker] = field(default_factory=list)
    used: TokenUsage = field(default_factory=lambda: TokenUsage(0, 0))

    @property
    def here(self) -> Span:
        """What it is at."""
        return self.execution or self.step or self.span

    def does(self, event: RunEvent) -> bool:
        """Whether ``event`` may be its own. Members that are called twice at the same time have one name."""
        match event:
            case StepStarted(number):
                return self.step is None and number == self.number + 1
            case ActionStep():
                return self.step is not None and event.step_number == self.number
            case Finished():
                return self.execution is not None
            case ToolCall():
                return self.step is not None and not self.calls.has(event.id)
            case ToolOutcome():
                return self.calls.has(event.id)
        return self.step is not None and self.replied is None

    def take(self, event: RunEvent, now: float) -> None:
        """What it does, as spans."""
        if self.model and self.replied is None and not isinstance(event, ModelDelta):
            self.replied = now  # a reply ends with the first event that comes of it
        match event:
            case StepStarted():
                self._begin_step(event.step_number, now)
            case ToolCall():
                self.calls.begin(event, self.here)
            case ToolOutcome():
                self.calls.end(event)
            case Finished() if self.execution:
                self.execution.end(finished(self.execution, event))
                self.execution = None
            case PlanningStep():
                start, end = event.timing.start_time, event.timing.end_time
                planning = _model_call(self.span, start, planning=True)
                planning.set(tokens(event.token_usage))
                planning.end(at=end)
            case ActionStep():
                self._end_step(event)
            case CodeAction() if self.step and not self.execution:
                self.execution = self.step.child("execute_code", {})

    def _begin_step(self, number: int, start: float) -> None:
        self.close_step("")
        self.number = number
        self.step = self.span.child(f"step {number}", {"cellblock.step.number": number}, start=start)
        self.model, self.replied = _model_call(self.step, start), None

    def _end_step(self, step: ActionStep) -> None:
        if self.step is None:  # the last one, when all others are used up, is told of when it is over
            self._begin_step(step.step_number, step.timing.start_time)
        if self.model:
            self.model.set(tokens(step.token_usage))
        self.close_step(step.error.kind if step.error else "")

    def close_step(self, error: str) -> None:
        """Ends the step, and what has not ended in it."""
        for member in self.team:
            member.close(error)
        self.team.clear()
        self.calls.end_all(error)
        if self.model:
            self.model.end(error if self.replied is None else "", at=self.replied)
        for span in (self.execution, self.step):
            if span:
                span.end(error)
        self.model = self.execution = self.step = None

    def close(self, error: str, **attributes: Any) -> None:
        """It ends."""
        self.close_step(error)
        self.span.set(tokens(self.used) | attributes)
        self.span.end(error)


class RunSpans:
    """The spans of one run, made of its events; those of members of its team are below its step. Made by ``Spans``."""

    def __init__(self, tree: Tree | None, agent: str) -> None:
        self._tree = tree
        self._agent = agent
        self._questions: dict[str, Span] = {}
        self._sandboxes: dict[str, list[str]] = {}  # of members whose runs have not been heard of yet
        self._run = _Worker(Span.root(tree, "invoke_agent", **{OPERATION: "invoke_agent"})) if tree else None

    def works_in(self, agent: str, sandbox: str) -> None:
        """An agent works in that sandbox: a member of the team, whose run begins now; empty: the run's own."""
        if self._run is None:
            return
        if not agent:
            self._run.span.works_in(sandbox)
        elif sum(map(len, self._sandboxes.values())) < MAX_SPANS:  # of members that never begin
            self._sandboxes.setdefault(agent, []).append(sandbox)

    def add(self, event: RunEvent) -> None:
        """Takes the next event, as soon as it has happened."""
        if self._tree is None or self._run is None:
            return
        if self._agent:  # there is such an agent; before, its name was whatever somebody had asked for
            self._run.span.set({"gen_ai.agent.name": self._agent}, f"invoke_agent {self._agent}")
            self._agent = ""
        if isinstance(event, ApprovalAsked | ApprovalDecided):
            self._decide(event, self._run)
            return
        inner, workers = event, [self._run]
        while isinstance(inner, Overheard):
            name, inner = inner.agent, inner.event
            member = self._member(workers[-1], name, inner)
            if member is None:
                return
            workers.append(member)
        for usage in usages_of(event):
            for worker in workers:
                worker.used = worker.used + usage if usage else worker.used
        workers[-1].take(inner, self._tree.now())
        if isinstance(inner, FinalAnswerStep) and len(workers) > 1:
            workers[-1].close("")
            workers[-2].team.remove(workers[-1])

    def _member(self, manager: _Worker, name: str, event: RunEvent) -> _Worker | None:
        """Whose event that is; of the one that begins, a new one."""
        if isinstance(event, TaskStep):
            attributes = {OPERATION: "invoke_agent", "gen_ai.agent.name": name}
            waiting = self._sandboxes.get(name)
            span = (manager.step or manager.span).child(
                f"invoke_agent {name}"[:MAX_TEXT], attributes, sandbox=waiting.pop(0) if waiting else ""
            )
            manager.team.append(_Worker(span, name))
        called_so = [worker for worker in manager.team if worker.name == name]
        if isinstance(event, TaskStep):
            return called_so[-1]
        return next((worker for worker in called_so if worker.does(event)), called_so[0] if called_so else None)

    def _decide(self, event: ApprovalAsked | ApprovalDecided, run: _Worker) -> None:
        if isinstance(event, ApprovalAsked) and event.question not in self._questions:
            self._questions[event.question] = run.here.child("approval", {})
        elif isinstance(event, ApprovalDecided) and (span := self._questions.pop(event.question, None)):
            span.set({"cellblock.approval.approved": event.approved})
            span.end()

    def end(self, state: RunState, error: str = "") -> None:
        """The run has ended so; ``error`` is the class of what it failed with."""
        if self._tree is None or self._run is None:
            return
        for question in self._questions.values():
            question.end()
        self._run.close(error, **{"cellblock.run.state": str(state)} | dropped(self._tree))
        self._run = None


def _model_call(parent: Span, start: float, *, planning: bool = False) -> Span:
    return parent.child("chat", {OPERATION: "chat", "cellblock.planning": planning}, "CLIENT", start)
