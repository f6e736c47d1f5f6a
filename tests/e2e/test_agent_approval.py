"""Agents that ask, and tools that do not end, in a real container; only the model's words are scripted."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator import Config, ExecutionRequest, Sandbox, Status, ToolCallRequest, Verdict, tool
from orchestrator.agents import ActionStep, CodeAgent, SandboxSettings
from orchestrator.audit import records_of, verify
from orchestrator.errors import AgentError, AgentInterrupted
from orchestrator.models import ScriptedModel
from tests.unit.scripted_agents import step

pytestmark = pytest.mark.docker

DEADLINE = 30.0


@tool
def send(to: str) -> str:
    """Sends.

    Args:
        to: whom.
    """
    sent.append(to)
    return f"sent to {to}"


sent: list[str] = []


@pytest.fixture(autouse=True)
def nothing_sent(config: Config) -> None:
    sent.clear()


def agent_with(*codes: str, **more: Any) -> CodeAgent:
    return CodeAgent([send], ScriptedModel([step(code) for code in codes]), **more)


def told(agent: CodeAgent, at: int) -> str:
    """What the model was shown of a step."""
    return repr(list([s for s in agent.memory.steps if isinstance(s, ActionStep)][at].to_messages()))


def test_what_is_refused_is_told_to_the_model_and_the_run_goes_on() -> None:
    def approve(request: Any) -> Any:
        match request:
            case ExecutionRequest(code) if "wipe" in code:
                return Verdict(False, "nothing is wiped here")
            case ToolCallRequest("send", {"to": "everybody"}):
                return Verdict(False, "too many")
        return True

    codes = ("x = 'kept'", "x = 'wipe'", "send('everybody')", "final_answer((x, send('anna')))")
    with agent_with(*codes, approve=approve) as agent:
        assert agent.run("Send it.") == ("kept", "sent to anna")
    assert "ExecutionRefused: this code was not approved: nothing is wiped here. Nothing was run." in told(agent, 1)
    assert "PermissionError: the call of send() was not approved: too many" in told(agent, 2)
    assert sent == ["anna"]


def test_a_refused_action_undoes_nothing_where_failures_are_undone() -> None:
    codes = ("x = 'kept'", "x = 'wipe'", "final_answer(x)")
    with agent_with(*codes, approve=lambda request: "wipe" not in repr(request), on_error="rollback") as agent:
        assert agent.run("Go.") == "kept"


def test_branches_of_an_agent_ask_the_same_approver() -> None:
    asked: list[str] = []
    approve = lambda request: asked.append(request.code) or True  # noqa: E731
    with agent_with("final_answer(1)", "final_answer(2)", approve=approve) as agent:
        agent.run("One.")
        with agent.branch() as branch:
            branch.run("Two.")
    assert asked == ["final_answer(1)", "final_answer(2)"]


def test_an_agent_is_interrupted_while_somebody_is_asked(release: threading.Event) -> None:
    asking = threading.Event()

    def approve(request: Any) -> bool:
        asking.set()
        return release.wait(DEADLINE)

    with agent_with("final_answer(1)", approve=approve) as agent:
        interrupting = threading.Thread(target=lambda: asking.wait(DEADLINE) and agent.interrupt())
        interrupting.start()
        with pytest.raises(AgentInterrupted):
            agent.run("Go.")
        interrupting.join(DEADLINE)


def test_an_approver_for_a_borrowed_sandbox_belongs_to_the_sandbox() -> None:
    sandbox = Sandbox(tools=[send], final_answer=True, approve=lambda request: False)
    with pytest.raises(AgentError, match="approve: give it to the sandbox"):
        agent_with("1", sandbox=sandbox, approve=lambda request: True)
    with sandbox, agent_with("x = 1", "I give up.", sandbox=sandbox, max_steps=1) as agent:
        agent.run("Go.")
        assert "ExecutionRefused" in told(agent, 0)


def test_a_call_of_unknown_effect_is_told_to_the_model(release: threading.Event, config: Config) -> None:
    @tool(timeout=0.2)
    def slow() -> None:
        """Takes long."""
        release.wait(DEADLINE)

    codes = ("try: slow()\nexcept TimeoutError: print('caught')", "slow()", "final_answer(1)")
    model = ScriptedModel([step(code) for code in codes])
    with CodeAgent([slow], model, sandbox=SandboxSettings(timeout=5)) as agent:
        agent.run("Go.")
    for at in (0, 1):
        assert "These tool calls had not ended when they were given up: slow()." in told(agent, at)
        assert "Whether they took effect is not known: find out before you make them again." in told(agent, at)
    assert "TimeoutError: slow() had not ended after 0.2 s." in told(agent, 1)
    assert "given up" not in told(agent, 2)


def test_a_run_is_in_the_audit_log(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    settings = SandboxSettings(config=replace(config, audit=str(path)))
    with agent_with("send('anna')", "final_answer(1)", sandbox=settings) as agent:
        agent.run("Go.")
    assert verify(path).holds
    statuses = [record.data["status"] for record in records_of(path) if record.kind == "execution_finished"]
    assert statuses == [str(Status.OK)] * 2
    assert [record.data["tool"] for record in records_of(path) if record.kind == "tool_ended"] == ["send"]
