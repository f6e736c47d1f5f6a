"""What is measured, for Prometheus. Needs the extra ``service``.

Labels are of fixed sets: no name, id or text that anybody chose is in any of them. Numbers that come from containers or
model endpoints are bounded before they are added. docs/service.md has a table of all of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

from orchestrator.agents.run import AgentEvent, Overheard, RunEvent, StepStarted, usages_of
from orchestrator.agents.steps import ActionStep, ErrorKind, PlanningStep
from orchestrator.errors import Overloaded, missing_extra
from orchestrator.events import ApprovalAsked, ApprovalDecided, Ending, ExecutionEvent, Finished, Status, ToolOutcome
from orchestrator.models import ModelDelta, TokenUsage

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OTHER = "other"  # for a value that a newer version has
MAX_SECONDS = 1e6  # of one measurement; longer is nonsense
MAX_TOKENS = 10**9  # of one model call; the same
_FAST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)  # seconds: of executions and calls
_SLOW = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600)  # of model calls and steps

SANDBOX_STATES = ("idle", "busy", "lost")
RUN_STATES = ("queued", "running", "waiting")
RUN_ENDS = ("succeeded", "failed", "interrupted")
POOL_STATES = ("ready", "starting")
QUEUES = ("runs", "sandboxes")
STEP_ENDS = ("ok", *get_args(ErrorKind))
# Who refused: the policy of tools (``ToolOutcome.refused_by``), access.py, executions, quotas and queues.
_TOOL_DENIALS = (
    "not_granted",
    "max_calls",
    "max_bytes",
    "max_running",
    "arguments",
    "approver",
    "approval_failed",
    "execution_ended",
)
DENIALS = (
    *_TOOL_DENIALS,
    "no_token",
    "bad_token",
    "scope",
    "attempts",
    "import_denied",
    "execution_refused",
    "overloaded",
    OTHER,
)
_DENIED_STATUSES = {Status.IMPORT_DENIED: "import_denied", Status.REFUSED: "execution_refused"}

Counts = Callable[[], Mapping[str, float]]


class Metrics:
    """All of it, in a registry of its own.

    Raises:
        ConfigError: prometheus-client is not installed.
    """

    def __init__(self) -> None:
        try:
            import prometheus_client as prometheus
        except ImportError:
            raise missing_extra("the service", "prometheus-client", "service") from None
        self._write: Callable[[Any], bytes] = prometheus.generate_latest
        self._registry = prometheus.CollectorRegistry()
        self._sources: list[tuple[Any, Sequence[str], Counts]] = []
        self._make_gauges(prometheus)
        self._make_counters(prometheus)
        self._make_histograms(prometheus)

    def _make_gauges(self, prometheus: Any) -> None:
        def gauge(name: str, about: str, label: str, values: Sequence[str]) -> Any:
            made = prometheus.Gauge(f"cellblock_{name}", about, [label], registry=self._registry)
            for value in values:
                made.labels(value)
            return made

        self._sandboxes = gauge("sandboxes", "Sandboxes there are.", "state", SANDBOX_STATES)
        self._runs = gauge("runs", "Runs that have not ended.", "state", RUN_STATES)
        self._pool = gauge("pool_sandboxes", "Sandboxes that pools hold ready.", "state", POOL_STATES)
        self._queues = gauge("queue_length", "Requests that wait.", "queue", QUEUES)

    def _make_counters(self, prometheus: Any) -> None:
        def counter(name: str, about: str, label: str = "", values: Sequence[str] = ()) -> Any:
            made = prometheus.Counter(f"cellblock_{name}", about, [label] if label else [], registry=self._registry)
            for value in values:
                made.labels(value)
            return made

        self._executions = counter("executions", "Executions that ended.", "status", [*Status, OTHER])
        self._cpu = counter("execution_cpu_seconds", "Processor time of executions.")
        self._calls = counter("tool_calls", "Tool calls that ended.", "ending", [*Ending, OTHER])
        self._steps = counter("steps", "Steps of agents that ended.", "outcome", [*STEP_ENDS, OTHER])
        self._runs_ended = counter("runs_ended", "Runs that ended.", "state", [*RUN_ENDS, OTHER])
        self._tokens = counter(
            "model_tokens", "Tokens of models, as counted by them.", "direction", ("input", "output")
        )
        self._approvals = counter("approvals", "Questions that were decided.", "decision", ("approved", "refused"))
        self._denials = counter("denials", "What was refused.", "reason", DENIALS)

    def _make_histograms(self, prometheus: Any) -> None:
        def histogram(name: str, about: str, buckets: Sequence[float], label: str = "", values: Any = ()) -> Any:
            labels = [label] if label else []
            made = prometheus.Histogram(
                f"cellblock_{name}_seconds", about, labels, buckets=buckets, registry=self._registry
            )
            for value in values:
                made.labels(value)
            return made

        self._execution = histogram("execution", "Of an execution, in its container.", _FAST)
        self._call = histogram("tool_call", "Of a tool call, the wait for its approval included.", _FAST)
        self._start = histogram("sandbox_start", "To a sandbox that is ready.", _FAST, "from", ("cold", "pool"))
        self._step = histogram("step", "Of a step of an agent.", _SLOW)
        self._model = histogram("model_call", "From asking a model to its whole reply.", _SLOW)
        self._wait = histogram("queue_wait", "In the queue, of what got a slot.", _SLOW, "queue", QUEUES)

    # ------------------------------------------------------------------------------------------------- what there is

    def sandboxes_from(self, read: Counts) -> None:
        """``read`` gives how many sandboxes there are, by ``SANDBOX_STATES``; it is called for each exposition."""
        self._sources.append((self._sandboxes, SANDBOX_STATES, read))

    def runs_from(self, read: Counts) -> None:
        """The same for runs that have not ended, by ``RUN_STATES``."""
        self._sources.append((self._runs, RUN_STATES, read))

    def pool_from(self, read: Counts) -> None:
        """The same for sandboxes of pools, by ``POOL_STATES``."""
        self._sources.append((self._pool, POOL_STATES, read))

    def queues_from(self, read: Counts) -> None:
        """The same for what waits, by ``QUEUES``."""
        self._sources.append((self._queues, QUEUES, read))

    # ------------------------------------------------------------------------------------------------- what happens

    def execution_event(self, event: ExecutionEvent) -> None:
        """Takes an event of an execution that is no part of a run; a run's ``RunMeter`` takes its own."""
        match event:
            case Finished(execution):
                self._executions.labels(_among(str(execution.status), [*Status])).inc()
                self._execution.observe(_bounded(execution.usage.wall_seconds))
                self._cpu.inc(_bounded(execution.usage.cpu_seconds))
                if reason := _DENIED_STATUSES.get(execution.status):
                    self.denied(reason)
            case ToolOutcome():
                self._calls.labels(_among(str(event.ending), [*Ending])).inc()
                self._call.observe(_bounded(event.seconds))
                if event.refused_by:
                    self.denied(event.refused_by)

    def run(self, clock: Callable[[], float] = time.monotonic) -> RunMeter:
        """What takes the events of one run."""
        return RunMeter(self, clock)

    def run_ended(self, state: str) -> None:
        """A run did, in one of ``RUN_ENDS``."""
        self._runs_ended.labels(_among(state, RUN_ENDS)).inc()

    def step_ended(self, step: ActionStep) -> None:
        """A step of an agent did."""
        self._step.observe(_bounded(step.timing.duration))
        self._steps.labels(_among(step.error.kind, STEP_ENDS) if step.error else "ok").inc()

    def model_call(self, seconds: float) -> None:
        """A model has replied."""
        self._model.observe(_bounded(seconds))

    def tokens_used(self, usage: TokenUsage) -> None:
        """A model has counted."""
        self._tokens.labels("input").inc(_bounded(usage.input_tokens, MAX_TOKENS))
        self._tokens.labels("output").inc(_bounded(usage.output_tokens, MAX_TOKENS))

    def sandbox_started(self, seconds: float, *, from_pool: bool = False) -> None:
        """A sandbox is ready, that long after it was asked for."""
        self._start.labels("pool" if from_pool else "cold").observe(_bounded(seconds))

    def waited(self, queue: str) -> Callable[[float], None]:
        """What an ``Admission`` tells how long each has waited; ``queue`` is one of ``QUEUES``."""
        if queue not in QUEUES:
            raise ValueError(f"{queue!r} is no queue; there are {', '.join(QUEUES)}")
        wait = self._wait.labels(queue)
        return lambda seconds: wait.observe(_bounded(seconds))

    def decided(self, approved: bool) -> None:
        """A question has been."""
        self._approvals.labels("approved" if approved else "refused").inc()

    def denied(self, reason: str) -> None:
        """Something was refused, for one of ``DENIALS``."""
        self._denials.labels(_among(reason, DENIALS)).inc()

    def failed(self, error: BaseException) -> None:
        """A call ended with that error; counts it if it is a quota's or a queue's."""
        if isinstance(error, Overloaded):
            self.denied("overloaded")

    # --------------------------------------------------------------------------------------------------- exposition

    def exposition(self) -> bytes:
        """All of it as it is now, in Prometheus' text format (``CONTENT_TYPE``)."""
        for gauge, values, read in self._sources:
            counts = read()
            for value in values:
                gauge.labels(value).set(_bounded(counts.get(value, 0), MAX_TOKENS))
        return self._write(self)

    def collect(self) -> Iterator[Any]:
        """The families of the registry, without the times at which series were made: nobody needs them."""
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if sample.name != f"{family.name}_created"]
            yield family


