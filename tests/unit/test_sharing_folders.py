"""Hostile folders: nothing outside is read, no name is a path, everything is bounded."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator import CodeAgent, ToolCallingAgent
from orchestrator.errors import AgentError
from tests.unit import sharing_parts as parts


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of whoever loads."""
    monkeypatch.setenv("OPENAI_API_KEY", "the-loaders-key")
    monkeypatch.setenv("BRAVE_API_KEY", "the-loaders-key")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    member = ToolCallingAgent([parts.shout], parts.model(), name="member", description="m")
    CodeAgent([parts.Repeat()], parts.model(), managed_agents=[member]).save(tmp_path / "agent")
    return tmp_path / "agent"


def load(folder: Path) -> CodeAgent:
    return CodeAgent.from_folder(folder, trust_remote_code=True)


def change(folder: Path, **changes: Any) -> None:
    file = folder / "agent.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    "path",
    [
        "agent.json",
        "prompts.yaml",
        "tools/repeat.py",
        "tools",
        "managed_agents",
        "managed_agents/member",
        "managed_agents/member/agent.json",
    ],
)
def test_links_are_not_followed(folder: Path, path: str, tmp_path: Path) -> None:
    assert load(folder)
    (folder / path).rename(tmp_path / "outside")
    (folder / path).symlink_to(tmp_path / "outside")
    with pytest.raises(AgentError, match=r"cannot be read .links are not followed."):
        load(folder)


@pytest.mark.parametrize("path", ["agent.json", "tools/repeat.py", "managed_agents/member/agent.json"])
def test_files_that_are_missing_or_none(folder: Path, path: str) -> None:
    (folder / path).unlink()
    with pytest.raises(AgentError, match=f"there is no {path}"):
        load(folder)
    os.mkfifo(folder / path)  # nobody writes into it: reading must not wait
    with pytest.raises(AgentError, match=f"{path} is no file"):
        load(folder)
    (folder / path).unlink()
    (folder / path).mkdir()
    with pytest.raises(AgentError, match=f"{path} is no file"):
        load(folder)


@pytest.mark.parametrize(
    ("tools", "why"),
    [
        ([{"name": "repeat", "code": "/etc/passwd"}], "can be in tools/repeat.py, and nowhere else"),
        ([{"name": "repeat", "code": "tools/../../secret.py"}], "can be in tools/repeat.py, and nowhere else"),
        ([{"name": "../secret", "code": "tools/../secret.py"}], r"\.\./secret is no name"),
        ([{"name": "x" * 300, "code": ""}], "x… is no name"),
        (["../../secret"], "is no name"),
        ([["repeat"]], "tools cannot be"),
        ("repeat", "tools must be a list"),
        ([{"name": "repeat", "code": "print(1)"}], "nowhere else"),
    ],
)
def test_names_are_no_paths(folder: Path, tools: Any, why: str) -> None:
    change(folder, tools=tools)
    with pytest.raises(AgentError, match=why):
        load(folder)


@pytest.mark.parametrize("members", [["../agent"], ["/"], [".."], [{"name": "x"}], ["member/"], 3, ["member"] * 100])
def test_members_are_no_paths(folder: Path, members: Any) -> None:
    change(folder, managed_agents=members)
    with pytest.raises(AgentError, match=r"is no name|must be a list"):
        load(folder)


