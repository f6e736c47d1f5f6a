"""Tool calls that no tool can take, and results that cannot be shown: each fails alone, and the run goes on."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image

from orchestrator.agents import ActionStep
from orchestrator.audit import Broken, entries_of, verify
from orchestrator.errors import AgentInterrupted
from orchestrator.media import AgentImage
from orchestrator.models import ChatToolCall, ModelReply, ScriptedModel
from orchestrator.policy import MAX_RUNNING
from orchestrator.tools import tool
from tests.unit.scripted_agents import DEADLINE, caller_with, calls, final, requests, results, told


@tool
def send(body: str) -> str:
    """Sends.

    Args:
        body: what
    """
    return f"sent {body}"


def test_broken_json_is_no_argument_and_no_answer() -> None:
    replies = [calls(("send", '{"body": "Dear all, I am')), calls(("final_answer", '{"answer": "The result is 4'))]
    agent = caller_with([send], *replies, calls(("final_answer", "plain words")))
    assert agent.run("task") == "plain words"
    assert "broken or was cut off" in told(agent)[0]
    assert "Give the answer" in told(agent, 2)[0]


@pytest.mark.parametrize("written", ['{"body": "a"}', " {'body': 'a',}\n", '{"body": "a",}'])
def test_arguments_that_are_a_text_are_read_as_models_write_them(written: str) -> None:
    agent = caller_with([send], calls(("send", written)), calls(("final_answer", "{'answer': 5,}")))
    assert agent.run("task") == 5
    assert told(agent) == ["sent a"]
    assert requests(agent)[-1][-2].tool_calls[0].arguments == {"body": "a"}  # sent back in a form that endpoints take


@dataclass
class Point:
    """A point.

    Attributes:
        x: across
    """

    x: int

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("x must not be negative")


def test_an_argument_that_its_type_refuses_fails_that_call_alone() -> None:
    @tool
    def put(point: Point) -> str:
        """Puts.

        Args:
            point: where
        """
        return "there"

    agent = caller_with([put], calls(("put", {"point": {"x": -1}}), ("put", {"point": {"x": 1}})), final("done"))
    assert agent.run("task") == "done"
    assert "must not be negative" in told(agent)[0]
    assert told(agent)[1] == "there"


def test_what_a_tool_that_hides_its_errors_finds_wrong_with_its_arguments() -> None:
    @tool(expose_errors=False)
    def put(point: Point) -> str:
        """Puts.

        Args:
            point: where
        """
        return "there"

    agent = caller_with([put], calls(("put", {"point": {"x": -1}}), ("put", {"point": 5}), ("put", {})), final("done"))
    assert agent.run("task") == "done"
    assert told(agent)[0] == "put failed: ValueError"  # the class is the tool's, and what it says may be secret
    assert "'point' must be object" in told(agent)[1]
    assert "missing" in told(agent)[2]


@dataclass
class Slow:
    """Takes its time."""

    release: ClassVar[threading.Event] = threading.Event()
    x: int

    def __post_init__(self) -> None:
        self.release.wait(DEADLINE)


@dataclass
class Counted:
    """Counts how many are made."""

    made: ClassVar[list[int]] = []
    x: int

    def __post_init__(self) -> None:
        self.made.append(self.x)


@pytest.mark.parametrize("approve", [None, lambda request: True])
def test_arguments_that_take_too_long_to_check(approve: Any) -> None:
    Slow.release.clear()

    @tool(timeout=0.05)
    def put(slow: Slow) -> str:
        """Puts.

        Args:
            slow: what
        """
        return "there"

    agent = caller_with([put], calls(("put", {"slow": {"x": 1}})), final("done"), approve=approve)
    agent.run("task")
    Slow.release.set()
    assert ("could not be checked within 0.05 s" in told(agent)[0]) == (approve is not None)
    assert ("whether it took effect is not known" in told(agent)[0]) == (approve is None)


def test_arguments_are_made_once_for_a_call_that_nobody_is_asked_about() -> None:
    Counted.made.clear()

    @tool
    def put(counted: Counted) -> int:
        """Puts.

        Args:
            counted: what
        """
        return counted.x

    agent = caller_with([put], calls(("put", {"counted": {"x": 1}})), final("done"))
    agent.run("task")
    assert told(agent) == ["1"]
    assert Counted.made == [1]


@pytest.mark.parametrize("levels", [600, 5000])  # what json reads, and what a model of somebody's own may give
def test_arguments_that_are_nested_too_deeply_fail_that_call_alone(levels: int) -> None:
    deep: Any = "x"
    for _ in range(levels):
        deep = [deep]
    agent = caller_with([send], calls(("send", {"body": deep}), ("send", {"body": "x"})), final("done"))
    assert agent.run("task") == "done"
    assert "nested too deeply" in told(agent)[0]
    assert not results(agent)[1].failed


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class HostileError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_results_and_errors_that_cannot_be_shown_end_no_run() -> None:
    @tool
    def give(what: str) -> Any:
        """Gives.

        Args:
            what: which
        """
        if what == "error":
            raise HostileError
        return {"object": Hostile(), "number": 10**5000}[what]

    made = [("give", {"what": what}) for what in ("object", "number", "error")]
    agent = caller_with([give], calls(*made), final("done"))
    assert agent.run("task") == "done"
    assert [("cannot be shown" in text) for text in told(agent)] == [True, True, True]


def test_a_tool_that_changes_its_arguments_does_not_change_the_history() -> None:
    @tool
    def eat(food: list[str]) -> str:
        """Eats.

        Args:
            food: what
        """
        food.clear()
        return "eaten"

    agent = caller_with([eat], calls(("eat", {"food": ["soup"]})), final("done"))
    agent.run("task")
    found = agent.memory.steps[1]
    assert isinstance(found, ActionStep)
    assert found.tool_calls[0].call.arguments == {"food": ["soup"]}


def test_equal_ids_and_names_that_endpoints_refuse() -> None:
    made = tuple(ChatToolCall(name, {"body": name}, "same") for name in ("send", "functions.send!", "send"))
    agent = caller_with([send], ModelReply("", tool_calls=made), final("done"))
    agent.run("task")
    assert [text[:4] for text in told(agent)] == ["sent", "ther", "sent"]
    assert isinstance(agent.model, ScriptedModel)
    assert [call.name for call in agent.model.requests[1][2].tool_calls] == [
        "send",
        "functions_send_",
        "send",
    ]


def test_the_answer_may_be_a_stored_picture_and_pillow_images_are_pictures() -> None:
    @tool
    def paint() -> Any:
        """Paints."""
        return Image.new("RGB", (2, 2))

    agent = caller_with([paint], calls(("paint", {})), final("image_1.png"))
    assert isinstance(agent.run("task"), AgentImage)


def test_calls_that_hang_for_ever_are_bounded_over_all_steps() -> None:
    release = threading.Event()

    @tool(timeout=0.01)
    def hang() -> None:
        """Hangs."""
        release.wait(DEADLINE)

    replies = [calls(*[("hang", {})] * 40)] * 3
    agent = caller_with([hang], *replies, final("done"), max_tool_threads=40)
    agent.run("task")
    release.set()
    made = [text for at in (1, 2, 3) for text in told(agent, at) if "did not end in time" in text]
    assert len(made) <= MAX_RUNNING + 40
    assert any("wait for some to end" in text for text in told(agent, 3))


def test_calls_are_recorded_in_the_audit_log(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLBLOCK_AUDIT", str(tmp_path / "audit.jsonl"))
    replies = [calls(("send", {"body": "x"}), ("nosuch", {})), final("done")]
    agent = caller_with([send], *replies, approve=lambda request: True)
    agent.run("task")
    report = verify(str(tmp_path / "audit.jsonl"))
    assert report.broken is None
    log = (tmp_path / "audit.jsonl").read_text()
    for kind in ("tool_begun", "tool_ended", "approval"):
        assert f'"{kind}"' in log
    assert "not_granted" in log


@pytest.mark.parametrize("at_once", [1, 2])
def test_interrupted_calls_have_an_end_in_the_audit_log(
    at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.jsonl"
    monkeypatch.setenv("CELLBLOCK_AUDIT", str(path))

    async def scenario() -> None:
        both = asyncio.Event()
        begun: list[int] = []

        @tool
        async def hang(number: int) -> None:
            """Hangs.

            Args:
                number: which
            """
            begun.append(number)
            if len(begun) == at_once:
                both.set()
            await asyncio.Event().wait()

        made = [("hang", {"number": 1}), ("hang", {"number": 2})]
        agent = caller_with([send, hang], calls(("send", {"body": "x"})), calls(*made), max_tool_threads=at_once)
        run = asyncio.create_task(agent.arun("task"))
        await both.wait()
        agent.interrupt()
        with pytest.raises(AgentInterrupted):
            await run

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE))
    ended = [
        entry.data for entry in entries_of(str(path)) if not isinstance(entry, Broken) and entry.kind == "tool_ended"
    ]
    assert [(end["tool"], end["ending"], end["refused_by"]) for end in ended] == [
        ("send", "ok", ""),
        ("hang", "cancelled", ""),
        ("hang", "cancelled", "") if at_once == 2 else ("hang", "refused", "execution_ended"),
    ]
    assert [end["result_bytes"] for end in ended] == [len(send("x")), 0, 0]


def test_tools_are_those_that_it_was_made_with() -> None:
    agent = caller_with([send])
    with pytest.raises(TypeError):
        agent.tools["late"] = send  # type: ignore[index]
