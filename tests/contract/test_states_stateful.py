"""Random sequences of what can be done to states, against a model of what the variables and files must be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from orchestrator import Limits, Sandbox, State, Status
from orchestrator.errors import CheckpointError
from orchestrator.events import Files
from tests.contract.conftest import in_process

pytestmark = pytest.mark.docker

KEPT = 4  # automatic checkpoints
EXAMPLES, STEPS = 10, 25
MOST_NAMES, MOST_BRANCHES = 4, 4
SHOW = "import os\n[list(log), {name: open(name).read() for name in sorted(os.listdir('.'))}]"


@dataclass(frozen=True)
class Model:
    """What must be seen: the list ``log``, and the files with their content."""

    log: tuple[int, ...] = ()
    files: tuple[tuple[str, str], ...] = ()

    def with_file(self, name: str, content: str) -> Model:
        return replace(self, files=tuple(sorted({**dict(self.files), name: content}.items())))


@dataclass
class Tracked:
    """A sandbox or branch, and what must be true of it."""

    sandbox: Sandbox
    count: int  # executions so far
    at: int  # whose end the state is of
    model: Model
    way: list[tuple[int, Model]] = field(default_factory=list)  # the states that led to the present one, oldest first
    named: dict[str, tuple[int, Model, list[tuple[int, Model]]]] = field(default_factory=dict)
    open: bool = True

    def arrive(self, model: Model) -> None:
        """The execution that ran last has made this state of the one before."""
        self.way = [*self.way, (self.at, self.model)]
        self.at, self.model = self.count, model


class States(RuleBasedStateMachine):
    """``branches`` holds every sandbox that can be acted on; the first is the one that owns the container."""

    branches: Bundle[Tracked] = Bundle("branches")
    make: Callable[..., Sandbox]

    def __init__(self) -> None:
        super().__init__()
        self._root: Sandbox | None = None
        self._name = 0
        self._all: list[Tracked] = []

    @initialize(target=branches)
    def start(self) -> Tracked:
        self._root = self.make(authorized_imports=["os", "signal"], limits=Limits(checkpoints=KEPT), timeout=20)
        assert self._root.run_code("log = []").ok
        return self._track(Tracked(self._root, 1, 1, Model()))

    def _track(self, tracked: Tracked) -> Tracked:
        self._all.append(tracked)
        return tracked

    def teardown(self) -> None:
        if self._root:
            self._root.close()

    # What is done. A branch that has been closed is left alone.

    @rule(on=branches, value=st.integers(0, 9), fails=st.booleans())
    def execute(self, on: Tracked, value: int, fails: bool) -> None:
        if on.open:
            on.count += 1
            done = on.sandbox.run_code(f"log.append({value})" + ("\n1/0" if fails else ""))
            assert (done.status, done.state) == (Status.ERROR if fails else Status.OK, State.KEPT)
            assert done.execution_count == on.count
            on.arrive(replace(on.model, log=(*on.model.log, value)))

    @rule(on=branches, name=st.sampled_from("abc"), content=st.sampled_from(["", "x", "longer text"]))
    def write_in_code(self, on: Tracked, name: str, content: str) -> None:
        if on.open:
            on.count += 1
            assert on.sandbox.run_code(f"with open({name!r}, 'w') as file: file.write({content!r})\n").ok
            on.arrive(on.model.with_file(name, content))

    @rule(on=branches, name=st.sampled_from("abc"), content=st.sampled_from(["", "h", "from the host"]))
    def write_from_the_host(self, on: Tracked, name: str, content: str) -> None:
        if on.open:
            on.sandbox.files.write(name, content)
            on.model = on.model.with_file(name, content)

    @rule(on=branches, how=st.sampled_from(["os._exit(3)", "os.kill(os.getpid(), 11)", "sum(range(10**12))"]))
    def die(self, on: Tracked, how: str) -> None:
        if on.open:
            on.count += 1
            deaf = "import os, signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
            code = f"{deaf}log.append('damage')\nfor name in 'ad':\n    open(name, 'w').write('damage')\n{how}"
            done = on.sandbox.run_code(code, timeout=0.1)
            if done.state is State.KEPT:  # on a busy machine its time can be over before its first line
                assert done.status is Status.TIMEOUT
                on.arrive(on.model)
                return
            assert (done.state, done.restored_to, done.files) == (State.RESTORED, on.at, Files.RESTORED)

    @rule(on=branches)
    def checkpoint(self, on: Tracked) -> None:
        self._name += 1
        if on.open and len(on.named) < MOST_NAMES:
            name = f"name {self._name}"
            assert on.sandbox.checkpoint(name).execution_count == on.at
            on.named[name] = (on.at, on.model, on.way)

    @rule(on=branches, data=st.data())
    def rollback(self, on: Tracked, data: st.DataObject) -> None:
        if on.open and on.named:
            name = data.draw(st.sampled_from(sorted(on.named)))
            assert on.sandbox.rollback(name).files is Files.RESTORED
            on.at, on.model, on.way = on.named[name]

    @rule(on=branches)
    def undo(self, on: Tracked) -> None:
        if on.open and on.way:
            before, model = on.way[-1]
            try:
                went = on.sandbox.undo()
            except CheckpointError:
                return  # too old to be kept; nothing has changed, which the invariant sees
            assert went.checkpoint.execution_count == before
            on.at, on.model, on.way = before, model, on.way[:-1]

    @rule(on=branches, data=st.data())
    def drop(self, on: Tracked, data: st.DataObject) -> None:
        if on.open and on.named:
            name = data.draw(st.sampled_from(sorted(on.named)))
            on.sandbox.drop(name)
            del on.named[name]

    @rule(target=branches, on=branches)
    def fork(self, on: Tracked) -> Tracked:
        if not on.open or sum(tracked.open for tracked in self._all) >= MOST_BRANCHES:
            return on
        return self._track(Tracked(on.sandbox.fork(), on.at, on.at, on.model))

    @rule(on=branches)
    def close(self, on: Tracked) -> None:
        if on.open and on.sandbox is not self._root:
            on.sandbox.close()
            on.open = False

    # What must be seen after everything, on every branch: looked at from a branch of it, which leaves no trace.

    @invariant()
    def every_branch_is_in_its_own_state(self) -> None:
        for tracked in self._all:
            if tracked.open:
                with tracked.sandbox.fork() as probe:
                    seen = probe.run_code(SHOW)
                assert seen.value == [list(tracked.model.log), dict(tracked.model.files)], seen.error


@in_process
def test_any_sequence_leaves_every_branch_in_the_state_it_must_be_in(make: Callable[..., Sandbox]) -> None:
    class Machine(States):
        pass

    Machine.make = staticmethod(make)
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
