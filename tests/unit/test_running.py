"""``cellblock run`` but for what needs a container: its options, Ctrl-C, its events as JSON."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from orchestrator import cli, running
from orchestrator.agents import ActionStep, AgentEvent, Overheard, ToolCallingAgent
from orchestrator.agents.steps import StepError, Timing
from orchestrator.json_events import as_line
from orchestrator.models import ScriptedModel
from tests.unit.scripted_agents import final, requests


@pytest.mark.parametrize(("option", "value"), [("imports", "numpy"), ("timeout", "0"), ("memory", "64m")])
def test_options_of_a_sandbox_are_refused_for_an_agent_that_has_none(
    option: str, value: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # where no settings are
    assert cli.main(["run", "--agent", "tool_calling", f"--{option}", value, "task"]) == 2
    assert f"--{option} is for code" in capsys.readouterr().err


def test_ctrl_c_before_the_run_has_begun_is_not_lost(capsys: pytest.CaptureFixture[str]) -> None:
    class Pressed(ToolCallingAgent):
        def run(self, *args: Any, **named: Any) -> Any:
            signal.raise_signal(signal.SIGINT)
            return super().run(*args, **named)

    seen: list[AgentEvent] = []
    with Pressed([], ScriptedModel([final(1)]), verbosity_level=-1) as agent:
        assert running._watched(agent, "task", seen.append) == running.INTERRUPTED
    assert requests(agent) == []
    assert "interrupted after 0 steps" in capsys.readouterr().err


def test_what_is_overheard_of_a_members_member_is_an_event_as_any_other() -> None:
    step = ActionStep(1, Timing(0.0, 0.0), "said", error=StepError("tool", "no"))
    alone = json.loads(as_line(step))
    inner = json.loads(as_line(Overheard("lead", Overheard("worker", step))))
    assert (inner["type"], inner["agent"]) == ("overheard", "lead")
    assert (inner["event"]["type"], inner["event"]["agent"]) == ("overheard", "worker")
    assert inner["event"]["event"] == alone
    assert alone["type"] == "action_step"
    assert alone["error"]["type"] == "step_error"
