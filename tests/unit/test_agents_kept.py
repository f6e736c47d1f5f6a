"""A sandbox that outlives its program, and the agent that goes on in it: what of its state is the run's own."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.agents import CodeAgent
from orchestrator.agents.run import RunResult
from orchestrator.errors import CheckpointError, ModelUnavailable
from orchestrator.events import Execution, ExecutionEvent, Files, State, Status
from orchestrator.models import ScriptedModel
from orchestrator.sandbox.state import Checkpoint, Rollback
from orchestrator.tools import Tool
from tests.unit.fake_sandbox import FakeSandbox, FakeSettings, Scripted, answered, ran
from tests.unit.scripted_agents import step


@dataclass(frozen=True)
class Left:
    """A container as a crash has left it: ``kept`` are its checkpoints, the last of them the present state."""

    name: str
    kept: Sequence[Checkpoint]
    last: int


@dataclass(frozen=True)
class Spent:
    """In a script: an execution after which there is another container in place of its own."""

    name: str


class NamedSandbox(FakeSandbox):
    """Has a name, and perhaps what was left."""

    def __init__(self, script: Sequence[Scripted], name: str, left: Left | None, **more: Any) -> None:
        super().__init__(script, **more)
        self._name, self.left = name, left
        self.back: list[Any] = []  # where it was taken back to
        self.count = left.last if left else 0
        self.agent: CodeAgent | None = None

    async def _played(self, scripted: Scripted | Spent) -> AsyncGenerator[ExecutionEvent, None]:
        async with aclosing(super()._played(LOST if isinstance(scripted, Spent) else scripted)) as events:
            async for event in events:
                if isinstance(scripted, Spent):
                    self._name, self.count, self.line = scripted.name, 0, [0]
                yield event

    @property
    def name(self) -> str:
        return self._name

    @property
    def last_execution(self) -> int:
        return self.count

    @property
    def was_kept(self) -> bool:
        return self.left is not None

    async def checkpoints(self) -> list[Checkpoint]:
        return list(self.left.kept) if self.left else []

    async def rollback(self, to: Any) -> Rollback:
        for point in await self.checkpoints():
            if point.execution_count == to:
                self.back.append(to)
                return Rollback(point, Files.RESTORED if point.has_files else Files.KEPT)
        raise CheckpointError("there is no such state")


@dataclass(frozen=True)
class NamedSettings(FakeSettings):
    """The first goes on with ``left``, the others are new."""

    left: Left | None = None
    names: list[str] = field(default_factory=list)

    def make(self, tools: Sequence[Tool], authorized_imports: Sequence[str]) -> NamedSandbox:
        left = None if self.made else self.left
        name = left.name if left else self.names.pop(0)
        made = NamedSandbox(self.scripts.pop(0), name, left, tools=tools, authorized_imports=authorized_imports)
        self.made.append(made)
        return made


def state(count: int, *, current: bool = False, files: bool = True) -> Checkpoint:
    return Checkpoint(count + 1, "", count, has_files=files, is_current=current)


UNTOLD = "the files are those that a step which you are not shown has left"
LOST = Execution(Status.DIED, State.LOST, 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.jsonl"


def crashed(path: Path, *script: Scripted | Spent, **run: Any) -> None:
    """The first steps of a run, in a sandbox with the name "first"."""
    settings = NamedSettings(scripts=[list(script)], names=["first"])
    model = ScriptedModel([step(str(number)) for number in range(1, len(script) + 1)])
    with pytest.raises(ModelUnavailable):
        CodeAgent([], model, sandbox=settings, record=path, verbosity_level=-1).run("Task.", **run)


def gone_on(path: Path, left: Left, *again: Scripted) -> tuple[RunResult, list[NamedSandbox]]:
    """The answer of the next program, and its sandboxes. ``again`` is what a new one runs before that."""
    settings = NamedSettings(scripts=[[answered(1)], [*again, answered(1)]], left=left, names=["second"])
    made = CodeAgent([], ScriptedModel([step("end")]), sandbox=settings, record=path, verbosity_level=-1)
    result = made.resume(return_full_result=True)
    for sandbox in settings.made:
        sandbox.agent = made  # which would close it when it is garbage
    return result, settings.made  # type: ignore[return-value]


def test_a_run_goes_on_in_the_sandbox_that_it_had(path: Path) -> None:
    crashed(path, ran("1"), ran("2"))
    result, (sandbox,) = gone_on(path, Left("first", [state(1), state(2, current=True)], 2))
    assert (result.differences, sandbox.codes, sandbox.back) == ((), ["end"], [])


def test_what_the_step_under_way_has_done_is_undone(path: Path) -> None:
    crashed(path, ran("1"), ran("2"))
    result, (sandbox,) = gone_on(path, Left("first", [state(2), state(3, current=True)], 3))
    assert (result.differences, sandbox.codes, sandbox.back) == ((), ["end"], [2])


@pytest.mark.parametrize("files", [True, False])
def test_files_that_a_killed_step_has_left_are_told(path: Path, files: bool) -> None:
    """It was killed, so that the executor has taken the state back; the workspace may have been too large for that."""
    crashed(path, ran("1"), ran("2"))
    left = Left("first", [state(2, current=True, files=files)], 3)
    result, (sandbox,) = gone_on(path, left)
    assert (sandbox.codes, sandbox.back) == (["end"], [])
    assert result.differences == (() if files else (UNTOLD,))


GONE = "step 2 failed, and the files that it left are not there"


@pytest.mark.parametrize(
    ("left", "differences"),
    [
        (Left("first", [state(1, current=True, files=False)], 2), ()),  # all is as the model has been told
        (Left("first", [state(1, current=True, files=True)], 3), (GONE,)),  # one that was killed, and undone
        (Left("first", [state(1, files=True), state(3, current=True)], 3), (GONE,)),  # one that was interrupted
        (Left("first", [state(1, files=False), state(3, current=True)], 3), (UNTOLD,)),
    ],
)
def test_files_of_a_step_that_failed_are_there_unless_files_went_back(
    path: Path, left: Left, differences: tuple[str, ...]
) -> None:
    crashed(path, ran("1"), replace(LOST, files=Files.KEPT, restored_to=1))
    result, (sandbox,) = gone_on(path, left)
    assert (result.differences, sandbox.codes) == (differences, ["end"])


def test_in_a_new_sandbox_they_are_not(path: Path) -> None:
    crashed(path, ran("1"), replace(LOST, files=Files.KEPT, restored_to=1))
    result, _ = gone_on(path, Left("another", [], 0), ran("1"))
    assert result.differences == (GONE,)


STOPPED = Execution(Status.INTERRUPTED, State.KEPT, 1)


def test_variables_of_a_step_that_was_interrupted_are_not_given_twice(path: Path) -> None:
    """They may be others by now."""
    crashed(path, STOPPED, additional_args={"data": [1]})
    _, (sandbox,) = gone_on(path, Left("first", [state(1, current=True)], 1))
    assert (sandbox.codes, sandbox.given) == (["end"], [{}])


def test_a_new_sandbox_has_them_all_the_same(path: Path) -> None:
    crashed(path, STOPPED, additional_args={"data": [1]})
    _, (_, new) = gone_on(path, Left("another", [], 0))
    assert (new.codes, new.given) == (["end"], [{"data": [1]}])


def test_a_new_sandbox_has_them_in_the_next_step_and_they_are_given_again_with_no_other(path: Path) -> None:
    crashed(path, ran("1"), STOPPED, ran("3"), STOPPED, additional_args={"data": [1]})
    settings = NamedSettings(scripts=[[ran("1"), ran("3"), ran("5")]], names=["second"])
    model = ScriptedModel([step("5")])
    with pytest.raises(ModelUnavailable):
        CodeAgent([], model, sandbox=settings, record=path, verbosity_level=-1).resume()
    assert settings.made[0].given == [{"data": [1]}, {}, {}]
    _, (new,) = gone_on(path, Left("second", [state(3, current=True)], 3))
    assert new.given == [{}]


def test_what_was_given_before_a_rebuilding_is_given_in_the_next(path: Path) -> None:
    crashed(path, STOPPED, ran("2"), additional_args={"data": [1]})
    for name in ("second", "third"):
        settings = NamedSettings(scripts=[[ran("2")]], names=[name])
        with pytest.raises(ModelUnavailable):
            CodeAgent([], ScriptedModel([]), sandbox=settings, record=path, verbosity_level=-1).resume()
        assert settings.made[0].given == [{"data": [1]}]


def test_what_somebody_has_taken_back_stays_so_and_is_told(path: Path) -> None:
    crashed(path, ran("1"), ran("2"), additional_args={"data": [1]})
    with path.open("a") as file:
        file.write(json.dumps({"kind": "back", "to": 0, "at": 2, "files": True}) + "\n")
    result, (sandbox,) = gone_on(path, Left("first", [state(0, current=True), state(2)], 2))
    assert result.differences == ("somebody else has taken the Python state back to what it was in the beginning",)
    assert (sandbox.back, sandbox.given) == ([], [{"data": [1]}])


def test_a_sandbox_in_which_less_has_run_is_not_the_runs_own(path: Path) -> None:
    crashed(path, ran("1"), ran("2"))
    left = Left("first", [state(1), state(2, current=True)], 1)
    _, (odd, new) = gone_on(path, left, ran("1"), ran("2"))
    assert (odd.codes, odd.closes, new.codes) == ([], 1, ["1", "2", "end"])


def test_a_half_run_rebuilding_is_not_the_runs_own_state(path: Path) -> None:
    """It counts from one as well."""
    crashed(path, ran("1"), ran("2"))
    left = Left("a rebuilding", [state(1), state(2, current=True)], 2)
    result, (half, whole) = gone_on(path, left, ran("1"), ran("2"))
    assert (half.codes, half.closes) == ([], 1)
    assert (whole.codes, result.differences) == (["1", "2", "end"], ())


def test_after_a_rebuilding_the_new_sandbox_is_the_runs_own(path: Path) -> None:
    crashed(path, ran("1"))
    settings = NamedSettings(scripts=[[ran("1"), ran("2")]], names=["second"])
    again = CodeAgent([], ScriptedModel([step("2")]), sandbox=settings, record=path, verbosity_level=-1)
    with pytest.raises(ModelUnavailable):
        again.resume()
    _, (sandbox,) = gone_on(path, Left("second", [state(2, current=True)], 2))
    assert sandbox.codes == ["end"]


def test_a_container_that_took_the_place_of_a_spent_one_is_the_runs_own(path: Path) -> None:
    """The executor could give no state back: there is nothing in the new one, which counts from one again."""
    crashed(path, ran("1"), Spent("third"), ran("3"))
    _, (sandbox,) = gone_on(path, Left("third", [state(1, current=True)], 1))
    assert (sandbox.codes, sandbox.closes) == (["end"], 0)


def test_where_a_record_does_not_name_its_sandbox_it_is_rebuilt(path: Path) -> None:
    crashed(path, ran("1"))
    path.write_text(path.read_text().replace(', "name": "first"', ""))
    _, (old, new) = gone_on(path, Left("first", [state(1, current=True)], 1), ran("1"))
    assert (old.closes, new.codes) == (1, ["1", "end"])
