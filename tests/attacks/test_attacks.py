"""Every attack of the corpus, in each column of the matrix, and everybody else looked at afterwards.

The matrix: the import policy on and off, Landlock on and off. A case passes in a column if it does not get to what it
is after, or, where its declaration says that nothing holds it there, if it does: so each claim that a layer holds
something has a column that would show it if it did not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from executor_image.launcher import landlock
from orchestrator import Config, Sandbox
from tests.attacks import case as cases
from tests.attacks.case import CELLS, Case, Cell, Place
from tests.attacks.control import Controls, run_controls
from tests.attacks.field import Field
from tests.attacks.images import ENVIRONMENT, OPEN, SECRET, canary_image, native_image
from tests.attacks.oracle import Watch
from tests.attacks.registry import CASES
from tests.attacks.report import Report
from tests.attacks.target import NEIGHBOURS_OWN, Attack, Canaries, Listeners, Neighbour, Target
from tests.endings import DENIED, HEARD, KILLED, tried

pytestmark = pytest.mark.docker

NEIGHBOUR, HOST = b"CANARY-X-1d93c7a05be2", b"CANARY-H-60be8f2a47d9"


@pytest.fixture(scope="module")
def listeners() -> Iterator[Listeners]:
    listeners = Listeners()
    yield listeners
    listeners.close()


@pytest.fixture(scope="module")
def controls(
    request: pytest.FixtureRequest, listeners: Listeners, tmp_path_factory: pytest.TempPathFactory
) -> Controls:
    """Of the cases that this run has, all in one go."""
    wanted = {item.callspec.params["case"].id for item in request.session.items if _is_control(item)}
    chosen = [case for case in CASES if case.id in wanted]
    found = run_controls(chosen, native_image(), listeners, tmp_path_factory.mktemp("control"))
    listeners.reached()  # they were, by the controls
    return found


def _is_control(item: pytest.Item) -> bool:
    return item.name.startswith(test_the_attack_works_where_nothing_guards.__name__ + "[")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The audit log of every sandbox that is attacked."""
    return tmp_path_factory.mktemp("log") / "audit.jsonl"


@pytest.fixture(scope="module")
def field(config: Config, listeners: Listeners, log: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    canaries = Canaries(SECRET, OPEN, ENVIRONMENT, NEIGHBOUR, HOST)
    folder = tmp_path_factory.mktemp("host")
    images = {False: canary_image(), True: native_image()}
    imports = ["numpy", NEIGHBOURS_OWN, "ctypes", "errno"]  # as it has to look for what no Python module shows
    neighbour = Neighbour(Sandbox(authorized_imports=imports, config=replace(config, image=images[True])), NEIGHBOUR)
    field = Field(config, images, neighbour, listeners, canaries, folder / "canary-h", log)
    yield field
    field.close()
    neighbour.close()


@pytest.fixture(scope="module")
def watch(config: Config, field: Field, log: Path) -> Iterator[Watch]:
    watch = Watch(config, field)
    yield watch
    watch.nothing_has_piled_up()
    watch.the_record_holds(log)


@pytest.mark.parametrize("case", [c for c in CASES if c.control.place is not Place.NOWHERE], ids=str)
def test_the_attack_works_where_nothing_guards(case: Case, controls: Controls, report: Report) -> None:
    if controls.is_absent(case):
        report.control(case, "not on this machine")
        return
    seen = controls.judge(case)
    report.control(case, "works" if not seen else "FAILED")
    assert not seen, seen


ORDER = [(case, native, cell) for native in (False, True) for cell in CELLS for case in CASES if case.native is native]


@pytest.mark.parametrize(
    ("case", "cell"), [(case, cell) for case, _, cell in ORDER], ids=[f"{case}-{cell.id}" for case, _, cell in ORDER]
)
def test_it_does_not_work(case: Case, cell: Cell, field: Field, watch: Watch, report: Report) -> None:
    if cell.landlock and not landlock.version():
        pytest.skip("this kernel has no Landlock")
    target = field.target(cell, case.native)
    with report.of(case, cell), watch.over(target) as neighbour:
        attack = tried(lambda: attacked(case, target), came_too_late)
        report.reached(case, cell, attack.reached)
        got_where_it_should(attack)
        ended_as_it_may(attack)
        if case.check:
            case.check(attack)
        neighbour.result(cases.AMPLE)
        watch.everybody_is_well(attack)


def attacked(case: Case, target: Target) -> Attack:
    steps = [target.filled_in(step, case.canary) for step in case.steps]
    return Attack(case, target, tuple(target.run(step, case.timeout) for step in steps))


def came_too_late(attack: Attack) -> bool:
    """Code that hangs was not reached within its time, or did not hear within the grace."""
    return attack.case.timeout == cases.HANG and attack.ending in {HEARD, KILLED} - attack.case.endings


def got_where_it_should(attack: Attack) -> None:
    case, held = attack.case, attack.case.is_held(attack.cell)
    if held:
        assert not attack.reached, f"it worked: {attack.whole_text[:2000]}"
    else:
        assert attack.reached, f"something holds it here, and the case does not say what: {attack.whole_text[:2000]}"
    if held and case.says and not (case.denied and attack.cell.policy):
        assert re.search(case.says, attack.whole_text), attack.whole_text[:2000]


def ended_as_it_may(attack: Attack) -> None:
    if attack.case.denied and attack.cell.policy:
        first = attack.outcomes[0]
        assert getattr(first, "status", first) is DENIED[0], first
        assert first.error is not None
        assert first.error.name == "ImportNotAllowed"
        return
    assert attack.ending in attack.case.endings, attack.outcomes[-1]
