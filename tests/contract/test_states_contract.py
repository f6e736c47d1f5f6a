"""What every sandbox backend must do: going back, and what is told of it."""

import pytest

from orchestrator import Sandbox, State, Status
from orchestrator.errors import CheckpointError
from orchestrator.events import Files

pytestmark = pytest.mark.docker
HANG = "sum(range(10**12))"


# Going back.


def test_a_named_checkpoint_is_gone_back_to_as_often_as_wanted(box: Sandbox) -> None:
    box.run_code("x = [1]")
    kept = box.checkpoint("start")
    for turn in range(3):
        box.run_code(f"x.append({turn})")
        back = box.rollback("start" if turn else kept)
        assert (back.checkpoint.name, back.files) == ("start", Files.RESTORED)
        assert box.run_code("x").value == [1]


def test_going_back_by_execution_count(box: Sandbox) -> None:
    for i in range(1, 5):
        box.run_code(f"x = {i}")
    for count in (2, 4, 1, 3):
        assert box.rollback(count).checkpoint.execution_count == count
        assert box.run_code("x").value == count


def test_execution_zero_is_a_fresh_interpreter(box: Sandbox) -> None:
    box.run_code("x = 1")
    box.rollback(0)
    assert box.run_code("'x' in globals()").value is False


def test_counts_never_go_back(box: Sandbox) -> None:
    box.run_code("x = 1")
    box.run_code("x = 2")
    box.rollback(1)
    assert box.run_code("x").execution_count == 3
    (now,) = [c for c in box.checkpoints if c.is_current]
    assert (now.execution_count, now.follows) == (3, 1)


def test_undo_goes_back_along_the_way_that_led_here(box: Sandbox) -> None:
    for i in range(1, 4):
        box.run_code(f"x = {i}")
    box.rollback(1)
    box.run_code("x = 'other'")
    assert box.undo().checkpoint.execution_count == 1
    assert box.undo().checkpoint.execution_count == 0
    with pytest.raises(CheckpointError, match="Kept are"):
        box.undo()


def test_an_execution_that_was_killed_is_no_state_to_go_back_to(box: Sandbox) -> None:
    box.run_code("x = 1")
    killed = box.run_code(f"x = 2; {HANG}", timeout=1.0)
    assert (killed.status, killed.state, killed.restored_to) == (Status.TIMEOUT, State.RESTORED, 1)
    with pytest.raises(CheckpointError):
        box.rollback(2)
    assert box.run_code("x").value == 1


def test_after_an_error_the_state_is_kept_and_can_be_undone(box: Sandbox) -> None:
    box.run_code("x = 1")
    failed = box.run_code("x = 2\n1/0")
    assert (failed.status, failed.state, failed.restored_to) == (Status.ERROR, State.KEPT, None)
    assert box.run_code("x").value == 2
    box.undo()
    assert box.undo().checkpoint.execution_count == 1
    assert box.run_code("x").value == 1


def test_a_rollback_to_what_is_not_there_lists_what_is(box: Sandbox) -> None:
    box.run_code("x = 1")
    box.checkpoint("clean data")
    for target in ("dirty", 17, 2**63):
        with pytest.raises(CheckpointError, match=r"Kept are: execution 0, 'clean data' \(execution 1\)"):
            box.rollback(target)
    with pytest.raises(CheckpointError):
        box.rollback(-1)
    for nonsense in (None, 1.5, True, b"clean data"):
        with pytest.raises(TypeError):
            box.rollback(nonsense)  # type: ignore[arg-type]
    assert box.run_code("x").value == 1


def test_functions_imports_and_numpy_arrays_go_back_too(box: Sandbox) -> None:
    box.run_code("import numpy as np\na = np.zeros(1_000_000)\ndef f(): return 'old'")
    box.checkpoint("old")
    box.run_code("a += 1; del np\ndef f(): return 'new'")
    box.rollback("old")
    assert box.run_code("f(), float(a.sum()), np.__name__").value == ("old", 0.0, "numpy")


# Randomness.


def test_going_back_does_not_repeat_random_numbers_but_a_seed_of_the_users_holds(box: Sandbox) -> None:
    draw = (
        "import random, uuid, numpy\n"
        "random.random(), str(uuid.uuid4()), float(numpy.random.rand()), next(tempfile._get_candidate_names())"
    )
    box.run_code("import random, numpy, tempfile\ntempfile._get_candidate_names()")
    box.checkpoint("unseeded")
    drawn = []
    for _ in range(3):
        box.rollback("unseeded")
        drawn.append(box.run_code(draw).value)
    assert all(len(set(column)) == 3 for column in zip(*drawn, strict=True))
    box.run_code("random.seed(1); numpy.random.seed(1)")
    box.checkpoint("seeded")
    fixed = "(random.random(), float(numpy.random.rand()))"
    first = box.run_code(fixed).value
    box.rollback("seeded")
    assert box.run_code(fixed).value == first
    box.rollback("seeded")
    assert box.run_code(HANG, timeout=1.0).state is State.RESTORED
    assert box.run_code(fixed).value == first
    assert first[0] == pytest.approx(0.13436424411240122)  # what CPython gives for random.seed(1)