def test_a_member_of_another_name(folder: Path) -> None:
    change(folder / "managed_agents/member", name="boss")
    with pytest.raises(AgentError, match=r"managed_agents/member/agent.json: the agent calls itself boss"):
        load(folder)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "is no JSON"),
        (b"[]", "must hold an object"),
        (b"\xff\xfe", "is no text in UTF-8"),
        (b'{"a": 1, "a": 2}', "a key is there twice"),
        (b'{"a": NaN}', "NaN is no number"),
        (b"[" * 200_000, "is no JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "is no JSON"),
        (b" " * ((8 << 20) + 1), "has more than 8,388,608 bytes"),
    ],
)
def test_damaged_json(folder: Path, text: bytes, why: str) -> None:
    (folder / "agent.json").write_bytes(text)
    with pytest.raises(AgentError, match=why):
        load(folder)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("!!python/object/apply:os.system ['true']", "is no YAML"),
        ("system_prompt: !!python/name:os.system", "is no YAML"),
        ("a: &a [x]\nb: [*a, *a]", "references are not read"),
        ("- x", "must hold a mapping"),
        ("[" * 20_000, "is no YAML"),
        ("system_prompt: !!int 1:2:3", "is no YAML"),
        ("system_prompt: !own x", "is no YAML"),
        ("planning: !!set {initial_plan}", "is no YAML"),
        ("a: 2026-99-99", "has no part 'a'"),
        ("planning: 2026-01-01", "must be a mapping"),
        ("x" * ((1 << 20) + 1), "has more than 1,048,576 bytes"),
    ],
)
def test_damaged_yaml(folder: Path, text: str, why: str) -> None:
    (folder / "prompts.yaml").write_text(text)
    with pytest.raises(AgentError, match=why):
        load(folder)


@pytest.mark.parametrize(
    "text", ["2026-01-01", "12", "1.5e3", "yes", "null", "0x1f", "<<", "=", "1:2:3", "1" + ":1" * ((1 << 19) - 30)]
)
def test_a_prompt_is_text_however_it_looks(folder: Path, text: str) -> None:
    """No number is made of the last one, which is as long as may be: that takes PyYAML the square of its length."""
    (folder / "prompts.yaml").write_text(f"planning:\n  initial_plan: {text}")
    assert load(folder).prompt_templates["planning"]["initial_plan"] == text


def test_a_prompt_may_say_that_it_is_text(folder: Path) -> None:
    (folder / "prompts.yaml").write_text("!!map {system_prompt: !!str 12, planning: {initial_plan: ! 13}}")
    templates = load(folder).prompt_templates
    assert (templates["system_prompt"], templates["planning"]["initial_plan"]) == ("12", "13")


def test_a_tool_that_is_too_large(folder: Path) -> None:
    (folder / "tools/repeat.py").write_text("#" * ((1 << 20) + 1))
    with pytest.raises(AgentError, match=r"tools/repeat.py has more than 1,048,576 bytes"):
        load(folder)


def test_many_large_files(folder: Path) -> None:
    names = [f"t{number}" for number in range(70)]
    for name in names:
        (folder / f"tools/{name}.py").write_text("#" * (1 << 20))
    change(folder, tools=[{"name": name, "code": f"tools/{name}.py"} for name in names])
    with pytest.raises(AgentError, match="the agent's files have more than 67,108,864 bytes"):
        load(folder)


def test_teams_without_end(folder: Path) -> None:
    place = folder / "managed_agents/member"
    for _ in range(10):
        text = (place / "agent.json").read_text()
        change(place, managed_agents=["member"], tools=[])
        place = place / "managed_agents/member"
        place.mkdir(parents=True)
        (place / "agent.json").write_text(text)
    with pytest.raises(AgentError, match="8 levels"):
        load(folder)


def test_other_files_are_not_looked_at(folder: Path) -> None:
    (folder / "tools/unlisted.py").write_text("raise SystemExit")
    (folder / "app.py").write_text("raise SystemExit")
    (folder / "agent.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    assert list(load(folder).tools) == ["repeat"]


def test_what_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path / "gone", tmp_path / "file", "a\x00b"):
        with pytest.raises(AgentError, match="there is no folder"):
            CodeAgent.from_folder(wrong)


def test_prompts_are_written_so_that_people_can_change_them(folder: Path) -> None:
    text = (folder / "prompts.yaml").read_text()
    assert "system_prompt: |" in text
    assert yaml.safe_load(text) == json.loads(json.dumps(load(folder).prompt_templates))
