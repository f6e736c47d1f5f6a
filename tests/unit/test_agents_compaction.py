"""Long conversations: what the model is still shown, what it costs, and when prompt caches miss."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from orchestrator.agents import ActionStep, AgentMemory, CodeAgent, PlanningStep, StepError, TaskStep, Timing
from orchestrator.agents.compaction import (
    DEFAULT_MAX_TOKENS,
    Conversation,
    ShortenOldest,
    SummariseOldest,
    shortened,
)
from orchestrator.agents.run import Compacted
from orchestrator.agents.steps import CallResult, KeptStep, NoteStep
from orchestrator.agents.tokens import TokenMeter
from orchestrator.errors import AgentError
from orchestrator.models import ChatMessage, ChatToolCall, ModelReply, ScriptedModel, TokenUsage
from tests.unit.fake_sandbox import FakeSandbox, answered, ran
from tests.unit.pictures import PICTURE
from tests.unit.scripted_agents import agent_with, requests, step

TIMING = Timing(0.0, 1.0)
STEPS = 100
OUTPUT = "a line of output\n" * 250  # some thousand tokens
BUDGET = 40_000


def long_run(output: str = OUTPUT, **more: Any) -> tuple[CodeAgent, list[Any]]:
    """A hundred steps with much output each, and the events of it."""
    codes = [f"look_{number:03}()" for number in range(STEPS - 1)]
    agent = agent_with(
        [*map(step, codes), step("final_answer(1)")],
        [*(ran(stdout=f"{number}\n{output}") for number in range(STEPS - 1)), answered(1)],
        verbosity_level=-1,
        max_steps=STEPS,
        **more,
    )
    return agent, list(agent.run("The task.", stream=True))


def sizes(agent: CodeAgent) -> list[int]:
    return [TokenMeter().estimate(request) for request in requests(agent)]


def text_of(request: Sequence[ChatMessage]) -> str:
    return "\n".join(message.content for message in request)


def is_beginning(first: Sequence[ChatMessage], second: Sequence[ChatMessage]) -> bool:
    return list(second[: len(first)]) == list(first)


@pytest.fixture(scope="module")
def budgeted() -> tuple[CodeAgent, list[Any]]:
    return long_run(compaction=ShortenOldest(BUDGET))


def test_without_compaction_each_request_is_longer_than_the_one_before() -> None:
    agent, events = long_run(compaction=None)
    assert all(b > a + 1000 for a, b in pairwise(sizes(agent)))
    assert not any(isinstance(event, Compacted) for event in events)


def test_what_nobody_asked_for_keeps_requests_within_the_default_budget() -> None:
    bare, _ = long_run(2 * OUTPUT, compaction=None)
    assert sizes(bare)[-1] > 1.5 * DEFAULT_MAX_TOKENS
    agent, events = long_run(2 * OUTPUT)
    assert max(sizes(agent)) <= DEFAULT_MAX_TOKENS
    assert 1 <= sum(isinstance(event, Compacted) for event in events) <= 5
    assert agent.compaction == ShortenOldest()
    assert all(f"look_{number:03}()" in text_of(requests(agent)[-1]) for number in range(STEPS - 1))


def test_no_request_is_over_the_budget_by_more_than_the_newest_step(budgeted: tuple[CodeAgent, list[Any]]) -> None:
    agent, _ = budgeted
    assert max(sizes(agent)) <= BUDGET
    assert sum(sizes(agent)) < STEPS * BUDGET


def test_later_requests_are_no_longer_than_earlier_ones(budgeted: tuple[CodeAgent, list[Any]]) -> None:
    sent = sizes(budgeted[0])
    assert sum(sent[80:100]) < 1.3 * sum(sent[20:40])


def test_requests_only_grow_but_at_compactions_which_are_few(budgeted: tuple[CodeAgent, list[Any]]) -> None:
    agent, events = budgeted
    compactions = [event for event in events if isinstance(event, Compacted)]
    breaks = sum(not is_beginning(a, b) for a, b in pairwise(requests(agent)))
    assert breaks == len(compactions)
    assert 2 <= breaks <= STEPS / 5
    assert all(event.tokens_before > BUDGET for event in compactions)
    assert all(event.tokens_after <= 0.6 * BUDGET for event in compactions)


def test_every_code_block_is_shown_once_and_the_task_too(budgeted: tuple[CodeAgent, list[Any]]) -> None:
    last = text_of(requests(budgeted[0])[-1])
    assert [last.count(f"look_{number:03}()") for number in range(STEPS - 1)] == [1] * (STEPS - 1)
    assert last.count("The task.") == 1
    assert last.count("shortened: it had") > STEPS / 2


def test_the_newest_observations_are_whole(budgeted: tuple[CodeAgent, list[Any]]) -> None:
    for request in requests(budgeted[0])[1:]:
        assert OUTPUT.strip() in request[-1].content


def test_the_memory_keeps_everything(budgeted: tuple[CodeAgent, list[Any]]) -> None:
    steps = [s for s in budgeted[0].memory.steps if isinstance(s, ActionStep)]
    assert len(steps) == STEPS
    assert all(OUTPUT.strip() in (s.observations or "") for s in steps[:-1])


def test_where_words_alone_fill_the_budget_whole_steps_are_left_out() -> None:
    words = "I think about this for a long time. " * 200
    agent = agent_with(
        [*(f"{words}{step(f'look_{n:03}()')}" for n in range(49)), step("final_answer(1)")],
        [*(ran("1") for _ in range(49)), answered(1)],
        verbosity_level=-1,
        max_steps=50,
        compaction=ShortenOldest(BUDGET),
    )
    agent.run("The task.")
    assert max(sizes(agent)) <= BUDGET
    last = text_of(requests(agent)[-1])
    assert last.count("The task.") == 1
    shown = sum(f"look_{n:03}()" in last for n in range(49))
    assert f"({49 - shown} earlier steps are not shown any more" in last


def test_the_endpoints_own_count_is_believed() -> None:
    """It says that there are twice as many tokens as there seem to be."""
    meter = TokenMeter()
    message = ChatMessage("user", "x" * 4000)
    assert meter.estimate([message]) == 1000
    meter.learn([message], None)
    assert meter.estimate([message]) == 1000
    meter.learn([message], TokenUsage(2000, 5))
    assert meter.estimate([message]) == 2000
    meter.learn([message], TokenUsage(1, 5))
    assert meter.estimate([message]) == 500


def test_an_agent_learns_from_its_endpoint() -> None:
    def agent(usage: TokenUsage | None) -> CodeAgent:
        replies = [*(ModelReply(step(f"look({n})"), usage) for n in range(9)), step("final_answer(1)")]
        script = [*(ran(stdout=OUTPUT) for _ in range(9)), answered(1)]
        return agent_with(replies, script, verbosity_level=-1, compaction=ShortenOldest(20_000))

    plain, dense = agent(None), agent(TokenUsage(10**6, 1))
    assert not any(isinstance(event, Compacted) for event in plain.run("task", stream=True))
    assert any(isinstance(event, Compacted) for event in dense.run("task", stream=True))


# Shortening.


def test_a_shortened_step_keeps_the_models_words_and_what_the_host_said() -> None:
    long = "x" * 1000
    before = ActionStep(
        *(1, TIMING, "Thought <code>a()</code>"),
        observations=f"first\n{long}",
        remarks="The code was stopped.",
        error=StepError("execution", f"Traceback\n  {long}\nValueError: why"),
        tool_calls=(CallResult(ChatToolCall("f", {}, "1"), long),),
        observations_images=(PICTURE,),
    )
    after = shortened(before)
    assert (after.model_output, after.remarks, after.fence) == (before.model_output, before.remarks, before.fence)
    assert after.observations is not None
    assert after.observations.startswith("first xxx")
    assert "\n" not in after.observations
    assert after.observations.endswith("[… shortened: it had 1,006 characters]")
    assert after.error == StepError("execution", "ValueError: why")
    assert len(after.tool_calls[0].text) < 300
    assert after.tool_calls[0].call is before.tool_calls[0].call
    assert after.observations_images == ()
    assert shortened(after) == after


def test_a_short_step_stays_the_very_same() -> None:
    before = ActionStep(1, TIMING, "a", observations="seen", error=StepError("execution", "Traceback\nValueError"))
    assert shortened(before) is before


def conversation(steps: Sequence[KeptStep], ask: Any = None) -> Conversation:
    return Conversation(tuple(steps), (ChatMessage("system", "s"),), TokenMeter(), ask)


def test_within_the_budget_nothing_happens() -> None:
    steps = [TaskStep("t"), ActionStep(1, TIMING, "a", observations="x" * 3000)]
    assert ShortenOldest(1000)(conversation(steps)) is None


def test_what_cannot_be_shortened_is_left_as_it_is() -> None:
    steps = [TaskStep("t" * 9000), ActionStep(1, TIMING, "a")]
    assert ShortenOldest(1000)(conversation(steps)) is None


def test_plans_stay_where_observations_are_enough() -> None:
    plan = PlanningStep("the plan", TIMING)
    old = [ActionStep(number, TIMING, "a", observations="x" * 4000) for number in range(8)]
    shown = ShortenOldest(8000, keep_last=1)(conversation([TaskStep("t"), plan, *old, TaskStep("more")]))
    assert shown is not None
    assert plan in shown
    assert shown[-1] == TaskStep("more")
    assert shown[-2] is old[-1]
    assert len(shown) == len(old) + 3


@pytest.mark.parametrize("wrong", [{"max_tokens": 10}, {"freed": 0.0}, {"freed": 1.0}, {"keep_last": 0}])
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(AgentError, match=next(iter(wrong))):
        ShortenOldest(**wrong)


# Summaries.


class Summarising(ScriptedModel):
    """Gives a summary when it is asked for one, else the next reply of its script."""

    def __init__(self, replies: Sequence[str | ModelReply], summary: ModelReply) -> None:
        super().__init__(replies)
        self.summary = summary
        self.asked: list[Sequence[ChatMessage]] = []

    async def generate(self, messages: Sequence[ChatMessage], *args: Any, **more: Any) -> ModelReply:
        if "Write a summary" in messages[-1].content:
            self.asked.append(messages)
            return self.summary
        return await super().generate(messages, *args, **more)


def summarised() -> tuple[CodeAgent, Summarising, list[Any]]:
    usage = TokenUsage(10, 1)
    replies = [*(step(f"look_{number:03}()") for number in range(29)), step("final_answer(1)")]
    model = Summarising(replies, ModelReply("We looked, and x is 41.", usage))
    sandbox = FakeSandbox([*(ran(stdout=OUTPUT) for _ in range(29)), answered(1)])
    agent = CodeAgent(
        *([], model), sandbox=sandbox, verbosity_level=-1, max_steps=30, compaction=SummariseOldest(15_000)
    )
    return agent, model, list(agent.run("The task.", stream=True))


def test_a_summary_stands_in_the_place_of_the_oldest_steps() -> None:
    agent, model, events = summarised()
    assert max(sizes(agent)) <= 15_000
    last = requests(agent)[-1]
    assert text_of(last).count("We looked, and x is 41.") == 1
    assert text_of(last).count("The task.") == 1
    assert [message.role for message in last[:4]] == ["system", "user", "assistant", "user"]
    shown = text_of(last).count("look_")
    assert f"({29 - shown} earlier steps are not shown any more" in text_of(last)
    compactions = [event for event in events if isinstance(event, Compacted)]
    assert len(compactions) == len(model.asked) >= 1
    assert compactions[0].token_usages == (TokenUsage(10, 1),)


def test_what_asks_for_a_summary_begins_like_the_request_before() -> None:
    agent, model, _ = summarised()
    asked = model.asked[0]
    assert any(is_beginning(asked[:-1], request) for request in requests(agent))


def test_a_summary_counts_in_the_result() -> None:
    usage = TokenUsage(10, 1)
    replies = [*(ModelReply(step("look()"), usage) for _ in range(19)), ModelReply(step("final_answer(1)"), usage)]
    model = Summarising(replies, ModelReply("Seen.", TokenUsage(1000, 500)))
    sandbox = FakeSandbox([*(ran(stdout=OUTPUT) for _ in range(19)), answered(1)])
    compaction = SummariseOldest(10_000)
    agent = CodeAgent([], model, sandbox=sandbox, verbosity_level=-1, compaction=compaction, return_full_result=True)
    result = agent.run("task")
    summaries = len(model.asked)
    assert summaries >= 1
    assert result.token_usage == TokenUsage(200 + 1000 * summaries, 20 + 500 * summaries)


def test_without_anything_new_to_summarise_the_model_is_not_asked() -> None:
    async def ask(_: Sequence[ChatMessage]) -> str:
        raise AssertionError("asked")

    steps = [TaskStep("t"), ActionStep(1, TIMING, "a", observations="x" * 9000)]
    assert asyncio.run(SummariseOldest(1000)(conversation(steps, ask))) is None  # type: ignore[arg-type]


# One's own.


def test_a_function_of_ones_own() -> None:
    seen: list[int] = []

    def last_two(conversation: Conversation) -> Sequence[KeptStep] | None:
        seen.append(conversation.tokens())
        return conversation.steps[-2:] if len(conversation.steps) > 3 else None

    replies = [step(f"look_{n}()") for n in range(4)]
    agent = agent_with([*replies, step("final_answer(1)")], [*(ran("1") for _ in range(4)), answered(1)])
    agent.compaction = last_two
    agent.run("task")
    assert len(seen) == 5
    shown = text_of(requests(agent)[3])
    assert "look_2()" in shown
    assert "look_0()" not in shown


def test_what_gives_no_steps_is_refused() -> None:
    agent = agent_with([step("1")], [ran("1")])
    agent.compaction = lambda conversation: ["text"]  # type: ignore[list-item,return-value]
    with pytest.raises(AgentError, match="compaction gave 'text'"):
        agent.run("task")
    with pytest.raises(AgentError, match="compaction"):
        agent_with([], [], compaction="off")


# What the memory shows.


def test_a_view_is_not_used_any_more_once_what_it_stands_for_is_changed() -> None:
    memory = AgentMemory("s")
    memory.append(TaskStep("one"))
    memory.show([NoteStep("short")])
    memory.append(TaskStep("two"))
    assert memory.shown_steps() == (NoteStep("short"), TaskStep("two"))
    twin = memory.copy()
    memory.steps[0] = TaskStep("another")
    assert memory.shown_steps() == (TaskStep("another"), TaskStep("two"))
    assert twin.shown_steps() == (NoteStep("short"), TaskStep("two"))
    twin.reset()
    twin.append(TaskStep("three"))
    assert twin.shown_steps() == (TaskStep("three"),)


def test_the_messages_that_are_measured_are_those_that_are_sent() -> None:
    seen: list[Any] = []

    def look(conversation: Conversation) -> None:
        seen.extend((step, conversation.messages_of(step)) for step in conversation.steps)

    agent = agent_with([step("1"), step("final_answer(1)")], [ran("1"), answered(1)], compaction=look)
    agent.run("task")
    assert len(seen) == 3  # the task twice, the first step once
    assert all(agent.memory.messages_of(kept) is messages for kept, messages in seen)
