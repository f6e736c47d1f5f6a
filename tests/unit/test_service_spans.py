"""What OpenTelemetry is told of runs and executions, and that no content is in it."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from orchestrator.agents import CodeAgent, MultiStepAgent, PlanningStep, StepStarted, TaskStep, ToolCallingAgent
from orchestrator.agents.parsing import CodeAction
from orchestrator.agents.run import Overheard, RunEvent
from orchestrator.agents.steps import ActionStep, FinalAnswerStep, StepError, Timing
from orchestrator.configured import Asked
from orchestrator.errors import CellblockError, ConfigError, ModelUnavailable
from orchestrator.events import (
    ApprovalAsked,
    ApprovalDecided,
    Ending,
    Execution,
    Finished,
    Output,
    RunState,
    State,
    Status,
    ToolCall,
    ToolOutcome,
    Usage,
)
from orchestrator.models import ModelDelta, ModelReply, ScriptedModel, TokenUsage
from orchestrator.service import spans as module
from orchestrator.service.access import LOCAL
from orchestrator.service.admission import Admission
from orchestrator.service.app_tools import Hosts, Place, place
from orchestrator.service.executions import Executions
from orchestrator.service.live_run import LiveRun, Means
from orchestrator.service.logs import JsonLines
from orchestrator.service.meters import Meters
from orchestrator.service.metrics import Metrics
from orchestrator.service.quotas import Accounts
from orchestrator.service.span_tree import DROPPED, MAX_ATTRIBUTES, MAX_CALLS, MAX_NUMBER, MAX_SPANS, MAX_TEXT
from orchestrator.service.spans import Spans, new_provider
from orchestrator.store import Store, StoredRun
from orchestrator.tools import tool
from tests.serving import somebody
from tests.unit.fake_sandbox import FakeSandbox, FakeSettings, answered, failed, ran
from tests.unit.scripted_agents import caller_with, calls, final, step
from tests.unit.service_parts import run
from tests.unit.test_docs import table
from tests.unit.test_service_exposition import service

CANARY = "canary-7f3a"
ROOT = Path(__file__).parents[2]


class Begun(SpanProcessor):
    """How many have."""

    def __init__(self) -> None:
        self.count = 0

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.count += 1


class Seen:
    """Spans that are made, and all that have ended."""

    def __init__(self, clock: Any = time.time) -> None:
        self.exporter = InMemorySpanExporter()
        provider = new_provider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.begun = Begun()
        provider.add_span_processor(self.begun)
        self.spans = Spans(provider, clock)

    @property
    def ended(self) -> list[ReadableSpan]:
        """In the order in which they began."""
        return sorted(self.exporter.get_finished_spans(), key=lambda span: (span.start_time, span.context.span_id))

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.ended if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def above(self, span: ReadableSpan) -> list[str]:
        """The names of a span and of those above it."""
        by_id = {one.context.span_id: one for one in self.ended}
        names = [span.name]
        while span.parent is not None:
            span = by_id[span.parent.span_id]
            names.append(span.name)
        return names

    def places(self) -> list[str]:
        """Each span with those above it, the uppermost first."""
        return sorted(" > ".join(reversed(self.above(span))) for span in self.ended)

    def text(self) -> str:
        """All of all of them, as it can be sent."""
        return "\n".join(span.to_json() for span in self.ended)


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def is_error(span: ReadableSpan) -> bool:
    assert not span.status.description
    return span.status.status_code is trace.StatusCode.ERROR


def seconds(span: ReadableSpan) -> tuple[float, float]:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.start_time / 1e9, span.end_time / 1e9


def watched(agent: MultiStepAgent, seen: Seen) -> None:
    spans = seen.spans.run("r1", "default")
    for event in agent.run(CANARY, stream=True):
        spans.add(event)
    spans.end(RunState.SUCCEEDED)


def fed(seen: Seen, events: Iterable[RunEvent], state: RunState = RunState.SUCCEEDED, error: str = "") -> None:
    spans = seen.spans.run("r1", "default")
    for event in events:
        spans.add(event)
    spans.end(state, error)


def finished(status: Status = Status.OK, **usage: Any) -> Finished:
    return Finished(Execution(status, State.KEPT, 1, usage=Usage(**usage)))


def done(number: int = 1, error: StepError | None = None, usage: TokenUsage | None = None) -> ActionStep:
    return ActionStep(number, Timing(100.0, 1.0), CANARY, error=error, token_usage=usage)


# --------------------------------------------------------------------------------------------------------------- runs


def test_a_run_is_a_tree_of_steps_model_calls_and_executions() -> None:
    replies = [ModelReply(step("1/0"), TokenUsage(10, 4)), ModelReply(step("final_answer(1)"), TokenUsage(20, 5))]
    sandbox, seen = FakeSandbox([failed(CANARY, CANARY), answered(CANARY)]), Seen()
    watched(CodeAgent([], ScriptedModel(replies), sandbox=sandbox, verbosity_level=-1), seen)
    top = "invoke_agent default"
    assert seen.places() == sorted(
        [top] + [f"{top} > step {n}{below}" for n in (1, 2) for below in ("", " > chat", " > execute_code")]
    )
    whole = told(seen.one(top))
    assert whole == {
        "cellblock.run.id": "r1",
        "cellblock.run.state": "succeeded",
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "default",
        "gen_ai.usage.input_tokens": 30,
        "gen_ai.usage.output_tokens": 9,
    }
    first, _ = seen.named("chat")
    assert (told(first)["gen_ai.usage.input_tokens"], told(first)["gen_ai.usage.output_tokens"]) == (10, 4)
    assert first.kind is trace.SpanKind.CLIENT
    wrong, right = seen.named("execute_code")
    assert (told(wrong)["cellblock.execution.status"], told(wrong)["error.type"], is_error(wrong)) == (
        "error",
        "error",
        True,
    )
    assert (told(right)["cellblock.execution.status"], is_error(right)) == ("ok", False)
    assert told(seen.one("step 1"))["error.type"] == "execution"
    assert is_error(seen.one("step 1"))
    assert not is_error(seen.one("step 2"))
    assert len({span.context.trace_id for span in seen.ended}) == 1


def test_times_are_those_of_the_events() -> None:
    clock = [100.0]
    seen = Seen(lambda: clock[0])
    spans = seen.spans.run("r1", "default")
    for at, event in (
        (101.0, PlanningStep("plan", Timing(100.25, 0.5))),
        (101.0, StepStarted(1, 5)),
        (102.0, ModelDelta("a")),
        (103.0, CodeAction("code", "thought")),
        (104.0, ToolCall(1, "search", (), {})),
        (105.0, ToolOutcome(1, "search", None, 1.0)),
        (106.0, finished()),
        (107.0, done()),
    ):
        clock[0] = at
        spans.add(event)
    clock[0] = 108.0
    spans.end(RunState.SUCCEEDED)
    found = {span.name: seconds(span) for span in seen.ended if not told(span).get("cellblock.planning")}
    assert found == {
        "invoke_agent default": (100.0, 108.0),
        "step 1": (101.0, 107.0),
        "chat": (101.0, 103.0),
        "execute_code": (103.0, 106.0),
        "execute_tool search": (104.0, 105.0),
    }
    (planning,) = [span for span in seen.ended if told(span).get("cellblock.planning")]
    assert (planning.name, *seconds(planning)) == ("chat", 100.25, 100.75)


def test_what_is_said_when_the_steps_are_used_up_is_a_step_too() -> None:
    seen = Seen()
    fed(seen, [ActionStep(6, Timing(100.0, 2.0), CANARY, token_usage=TokenUsage(1, 2))])
    assert seconds(seen.one("step 6"))[0] == 100.0
    assert told(seen.one("chat"))["gen_ai.usage.output_tokens"] == 2


def test_a_member_of_the_team_is_below_its_managers_step() -> None:
    settings, seen = FakeSettings(scripts=[[ran("1"), answered("soup")]]), Seen()
    replies = [ModelReply(text, TokenUsage(10, 4)) for text in (step("1"), step("final_answer('soup')"))]
    cook = CodeAgent([], ScriptedModel(replies), sandbox=settings, name="cook", description="Cooks.")
    asked = calls(("cook", {"task": CANARY}), usage=TokenUsage(1, 2))
    chef = caller_with([], asked, final("fine"), managed_agents=[cook], name="chef", description="Has a cook.")
    boss = caller_with([], calls(("chef", {"task": CANARY})), final("done"), managed_agents=[chef])
    watched(boss, seen)
    above = "invoke_agent default > step 1 > invoke_agent chef > step 1 > invoke_agent cook"
    found = seen.places()
    assert [place for place in found if place.startswith(above)] == sorted(
        [above] + [f"{above} > step {n}{below}" for n in (1, 2) for below in ("", " > chat", " > execute_code")]
    )
    assert "invoke_agent default > step 1 > execute_tool chef" in found
    tokens = {span.name: told(span).get("gen_ai.usage.input_tokens") for span in seen.ended if "invoke" in span.name}
    assert tokens == {"invoke_agent default": 21, "invoke_agent chef": 21, "invoke_agent cook": 20}


def test_two_calls_of_a_member_at_the_same_time_are_two_runs() -> None:
    settings, seen = FakeSettings(scripts=[[ran("1"), answered("a")], [ran("1"), answered("b")]]), Seen()
    replies = [step("1"), step("1"), step("final_answer('a')"), step("final_answer('b')")]
    cook = CodeAgent([], ScriptedModel(replies), sandbox=settings, name="cook", description="Cooks.")
    boss = caller_with(
        [], calls(("cook", {"task": "a"}), ("cook", {"task": "b"})), final("done"), managed_agents=[cook]
    )
    watched(boss, seen)
    by_run = {span.context.span_id: [] for span in seen.named("invoke_agent cook")}
    for span in seen.ended:
        if span.parent and span.parent.span_id in by_run:
            by_run[span.parent.span_id].append(span.name)
    assert list(by_run.values()) == [["step 1", "step 2"]] * 2


def test_a_member_that_never_ends_ends_with_its_managers_step() -> None:
    seen = Seen()
    fed(
        seen,
        [
            StepStarted(1, 5),
            Overheard("cook", TaskStep(CANARY)),
            Overheard("cook", StepStarted(1, 5)),
            done(1, StepError("tool", CANARY)),
            Overheard("cook", done(1)),  # of nobody who is there
            StepStarted(2, 5),
            done(2),
            FinalAnswerStep(CANARY),
        ],
    )
    (cook,) = seen.named("invoke_agent cook")
    assert is_error(cook)
    assert len(seen.ended) == 8


def test_an_approval_is_a_span_where_it_was_waited_for() -> None:
    seen = Seen()
    asked = ApprovalAsked("q", CANARY, {CANARY: CANARY}, CANARY, 1.0, CANARY, CANARY)
    fed(
        seen,
        [
            StepStarted(1, 5),
            CodeAction(CANARY, CANARY),
            asked,
            ApprovalDecided("q", False, CANARY, CANARY),
            finished(Status.REFUSED),
            done(),
        ],
    )
    approval = seen.one("approval")
    assert seen.above(approval) == ["approval", "execute_code", "step 1", "invoke_agent default"]
    assert told(approval) == {"cellblock.run.id": "r1", "cellblock.approval.approved": False}
    assert CANARY not in seen.text()


def test_what_had_not_ended_when_a_run_failed_says_so() -> None:
    seen = Seen()
    fed(seen, [StepStarted(1, 5)], RunState.FAILED, "ModelUnavailable")
    assert [span.name for span in seen.ended if is_error(span)] == [span.name for span in seen.ended]
    assert {told(span)["error.type"] for span in seen.ended} == {"ModelUnavailable"}
    assert told(seen.one("invoke_agent default"))["cellblock.run.state"] == "failed"


def test_an_interrupted_run_is_no_error() -> None:
    seen = Seen()
    fed(seen, [StepStarted(1, 5), CodeAction("c", "t")], RunState.INTERRUPTED)
    assert len(seen.ended) == 4
    assert not any(is_error(span) for span in seen.ended)


def test_the_name_of_an_agent_that_there_is_not_is_not_told() -> None:
    seen = Seen()
    seen.spans.run("r1", CANARY).end(RunState.FAILED, "NotFound")
    assert seen.one("invoke_agent").status.status_code is trace.StatusCode.ERROR
    assert CANARY not in seen.text()


# ------------------------------------------------------------------------------------------------- content and bounds


def hostile() -> Iterable[RunEvent]:
    """A run with the canary wherever somebody could put one."""
    yield TaskStep(CANARY)
    yield PlanningStep(CANARY, Timing(100.0, 1.0))
    yield StepStarted(1, 5)
    yield ModelDelta(CANARY)
    yield CodeAction(CANARY, CANARY)
    yield Output("stdout", CANARY)
    for number, ending in enumerate((Ending.REFUSED, CANARY)):
        yield ToolCall(number, CANARY, (CANARY,), {CANARY: CANARY})
        yield ToolOutcome(number, CANARY, CANARY, 1.0, ending, CANARY, CANARY)  # type: ignore[arg-type]
    yield ToolCall(8, "search", (CANARY,), {CANARY: CANARY})
    yield ToolOutcome(8, "search", CANARY, 1.0, Ending.FAILED)
    yield ToolCall(9, CANARY, (CANARY,), {})  # has no end
    yield Finished(failed(CANARY, CANARY, stdout=CANARY))
    yield finished(CANARY)  # type: ignore[arg-type]
    yield done(1, StepError("execution", CANARY))
    yield Overheard("cook", TaskStep(CANARY))
    yield FinalAnswerStep(CANARY)


def test_no_content_is_in_any_span() -> None:
    seen = Seen()
    fed(seen, hostile(), RunState.FAILED, "ModelUnavailable")
    with seen.spans.execution("s1") as spans:
        for event in hostile():
            spans.add(event)  # type: ignore[arg-type]
    assert len(seen.ended) > 10
    assert CANARY not in seen.text()
    assert seen.named("execute_tool search")


def test_a_real_run_leaves_no_content_in_its_spans() -> None:
    def search(what: str) -> str:
        """Looks.

        Args:
            what: for what.
        """
        raise ValueError(what + CANARY)

    seen = Seen()
    watched(
        caller_with(
            [search],
            calls(("search", {"what": CANARY}), (CANARY, {}), ("search", CANARY), text=CANARY),
            final(CANARY),
        ),
        seen,
    )
    assert len(seen.named("execute_tool search")) == 2
    (unknown,) = seen.named("execute_tool")
    assert told(unknown)["error.type"] == "refused"
    assert CANARY not in seen.text()


@pytest.mark.parametrize("nonsense", [float("nan"), float("inf"), -1.0, 10**400])
def test_nonsense_from_a_container_or_a_model_is_bounded(nonsense: Any) -> None:
    seen = Seen()
    usage = TokenUsage(nonsense, nonsense)
    fed(
        seen,
        [
            StepStarted(1, 5),
            CodeAction("c", "t"),
            finished(cpu_seconds=nonsense, tool_calls=nonsense),
            ActionStep(1, Timing(100.0, 1.0), "", token_usage=usage),
        ],
    )
    numbers = [value for span in seen.ended for value in told(span).values() if isinstance(value, (int, float))]
    assert numbers
    assert all(0 <= number <= MAX_NUMBER for number in numbers)


def test_a_run_has_so_many_spans_at_most_and_says_how_many_are_missing() -> None:
    seen = Seen()

    def events() -> Iterable[RunEvent]:
        yield StepStarted(1, 5)
        yield CodeAction("c", "t")
        for number in range(MAX_CALLS + 10):
            yield ToolCall(number, "t", (), {})
            yield ToolOutcome(number, "t", None, 0.0)
        yield finished()
        yield done()
        for number in range(2, MAX_SPANS + 1):
            yield StepStarted(number, 5)
            yield done(number)

    fed(seen, events())
    assert len(seen.named("execute_tool t")) == MAX_CALLS
    assert len(seen.ended) == MAX_SPANS
    # Of the steps there are the first ones; each has a model call. Before them there are the run and the execution.
    steps = (MAX_SPANS - MAX_CALLS - 2) // 2
    assert told(seen.one("invoke_agent default"))[DROPPED] == 10 + 2 * (MAX_SPANS - steps)


def of_anybody(event: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(Overheard, st.sampled_from(["cook", "chef"]), event)


EVENTS = st.recursive(
    st.one_of(
        st.builds(StepStarted, st.integers(1, 2), st.just(5)),
        st.builds(done, st.integers(1, 2)),
        st.builds(lambda id: ToolCall(id, "t", (), {}), st.integers(1, 2)),
        st.builds(lambda id: ToolOutcome(id, "t", None, 1.0), st.integers(1, 2)),
        st.sampled_from(
            [TaskStep("t"), CodeAction("c", "t"), ModelDelta("m"), finished(), FinalAnswerStep(1), Output("stdout", "")]
        ),
        st.sampled_from([ApprovalAsked("q", "", {}, "", 1.0), ApprovalDecided("q", True, "", "")]),
    ),
    of_anybody,
    max_leaves=3,
).filter(lambda event: not (isinstance(event, Overheard) and "Approval" in repr(event)))


@settings(max_examples=300)
@given(st.lists(EVENTS, max_size=40))
def test_every_span_that_begins_ends_whatever_the_order_of_events(events: list[RunEvent]) -> None:
    seen = Seen()
    fed(seen, events)
    assert len(seen.ended) == seen.begun.count
    by_id = {span.context.span_id: span for span in seen.ended}
    for span in seen.ended:
        if span.parent and span.name != "approval":  # somebody may decide what nobody waits for any more
            assert seconds(by_id[span.parent.span_id])[1] >= seconds(span)[1]


def test_attributes_are_few_and_short() -> None:
    seen = Seen()
    spans = seen.spans.run("r" * 1000, "a" * 1000)
    for event in hostile():
        spans.add(event)
    spans.add(StepStarted(2, 5))
    spans.add(ToolCall(1, "x", (), {}))
    spans.add(ToolOutcome(1, "n" * 1000, None, 1.0))
    spans.end(RunState.SUCCEEDED)
    for span in seen.ended:
        assert len(span.name) <= MAX_TEXT
        assert len(told(span)) <= MAX_ATTRIBUTES
        assert all(len(value) <= MAX_TEXT for value in told(span).values() if isinstance(value, str))


def test_every_attribute_is_in_the_documentation() -> None:
    seen = Seen()
    fed(seen, [*hostile(), StepStarted(2, 5), done(2, usage=TokenUsage(1, 1))], RunState.FAILED, "ModelUnavailable")
    fed(seen, [ApprovalAsked("q", "", {}, "", 1.0), ApprovalDecided("q", True, "", "")])
    with seen.spans.execution("s1"):
        pass
    used = {name for span in seen.ended for name in told(span)} | {DROPPED}
    assert used == {row[0] for row in table("docs/service.md", "attribute")}
    names = {span.name.split()[0] for span in seen.ended}
    assert names == {row[0].split()[0] for row in table("docs/service.md", "span")}


# --------------------------------------------------------------------------------------------------------- the service


@asynccontextmanager
async def means(folder: Path, spans: Spans) -> AsyncIterator[Means]:
    store = await Store.open(folder / "store.db")
    try:
        yield Means(store, Admission(1, 1), Accounts(store), Metrics(), Hosts(), folder, 5.0, spans)
    finally:
        await store.close()


async def worked(folder: Path, spans: Spans, agent: MultiStepAgent) -> StoredRun:
    @asynccontextmanager
    async def making(ask: Any, watch: Any) -> AsyncIterator[MultiStepAgent]:
        yield agent

    async with means(folder, spans) as given:
        stored = await given.store.add_run(StoredRun("r1", "default", CANARY, "local", created=1.0), "run:k")
        await LiveRun(stored, LOCAL, given, making, lambda agent, check: agent.astream(CANARY)).work()
        ended = await given.store.run("r1")
    assert ended
    return ended


def test_a_run_of_the_service_makes_spans(tmp_path: Path) -> None:
    seen = Seen()
    model = ScriptedModel([step(f"print('{CANARY}')"), step(f"final_answer('{CANARY}')")])
    agent = CodeAgent([], model, sandbox=FakeSandbox([ran(stdout=CANARY), answered(CANARY)]), verbosity_level=-1)
    assert run(worked(tmp_path, seen.spans, agent)).state is RunState.SUCCEEDED
    assert told(seen.one("invoke_agent default"))["cellblock.run.state"] == "succeeded"
    assert len(seen.ended) == 7
    assert CANARY not in seen.text()


SANDBOX = "cellblock.sandbox.id"


@pytest.mark.parametrize("is_alone", [True, False])
def test_what_happens_in_a_sandbox_of_a_run_has_its_id(tmp_path: Path, is_alone: bool) -> None:
    seen, logged = Seen(), []

    @tool
    def look() -> str:
        """Logs."""
        logged.append(json.loads(JsonLines().format(logging.makeLogRecord({"msg": "x"}))))
        return "x"

    async def test() -> list[str]:
        listed: list[str] = []

        @asynccontextmanager
        async def making(ask: Any, watch: Any) -> AsyncIterator[MultiStepAgent]:
            def play(_: Any) -> Execution:
                listed.extend([place.get().sandbox, *(held.id for held in given.registry.all(LOCAL))])
                return answered(1)

            settings = FakeSettings(scripts=[[ran(), play]], watcher=watch("" if is_alone else "cook"))
            model, names = ScriptedModel([step("1"), step("2")]), {"name": "cook", "description": "cooks"}
            worker = CodeAgent([], model, sandbox=settings, verbosity_level=-1, **names)
            manager = caller_with(
                [look], calls(("cook", {"task": "x"})), calls(("look", {})), final(1), managed_agents=[worker]
            )
            yield worker if is_alone else manager
            await worker.aclose()

        async with means(tmp_path, seen.spans) as given:
            stored = await given.store.add_run(StoredRun("r1", "default", CANARY, "local", created=1.0), "run:k")
            await LiveRun(stored, LOCAL, given, making, lambda agent, check: agent.astream(CANARY)).work()
            assert given.registry.all(LOCAL) == []
        return listed

    logged_id, id = run(test())
    assert logged_id == id
    inside = ["step 1", "chat", "execute_code", "step 2", "chat", "execute_code"]
    top = "invoke_agent default" if is_alone else "invoke_agent cook"
    assert sorted(span.name for span in seen.ended if told(span).get(SANDBOX) == id) == sorted([top, *inside])
    assert all(SANDBOX not in told(span) for span in seen.ended if told(span).get(SANDBOX) != id)
    assert [(line["run"], line.get("sandbox")) for line in logged] == ([] if is_alone else [("r1", None)])


def test_a_run_that_fails_says_only_the_class_of_what_it_failed_with(tmp_path: Path) -> None:
    class Unreachable(ScriptedModel):
        async def generate(self, *args: Any, **more: Any) -> ModelReply:
            raise ModelUnavailable(CANARY)

    seen = Seen()
    agent = CodeAgent([], Unreachable([]), sandbox=FakeSandbox(), verbosity_level=-1)
    assert CANARY in run(worked(tmp_path, seen.spans, agent)).error
    assert told(seen.one("invoke_agent default"))["error.type"] == "ModelUnavailable"
    assert is_error(seen.one("chat"))
    assert CANARY not in seen.text()


def test_a_question_of_a_run_is_counted_and_a_span(tmp_path: Path) -> None:
    seen = Seen()

    async def test() -> str:
        @asynccontextmanager
        async def making(ask: Any, watch: Any) -> AsyncIterator[MultiStepAgent]:
            async def approve(request: Any) -> Any:
                return await ask(Asked("cook", request, CANARY))

            model = ScriptedModel([calls(("search", {})), final(1)])
            yield ToolCallingAgent([search], model, approve=approve, verbosity_level=-1)

        async with means(tmp_path, seen.spans) as given:
            stored = await given.store.add_run(StoredRun("r1", "default", CANARY, "local", created=1.0), "run:k")
            live = LiveRun(stored, LOCAL, given, making, lambda agent, check: agent.astream(CANARY))
            working = asyncio.create_task(live.work())
            async for event in live.follow(0):
                if b'"approval_asked"' in event.json:
                    live.questions.decide(live.questions.open[0].id, True, CANARY, CANARY)
            await working
            return given.metrics.exposition().decode()

    def search() -> str:
        """Looks."""
        return CANARY

    assert 'cellblock_approvals_total{decision="approved"} 1.0' in run(test())
    assert seen.above(seen.one("approval"))[1] == "step 1"
    assert CANARY not in seen.text()


def test_the_service_says_what_it_lacks_and_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)

    async def test() -> None:
        with pytest.raises(ConfigError, match=r"service.otel needs .*: pip install 'cellblock\[otel\]'"):
            async with service(tmp_path, "[service]\notel = 'http://127.0.0.1:4317'\n"):
                pass
        async with service(tmp_path, "[service]\notel = ''\n"):  # the store is free again
            pass

    run(test())


def test_an_execution_in_an_apps_sandbox_has_a_span_of_its_own(tmp_path: Path) -> None:
    seen = Seen()

    async def test() -> None:
        async with means(tmp_path, seen.spans) as given:
            meters = Meters(given.accounts, given.metrics, seen.spans)
            events = [ToolCall(1, "search", (CANARY,), {}), ToolOutcome(1, "search", None, 1.0), finished()]
            sandbox = FakeSandbox([events, CellblockError(CANARY)])
            executions = Executions(sandbox, Place("s1"), lambda events: meters.counted(somebody("app"), events))
            for key in ("a" * 32, "b" * 32):
                begun = executions.begin(key, b"", 0, CANARY, None, {})
                assert begun.task
                await asyncio.wait({begun.task})

    run(test())
    right, wrong = seen.named("execute_code")
    assert told(right) == {
        "cellblock.sandbox.id": "s1",
        "cellblock.execution.status": "ok",
        "cellblock.execution.cpu_seconds": 0.0,
        "cellblock.execution.tool_calls": 0,
    }
    assert seen.above(seen.one("execute_tool search")) == ["execute_tool search", "execute_code"]
    assert told(wrong) == {"cellblock.sandbox.id": "s1", "error.type": "CellblockError"}
    assert CANARY not in seen.text()


def test_an_execution_that_is_given_up_has_ended(tmp_path: Path) -> None:
    seen = Seen()

    async def test() -> None:
        async with means(tmp_path, seen.spans) as given:
            place.set(Place(sandbox="s1"))
            meters = Meters(given.accounts, given.metrics, seen.spans)
            async with aclosing(meters.counted(somebody("app"), FakeSandbox(["HANG"]).stream("x"))) as events:
                await anext(events)

    run(test())
    assert is_error(seen.one("execute_code"))


def test_spans_of_a_run_are_in_no_span_of_the_callers() -> None:
    seen = Seen()
    with trace.use_span(trace.NonRecordingSpan(trace.SpanContext(1, 2, False, trace.TraceFlags(1)))):
        fed(seen, [])
    assert seen.one("invoke_agent").parent is None


class Stuck(SpanExporter):
    """A receiver that never answers."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()

    def export(self, spans: Any) -> SpanExportResult:
        self.may_answer.wait(60)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.may_answer.wait(60)


