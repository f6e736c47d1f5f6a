"""An agent's own sandbox that somebody else looks at, and takes back: the agent goes on with what is there."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestrator.agents import ActionStep, CodeAgent
from orchestrator.agents.recording import load_recording
from orchestrator.agents.run import Rebuilt
from orchestrator.agents.watching import Watched
from orchestrator.agents.workplace import OwnWorkplace
from orchestrator.errors import AgentError, AuditError, ModelUnavailable
from orchestrator.events import Execution, ExecutionEvent, Files
from orchestrator.models import ScriptedModel
from orchestrator.sandbox import Portal
from orchestrator.sandbox.state import Checkpoint, Rollback
from tests.unit.fake_sandbox import FakeSettings, answered
from tests.unit.local_sandbox import LocalSandbox, LocalSettings
from tests.unit.recorded_agents import agent, lines, notes
from tests.unit.scripted_agents import requests, step


@dataclass
class Seen:
    """What a watcher is told."""

    opened_ones: list[Watched] = field(default_factory=list)
    closed_ones: list[Watched] = field(default_factory=list)
    refuses: bool = False

    async def opened(self, watched: Watched) -> None:
        if self.refuses:
            raise AuditError("it cannot be recorded")
        self.opened_ones.append(watched)

    async def closed(self, watched: Watched) -> None:
        self.closed_ones.append(watched)


class Rewinding(LocalSandbox):
    """Its variables at each execution's end are kept."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.ends: dict[int, dict[str, Any]] = {0: {}}
        self.files_go_back = True

    def _run(self, code: str) -> Execution:
        done = super()._run(code)
        self.ends[self.count + 1] = dict(self.names)
        return done

    async def rollback(self, to: Any) -> Rollback:
        self.names = dict(self.ends[to])
        return Rollback(Checkpoint(to, "", to), Files.RESTORED if self.files_go_back else Files.KEPT)


@dataclass(frozen=True)
class RewindingSettings(LocalSettings):
    def make(self, tools: Sequence[Any], authorized_imports: Sequence[str]) -> Rewinding:
        made = Rewinding(tools, authorized_imports=authorized_imports)
        self.made.append(made)
        return made


def watched_agent(path: Path | None, codes: Sequence[str], back: dict[int, int], **more: Any) -> tuple[CodeAgent, Seen]:
    """One whose sandbox is taken back after steps, to the end of an execution."""
    seen = Seen()

    async def after(step: ActionStep, agent: CodeAgent) -> None:
        if (to := back.get(step.step_number)) is not None:
            (watched,) = seen.opened_ones
            await watched.take_back(partial(watched.sandbox.rollback, to))

    made = CodeAgent(
        [],
        ScriptedModel([step(code) for code in codes]),
        sandbox=RewindingSettings(watcher=seen, **more),
        verbosity_level=-1,
        record=path,
        step_callbacks=[after],
    )
    return made, seen


def test_a_watcher_is_told_of_each_sandbox_from_its_start_to_its_end() -> None:
    seen = Seen()
    scripts: list[Any] = [[answered(1), answered(2)], [answered(3)]]
    model = ScriptedModel([step("1"), step("2"), step("3")])
    made = CodeAgent([], model, sandbox=FakeSettings(scripts=scripts, watcher=seen), verbosity_level=-1)
    made.run("One.")
    made.run("Two.")
    assert [watched.count for watched in seen.opened_ones] == [2]
    assert seen.closed_ones == []
    twin = made.copy_for_call()
    assert twin.run("Three.") == 3
    twin.close()
    made.close()
    assert len(seen.opened_ones) == 2
    assert {id(watched) for watched in seen.closed_ones} == {id(watched) for watched in seen.opened_ones}


