"""Runs as messages of a chat window: real agents with scripted models and fake sandboxes, everything they do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from orchestrator.agents import CodeAgent, MultiStepAgent, StepStarted, ToolCallingAgent
from orchestrator.agents.run import Compacted
from orchestrator.agents.steps import NoteStep
from orchestrator.events import Execution, Finished, Output, State, Status, ToolCall, ToolOutcome
from orchestrator.media import AgentImage
from orchestrator.models import ModelReply, ScriptedModel, TokenUsage
from orchestrator.tools import tool
from orchestrator.ui import markup
from orchestrator.ui import messages as bounds
from orchestrator.ui.messages import Conversation, RunMessages
from orchestrator.ui.transcript import Transcript
from tests.unit.fake_sandbox import FakeSettings, answered, failed, ran
from tests.unit.pictures import PNG
from tests.unit.scripted_agents import agent_with, caller_with, calls, final, step

Shown = list[dict[str, Any]]


@tool
def echo(text: str) -> str:
    """Says it again.

    Args:
        text: what
    """
    if text == "bad":
        raise ValueError("too <b>bad</b>")
    return text


def caller(*replies: ModelReply | str, **more: Any) -> ToolCallingAgent:
    return caller_with([echo], *replies, **more)


def shown(agent: MultiStepAgent, task: str = "task") -> tuple[Shown, list[Shown]]:
    """The messages at the end, and as they were after each event."""
    conversation, looks = Conversation(), []
    transcript = Transcript(conversation.new_run())
    transcript.ask(task)

    async def run() -> None:
        async with aclosing(agent.astream(task)) as events:
            async for event in events:
                transcript.show(event)
                looks.append(conversation.as_dicts())

    asyncio.run(run())
    transcript.end()
    return conversation.as_dicts(), looks


def text(message: dict[str, Any]) -> str:
    return str(message["content"]["text"])


def titles(messages: Shown) -> list[str]:
    return [(message["metadata"] or {}).get("title", message["role"]) for message in messages]


def titled(messages: Shown, title: str) -> dict[str, Any]:
    (found,) = [message for message in messages if (message["metadata"] or {}).get("title") == title]
    return found


def test_a_code_agents_run() -> None:
    agent = agent_with(
        [step("print(1)\n41 + 1"), step("1/0"), step("final_answer('**42**')")],
        [ran("42", stdout="1\n"), failed(), answered("**42**")],
        verbosity_level=-1,
    )
    messages, _ = shown(agent, "<b>how</b> many?")
    assert titles(messages) == [
        *("user", "Step 1 of at most 20", "Code", "Output", "Value"),
        *("Step 2 of at most 20", "Code", "Error", "Step 3 of at most 20", "Code", "assistant"),
    ]
    assert text(messages[0]) == "&#60;b&#62;how&#60;&#47;b&#62; many&#63;"
    assert text(messages[1]) == "Thought&#58; go on."
    assert text(messages[2]) == "```python\nprint(1)\n41 + 1\n```"
    assert text(messages[3]) == "```text\n1\n```"
    assert text(messages[4]) == "```text\n42\n```"
    assert "ZeroDivisionError" in text(messages[7])
    assert text(messages[-1]) == "**42**"
    first = messages[1]["metadata"]["id"]
    assert [message["metadata"]["parent_id"] for message in messages[2:5]] == [first] * 3
    folded = [message["metadata"]["title"] for message in messages[1:-1] if message["metadata"].get("status") == "done"]
    assert folded == [f"Step {number} of at most 20" for number in (1, 2, 3)]


def test_output_grows_while_it_is_printed_and_shows_both_streams() -> None:
    run = RunMessages(1)
    transcript = Transcript(run)
    transcript.show(StepStarted(1, 5))
    for stream, piece in (("stdout", "a"), ("stdout", "b\n"), ("stderr", "c\n")):
        transcript.show(Output(stream, piece))  # type: ignore[arg-type]
        assert piece.strip() in run.all()[-1].content
    assert run.all()[-1].content == "```text\nab\nc\n```"
    assert len(run.all()) == 2


def test_a_tool_calling_agents_run() -> None:
    agent = caller(
        calls(
            ("echo", {"text": "hi"}),
            ("echo", {"text": "bad"}),
            text="I will *try*.",
            usage=TokenUsage(1_000, 20),
        ),
        final({"a": 1}),
        max_steps=3,
    )
    messages, looks = shown(agent)
    assert titles(messages) == [
        *("user", "Step 1 of at most 3", "Tool echo", "Tool echo", "Step 2 of at most 3", "assistant")
    ]
    assert text(messages[1]) == "I will *try*."
    assert messages[1]["metadata"]["log"] == "1,000 tokens read, 20 written"
    assert text(messages[2]) == "```python\necho(text='hi')\n```\n\n```text\nhi\n```"
    assert "too <b>bad</b>" in text(messages[3])
    assert text(messages[3]).count("bad</b>") == 1  # a failure is told once
    assert messages[3]["metadata"]["log"] == "failed"
    assert text(messages[-1]) == '```json\n{\n  "a": 1\n}\n```'
    pending = [[m["metadata"].get("status") for m in look[2:4]] for look in looks if len(look) == 4]
    assert pending[0] == ["pending", "pending"]
    assert pending[-1] == [None, None]


def test_a_streamed_reply_grows() -> None:
    agent = caller(final("x"), stream_outputs=True)
    agent.model = ScriptedModel([calls(("final_answer", {"answer": "x"}), text="one two three")])
    _, looks = shown(agent)
    thoughts = [text(look[1]) for look in looks if len(look) > 1]
    assert [said for said in ("one", "one two", "one two three") if said in thoughts] == [
        *("one", "one two", "one two three")
    ]


def test_plans_are_shown_and_streamed_ones_become_plans() -> None:
    for stream in (False, True):
        messages, looks = shown(caller("1. look\n2. <b>", final("x"), planning_interval=5, stream_outputs=stream))
        assert titles(messages) == ["user", "Plan", "Step 1 of at most 20", "assistant"]
        assert text(messages[1]) == "1. look\n2. &#60;b&#62;"
        assert "status" not in messages[1]["metadata"]
        assert ("Thinking" in [title for look in looks for title in titles(look)]) is stream


def test_replies_without_an_action_and_refused_answers_are_errors() -> None:
    checked = caller("no call", final("bad"), final("good"), final_answer_checks=[lambda answer, _: answer == "good"])
    messages, _ = shown(checked)
    assert titles(messages).count("Error") == 2
    assert text(messages[-1]) == "good"


def test_the_last_word_after_all_steps_is_said_to_be_that() -> None:
    messages, _ = shown(caller(calls(("echo", {"text": "hi"})), "I give up", max_steps=1))
    assert text(messages[-1]).startswith("*The steps were used up.")
    assert text(messages[-1]).endswith("I give up")


def test_a_members_work_is_a_part_of_the_step_that_called_it() -> None:
    cook = CodeAgent(
        [],
        ScriptedModel([step("print('<i>hot</i>')"), step("final_answer('soup')")]),
        sandbox=FakeSettings(scripts=[[ran("7", stdout="<i>hot</i>\n"), answered("soup")]]),
        name="cook",
        description="Cooks.",
    )
    messages, looks = shown(
        caller(calls(("cook", {"task": "make <b>dinner</b>"})), final("done"), managed_agents=[cook])
    )
    group = titled(messages, "Team member cook")
    assert "make <b>dinner</b>" in text(titled(messages, "Tool cook"))
    boss = titled(messages[:2], "Step 1 of at most 20")
    assert group["metadata"]["parent_id"] == boss["metadata"]["id"]
    inner = [m for m in messages if (m["metadata"] or {}).get("parent_id") == group["metadata"]["id"]]
    assert titles(inner) == ["Step 1 of at most 20", "Step 2 of at most 20", "Answer"]
    output = titled(messages, "Output")
    assert output["metadata"]["parent_id"] == inner[0]["metadata"]["id"]
    assert text(messages[-1]) == "done"
    assert any(titled(look, "Team member cook")["metadata"]["status"] == "pending" for look in looks if len(look) > 4)
    after = next(
        look for look in looks if titles(look).count("Step 2 of at most 20") == 2
    )  # the member's, the manager's
    assert titled(after, "Team member cook")["metadata"]["status"] == "done"


def test_a_run_that_broke_off_ends_with_why() -> None:
    run = RunMessages(1)
    transcript = Transcript(run)
    transcript.ask("x", ["<b>.csv"])
    transcript.show(StepStarted(1, 5))
    transcript.show(ToolCall(1, "slow", (), {}))
    transcript.end("Stopped: <b>")
    assert [message.is_pending for message in run.all()] == [False] * 4
    assert run.all()[0].content.endswith("- &#60;b&#62;&#46;csv")
    assert run.all()[-1].content == "Stopped&#58; &#60;b&#62;"


def test_pictures_of_an_execution_are_shown() -> None:
    run = RunMessages(1)
    transcript = Transcript(run)
    transcript.show(StepStarted(1, 5))
    transcript.show(Finished(Execution(Status.OK, State.KEPT, 1, results=({"image/png": PNG},))))
    assert run.all()[-1].content.startswith('<img alt="picture" src="data:image/png')
    transcript.show(Finished(Execution(Status.OK, State.KEPT, 2, value=AgentImage.of(PNG), text="<Figure>")))
    assert [message.title for message in run.all()[-2:]] == ["Value", "Pictures"]
    assert run.all()[-1].content.startswith('<img alt="picture" src="data:image/png')


def test_what_the_host_says_between_steps_is_a_note() -> None:
    run = RunMessages(1)
    transcript = Transcript(run)
    many(transcript, [NoteStep("left out <b>", "I *did* <i>"), Compacted(9_000, 1_000)])
    assert [message.title for message in run.all()] == ["Note", "Note"]
    assert run.all()[0].content == "I *did* &#60;i&#62;\n\nleft out &#60;b&#62;"
    assert "from about 9,000 tokens to 1,000" in run.all()[1].content


def many(transcript: Transcript, events: Sequence[Any]) -> None:
    for event in events:
        transcript.show(event)


def test_a_run_without_end_is_bounded_and_the_answer_is_shown_all_the_same() -> None:
    run = RunMessages(1)
    transcript = Transcript(run)
    transcript.show(StepStarted(1, 5))
    for number in range(2_000):
        many(transcript, [ToolCall(number, "t", ("x" * 20_000,), {}), ToolOutcome(number, "t", None, 0.1)])
    many(transcript, [Output("stdout", "x" * 50_000)] * 3)
    transcript.end("it was too much")
    assert len(run.all()) == bounds.MAX_MESSAGES + 2
    assert run.size <= bounds.MAX_WORK + 50 * len(run.all())
    assert "further parts of this run are not shown" in run.all()[-2].content
    assert run.all()[-1].content == "it was too much"


def test_output_is_bounded_and_says_how_much_is_missing() -> None:
    run = RunMessages(1)
    transcript = Transcript(run)
    transcript.show(StepStarted(1, 5))
    many(transcript, [Output("stdout", "x" * 15_000)] * 3)
    assert "25,000 more characters are not shown" in run.all()[-1].content
    assert len(run.all()[-1].content) < markup.MAX_SHOWN + 100


def test_old_runs_make_room() -> None:
    conversation = Conversation()
    for number in range(8):
        run = conversation.new_run()
        for _ in range(300):
            run.add("user", f"run {number}")
    shown_now = conversation.as_dicts()
    assert len(shown_now) <= bounds.MAX_RUNS_MESSAGES + 1
    assert "Earlier messages" in text(shown_now[0])
    assert text(shown_now[-1]) == "run 7"
