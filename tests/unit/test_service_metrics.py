"""What is measured, and that nothing which anybody chose gets into it."""

from __future__ import annotations

import re
from typing import Any

import prometheus_client
import pytest

from orchestrator.agents import ActionStep, CodeAgent, MultiStepAgent, PlanningStep, StepStarted
from orchestrator.agents.parsing import CodeAction
from orchestrator.agents.run import Overheard
from orchestrator.agents.steps import Timing
from orchestrator.errors import NotFound, Overloaded
from orchestrator.events import (
    ApprovalAsked,
    ApprovalDecided,
    Ending,
    Execution,
    Finished,
    Output,
    State,
    Status,
    ToolCall,
    ToolOutcome,
    Usage,
)
from orchestrator.models import ModelDelta, ModelReply, ScriptedModel, TokenUsage
from orchestrator.service import access
from orchestrator.service.admission import Admission
from orchestrator.service.metrics import DENIALS, OTHER, Metrics
from tests.unit.fake_sandbox import FakeSettings, answered, ran
from tests.unit.scripted_agents import caller_with, calls, final, step
from tests.unit.service_parts import run
from tests.unit.test_docs import table

CANARY = "canary-7f3a"


def read(metrics: Metrics) -> dict[str, float]:
    """The exposition: values by series, ``le`` buckets left out."""
    lines = metrics.exposition().decode().splitlines()
    found = {}
    for line in lines:
        if not line.startswith("#") and "_bucket{" not in line:
            series, value = line.rsplit(" ", 1)
            found[series.removeprefix("cellblock_")] = float(value)
    return found


def changed(metrics: Metrics) -> dict[str, float]:
    """Series that are not 0, without the sums of times."""
    return {name: value for name, value in read(metrics).items() if value and "seconds_sum" not in name}


def finished(status: Status = Status.OK, **usage: Any) -> Finished:
    return Finished(Execution(status, State.KEPT, 1, usage=Usage(**usage)))


# ------------------------------------------------------------------------------------------------------------ exposing


def test_the_table_of_the_documentation_is_that_of_the_registry() -> None:
    families = {}
    for family in Metrics().collect():
        labels: dict[str, list[str]] = {}
        for sample in family.samples:
            for key, value in sample.labels.items():
                if key != "le":
                    labels.setdefault(key, []).append(value)
        shown = "; ".join(f"{key}: {', '.join(dict.fromkeys(values))}" for key, values in labels.items())
        name = family.name + ("_total" if family.type == "counter" else "")
        families[name] = [family.type, shown, family.documentation]
    assert {row[0]: row[1:] for row in table("docs/service.md", "metric")} == families


def test_every_series_is_there_before_anything_has_happened() -> None:
    assert set(read(Metrics()).values()) == {0.0}
    assert "_created" not in Metrics().exposition().decode()


def test_two_registries_have_nothing_in_common() -> None:
    one, other = Metrics(), Metrics()
    one.denied("scope")
    assert changed(other) == {}
    assert b"cellblock" not in prometheus_client.generate_latest()


def test_what_there_is_is_asked_at_each_exposition() -> None:
    metrics, idle = Metrics(), [1]
    metrics.sandboxes_from(lambda: {"idle": idle[0], "busy": 2, CANARY: 9})
    metrics.runs_from(lambda: {"queued": 3})
    metrics.pool_from(lambda: {"ready": 4})
    metrics.queues_from(lambda: {"runs": 5})
    idle[0] = 7
    assert changed(metrics) == {
        'sandboxes{state="idle"}': 7,
        'sandboxes{state="busy"}': 2,
        'runs{state="queued"}': 3,
        'pool_sandboxes{state="ready"}': 4,
        'queue_length{queue="runs"}': 5,
    }


# ----------------------------------------------------------------------------------------------------------- executions


def test_executions_and_tool_calls_are_counted_by_how_they_ended() -> None:
    metrics = Metrics()
    for event in (
        Output("stdout", CANARY),
        ToolCall(1, CANARY, (CANARY,), {CANARY: CANARY}),
        ToolOutcome(1, CANARY, CANARY, 2.0, Ending.FAILED),
        ToolOutcome(2, CANARY, None, 0.5, Ending.REFUSED, refused_by="max_calls"),
        finished(wall_seconds=3.0, cpu_seconds=2.5),
        finished(Status.IMPORT_DENIED, wall_seconds=1.0),
        finished(Status.REFUSED),
    ):
        metrics.execution_event(event)
    found = read(metrics)
    assert (found["execution_seconds_sum"], found["execution_cpu_seconds_total"]) == (4.0, 2.5)
    assert found["tool_call_seconds_sum"] == 2.5
    assert changed(metrics) == {
        'executions_total{status="ok"}': 1,
        'executions_total{status="import_denied"}': 1,
        'executions_total{status="refused"}': 1,
        "execution_seconds_count": 3,
        "execution_cpu_seconds_total": 2.5,
        'tool_calls_total{ending="failed"}': 1,
        'tool_calls_total{ending="refused"}': 1,
        "tool_call_seconds_count": 2,
        'denials_total{reason="max_calls"}': 1,
        'denials_total{reason="import_denied"}': 1,
        'denials_total{reason="execution_refused"}': 1,
    }