def test_a_sandbox_that_its_watcher_does_not_want_is_closed_unused() -> None:
    seen = Seen(refuses=True)
    settings = FakeSettings(scripts=[[answered(1)]], watcher=seen)
    made = CodeAgent([], ScriptedModel([step("1")]), sandbox=settings, verbosity_level=-1)
    with pytest.raises(AuditError):
        made.run("Task.")
    (sandbox,) = settings.made
    assert (sandbox.codes, sandbox.closes) == ([], 1)


def test_the_model_is_told_before_it_is_asked_again_and_variables_are_there_again() -> None:
    codes = ["x = data", "y = 1", "final_answer(['x' in globals(), 'y' in globals(), data])"]
    made, _ = watched_agent(None, codes, {2: 0})
    assert made.run("Task.", additional_args={"data": 5}) == [False, False, 5]
    (note,) = notes(made)
    assert "Variables and files are as they were in the beginning" in note
    assert note in requests(made)[2][-1].content


@pytest.mark.parametrize(("to", "told"), [(1, "after step 1"), (0, "in the beginning")])
def test_what_is_told_names_the_step(to: int, told: str) -> None:
    made, seen = watched_agent(None, ["x = 1", "y = 1", "final_answer(1)"], {2: to})
    made.run("Task.")
    assert f"Variables and files are as they were {told}: what later code did" in notes(made)[0]
    assert seen.opened_ones[0].news == []


