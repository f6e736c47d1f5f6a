"""A past run shown again, and an agent shown as a tree."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.agents import AgentMemory, CodeAgent, RunPrinter, ToolCallingAgent
from orchestrator.agents.steps import NoteStep
from orchestrator.models import ChatToolCall, ModelReply, ScriptedModel
from orchestrator.tools import tool
from tests.unit.fake_sandbox import answered, failed, ran
from tests.unit.scripted_agents import agent_with, step


def console() -> Console:
    return Console(file=io.StringIO(), width=200, color_system=None)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def party(**more: object) -> CodeAgent:
    return agent_with(
        ["The plan.", step("print(1)"), "no code", step("1/0"), step("final_answer('done')")],
        [ran("5", stdout="out\n"), failed(), answered("done")],
        planning_interval=9,
        verbosity_level=-1,
        **more,
    )


def without_limits(shown: str) -> list[str]:
    """The lines without how many steps there could have been, and without the lengths of rules."""
    return [line.replace(" of at most 20", "").rstrip("─ ") for line in shown.splitlines()]


def test_a_replay_looks_like_the_run() -> None:
    agent, live, again = party(), console(), console()
    printer = RunPrinter(live)
    for event in agent.run("The task.", stream=True):
        printer.show(event)
    agent.replay(console=again)
    assert without_limits(text(again)) == without_limits(text(live))
    assert "Thought: go on." in text(again)


@pytest.mark.parametrize(
    ("reply", "settings"),
    [
        ("I add.\n<py>\n1 + 1\n</py>", {"code_block_tags": ("<py>", "</py>")}),
        ("I add.\n```python\n1 + 1\n```", {"code_block_tags": "markdown"}),
        ('{"thought": "I add.", "code": "1 + 1"}', {"use_structured_outputs_internally": True}),
    ],
)
def test_a_replay_tells_thoughts_from_code_whatever_is_around_it(reply: str, settings: dict[str, Any]) -> None:
    agent, again = agent_with([reply, "The end."], [ran("2")], max_steps=1, verbosity_level=-1, **settings), console()
    agent.run("The task.")
    agent.replay(console=again)
    assert "I add." in text(again)
    assert not any(mark in text(again) for mark in ("<py>", "```", '"thought"'))


@pytest.mark.parametrize(
    ("reply", "settings"),
    [
        ("I add.\n<py>\n1 + 1\n</py>", {"code_block_tags": ("<py>", "</py>")}),
        ("I add.\n<code>\n1 + 1\n</code>", {}),
        ('{"thought": "I add.", "code": "1 + 1 # <code>2</code>"}', {"use_structured_outputs_internally": True}),
    ],
)
def test_another_agent_shows_a_memory_as_its_own_one_does(reply: str, settings: dict[str, Any], tmp_path: Path) -> None:
    agent = agent_with([reply, "End."], [ran("2")], max_steps=1, verbosity_level=-1, **settings)
    before, after = console(), console()
    agent.run("The task.")
    agent.replay(console=before)
    agent.memory.save(tmp_path / "memory.json")
    other = agent_with([], [], code_block_tags=("[go]", "[/go]"))
    other.memory = AgentMemory.load(tmp_path / "memory.json")
    other.replay(console=after)
    assert "I add." in text(after)
    assert text(after) == text(before)


def test_a_replay_of_a_loaded_memory(tmp_path: Path) -> None:
    agent, before, after = party(), console(), console()
    agent.run("The task.")
    agent.replay(console=before)
    agent.memory.save(tmp_path / "memory.json")
    agent.memory = AgentMemory.load(tmp_path / "memory.json")
    agent.replay(console=after)
    assert text(after) == text(before)


def test_details_are_what_the_model_is_shown() -> None:
    agent, plain, detailed = party(), console(), console()
    agent.run("The task.")
    agent.memory.append(NoteStep("Mind the \x1b[31mgap.", "I summed it up."))
    agent.replay(console=plain)
    agent.replay(detailed=True, console=detailed)
    assert "shown it" not in text(plain)
    assert "As the model is shown it: system" in text(detailed)
    assert "Now let's retry" in text(detailed)
    assert "I summed it up." in text(plain)
    assert "Mind the gap." in text(plain)
    assert "\x1b" not in text(detailed)


@tool(timeout=9)
def weather(city: str, days: int = 1) -> str:
    """Weather now.

    Args:
        city: the city's name
        days: how many days
    """
    return f"{city}: rain"


def test_a_replay_of_tool_calls() -> None:
    replies = [
        ModelReply("", tool_calls=(ChatToolCall("weather", {"city": "Oslo"}, "1"), ChatToolCall("gone", {}, "2"))),
        ModelReply("", tool_calls=(ChatToolCall("final_answer", {"answer": "wet"}, "3"),)),
    ]
    agent, again = ToolCallingAgent([weather], ScriptedModel(replies), verbosity_level=-1), console()
    agent.run("task")
    agent.replay(console=again)
    shown = text(again)
    assert "→ weather(city='Oslo')" in shown
    assert "weather: Oslo: rain" in shown
    assert "there is no tool 'gone'" in shown
    assert shown.count("wet") == 2


def test_the_tree_of_a_team() -> None:
    model = ScriptedModel([])
    model.model_id = "small"  # type: ignore[attr-defined]
    member = ToolCallingAgent([weather], model, name="meteorologist", description="Knows the weather.")
    agent, shown = CodeAgent([], model, managed_agents=[member], additional_authorized_imports=["numpy.*"]), console()
    agent.visualize(shown)
    lines = text(shown).splitlines()
    assert lines[0] == "CodeAgent | ScriptedModel small"
    assert any("numpy.*" in line for line in lines)
    assert any("meteorologist | ToolCallingAgent | ScriptedModel small" in line for line in lines)
    assert any("Knows the weather." in line for line in lines)
    assert any("weather" in line and "city: string: the city's name" in line for line in lines)
    assert any("days: integer (may be left out): how many days" in line for line in lines)


def test_an_agent_that_is_its_own_member_ends_somewhere() -> None:
    agent, shown = CodeAgent([], ScriptedModel([]), name="snake", description="Bites its tail."), console()
    another = CodeAgent([], ScriptedModel([]), managed_agents=[agent])
    agent.equipment.team.update(another.equipment.team)
    agent.visualize(shown)
    assert 5 < text(shown).count("snake") < 50
