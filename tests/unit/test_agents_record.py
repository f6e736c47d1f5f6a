"""The file that runs are recorded in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.agents import ActionStep, CodeAgent
from orchestrator.agents.recording import load_recording
from orchestrator.agents.steps import NoteStep
from orchestrator.errors import AgentError
from tests.unit.pictures import PICTURE
from tests.unit.recorded_agents import FIRST, Counter, agent, crashed, lines
from tests.unit.scripted_agents import requests


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.jsonl"


# The file.


def test_the_record_is_its_owners_alone_and_each_line_is_there_at_once(path: Path) -> None:
    seen: list[int] = []
    first = agent(path, ["1", "final_answer(1)"], step_callbacks=[lambda s, agent: seen.append(len(lines(path)))])
    first.run("Task.")
    assert path.stat().st_mode & 0o077 == 0
    assert [line["kind"] for line in lines(path)] == ["begin", "sandbox", "run", "step", "step", "step"]
    assert seen == [4, 5]


def test_a_picture_that_a_callback_adds_is_recorded(path: Path) -> None:
    def add_picture(step: ActionStep, agent: CodeAgent) -> None:
        step.observations_images = (PICTURE,)

    crashed(path, ["1"], step_callbacks=[add_picture])
    again = agent(path, ["final_answer(1)"])
    again.resume()
    assert requests(again)[0][-1].images == (PICTURE,)


def test_a_step_is_recorded_whatever_a_callback_adds_to_the_memory(path: Path) -> None:
    def add_note(step: ActionStep, agent: CodeAgent) -> None:
        agent.memory.append(NoteStep("noted"))

    crashed(path, ["x = 1", "y = 2"], step_callbacks=[add_note])
    again = agent(path, ["final_answer(x + y)"])
    assert again.resume(strict=True) == 3
    assert [s.code_action for s in again.memory.steps if isinstance(s, ActionStep)][:2] == ["x = 1", "y = 2"]


def test_a_callback_that_raises_does_not_lose_the_step(path: Path) -> None:
    def fail(step: ActionStep) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        agent(path, ["x = add(1)"], counter := Counter(), step_callbacks=[fail]).run("Task.")
    assert agent(path, ["final_answer(x)"], counter).resume(strict=True) == 1
    assert counter.calls == [1]


def test_wherever_it_is_cut_the_run_goes_on(path: Path) -> None:
    """After each line, and in the middle of each."""
    counter = Counter()
    crashed(path, FIRST, counter)
    data, calls = path.read_bytes(), list(counter.calls)
    ends = [i + 1 for i, byte in enumerate(data) if byte == 10]
    starts = [0, *ends[:-1]]
    for cut in sorted({*ends, *((a + b) // 2 for a, b in zip(starts, ends, strict=True))}):
        path.write_bytes(data[:cut])
        again = agent(path, ["final_answer(1)"], counter)
        if b'"kind": "run"' not in data[: cut - 1] or load_or_none(path) is None:
            with pytest.raises(AgentError):
                again.resume()
        else:
            assert again.resume() == 1
            assert requests(again)[0][1].content.count("New task:\nTask.") == 1
        assert counter.calls == calls


def load_or_none(path: Path) -> Any:
    return load_recording(path).run


def test_a_record_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="cannot be recorded"):
        agent(tmp_path / "nowhere" / "run.jsonl", ["1"]).run("Task.")


def test_there_must_be_something_to_go_on_with(path: Path, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="give the path"):
        agent(None, []).resume()
    with pytest.raises(AgentError, match="cannot be read"):
        agent(path, []).resume()
    crashed(path, ["1"])
    other = agent(tmp_path / "other.jsonl", ["final_answer(1)"])
    other.run("Other.")
    with pytest.raises(AgentError, match="worked on something else"):
        other.resume(path)


BEGIN = {"kind": "begin", "format": "cellblock-run", "version": 1}
RUN = {"kind": "run", "task": "t", "images": [], "args": {}, "limit": 5, "reset": True, "under_way": False}
CALL = {"kind": "call", "call": 1, "name": "add", "args": {"$type": "tuple", "items": []}, "kwargs": {}}


@pytest.mark.parametrize(
    "written",
    [
        [],
        [RUN],
        [{**BEGIN, "version": 2}],
        [{**BEGIN, "format": "pickle"}],
        [BEGIN, {**RUN, "limit": 0}],
        [BEGIN, {**RUN, "limit": "5"}],
        [BEGIN, {**RUN, "task": None}],
        [BEGIN, {**RUN, "args": []}],
        [BEGIN, {**RUN, "images": ["x"]}],
        [BEGIN, {**RUN, "args": {"$type": "dict", "items": [[1, 2]]}}],
        [BEGIN, {"kind": "run"}],
        [BEGIN, RUN, {"kind": "step", "step": {"kind": "system_prompt", "system_prompt": "x"}, "state": {}}],
        [BEGIN, RUN, {"kind": "step", "step": {"kind": "task", "task": "t"}, "state": []}],
        [BEGIN, RUN, {"kind": "step", "state": {}}],
        [BEGIN, RUN, {"kind": "view", "view": {"covered": 9, "shown": []}}],
        [BEGIN, RUN, {**CALL, "call": -1}],
        [BEGIN, RUN, {**CALL, "args": []}],
        [BEGIN, RUN, CALL, {"kind": "end", "call": 1, "end": "eval"}],
        [BEGIN, RUN, CALL, {"kind": "end", "call": 1, "end": "error", "error": 1, "message": "m"}],
        [BEGIN, RUN, CALL, {"kind": "end", "call": 1, "end": "value", "value": {"$type": "x"}}],
        [BEGIN, RUN, {"kind": "rebuilt", "counts": [[1]]}],
        [BEGIN, RUN, {"kind": "rebuilt", "counts": 1}],
        [BEGIN, RUN, {"kind": "sandbox", "name": 1}],
        [BEGIN, {"kind": "__init__"}, RUN],
        [BEGIN, {"kind": ["begin"]}, RUN],
        [BEGIN, "text", RUN | {"kind": "step"}],
    ],
)
def test_what_is_no_record_is_refused(path: Path, written: Sequence[Any]) -> None:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in written))
    with pytest.raises(AgentError, match="cannot be read"):
        agent(path, []).resume()


@pytest.mark.parametrize("data", [b"\x00" * 100, b"\xff\n\xff\n", b"[" * 100_000])
def test_files_that_are_no_record(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(AgentError, match="cannot be read"):
        agent(path, []).resume()
