"""Steps and memories written down and read again: nothing that a model is shown is lost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.agents import AgentMemory
from orchestrator.agents.memory_json import memory_from_dict, memory_to_dict, step_from_dict
from orchestrator.agents.steps import MemoryStep, SystemPromptStep
from orchestrator.agents.value_json import read
from orchestrator.errors import AgentError
from tests.unit.fake_sandbox import answered, ran
from tests.unit.pictures import PNG
from tests.unit.remembered import STEPS, TEXT, same
from tests.unit.scripted_agents import agent_with, requests, step


@given(STEPS | st.builds(SystemPromptStep, TEXT))
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_steps_come_back_as_they_were(step: MemoryStep) -> None:
    assert same(step_from_dict(json.loads(json.dumps(step.dict(), allow_nan=False))), step)


@given(TEXT, st.lists(STEPS, max_size=5), st.data())
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_a_model_is_shown_the_same_messages(prompt: str, steps: Sequence[Any], data: st.DataObject) -> None:
    memory = AgentMemory(prompt)
    for kept in steps:
        memory.append(kept)
    if steps and data.draw(st.booleans()):
        memory.show([*data.draw(st.lists(STEPS, max_size=2)), *steps[1:2]], data.draw(st.integers(0, len(steps))))
    loaded = memory_from_dict(json.loads(json.dumps(memory_to_dict(memory), allow_nan=False)))
    assert same(loaded.to_messages(), memory.to_messages())
    assert same(loaded.all_steps(), memory.all_steps())
    assert same(loaded.shown_steps(), memory.shown_steps())


def test_a_conversation_goes_on_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    first = agent_with([step("x = 1"), step("final_answer(x)")], [ran(stdout="seen\n"), answered(1)])
    first.run("One.", images=[PNG])
    first.memory.save(path)
    assert path.stat().st_mode & 0o077 == 0
    second = agent_with([step("final_answer(2)")], [answered(2)])
    second.memory = AgentMemory.load(path)
    assert second.memory.to_messages() == first.memory.to_messages()
    assert second.run("Two.", reset=False) == 2
    sent = requests(second)[0]
    assert list(sent[:-1]) == first.memory.to_messages()
    assert sent[-1].content == "New task:\nTwo."
    assert [p.name for p in tmp_path.iterdir()] == ["memory.json"]


def test_saving_over_a_file_replaces_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    AgentMemory("long" * 1000).save(path)
    AgentMemory("short").save(str(path))
    assert AgentMemory.load(str(path)).system_prompt.system_prompt == "short"


def test_a_file_that_cannot_be_written_or_read(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="cannot be written"):
        AgentMemory("s").save(tmp_path / "nowhere" / "memory.json")
    with pytest.raises(AgentError, match="cannot be read"):
        AgentMemory.load(tmp_path / "nothing.json")
    with pytest.raises(AgentError, match="cannot be read"):
        AgentMemory.load(tmp_path)


def test_steps_as_dicts() -> None:
    agent = agent_with([step("1"), step("final_answer(1)")], [ran("1"), answered(1)])
    agent.run("task")
    full, succinct = agent.memory.get_full_steps(), agent.memory.get_succinct_steps()
    assert [s["kind"] for s in full] == ["task", "action", "action"]
    assert full[1]["execution"]["status"] == "ok"
    assert "execution" not in succinct[1]
    assert succinct[1]["code_action"] == "1"


def test_a_result_as_a_dict() -> None:
    agent = agent_with([step("1"), step("final_answer((1,))")], [ran("1"), answered((1,))])
    result = agent.run("task", return_full_result=True)
    data = json.loads(json.dumps(result.dict(), allow_nan=False))
    assert read(data["output"]) == (1,)
    assert (data["state"], data["token_usage"], data["differences"]) == ("success", None, [])
    assert [s["kind"] for s in data["steps"]] == ["system_prompt", "task", "action", "action"]
    assert data["timing"].keys() == {"start_time", "duration"}
