"""What every sandbox backend must do: checkpoints, going back, and what is told of both."""

import threading
from collections.abc import Callable, Iterator

import pytest

from orchestrator import Limits, Sandbox, State, Status
from orchestrator.errors import CheckpointError
from orchestrator.events import Files
from tests.contract.conftest import COUNTING_THREAD, IMPORTS

pytestmark = pytest.mark.docker
HANG = "sum(range(10**12))"


@pytest.fixture
def box(make: Callable[..., Sandbox]) -> Iterator[Sandbox]:
    """A sandbox of the test's own: its executions are counted from 1."""
    with make(authorized_imports=IMPORTS, timeout=20) as sandbox:
        yield sandbox


def names(sandbox: Sandbox) -> list[str]:
    return sorted(entry.path for entry in sandbox.files.list())


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
    killed = box.run_code(f"x = 2; {HANG}", timeout=0.3)
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


# What is kept.


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
    assert box.run_code(HANG, timeout=0.3).state is State.RESTORED
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
        killed = box.run_code(f"blob = None; {HANG}", timeout=0.3)
        assert killed.state is State.RESTORED
        assert box.run_code("blob[:1], len(blob)").value == (b"5", 40 << 20)


def test_older_states_make_room_while_code_needs_memory(make: Callable[..., Sandbox]) -> None:
    with make(limits=Limits(memory="256m", checkpoint_memory=1.0)) as box:
        for i in range(3):
            assert box.run_code(f"blob = bytearray(b'{i}') * (40 << 20)").ok
        grown = box.run_code(
            "import time\nmore = []\nfor _ in range(18):\n    more.append(b'x' * (5 << 20)); time.sleep(0.01)"
        )
        assert (grown.status, grown.state) == (Status.OK, State.KEPT)


# Files.


def test_files_go_back_with_the_variables(box: Sandbox) -> None:
    box.run_code(
        "import os\nos.mkdir('d')\nopen('d/a', 'w').write('old')\nopen('b', 'w').write('b')\nos.symlink('b', 'l')"
    )
    box.checkpoint("files")
    box.run_code(
        "open('d/a', 'w').write('new')\nos.remove('b')\nos.remove('l')\nopen('c', 'w').write('c')\nos.mkdir('e')"
    )
    assert box.rollback("files").files is Files.RESTORED
    assert box.run_code("open('d/a').read(), open('l').read(), sorted(os.listdir())").value == (
        "old",
        "b",
        ["b", "d", "l"],
    )


def test_a_kill_brings_the_files_back_too(box: Sandbox) -> None:
    box.files.write("data.csv", "1,2")
    code = f"import os\nos.remove('data.csv')\nopen('partial', 'w').write('x')\n{HANG}"
    killed = box.run_code(code, timeout=0.3)
    assert (killed.state, killed.files) == (State.RESTORED, Files.RESTORED)
    assert names(box) == ["data.csv"]
    assert box.files.read("data.csv") == b"1,2"


def test_what_the_host_writes_between_two_executions_is_part_of_the_state(box: Sandbox) -> None:
    box.run_code("x = 1")
    box.files.write("a", "1")
    box.files.write("b", "2")
    assert box.run_code(f"open('a', 'w').write('damaged'); {HANG}", timeout=0.3).files is Files.RESTORED
    assert (box.files.read("a"), box.files.read("b")) == (b"1", b"2")
    box.files.write("a", "3")
    box.checkpoint("with 3")
    box.files.write("a", "4")
    box.rollback("with 3")
    assert box.files.read("a") == b"3"


def test_a_workspace_over_the_cap_is_kept_and_the_reason_is_told(make: Callable[..., Sandbox]) -> None:
    with make(limits=Limits(checkpoint_files="1m")) as box:
        box.run_code("x = 1; open('big', 'wb').write(bytes(2 << 20))")
        kept = box.checkpoint("big")
        assert kept.has_files is False
        box.run_code("x = 2; open('big', 'wb').write(b'small')")
        back = box.rollback("big")
        assert (back.files, "1,048,576 bytes" in back.files_reason) == (Files.KEPT, True)
        assert box.files.read("big") == b"small"
        assert box.run_code("x").value == 1
        box.files.write("big", bytes(2 << 20))
        with pytest.raises(CheckpointError, match="workspace"):
            box.fork()
        assert box.rollback(0).files is Files.RESTORED


def test_a_kill_over_the_cap_keeps_the_files_and_says_so(make: Callable[..., Sandbox]) -> None:
    with make(limits=Limits(checkpoint_files="1m")) as box:
        box.files.write("big", bytes(2 << 20))
        killed = box.run_code(f"open('new', 'w').write('n'); {HANG}", timeout=0.3)
        assert (killed.state, killed.files) == (State.RESTORED, Files.KEPT)
        assert "1,048,576 bytes" in killed.files_reason
        assert names(box) == ["big", "new"]


