"""What every sandbox backend must do: threads of the code, signals and finalizers, and the states that they are in."""

import threading

import pytest

from orchestrator import Sandbox, State
from orchestrator.errors import CheckpointError
from orchestrator.events import Files
from tests.contract.conftest import LONGEST_STOP, TICKING_THREAD, in_process

# They are about the supervisor, far below the API, and take long.
pytestmark = [pytest.mark.docker, in_process]
HANG = "sum(range(10**12))"


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
    killed = box.run_code(HANG, timeout=1.0)
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
    assert box.run_code(HANG, timeout=1.0).state is State.RESTORED


def test_nothing_of_the_users_runs_between_executions(box: Sandbox) -> None:
    box.run_code(TICKING_THREAD)
    box.run_code(LONGEST_STOP)
    idle = threading.Event()
    idle.wait(1)  # what is waited for is that nothing happens
    assert box.run_code(LONGEST_STOP).value > 0.5, "a thread ran between two executions"
    box.files.write("f", "x")
    box.run_code(LONGEST_STOP)
    box.files.read("f")
    idle.wait(1)
    assert box.run_code(LONGEST_STOP).value > 0.5, "a thread ran on after a request that is no execution"


LEADERLESS = """
import os, sys, time
_thread = sys.modules["_thread"]
def work():
    while True:
        with open('note', 'a') as file: file.write('.')
        time.sleep(0.002)
def noted(): return os.path.getsize('note') if os.path.exists('note') else 0
def leave():
    if os.fork() == 0:
        _thread.start_new_thread(work, ())  # and this thread, the first of the new process, ends
_thread.start_new_thread(leave, ())
deadline = time.monotonic() + 10
while not noted() and time.monotonic() < deadline: time.sleep(0.01)
"""


def test_a_process_whose_first_thread_has_ended_is_found_as_well(box: Sandbox) -> None:
    """The kernel shows it as a zombie, with threads that run."""
    assert box.run_code(LEADERLESS).ok
    before, after = box.run_code("before = noted(); time.sleep(0.2); before, noted()").value
    assert 0 < before == after


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
        idle.wait(0.3)  # what is waited for is that nothing happens
    # The execution that reads begins by hearing what was waiting for it.
    around = 0.1  # seconds: the code's own clock begins a little after the execution, and stops before its end
    read = f"read = time.monotonic(); [h for h in heard if h < read - {around}], executions"
    heard, executions = box.run_code(read).value
    assert len(heard) >= 2 * 11
    assert [h for h in heard if not any(b - around <= h <= e + around for b, e in executions)] == []