def test_a_record_makes_the_state_again_that_was_gone_back_to(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    first, _ = watched_agent(path, ["x = data", "y = 1", "z = [x, data]"], {2: 0})
    with pytest.raises(ModelUnavailable):  # the program ends
        first.run("Task.", additional_args={"data": 5})
    assert [line for line in lines(path) if line["kind"] == "back"] == [
        {"kind": "back", "to": 0, "at": 2, "files": True}
    ]
    again = agent(path, ["final_answer(['y' in globals(), data])"])
    assert again.resume() == [False, 5]
    (made,) = again.settings.made  # type: ignore[attr-defined]
    assert made.codes == ["z = [x, data]", "final_answer(['y' in globals(), data])"]


def test_it_is_in_the_record_before_it_is_answered(tmp_path: Path) -> None:
    """A crash before the agent's next turn neither undoes it nor keeps it from the model."""
    path, crashed = tmp_path / "run.jsonl", tmp_path / "crashed.jsonl"
    seen = Seen()

    async def after(step: ActionStep, agent: CodeAgent) -> None:
        if step.step_number == 3:
            (watched,) = seen.opened_ones
            await watched.take_back(partial(watched.sandbox.rollback, 1))
            shutil.copy(path, crashed)

    model = ScriptedModel([step(code) for code in ("x = 1", "y = 1", "z = 1", "w = 1")])
    settings = RewindingSettings(watcher=seen)
    made = CodeAgent([], model, sandbox=settings, verbosity_level=-1, record=path, step_callbacks=[after])
    with pytest.raises(ModelUnavailable):
        made.run("Task.")
    assert lines(crashed)[-1] == {"kind": "back", "to": 1, "at": 3, "files": True}
    assert [line["kind"] for line in lines(path)].count("back") == 1
    again = agent(crashed, ["final_answer([x, 'y' in globals()])"])
    with pytest.raises(AgentError, match="taken the Python state back to what it was after step 1"):
        again.resume(strict=True)
    assert again.resume() == [1, False]
    assert "somebody else has taken the Python state back" in notes(again)[0]
    later = agent(path, ["final_answer(w)"])
    assert later.resume(strict=True) == 1  # there the model has been told


def test_one_in_the_midst_of_a_rebuilding_is_recorded_when_the_record_tells_of_that(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    first, _ = watched_agent(path, ["x = 1", "y = 1"], {})
    with pytest.raises(ModelUnavailable):
        first.run("Task.")
    seen = Seen()

    class Midway(Rewinding):
        async def stream(self, code: str, **more: Any) -> AsyncGenerator[ExecutionEvent, None]:
            if code == "y = 1":
                await seen.opened_ones[0].take_back(partial(self.rollback, 0))
            async for event in super().stream(code, **more):
                yield event

    again, _ = watched_agent(path, ["final_answer(['x' in globals(), y])"], {})
    again._workplace = OwnWorkplace(lambda: Midway([]), again.authorized_imports, frozenset(), seen)
    assert again.resume() == [False, 1]
    kinds = [line["kind"] for line in lines(path)]
    assert kinds.index("back") == kinds.index("rebuilt") + 1
    assert "Somebody else has taken" in notes(again)[0]


def test_one_right_after_a_rebuilding_is_recorded_at_once(tmp_path: Path) -> None:
    path, crashed = tmp_path / "run.jsonl", tmp_path / "crashed.jsonl"
    first, _ = watched_agent(path, ["x = 1", "y = 1"], {})
    with pytest.raises(ModelUnavailable):
        first.run("Task.")
    again, seen = watched_agent(path, ["final_answer(['x' in globals(), 'y' in globals()])"], {})

    async def goes_on() -> Any:
        async with aclosing(again.astream_resume()) as events:
            async for event in events:
                if isinstance(event, Rebuilt):
                    (watched,) = seen.opened_ones
                    await watched.take_back(partial(watched.sandbox.rollback, 1))
                    shutil.copy(path, crashed)
        return event.output

    assert Portal.run(goes_on()) == [True, False]
    assert lines(crashed)[-1] == {"kind": "back", "to": 1, "at": 2, "files": True}


def test_what_has_run_since_is_in_the_state_that_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    made, seen = watched_agent(path, ["x = 1", "y = 1", "z = 1"], {})

    class Waiting(Rewinding):
        """It is taken back while the third execution waits for somebody's leave."""

        async def stream(self, code: str, **more: Any) -> AsyncGenerator[ExecutionEvent, None]:
            if code == "z = 1":
                await seen.opened_ones[0].take_back(partial(self.rollback, 0))
            async for event in super().stream(code, **more):
                yield event

    made._workplace._make = Waiting
    with pytest.raises(ModelUnavailable):
        made.run("Task.", additional_args={"data": 5})
    recording = load_recording(path)
    (action,) = recording.actions
    assert (recording.count, action.step.code_action, action.variables) == (3, "z = 1", {})
    assert (recording.variables, recording.untold) == ({"data": 5}, [])  # it is told, and given in the next step
    assert lines(path)[-3] == {"kind": "back", "to": 0, "at": 2, "files": True}


def test_what_was_made_again_can_be_taken_back_too(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    first, _ = watched_agent(path, ["x = data", "y = 1"], {})
    with pytest.raises(ModelUnavailable):
        first.run("Task.", additional_args={"data": 5})
    again, seen = watched_agent(path, ["z = 1", "final_answer(['y' in globals(), 'z' in globals(), data])"], {3: 0})
    assert again.resume() == [False, False, 5]
    assert seen.opened_ones[0].count == 4


def test_a_state_that_the_steps_do_not_make_again_is_told(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    first, _ = watched_agent(path, ["x = 1", "y = 1", "z = 1", "w = 1"], {2: 0, 3: 1})
    with pytest.raises(ModelUnavailable):
        first.run("Task.")
    again = agent(path, ["final_answer(1)"])
    again.resume()
    assert "somebody had taken the state back to one that these steps do not make" in notes(again)[-1]


def test_files_that_were_kept_are_told_of_then_and_later(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    made, seen = watched_agent(path, ["x = 1", "y = 1"], {1: 0})

    async def keep(watched: Watched) -> None:
        watched.sandbox.files_go_back = False  # type: ignore[attr-defined]
        seen.opened_ones.append(watched)

    seen.opened = keep  # type: ignore[method-assign]
    with pytest.raises(ModelUnavailable):
        made.run("Task.")
    assert "Files are as later steps have left them." in notes(made)[0]
    again = agent(path, ["final_answer(1)"])
    again.resume()
    assert "files were kept when somebody had taken the variables back, and are not there" in notes(again)[-1]