def test_a_receiver_that_does_not_answer_does_not_hold_up_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_SECONDS", 0.2)
    provider, stuck = new_provider(), Stuck()
    provider.add_span_processor(SimpleSpanProcessor(stuck))
    began = time.monotonic()
    run(Spans(provider).close())
    assert time.monotonic() - began < 10
    stuck.may_answer.set()


def test_what_waits_is_sent_when_the_service_stops() -> None:
    provider, exporter = new_provider(), InMemorySpanExporter()
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=3_600_000))
    spans = Spans(provider)
    spans.run("r1", "default").end(RunState.SUCCEEDED)
    assert not exporter.get_finished_spans()
    run(spans.close())
    assert len(exporter.get_finished_spans()) == 1


def test_without_an_address_nothing_is_made_or_imported() -> None:
    program = (
        "import asyncio, sys\n"
        "import orchestrator.service.serve\n"
        "from orchestrator.events import Output, RunState\n"
        "from orchestrator.service.spans import Spans\n"
        "spans = Spans.to('')\n"
        "run = spans.run('r1', 'default')\n"
        "run.add(Output('stdout', 'x')); run.end(RunState.SUCCEEDED)\n"
        "with spans.execution('s1') as execution: execution.add(Output('stdout', 'x'))\n"
        "asyncio.run(spans.close())\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60)


@pytest.mark.parametrize(
    "missing", ["opentelemetry.exporter.otlp.proto.grpc.trace_exporter", "opentelemetry.sdk.trace"]
)
def test_a_missing_package_is_told_in_one_line(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=r"pip install 'cellblock\[otel\]'") as caught:
        Spans.to("http://127.0.0.1:4317") if "exporter" in missing else new_provider()
    assert "\n" not in str(caught.value)