class RunMeter:
    """Measures one run by its events, those of its team included. Made by ``Metrics.run()``."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._metrics = metrics
        self._clock = clock
        self._asked: dict[tuple[str, ...], float] = {}  # when which agent's model was, that has not replied yet

    def add(self, event: RunEvent) -> None:
        """Takes the next event, as soon as it has happened."""
        if isinstance(event, ApprovalAsked | ApprovalDecided):
            if isinstance(event, ApprovalDecided):
                self._metrics.decided(event.approved)
            return
        for usage in usages_of(event):
            if usage is not None:
                self._metrics.tokens_used(usage)
        agent: tuple[str, ...] = ()
        while isinstance(event, Overheard):
            agent, event = (*agent, event.agent), event.event
        self._time_model(agent, event)
        match event:
            case ActionStep():
                self._metrics.step_ended(event)
            case Finished() | ToolOutcome():
                self._metrics.execution_event(event)

    def _time_model(self, agent: tuple[str, ...], event: AgentEvent) -> None:
        """A model's reply ends with the first event that comes of it."""
        if isinstance(event, StepStarted):
            self._asked[agent] = self._clock()
        elif isinstance(event, PlanningStep):
            self._metrics.model_call(event.timing.duration)
        elif not isinstance(event, ModelDelta) and (asked := self._asked.pop(agent, None)) is not None:
            self._metrics.model_call(self._clock() - asked)


def _among(value: str, known: Sequence[str]) -> str:
    return value if value in known else OTHER


def _bounded(value: float, most: float = MAX_SECONDS) -> float:
    return float(min(max(value, 0), most)) if value == value else 0.0  # an int may be too large for a float
