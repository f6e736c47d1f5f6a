"""Agents to and from a hub, over the real client."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from orchestrator import CodeAgent, ScriptedModel, ToolCallingAgent
from orchestrator.agents.sharing import hub as sharing_hub
from orchestrator.errors import AgentError, ConfigError, ToolUnavailable
from tests.unit import sharing_parts as parts
from tests.unit.hub_server import Hub, hub  # noqa: F401 - a fixture


@pytest.fixture(autouse=True)
def private(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Temporary folders where the test can look, and a key."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    return tmp_path / "tmp"


def team() -> CodeAgent:
    member = ToolCallingAgent([parts.Repeat()], parts.model(), name="member", description="m")
    return CodeAgent([parts.shout], parts.model(), name="boss", managed_agents=[member])


def test_to_the_hub_and_back(hub: Hub, private: Path) -> None:  # noqa: F811
    agent = team()
    where = agent.push_to_hub("me/agent", "mine", True, hub.token)
    assert where.startswith(f"{hub.url}/spaces/me/agent/commit/")
    assert set(hub.files("space", "me/agent")) == {
        "agent.json",
        "prompts.yaml",
        "tools/shout.py",
        "managed_agents/member/agent.json",
        "managed_agents/member/prompts.yaml",
        "managed_agents/member/tools/repeat.py",
        "requirements.txt",
        "app.py",
        "README.md",
    }
    assert (hub.repos["space", "me/agent"].private, hub.repos["space", "me/agent"].sdk) == (True, "gradio")
    assert b"title: boss\n" in hub.files("space", "me/agent")["README.md"]
    with pytest.raises(ToolUnavailable, match="the hub, me/agent: "):
        CodeAgent.from_hub("me/agent", trust_remote_code=True)
    loaded = CodeAgent.from_hub("me/agent", hub.token, True, max_steps=3)
    assert loaded.max_steps == 3
    assert {**loaded.to_dict(), "max_steps": 20} == agent.to_dict()
    assert list(private.iterdir()) == []


def test_only_what_is_read_is_fetched(hub: Hub, private: Path) -> None:  # noqa: F811
    ToolCallingAgent([], parts.model()).push_to_hub("me/agent", token=hub.token)
    hub.put(
        "space", "me/agent", {"weights.bin": b"x" * 1000, "tools/[a].py": b"1", "tools/sub/x.py": b"1", "..py": b""}
    )
    hub.requests.clear()
    assert ToolCallingAgent.from_hub("me/agent")  # it has no code
    asked = {line.rpartition("/")[2] for line in hub.requests if "/resolve/" in line}
    assert asked == {"agent.json", "prompts.yaml"}
    assert list(private.iterdir()) == []


def test_code_needs_trust(hub: Hub, private: Path) -> None:  # noqa: F811
    team().push_to_hub("me/agent", token=hub.token)
    with pytest.raises(
        ConfigError, match=r"- tools/shout\.py: its code is run\n- managed_agents/member/tools/repeat\.py"
    ):
        CodeAgent.from_hub("me/agent")
    assert list(private.iterdir()) == []


def test_one_commit_is_fetched(hub: Hub) -> None:  # noqa: F811
    ToolCallingAgent([], parts.model(), instructions="old").push_to_hub("me/agent", token=hub.token)
    old = hub.repos["space", "me/agent"].heads["main"].id
    ToolCallingAgent([], parts.model(), instructions="new").push_to_hub("me/agent", token=hub.token)
    new = hub.repos["space", "me/agent"].heads["main"].id
    hub.requests.clear()
    assert ToolCallingAgent.from_hub("me/agent").instructions == "new"
    # Only the first question is which commit it is: what is pushed after that does not matter.
    assert len(hub.requests) > 3
    assert all(new in line for line in hub.requests[1:]), hub.requests
    assert ToolCallingAgent.from_hub("me/agent", revision=old).instructions == "old"
    with pytest.raises(ToolUnavailable, match="nothing"):
        ToolCallingAgent.from_hub("me/agent", revision="nothing")


def test_as_a_pull_request(hub: Hub) -> None:  # noqa: F811
    hub.put("space", "me/agent", {"agent.json": b"old"})
    where = team().push_to_hub("me/agent", token=hub.token, create_pr=True)
    assert where.endswith("/discussions/1")
    assert hub.files("space", "me/agent")["agent.json"] == b"old"
    assert CodeAgent.from_hub("me/agent", trust_remote_code=True, revision="refs/pr/1").name == "boss"


def test_what_cannot_be_saved_is_not_sent(hub: Hub) -> None:  # noqa: F811
    agent = CodeAgent([], ScriptedModel([]))
    with pytest.raises(AgentError, match="model is of the class ScriptedModel"):
        agent.push_to_hub("me/agent", token=hub.token)
    assert (hub.repos, hub.requests) == ({}, [])
    agent.push_to_hub("me/agent", token=hub.token, leave_out=["model"])
    assert CodeAgent.from_hub("me/agent", model=agent.model).model is agent.model


def test_what_is_no_agent(hub: Hub) -> None:  # noqa: F811
    hub.put("space", "me/other", {"app.py": b"", "sub/agent.json": b"{}"})
    with pytest.raises(AgentError, match=r"the Space me/other has no agent\.json"):
        CodeAgent.from_hub("me/other")
    with pytest.raises(ToolUnavailable, match="me/gone"):
        CodeAgent.from_hub("me/gone")


def test_a_space_that_is_too_large(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Nothing of it is fetched."""
    many = {f"tools/t{number}.py": b"1" for number in range(sharing_hub.MAX_FILES)}
    hub.put("space", "me/many", {"agent.json": b"{}", **many})
    with pytest.raises(AgentError, match="this one has more"):
        CodeAgent.from_hub("me/many")
    hub.put("space", "me/large", {"agent.json": b"{}", "tools/x.py": b"1" * 2_000})
    monkeypatch.setattr(sharing_hub, "MAX_TOTAL", 1_000)
    with pytest.raises(AgentError, match="this one has more"):
        CodeAgent.from_hub("me/large")
    monkeypatch.setattr(sharing_hub, "MAX_LISTED", 2)
    with pytest.raises(AgentError, match="has more than 2 files"):
        CodeAgent.from_hub("me/many")
    assert not any("/resolve/" in line for line in hub.requests)
