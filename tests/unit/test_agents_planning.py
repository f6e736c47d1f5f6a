"""Plans, inputs of a run, replies in pieces or as JSON, errors that come again, and the end of the steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.agents import ActionStep, CodeAction, CodeAgent, FinalAnswerStep, PlanningStep, RunResult, StepStarted
from orchestrator.errors import AgentError, AnswerRefused, ModelReplyInvalid, ValueNotPortable
from orchestrator.models import ChatMessage, ModelDelta, ModelReply, ScriptedModel, TokenUsage
from tests.unit.fake_sandbox import answered, failed, ran
from tests.unit.pictures import PICTURE, PNG
from tests.unit.scripted_agents import agent_with, last_user_text, requests, step

# Planning.


def test_plans_come_before_the_first_step_and_every_interval() -> None:
    replies = ["Plan A<end_plan>", step("1"), step("2"), "Plan B", step("final_answer(3)")]
    agent = agent_with(replies, [ran("1"), ran("2"), answered(3)], planning_interval=2, max_steps=7)
    events = list(agent.run("task", stream=True))
    order = [type(e).__name__ for e in events if isinstance(e, (PlanningStep, StepStarted))]
    assert order == ["PlanningStep", "StepStarted", "StepStarted", "PlanningStep", "StepStarted"]
    assert [e.plan for e in events if isinstance(e, PlanningStep)] == ["Plan A", "Plan B"]
    assert [type(s).__name__ for s in agent.memory.steps] == [
        *("TaskStep", "PlanningStep", "ActionStep", "ActionStep", "PlanningStep", "ActionStep")
    ]


def test_the_model_is_told_how_many_steps_really_remain() -> None:
    replies = ["A", step("1"), "B", step("final_answer(3)")]
    agent = agent_with(replies, [ran("1"), answered(3)], planning_interval=1, max_steps=20)
    agent.run("task", max_steps=5)
    first, second = (requests(agent)[at][-1].content for at in (0, 2))
    assert "at most 5 steps" in first
    assert "at most 4 steps" in second


def test_a_plan_is_in_the_history_and_what_asked_for_it_is_not() -> None:
    agent = agent_with(["My plan.", step("final_answer(1)")], [answered(1)], planning_interval=3)
    agent.run("task", images=[PNG])
    planning, acting = requests(agent)
    assert planning[-1].images  # the pictures of the task are shown to it, too
    assert [(m.role, m.content) for m in acting[-2:]] == [
        ("assistant", "My plan."),
        ("user", "Now proceed and carry out this plan."),
    ]
    assert not any("Facts" in message.content for message in acting)


def test_tokens_of_plans_are_counted() -> None:
    usage = TokenUsage(10, 1)
    replies = [ModelReply("P", usage), ModelReply(step("final_answer(1)"), usage)]
    agent = agent_with(replies, [answered(1)], planning_interval=1)
    assert agent.run("task", return_full_result=True).token_usage == TokenUsage(20, 2)


# Inputs.


def test_pictures_are_shown_with_the_task(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(PNG)
    agent = agent_with([step("1"), step("final_answer(1)")], [ran("1"), answered(1)])
    agent.run("task", images=[PNG, tmp_path / "p.png"])
    for request in requests(agent):
        assert request[1].images == (PICTURE,) * 2  # once, in the message of the task
        assert not any(message.images for message in request[2:])


def test_additional_args_become_variables_of_the_first_execution() -> None:
    agent = agent_with([step("1"), step("2"), step("final_answer(1)")], [ran("1"), ran("2"), answered(1)])
    agent.run("task", additional_args={"numbers": [1, 2]})
    assert agent.fake.variables == {"numbers": [1, 2]}
    assert agent.fake.given == [{"numbers": [1, 2]}, {}, {}]
    assert "- numbers (list): [1, 2]" in requests(agent)[0][-1].content


def test_variables_that_went_with_an_undone_action_are_given_again() -> None:
    replies = [step("1/0"), step("2"), step("final_answer(1)")]
    agent = agent_with(replies, [failed(), ran("2"), answered(1)], on_error="rollback")
    agent.run("task", additional_args={"x": 1})
    assert agent.fake.given == [{"x": 1}, {"x": 1}, {}]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"additional_args": {"two words": 1}}, AgentError),
        ({"additional_args": {"class": 1}}, AgentError),
        ({"additional_args": {"final_answer": 1}}, Exception),
        ({"additional_args": {"x": object()}}, ValueNotPortable),
        ({"images": [b"no picture"]}, Exception),
        ({"images": [PNG] * 100}, AgentError),
        ({"max_steps": 0}, AgentError),
    ],
)
def test_wrong_inputs_are_refused_before_the_model_is_asked(given: dict[str, Any], error: type[Exception]) -> None:
    agent = agent_with([step("1")] * 2, [ran("1")] * 2)
    with pytest.raises(error):
        agent.run("task", **given)
    assert requests(agent) == []
    assert agent.fake.starts == 0  # nor is anything started
    assert agent.memory.steps == []


# Replies in pieces, as JSON, of simple models.


def test_a_streamed_reply_comes_in_pieces_and_counts_as_a_whole() -> None:
    agent = agent_with([step("final_answer(1)")], [answered(1)], stream_outputs=True)
    events = list(agent.run("task", stream=True))
    pieces = [e.text for e in events if isinstance(e, ModelDelta)]
    assert len(pieces) > 1
    assert "".join(pieces) == step("final_answer(1)")
    assert next(e for e in events if isinstance(e, CodeAction)).code == "final_answer(1)"


def test_closing_a_stream_between_pieces_ends_the_run() -> None:
    agent = agent_with([step("1"), step("final_answer(1)")], [answered(1)], stream_outputs=True)
    events = agent.run("task", stream=True)
    while not isinstance(next(events), ModelDelta):
        pass
    events.close()  # type: ignore[attr-defined]
    assert agent.run("task") == 1  # it is free again; the second reply is next


def test_a_model_that_cannot_stream_is_refused_at_once() -> None:
    class Plain:
        async def generate(self, messages: Any, stop_sequences: Any = ()) -> ModelReply:
            return ModelReply("")

    with pytest.raises(AgentError, match="generate_stream"):
        CodeAgent([], Plain(), stream_outputs=True)  # type: ignore[arg-type]
    with pytest.raises(AgentError, match="has no generate"):
        CodeAgent([], "gpt")  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", ["text", "message"])
def test_a_plain_blocking_model_works(shape: str) -> None:
    class Plain:
        def generate(self, messages: Sequence[ChatMessage], stop_sequences: Sequence[str] = ()) -> Any:
            text = step("final_answer(1)")
            return text if shape == "text" else ChatMessage("assistant", text)

    agent = agent_with([], [answered(1)])
    agent.model = Plain()
    assert agent.run("task") == 1


def test_a_model_that_gives_no_text_is_told() -> None:
    class Odd:
        def generate(self, messages: Any, stop_sequences: Any = ()) -> Any:
            return 3

    agent = agent_with([], [])
    agent.model = Odd()
    with pytest.raises(ModelReplyInvalid, match="int"):
        agent.run("task")


def test_structured_replies() -> None:
    replies = [
        '{"thought": "t", "code": "print(1)"}',
        '```json\n{"thought": "t", "code": "```python\\nprint(2)\\n```"}\n```',
        '{"thought": "t", "code": "final_answer(\'</code>\')"}',
    ]
    agent = agent_with(replies, [ran("1"), ran("2"), answered(1)], use_structured_outputs_internally=True)
    agent.run("task")
    assert agent.fake.codes == ["print(1)", "print(2)", "final_answer('</code>')"]
    model = agent.model
    assert isinstance(model, ScriptedModel)
    assert all(call.response_format and call.stop_sequences == () for call in model.calls)


@pytest.mark.parametrize("reply", ["no object", '{"thought": "x"}', '{"code": 3}', '{"code": " "}', "{" * 5_000, "[1]"])
def test_a_reply_that_is_no_such_object_is_told_the_form(reply: str) -> None:
    good = '{"thought": "t", "code": "final_answer(1)"}'
    agent = agent_with([reply, good], [answered(1)], use_structured_outputs_internally=True)
    agent.run("task")
    assert '"thought"' in requests(agent)[1][-1].content


# Errors that come again.


def test_the_third_time_the_same_error_is_pointed_out() -> None:
    replies = [step("1/0")] * 4 + [step("final_answer(1)")]
    script = [failed(), failed(), failed(), failed("NameError", "x"), answered(1)]
    agent = agent_with(replies, script)
    agent.run("task")
    said = ["same error" in request[-1].content for request in requests(agent)]
    assert said == [False, False, False, True, False]


def test_success_between_two_errors_is_no_repetition() -> None:
    replies = [step("1/0")] * 4 + [step("final_answer(1)")]
    agent = agent_with(replies, [failed(), failed(), ran("1"), failed(), answered(1)])
    agent.run("task")
    assert not any("same error" in request[-1].content for request in requests(agent))


# The end of the steps.


def test_the_last_answer_has_to_pass_the_checks() -> None:
    def short(answer: Any, memory: Any) -> bool:
        return len(str(answer)) < 10

    agent = agent_with([step("1"), "brief"], [ran("1")], max_steps=1, final_answer_checks=[short])
    result = agent.run("task", return_full_result=True)
    assert isinstance(result, RunResult)
    assert (result.output, result.state) == ("brief", "max_steps_error")

    agent = agent_with([step("1"), "much too long an answer"], [ran("1")], max_steps=1, final_answer_checks=[short])
    with pytest.raises(AnswerRefused, match="short"):
        agent.run("task")
    last = agent.memory.steps[-1]
    assert isinstance(last, ActionStep)
    assert last.action_output == "much too long an answer"
    assert "short" in last_user_text(agent)


def test_the_stream_of_a_run_that_used_up_its_steps() -> None:
    agent = agent_with([step("1"), "an answer"], [ran("1")], max_steps=1)
    events = list(agent.run("task", stream=True))
    assert [e.step_number for e in events if isinstance(e, ActionStep)] == [1, 2]
    assert events[-1] == FinalAnswerStep("an answer", "max_steps_error")


@pytest.mark.parametrize("more", [{"planning_interval": 0}, {"name": "a b"}, {"managed_agents": [agent_with([], [])]}])
def test_wrong_settings_are_refused(more: dict[str, Any]) -> None:
    with pytest.raises(AgentError):
        agent_with([], [], **more)