@pytest.mark.parametrize("nonsense", [float("nan"), float("inf"), -1.0, 10**400, -(10**400)])
def test_nonsense_from_a_container_breaks_no_sum(nonsense: Any) -> None:
    metrics = Metrics()
    metrics.execution_event(finished(wall_seconds=nonsense, cpu_seconds=nonsense))
    metrics.execution_event(ToolOutcome(1, "t", None, nonsense))
    metrics.tokens_used(TokenUsage(nonsense, nonsense))
    assert all(0 <= value <= 1e9 for value in read(metrics).values())


def test_nothing_that_anybody_chose_is_a_label() -> None:
    metrics = Metrics()
    before = set(read(metrics))
    for reason in (CANARY, 'a"} 1\nb', ""):
        metrics.denied(reason)
        metrics.run_ended(reason)
        metrics.execution_event(ToolOutcome(1, reason, reason, 1.0, Ending.REFUSED, refused_by=reason))
        metrics.execution_event(ToolOutcome(1, reason, reason, 1.0, reason))  # type: ignore[arg-type]
        metrics.execution_event(finished(reason))  # type: ignore[arg-type]
    assert set(read(metrics)) == before
    assert changed(metrics)[f'denials_total{{reason="{OTHER}"}}'] == 5


def test_every_reason_for_a_denial_has_its_label() -> None:
    documented = re.search(r"refused_by: the rule that refused it: (.*?); else", str(ToolOutcome.__doc__), re.S)
    assert documented
    assert set(re.findall(r"``(\w+)``", documented[1])) <= set(DENIALS)
    assert set(access._DENIALS) <= set(DENIALS)


# ------------------------------------------------------------------------------------------------------------- runs


def watched(agent: MultiStepAgent, metrics: Metrics) -> None:
    meter = metrics.run()
    for event in agent.run("task", stream=True):
        meter.add(event)


def test_a_run_and_its_team_are_measured_by_their_events() -> None:
    metrics = Metrics()
    settings = FakeSettings(scripts=[[ran("1"), answered("soup")]])
    replies = [ModelReply(text, TokenUsage(10, 4)) for text in (step("1"), "no code", step("final_answer('soup')"))]
    cook = CodeAgent([], ScriptedModel(replies), sandbox=settings, name="cook", description=CANARY, max_steps=5)
    boss = caller_with(
        [], calls(("cook", {"task": CANARY}), usage=TokenUsage(1, 2)), final("done"), managed_agents=[cook]
    )
    watched(boss, metrics)
    found = changed(metrics)
    assert found["step_seconds_count"] == 5
    assert (found['steps_total{outcome="ok"}'], found['steps_total{outcome="format"}']) == (4, 1)
    assert found["model_call_seconds_count"] == 5
    assert (found['model_tokens_total{direction="input"}'], found['model_tokens_total{direction="output"}']) == (31, 14)
    assert found['executions_total{status="ok"}'] == 2
    assert CANARY not in metrics.exposition().decode()


def test_a_model_call_lasts_until_something_comes_of_its_reply() -> None:
    clock, metrics = [0.0], Metrics()
    meter = metrics.run(lambda: clock[0])
    of_member = StepStarted(1, 5)
    for at, event in (
        (0.0, StepStarted(1, 5)),
        (1.0, ModelDelta("a")),
        (2.0, Overheard("cook", of_member)),
        (3.0, CodeAction("thought", "code")),
        (4.0, Output("stdout", "x")),
        (10.0, Overheard("cook", CodeAction("thought", "code"))),
        (11.0, PlanningStep("plan", Timing(0.0, 2.0))),
    ):
        clock[0] = at
        meter.add(event)
    found = read(metrics)
    assert (found["model_call_seconds_count"], found["model_call_seconds_sum"]) == (3, 3 + 8 + 2)


def test_decisions_of_a_run_are_counted() -> None:
    metrics = Metrics()
    meter = metrics.run()
    meter.add(ApprovalAsked("q", CANARY, {CANARY: CANARY}, "", 1.0))
    for approved in (True, False, False):
        meter.add(ApprovalDecided("q", approved, CANARY, CANARY))
    assert changed(metrics) == {'approvals_total{decision="approved"}': 1, 'approvals_total{decision="refused"}': 2}
    assert CANARY not in metrics.exposition().decode()


def test_the_time_of_a_step_is_its_own() -> None:
    metrics = Metrics()
    metrics.run().add(ActionStep(1, Timing(5.0, 2.5), "words"))
    assert read(metrics)["step_seconds_sum"] == 2.5


# -------------------------------------------------------------------------------------------------------- the service


def test_starts_waits_and_overload_are_measured() -> None:
    metrics = Metrics()
    metrics.sandbox_started(1.5)
    metrics.sandbox_started(0.01, from_pool=True)
    metrics.failed(Overloaded("full", 3))
    metrics.failed(NotFound("none"))
    metrics.run_ended("succeeded")

    async def test() -> None:
        turn = Admission(1, 1, metrics.waited("runs")).enter("app")
        await turn.come()
        turn.leave()

    run(test())
    assert changed(metrics) == {
        'sandbox_start_seconds_count{from="cold"}': 1,
        'sandbox_start_seconds_count{from="pool"}': 1,
        'denials_total{reason="overloaded"}': 1,
        'runs_ended_total{state="succeeded"}': 1,
        'queue_wait_seconds_count{queue="runs"}': 1,
    }
    with pytest.raises(ValueError, match="canary"):
        metrics.waited(CANARY)