# Threads.


def test_live_threads_mean_in_place_until_they_end(box: Sandbox) -> None:
    box.run_code("import threading\nx = 1\ngo = threading.Event()")
    box.checkpoint("before")
    left = box.run_code("x = 2\nthread = threading.Thread(target=go.wait)\nthread.start()")
    assert (left.state, box.forkable) == (State.KEPT, False)
    for refused in (box.checkpoint, box.fork):
        with pytest.raises(CheckpointError, match="threads"):
            refused()
    assert box.run_code("x").value == 2
    assert box.run_code("go.set(); thread.join()").ok
    assert box.forkable is True
    box.checkpoint("after")
    box.rollback("before")
    box.rollback("after")
    assert box.run_code("x").value == 2


def test_a_kill_in_place_falls_back_to_the_state_before_the_threads(box: Sandbox) -> None:
    box.run_code("import threading\nx = 1\nopen('f', 'w').write('1')")
    box.run_code("x = 2\nopen('f', 'w').write('2')\nthreading.Thread(target=threading.Event().wait).start()")
    box.run_code("x = 3")
    killed = box.run_code(HANG, timeout=0.3)
    assert (killed.state, killed.restored_to, killed.files) == (State.LOST, 1, Files.RESTORED)
    assert box.run_code("x").value == 1
    assert box.files.read("f") == b"1"
    assert box.forkable is True


def test_going_back_ends_threads(box: Sandbox) -> None:
    box.run_code("import threading\nx = 1")
    box.run_code("threading.Thread(target=threading.Event().wait).start()")
    box.undo()
    assert box.forkable is True
    assert box.run_code("threading.active_count()").value == 1
    assert box.run_code(HANG, timeout=0.3).state is State.RESTORED


def test_nothing_of_the_users_runs_between_executions(box: Sandbox) -> None:
    box.run_code(COUNTING_THREAD)
    before = box.run_code("n").value
    ended = threading.Event()
    ended.wait(0.3)  # what is waited for is that nothing happens
    during = box.run_code("n").value
    assert during - before < 100, "a thread ran between two executions"
    assert box.run_code("time.sleep(0.3); n").value > during + 50
    box.files.write("f", "x")
    frozen = box.run_code("n").value
    box.files.read("f")
    ended.wait(0.3)
    assert box.run_code("n").value - frozen < 100


LEADERLESS = """
import os, sys, time
_thread = sys.modules["_thread"]
def work():
    n = 0
    while True:
        n += 1
        with open('note', 'w') as file: file.write(str(n))
        time.sleep(0.002)
def leave():
    if os.fork() == 0:
        _thread.start_new_thread(work, ())  # and this thread, the first of the new process, ends
_thread.start_new_thread(leave, ())
deadline = time.monotonic() + 10
while not os.path.exists('note') and time.monotonic() < deadline: time.sleep(0.01)
"""


def test_a_process_whose_first_thread_has_ended_is_found_as_well(box: Sandbox) -> None:
    """The kernel shows it as a zombie, with threads that run."""
    assert box.run_code(LEADERLESS).ok
    look = "import os, time\na = open('note').read() if os.path.exists('note') else ''\ntime.sleep(0.2)\n"
    execution = box.run_code(f"{look}a and open('note').read() == a")
    assert execution.value is True


def test_signals_and_finalizers_are_heard_in_an_execution_and_never_between_two(box: Sandbox) -> None:
    """Each execution ends some process of the backend's own, whose end a handler for SIGCHLD hears of."""
    box.run_code(
        "import os, signal, time\n"
        "heard, executions = [], []\n"
        "signal.signal(signal.SIGCHLD, lambda *_: heard.append(time.monotonic()))\n"
        "class Cycle:\n    def __del__(self): heard.append(time.monotonic())\n"
    )
    step = (
        "begun = time.monotonic(); cycle = Cycle(); cycle.itself = cycle; del cycle\n"
        "if not os.fork(): os._exit(0)\n"
        "time.sleep(0.02); executions.append((begun, time.monotonic()))"
    )
    idle = threading.Event()
    for _ in range(12):
        assert box.run_code(step).ok
        idle.wait(0.05)  # what is waited for is that nothing happens
    # The execution that reads begins by hearing what was waiting for it.
    heard, executions = box.run_code("read = time.monotonic(); [h for h in heard if h < read - 0.02], executions").value
    around = 0.01  # seconds: the code's own clock begins a little after the execution, and stops before its end
    assert len(heard) >= 2 * 11
    assert [h for h in heard if not any(b - around <= h <= e + around for b, e in executions)] == []


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
    assert box.run_code(HANG, timeout=0.3).state is State.RESTORED
    assert box.run_code(fixed).value == first
    assert first[0] == pytest.approx(0.13436424411240122)  # what CPython gives for random.seed(1)
