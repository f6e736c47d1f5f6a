"""What every sandbox backend must do: which states are kept, under which names, and for how long."""

from collections.abc import Callable

import pytest

from orchestrator import Limits, Sandbox, State, Status
from orchestrator.errors import CheckpointError
from tests.contract.conftest import in_process

# They are about the supervisor, far below the API, and take long.
pytestmark = [pytest.mark.docker, in_process]
HANG = "sum(range(10**12))"


def test_the_last_few_are_kept_and_the_oldest_go_first(make: Callable[..., Sandbox]) -> None:
    with make(limits=Limits(checkpoints=3)) as box:
        for i in range(1, 7):
            box.run_code(f"x = {i}")
        assert [c.execution_count for c in box.checkpoints] == [4, 5, 6]
        with pytest.raises(CheckpointError, match="Kept are: execution 4, execution 5, execution 6"):
            box.rollback(3)


def test_eight_are_kept_by_default(box: Sandbox) -> None:
    for i in range(12):
        box.run_code(f"x = {i}")
    assert [c.execution_count for c in box.checkpoints] == list(range(5, 13))


def test_a_state_that_is_gone_back_to_again_and_again_is_kept(box: Sandbox) -> None:
    """As an agent does whose actions fail, one after the other."""
    box.run_code("x = 'good'")
    for i in range(12):
        box.run_code(f"x = {i}\n1/0")
        assert box.undo().checkpoint.execution_count == 1
    assert box.run_code("x").value == "good"


def test_a_named_one_is_kept_until_it_is_dropped(make: Callable[..., Sandbox]) -> None:
    with make(limits=Limits(checkpoints=2)) as box:
        box.run_code("x = 'named'")
        kept = box.checkpoint("name")
        for i in range(5):
            box.run_code(f"x = {i}")
        box.rollback("name")
        assert box.run_code("x").value == "named"
        box.drop(kept)
        with pytest.raises(CheckpointError):
            box.rollback("name")
        with pytest.raises(CheckpointError):
            box.drop("name")


def test_a_name_is_used_once_and_is_free_again_when_dropped(box: Sandbox) -> None:
    box.run_code("x = 1")
    box.checkpoint("name")
    box.run_code("x = 2")
    with pytest.raises(CheckpointError, match="already"):
        box.checkpoint("name")
    box.drop("name")
    box.checkpoint("name")
    box.run_code("x = 3")
    box.rollback("name")
    assert box.run_code("x").value == 2


def test_one_state_may_have_two_names(box: Sandbox) -> None:
    box.run_code("x = 1")
    assert box.checkpoint("a").execution_count == box.checkpoint("b").execution_count == 1
    box.run_code("x = 2")
    box.drop("a")
    box.rollback("b")
    assert box.run_code("x").value == 1


@pytest.mark.parametrize("name", ["x" * 201, "a\nb", "\x1b[31m", "\u202e"])
def test_a_name_that_cannot_be_shown_is_refused(box: Sandbox, name: str) -> None:
    with pytest.raises(CheckpointError):
        box.checkpoint(name)
    assert box.run_code("1").ok


def test_dropping_the_present_state_leaves_what_a_kill_goes_back_to(box: Sandbox) -> None:
    box.run_code("x = 1")
    box.drop(box.checkpoint("now"))
    assert box.run_code(HANG, timeout=1.0).state is State.RESTORED
    assert box.run_code("x").value == 1


def test_there_is_a_bound_on_what_is_kept_for_good(box: Sandbox) -> None:
    for i in range(32):
        box.run_code(f"x = {i}")
        box.checkpoint(f"number {i}")
    with pytest.raises(CheckpointError, match="drop one"):
        box.checkpoint("one too many")
    box.rollback("number 7")
    assert box.run_code("x").value == 7


def test_the_list_tells_age_count_and_memory(box: Sandbox) -> None:
    box.run_code("import os\nblob = bytearray(os.urandom(1)) * (30 << 20)")
    box.checkpoint("with blob")
    box.run_code("blob = None")
    listed = {str(c): c for c in box.checkpoints}
    assert list(listed) == ["execution 0", "'with blob' (execution 1)", "execution 2"]
    holder = listed["'with blob' (execution 1)"]
    assert 30 << 20 < holder.memory_bytes < 60 << 20
    assert holder.memory_bytes > 10 * listed["execution 2"].memory_bytes
    assert holder.age >= listed["execution 2"].age >= 0
    assert [c.is_current for c in listed.values()] == [False, False, True]


def test_older_states_go_when_memory_gets_scarce_and_the_newest_does_not(make: Callable[..., Sandbox]) -> None:
    with make(limits=Limits(memory="256m", checkpoint_memory=0.4)) as box:
        for i in range(6):
            assert box.run_code(f"blob = bytearray(b'{i}') * (40 << 20)").ok
        assert len(box.checkpoints) < 5
        killed = box.run_code(f"blob = None; {HANG}", timeout=1.0)
        assert killed.state is State.RESTORED
        assert box.run_code("blob[:1], len(blob)").value == (b"5", 40 << 20)


def test_older_states_make_room_while_code_needs_memory(make: Callable[..., Sandbox]) -> None:
    with make(limits=Limits(memory="256m", checkpoint_memory=1.0)) as box:
        for i in range(3):
            assert box.run_code(f"blob = bytearray(b'{i}') * (40 << 20)").ok
        grown = box.run_code(
            "import time\nmore = []\nfor _ in range(18):\n    more.append(b'x' * (5 << 20)); time.sleep(0.05)"
        )
        assert (grown.status, grown.state) == (Status.OK, State.KEPT)
