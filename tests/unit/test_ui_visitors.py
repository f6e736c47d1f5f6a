"""Visitors of an agent's page: each with a copy of the agent, a conversation, a sandbox and files of their own."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from orchestrator.agents import CodeAgent, SandboxSettings, ToolCallingAgent
from orchestrator.errors import AgentError, ConfigError, ModelUnavailable
from orchestrator.models import ChatMessage, ChatToolCall, ModelReply, ScriptedModel
from orchestrator.tools import Tool, tool
from orchestrator.ui import GradioUI, visitors
from orchestrator.ui.visitors import Visitors
from tests.unit.fake_sandbox import HANG, FakeSandbox, FakeSettings, answered
from tests.unit.scripted_agents import DEADLINE, step

ANN, BOB = ("", "ann"), ("", "bob")


class Repeats:
    """Answers with everything that it was told by the user."""

    def __init__(self) -> None:
        self.requests: list[str] = []

    async def generate(self, messages: list[ChatMessage], stop_sequences: Any = (), **more: Any) -> ModelReply:
        told = " / ".join(message.content for message in messages if message.role == "user")
        self.requests.append(told)
        return ModelReply("", None, (ChatToolCall("final_answer", {"answer": told}, "c"),))


def repeats(**more: Any) -> ToolCallingAgent:
    return ToolCallingAgent([], Repeats(), verbosity_level=-1, **more)


def code_agent(*scripts: Any, replies: list[str], **more: Any) -> tuple[CodeAgent, FakeSettings]:
    settings = FakeSettings(scripts=list(scripts))
    return CodeAgent([], ScriptedModel(replies), sandbox=settings, verbosity_level=-1, **more), settings


@dataclass(frozen=True)
class Prepared(SandboxSettings):
    """Gives the one sandbox that the test watches."""

    sandbox: FakeSandbox = field(default_factory=FakeSandbox)

    def make(self, tools: Sequence[Tool], authorized_imports: Sequence[str]) -> FakeSandbox:
        return self.sandbox


def at_work_in(sandbox: FakeSandbox) -> CodeAgent:
    model = ScriptedModel([step("1"), step("2")])
    return CodeAgent([], model, sandbox=Prepared(sandbox=sandbox), verbosity_level=-1)


def within(coroutine: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(coroutine, DEADLINE)

    return asyncio.run(bounded())


def said(visitor: visitors.Visitor) -> list[str]:
    return [message["content"]["text"] for message in visitor.messages()]


def test_two_visitors_never_see_each_others_words() -> None:
    agent = repeats()
    there = Visitors(agent, limit=2)

    async def talk() -> list[list[str]]:
        ann, bob = await there.get(ANN), await there.get(BOB)
        await asyncio.gather(ann.work("apples", []), bob.work("bread", []))
        await ann.work("anise", [])
        return [said(ann), said(bob)]

    ann, bob = map("".join, within(talk()))
    assert "apples" in ann
    assert "anise" in ann
    assert "bread" not in ann
    assert "bread" in bob
    assert "apples" not in bob
    assert agent.memory.steps == []  # the agent itself was not used
    assert isinstance(agent.model, Repeats)
    assert not [told for told in agent.model.requests if "apples" in told and "bread" in told]


def test_a_conversation_goes_on_or_is_forgotten() -> None:
    for resets in (False, True):
        agent = repeats()

        async def talk(there: Visitors) -> None:
            ann = await there.get(ANN)
            await ann.work("apples", [])
            await ann.work("anise", [])

        within(talk(Visitors(agent, limit=1, resets=resets)))
        assert isinstance(agent.model, Repeats)
        assert ("apples" in agent.model.requests[-1]) is not resets


def test_each_has_a_sandbox_of_their_own_which_is_closed_when_they_leave() -> None:
    agent, settings = code_agent([answered("a")], [answered("b")], replies=[step("final_answer(1)")] * 2)
    there = Visitors(agent, limit=2)

    async def talk() -> None:
        for key in (ANN, BOB):
            await (await there.get(key)).work("x", [])
        await there.leave(ANN)
        assert [sandbox.closes for sandbox in settings.made] == [1, 0]
        await there.leave(ANN)  # known no more
        await there.close()
        assert [sandbox.closes for sandbox in settings.made] == [1, 1]

    within(talk())
    assert len(there) == 0


def test_members_of_the_team_tell_nobody_of_other_visitors() -> None:
    member = repeats(name="cook", description="Cooks.")

    class Boss(Repeats):
        async def generate(self, messages: list[ChatMessage], stop_sequences: Any = (), **more: Any) -> ModelReply:
            task = [message.content for message in messages if message.role == "user"][-1]
            if messages[-1].role == "tool":
                return ModelReply("", None, (ChatToolCall("final_answer", {"answer": messages[-1].content}, "c"),))
            return ModelReply("", None, (ChatToolCall("cook", {"task": task}, "c"),))

    agent = ToolCallingAgent([], Boss(), managed_agents=[member], verbosity_level=-1)
    there = Visitors(agent, limit=2)

    async def talk() -> list[str]:
        ann, bob = await there.get(ANN), await there.get(BOB)
        await asyncio.gather(ann.work("apples", []), bob.work("bread", []))
        await ann.work("anise", [])
        return ["".join(said(who)) for who in (ann, bob)]

    ann, bob = within(talk())
    assert "Here is the report of cook" in ann
    assert "bread" not in ann
    assert "apples" not in bob


def test_a_borrowed_sandbox_is_not_shared_among_visitors() -> None:
    lent = CodeAgent([], ScriptedModel([]), sandbox=FakeSandbox(), name="x", description="y", verbosity_level=-1)
    for agent in (lent, ToolCallingAgent([], ScriptedModel([]), managed_agents=[lent], verbosity_level=-1)):
        with pytest.raises(AgentError, match="would share the sandbox"):
            GradioUI(agent)


def test_a_run_is_stopped_and_the_conversation_goes_on() -> None:
    sandbox = FakeSandbox([HANG, answered("b")])
    there = Visitors(at_work_in(sandbox), limit=1)

    async def talk() -> list[str]:
        ann = await there.get(ANN)
        first = asyncio.create_task(ann.work("x", []))
        await sandbox.running.wait()
        assert ann.is_busy
        with pytest.raises(AgentError, match="still at work"):
            await ann.work("y", [])
        ann.stop()
        await asyncio.wait_for(first, 1.0)
        await ann.work("go on", [])
        return said(ann)

    texts = within(talk())
    assert "Stopped. You can go on." in [text.replace("&#46;", ".") for text in texts]
    assert texts[-1] == "b"
    assert not any(m["metadata"] and m["metadata"].get("status") == "pending" for m in there._there[ANN].messages())


def test_a_run_can_be_stopped_before_the_agent_has_begun(tmp_path: Path) -> None:
    agent = repeats()
    there = Visitors(agent, limit=1, folder=tmp_path / "up", types=[".txt"])
    (tmp_path / "a.txt").write_text("hi")

    async def talk() -> list[str]:
        ann = await there.get(ANN)
        work = asyncio.create_task(ann.work("x", [str(tmp_path / "a.txt")]))
        await asyncio.sleep(0)
        assert ann.is_busy
        ann.stop()  # its files are still being read
        await work
        return said(ann)

    assert within(talk())[-1].startswith("Stopped")
    assert isinstance(agent.model, Repeats)
    assert agent.model.requests == []


def test_who_leaves_in_the_middle_of_a_run_ends_it() -> None:
    sandbox = FakeSandbox([HANG])
    there = Visitors(at_work_in(sandbox), limit=1)

    async def talk() -> None:
        ann = await there.get(ANN)
        work = asyncio.create_task(ann.work("x", []))
        await sandbox.running.wait()
        await there.leave(ANN)
        await work

    within(talk())
    assert sandbox.closes == 1


def test_their_number_is_bounded_and_who_is_silent_for_long_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    there = Visitors(repeats(), limit=2)

    async def talk() -> None:
        ann = await there.get(ANN)
        await there.get(BOB)
        assert await there.get(ANN) is ann
        with pytest.raises(AgentError, match="too many people"):
            await there.get(("", "carl"))
        for key in (ANN, BOB):
            await (await there.get(key)).work("x", [])
        monkeypatch.setattr(visitors, "NEW", 0.0)
        with pytest.raises(AgentError, match="too many people"):
            await there.get(("", "carl"))
        monkeypatch.setattr(visitors, "IDLE", 0.0)
        await there.get(("", "carl"))
        assert there.known(ANN) is None
        assert there.known(BOB) is not None

    within(talk())


def test_who_has_never_had_a_run_makes_room_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitors, "NEW", 0.0)
    there = Visitors(repeats(), limit=2)

    async def talk() -> None:
        await (await there.get(ANN)).work("x", [])
        with pytest.raises(AgentError, match="write what is to be done"):
            await (await there.get(BOB)).work(" ", [])
        await there.get(("", "carl"))
        assert there.known(ANN) is not None
        assert there.known(BOB) is None

    within(talk())


def test_who_says_nothing_takes_no_place() -> None:
    ui = GradioUI(repeats(), max_visitors=1)

    async def talk() -> None:
        for text in ("", " ", "x" * (visitors.MAX_TASK + 1)):
            with pytest.raises(AgentError):
                await anext(ui._updates(BOB, text, []))
        async for messages in ui._updates(ANN, "apples", []):
            assert messages

    try:
        within(talk())
    finally:
        ui.close()


def test_two_messages_of_one_session_are_of_one_visitor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    there = Visitors(repeats(), limit=1, folder=tmp_path / "up", types=[".txt"])  # to remove files takes a moment

    async def talk() -> None:
        await (await there.get(BOB)).work("x", [])
        monkeypatch.setattr(visitors, "IDLE", 0.0)
        one, two = await asyncio.gather(there.get(ANN), there.get(ANN))
        assert one is two
        assert len(there) == 1

    within(talk())


def test_files_reach_the_agent_and_go_with_the_visitor(tmp_path: Path) -> None:
    agent = repeats()
    there = Visitors(agent, limit=1, folder=tmp_path / "up", types=[".csv"])
    (tmp_path / "data.csv").write_text("a,b\n")

    async def talk() -> None:
        ann = await there.get(ANN)
        await ann.work("look", [str(tmp_path / "data.csv")])
        assert "data&#46;csv" in said(ann)[0]
        assert [path.read_text() for path in (tmp_path / "up").rglob("*.csv")] == ["a,b\n"]
        await there.leave(ANN)

    within(talk())
    assert list((tmp_path / "up").iterdir()) == []
    assert isinstance(agent.model, Repeats)
    assert "file_data_csv (str): 'a,b\\n'" in agent.model.requests[0]


def test_files_that_are_not_taken_are_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "x.exe").write_text("")

    async def talk(there: Visitors) -> str:
        ann = await there.get(ANN)
        await ann.work("look", [str(tmp_path / "x.exe")])
        return said(ann)[-1]

    assert "not taken here" in within(talk(Visitors(repeats(), limit=1)))
    assert "not taken" in within(talk(Visitors(repeats(), limit=1, folder=tmp_path / "up", types=[".csv"])))


def test_failures_are_told_without_what_is_the_hosts_own(caplog: pytest.LogCaptureFixture) -> None:
    class Down:
        async def generate(self, messages: Any, stop_sequences: Any = (), **more: Any) -> ModelReply:
            raise ModelUnavailable("http://10.0.0.1/secret is down")

    def broken(step: Any) -> None:
        raise OSError("/home/operator/secret")

    async def talk(agent: Any) -> str:
        ann = await Visitors(agent, limit=1).get(ANN)
        await ann.work("x", [])
        return said(ann)[-1]

    with caplog.at_level(logging.ERROR):
        down = within(talk(ToolCallingAgent([], Down(), verbosity_level=-1)))
        callback = within(talk(repeats(step_callbacks=[broken])))
    assert "The model failed" in down
    assert "The run failed" in callback
    assert "secret" not in down + callback
    assert len(caplog.records) == 2


@pytest.mark.parametrize("text", ["", "  \n", "x" * (visitors.MAX_TASK + 1)])
def test_what_is_no_task_is_refused(text: str) -> None:
    async def talk() -> None:
        ann = await Visitors(repeats(), limit=1).get(ANN)
        with pytest.raises(AgentError):
            await ann.work(text, [])
        assert ann.messages() == []

    within(talk())


def test_the_number_of_visitors_must_make_sense() -> None:
    with pytest.raises(ConfigError, match="max_visitors"):
        GradioUI(repeats(), max_visitors=0)


def test_without_gradio_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    for use in (GradioUI(repeats()).create_app, GradioUI(repeats()).launch):
        with pytest.raises(ConfigError, match=r"cellblock\[gradio\]"):
            use()


def test_a_tool_named_like_a_files_variable_is_not_hidden(tmp_path: Path) -> None:
    @tool
    def file_a_txt() -> str:
        """Gives nothing."""
        return ""

    agent = ToolCallingAgent([file_a_txt], Repeats(), verbosity_level=-1)
    there = Visitors(agent, limit=1, folder=tmp_path / "up", types=[".txt"])
    (tmp_path / "a.txt").write_text("hi")

    async def talk() -> None:
        await (await there.get(ANN)).work("look", [str(tmp_path / "a.txt")])

    within(talk())
    assert isinstance(agent.model, Repeats)
    assert "file_a_txt_2 (str)" in agent.model.requests[0]
