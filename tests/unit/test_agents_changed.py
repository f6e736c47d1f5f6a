"""Settings of an agent that are changed once it is made: they count from then on, or cannot be changed."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from orchestrator.agents import ActionStep, AgentLogger, CodeAgent, LogLevel, PlanningStep, ToolCallingAgent
from orchestrator.errors import AgentError
from orchestrator.models import ScriptedModel
from tests.unit.fake_sandbox import answered, ran
from tests.unit.scripted_agents import agent_with, step


def test_another_interval_of_plans_counts_from_the_next_run_on() -> None:
    agent = agent_with([step("final_answer(1)"), "A plan.", step("final_answer(2)")], [answered(1), answered(2)])
    assert agent.run("task") == 1
    agent.planning_interval = 1
    assert agent.run("task") == 2
    assert [one.plan for one in agent.memory.steps if isinstance(one, PlanningStep)] == ["A plan."]
    agent.planning_interval = 0
    with pytest.raises(AgentError, match="planning_interval is 0; it must be a whole number, at least 1"):
        agent.run("task")


def test_what_is_settled_when_an_agent_is_made_cannot_be_changed() -> None:
    caller: Any = ToolCallingAgent([], ScriptedModel([]), max_tool_threads=3, tool_timeout=4)
    coder: Any = CodeAgent([], ScriptedModel([]), additional_authorized_imports=["numpy"])
    assert (caller.max_tool_threads, caller.tool_timeout) == (3, 4)
    for agent, name in ((caller, "max_tool_threads"), (caller, "tool_timeout"), (coder, "authorized_imports")):
        with pytest.raises(AttributeError, match=name):
            setattr(agent, name, 5)


def test_a_callback_can_be_registered_later() -> None:
    seen: list[str] = []
    agent = agent_with([step("1"), step("final_answer(2)")], [ran("1"), answered(2)])

    def first(step: ActionStep, agent: CodeAgent) -> None:
        seen.append(f"first {step.step_number}")
        if step.step_number == 1:
            agent.step_callbacks.register(ActionStep, lambda step: seen.append(f"later {step.step_number}"))

    agent.step_callbacks.register(ActionStep, first)
    agent.run("task")
    assert seen == ["first 1", "first 2", "later 2"]
    with pytest.raises(AgentError, match="is no type of step"):
        agent.step_callbacks.register(int, first)


def test_the_level_of_what_is_shown_may_be_changed() -> None:
    text = io.StringIO()
    logger = AgentLogger(LogLevel.OFF, Console(file=text, width=100))
    replies, script = [step("final_answer(1)")] * 3, [answered(1)] * 3
    agent = agent_with(replies, script, logger=logger, stream_outputs=True)
    shown = []
    for level in (LogLevel.OFF, LogLevel.INFO, LogLevel.DEBUG):
        agent.logger.level = level
        agent.run("task")
        shown.append(text.getvalue())
        text.truncate(0)
        text.seek(0)
    off, info, debug = shown
    assert off == ""
    assert "Final answer" in info
    assert "<code>" not in info  # the reply, word by word, is for the last level
    assert "<code>" in debug
