"""Bad input gets a clear error and loses nothing: for each, the true status and state, and the next execution works."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from orchestrator import Config, Execution, Limits, Sandbox, State, Status
from tests.conftest import processes_of_each
from tests.docker.deaf import DEAF, timed_out

pytestmark = pytest.mark.docker

MARK = "still here"
CHANNEL = """
import stat
def channel():
    for fd in range(3, 256):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode): return fd
        except OSError: pass
"""
DEADLINE = 30.0  # seconds
TURNS = 30
LOOKS = 5  # at the processes, after each execution
CHECKPOINT = """
import os
def there_is(pid):
    try: os.kill(pid, 0)
    except OSError: return False
    return True
def checkpoint():
    return max(pid for pid in range(2, 5000) if there_is(pid))  # the newest process
"""
FOREVER = "import itertools\nr = itertools.count(1)\ntry: print('on')\nfinally: 0 in r"
STUBBORN = "while True:\n    try:\n        print('on')\n        while True: pass\n    except BaseException: pass"
GREEDY = "blocks = []\nwhile True: blocks.append(bytearray(10**6))"
SPREAD = (  # more than the container may have, and the process to be killed is the largest: that of the execution
    "import os, time\nfor _ in range(5):\n    if os.fork() == 0:\n        held = b'x' * (20 << 20)\n"
    "        time.sleep(60)\nheld = b'x' * (160 << 20)\ntime.sleep(60)"
)
FORK_BOMB = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
THREAD_BOMB = "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()"
STRAYS = (
    "import os, time\nfor _ in range(3):\n    if os.fork() == 0:\n        os.setsid()\n        time.sleep(600)\n'left'"
)


@pytest.fixture(scope="module")
def sandbox(config: Config) -> Iterator[Sandbox]:
    imports = ["os", "sys", "threading", "signal", "faulthandler", "atexit", "resource"]
    with Sandbox(authorized_imports=imports, timeout=10, limits=Limits(memory="256m", checkpoints=1)) as sandbox:
        sandbox.run_code("import os, sys")
        yield sandbox


@pytest.fixture(autouse=True)
def state_survives(sandbox: Sandbox, config: Config) -> Iterator[None]:
    """Whatever a case does, the variables of before are there after it, and nothing of it still runs."""
    sandbox.run_code(f"mark = {MARK!r}")
    yield
    deadline = time.monotonic() + DEADLINE
    while True:
        assert sandbox.run_code("mark").value == MARK
        for _ in range(LOOKS):  # each execution makes a checkpoint and ends one, which takes a moment
            # The supervisor, the warden, the head, a checkpoint.
            if not (found := [alive for alive in processes_of_each(config) if len(alive) > 4]):
                return
        assert time.monotonic() < deadline, f"processes are left: {found}"


def seen(execution: Execution) -> tuple[Status, State, str]:
    return execution.status, execution.state, execution.error.name if execution.error else ""


# The text itself.


def test_syntax_error_shows_the_place(sandbox: Sandbox) -> None:
    execution = sandbox.run_code("a = 1\nb = = 2")
    assert seen(execution) == (Status.ERROR, State.KEPT, "SyntaxError")
    assert execution.error is not None
    assert "line 2" in execution.error.traceback
    assert "b = = 2" in execution.error.traceback


@pytest.mark.parametrize("code", ["x = 1\0", "x = '\ud800'", "(" * 5000, "-" * 200_000 + "1", "\ufeffx = 1 1"])
def test_text_that_is_no_program(sandbox: Sandbox, code: str) -> None:
    execution = sandbox.run_code(code)
    assert execution.state in (State.KEPT, State.RESTORED)
    assert execution.status in (Status.ERROR, Status.DIED)
    assert execution.error is not None


def test_five_megabytes_of_source(sandbox: Sandbox) -> None:
    execution = sandbox.run_code("x = 1\n" * 900_000)
    assert seen(execution) == (Status.ERROR, State.KEPT, "CodeTooLong")
    assert execution.error is not None
    assert "at most 1,048,576" in execution.error.value


def test_a_lone_surrogate_is_printed_as_an_escape(sandbox: Sandbox) -> None:
    assert sandbox.run_code("print('\\ud800')").logs.stdout == "\\ud800\n"


# Time.


@pytest.mark.parametrize("code", [DEAF, FOREVER, STUBBORN])
def test_loops_that_hear_no_interrupt_are_killed(sandbox: Sandbox, code: str) -> None:
    started = time.monotonic()
    assert seen(timed_out(sandbox, code)) == (Status.TIMEOUT, State.RESTORED, "TimeoutError")
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("code", ["while True: pass", "import time; time.sleep(600)"])
def test_loops_that_hear_it_keep_their_state(config: Config, code: str) -> None:
    with Sandbox(config=replace(config, grace=10.0)) as patient:
        assert seen(patient.run_code(code, timeout=0.3)) == (Status.TIMEOUT, State.KEPT, "TimeoutError")


def test_a_teardown_that_hangs_is_inside_the_deadline(sandbox: Sandbox) -> None:
    code = "import time\ntry:\n    print('on')\n    time.sleep(60)\nfinally:\n    time.sleep(60)"
    assert timed_out(sandbox, code).state is State.RESTORED


# The process.


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("os._exit(3)", "exited with code 3"),
        ("import faulthandler; faulthandler._sigsegv()", "killed by signal 11"),
        ("os.abort()", "killed by signal 6"),
        ("os.kill(os.getpid(), 9)", "killed by signal 9"),
        ("os.closerange(0, 256)\nwhile True: pass", "closed its channel"),
        ("os.write(channel(), b'\\xff' * 64)\nwhile True: pass", "illegal frame"),
        ("os.write(channel(), b'\\0\\0\\0\\0\\x28')\nwhile True: pass", "illegal frame of type 40"),
        ("os.write(channel(), b'\\x11\\0\\0\\0\\x28' + bytes(17))\nwhile True: pass", "a result that is not of"),
    ],
)
def test_a_process_that_dies_leaves_the_state_of_before(sandbox: Sandbox, code: str, reason: str) -> None:
    execution = sandbox.run_code(f"{CHANNEL}\nmark = 'changed'\n{code}", timeout=5)
    assert seen(execution) == (Status.DIED, State.RESTORED, "ProcessDied")
    assert execution.error is not None
    assert reason in execution.error.value


def test_recursion_is_an_error_or_a_death_that_is_survived(sandbox: Sandbox) -> None:
    assert seen(sandbox.run_code("def f(): f()\nf()")) == (Status.ERROR, State.KEPT, "RecursionError")
    deep = "sys.setrecursionlimit(10**9)\ndef f(): return f()\nf()"
    assert sandbox.run_code(deep, timeout=5).status in (Status.ERROR, Status.DIED, Status.TIMEOUT)


@pytest.mark.parametrize(
    "code", ["sys.exit(2)", "raise SystemExit", "raise KeyboardInterrupt", "raise BaseException('x')"]
)
def test_leaving_is_an_exception_like_any_other(sandbox: Sandbox, code: str) -> None:
    execution = sandbox.run_code(code)
    assert (execution.status, execution.state) == (Status.ERROR, State.KEPT)


def test_killing_the_process_that_could_restore_is_told_as_what_it_is(sandbox: Sandbox) -> None:
    execution = sandbox.run_code(f"{CHECKPOINT}os.kill(checkpoint(), 9); 'alive'")
    assert (execution.status, execution.state, execution.value) == (Status.OK, State.KEPT, "alive")


@pytest.mark.parametrize("landlock", ["auto", "off"])
def test_the_memory_of_the_process_that_could_restore_is_out_of_reach(config: Config, landlock: str) -> None:
    with Sandbox(authorized_imports=["os"], config=replace(config, landlock=landlock)) as one:
        for name in ("mem", "fd", "environ"):
            path = f"f'/proc/{{checkpoint()}}/{name}'"
            opened = f"os.listdir({path})" if name == "fd" else f"open({path}, 'rb').read(1)"
            assert seen(one.run_code(f"{CHECKPOINT}{opened}")) == (Status.ERROR, State.KEPT, "PermissionError")


def test_a_checkpoint_that_the_code_has_stopped_is_woken(config: Config) -> None:
    with Sandbox(authorized_imports=["os", "signal"]) as one:
        one.run_code("x = 1")
        code = f"{CHECKPOINT}import signal\nos.kill(checkpoint(), signal.SIGSTOP)\nx = 2\nos._exit(1)"
        assert one.run_code(code).state is State.RESTORED
        assert one.run_code("x").value == 1


def test_a_state_that_was_lost_by_a_thread_is_said_to_be_and_the_one_before_it_follows(config: Config) -> None:
    with Sandbox(authorized_imports=["os", "threading"]) as one:
        one.run_code("import os, threading\nx, go = 1, threading.Event()")
        one.run_code("x = 2\nthreading.Thread(target=lambda: (go.wait(), os._exit(1))).start()")
        deadline = time.monotonic() + DEADLINE
        while (execution := one.run_code("go.set()\nx")).state is State.KEPT:
            assert execution.value == 2
            assert time.monotonic() < deadline
        assert (execution.state, execution.restored_to) == (State.LOST, 1)
        assert one.run_code("x").value == 1


def test_a_thread_that_calls_a_tool_too_late_takes_no_command(config: Config) -> None:
    def tool() -> int:
        return 1

    with Sandbox(authorized_imports=["threading"], tools=[tool]) as one:
        one.run_code("import threading, time\nx = 5\ngo = threading.Event()")
        one.run_code("threading.Thread(target=lambda: (go.wait(20), tool()), daemon=True).start()")
        assert one.run_code("go.set(); time.sleep(0.2); x + 1").value == 6
        for _ in range(5):
            assert one.run_code("x + 1", timeout=5).value == 6


def test_a_tool_call_under_way_when_its_execution_ends_fails_where_it_was_made(config: Config) -> None:
    entered, never = threading.Event(), threading.Event()

    def slow() -> bool:
        entered.set()
        return never.wait(DEADLINE)

    def slow_is_running() -> bool:
        return entered.wait(DEADLINE)

    work = """
import threading
caught = []
def work():
    try: slow()
    except Exception as error: caught.append(str(error))
thread = threading.Thread(target=work)
thread.start()
slow_is_running()
"""
    with Sandbox(authorized_imports=["threading"], tools=[slow, slow_is_running]) as one:
        assert one.run_code(work).value is True
        assert "has ended" in one.run_code("thread.join(10)\ncaught[0]").value
    never.set()


def test_the_parent_is_the_supervisor_and_cannot_be_killed(sandbox: Sandbox) -> None:
    execution = sandbox.run_code("os.kill(os.getppid(), 9)")
    assert seen(execution) == (Status.ERROR, State.KEPT, "PermissionError")


def test_without_the_newest_checkpoint_an_older_state_follows_and_is_said_to(config: Config) -> None:
    with Sandbox(authorized_imports=["os"]) as one:
        one.run_code("x = 1")
        one.run_code("x = 2")
        execution = one.run_code(f"{CHECKPOINT}os.kill(checkpoint(), 9)\nsum(range(10**12))", timeout=3)
        assert (execution.status, execution.state, execution.restored_to) == (Status.TIMEOUT, State.LOST, 1)
        assert execution.error is not None
        assert "execution 1" in execution.error.value
        assert one.run_code("x").value == 1


def test_who_kills_itself_and_the_newest_checkpoint_is_told_the_truth_whoever_is_heard_of_first() -> None:
    """Both deaths are on their way to the supervisor at once."""
    with Sandbox(authorized_imports=["os"]) as one:
        for turn in range(TURNS):
            assert one.run_code(f"x = {turn}").status is Status.OK
            assert one.run_code("x = -1").status is Status.OK
            execution = one.run_code(f"{CHECKPOINT}newest = checkpoint()\nos.kill(newest, 9)\nos.kill(os.getpid(), 9)")
            assert (execution.status, execution.state) == (Status.DIED, State.LOST)
            assert one.run_code("x").value == turn


def test_a_group_that_kills_itself_at_once_leaves_its_checkpoint() -> None:
    """Which was made just before, and may have had no turn on a processor yet."""
    with Sandbox(authorized_imports=["os"]) as one:
        one.run_code("import os")
        for turn in range(10 * TURNS):
            assert one.run_code(f"x = {turn}").status is Status.OK
            execution = one.run_code("x = -1\nos.kill(0, 9)")
            assert (execution.status, execution.state) == (Status.DIED, State.RESTORED)
            assert one.run_code("x").value == turn


def test_code_that_kills_all_it_can_reach_loses_its_own_states(config: Config) -> None:
    """And not the warden, which is out of its reach: it can still be stopped."""
    with Sandbox(authorized_imports=["os"]) as one:
        one.run_code("x = 1")
        execution = one.run_code("import os\nos.kill(-1, 9)\nsum(range(10**12))", timeout=3)
        assert (execution.status, execution.state, execution.restored_to) == (Status.TIMEOUT, State.LOST, 0)
        after = one.run_code("'x' in globals()")
        assert (after.status, after.value) == (Status.OK, False)


def test_without_landlock_code_that_kills_all_it_can_reach_loses_its_own_container(unconfined: Config) -> None:
    with Sandbox(authorized_imports=["os"], config=unconfined) as one:
        one.run_code("x = 1")
        execution = one.run_code("import os\nos.kill(-1, 9)\nwhile True: pass", timeout=5)
        assert (execution.status, execution.state, execution.restored_to) == (Status.DIED, State.LOST, 0)
        after = one.run_code("'x' in globals()")
        assert (after.status, after.value) == (Status.OK, False)


# Memory, processes, threads.


def test_one_large_allocation_is_a_memory_error(sandbox: Sandbox) -> None:
    execution = sandbox.run_code("x = bytearray(10**11)")
    assert seen(execution) == (Status.ERROR, State.KEPT, "MemoryError")
    assert execution.error is not None
    assert execution.error.value


def test_growing_memory_is_a_memory_error_and_can_be_freed(sandbox: Sandbox) -> None:
    assert seen(sandbox.run_code(GREEDY)) == (Status.ERROR, State.KEPT, "MemoryError")
    assert sandbox.run_code("n = len(blocks); del blocks; n").value > 100


def test_memory_beyond_the_containers_limit_kills_the_child_only(sandbox: Sandbox) -> None:
    assert seen(sandbox.run_code(SPREAD)) == (Status.OUT_OF_MEMORY, State.RESTORED, "MemoryError")


def test_a_fork_bomb_is_held_and_cleaned_up(sandbox: Sandbox) -> None:
    assert sandbox.run_code(FORK_BOMB, timeout=1).status is Status.TIMEOUT


def test_strays_do_not_outlive_their_execution(sandbox: Sandbox) -> None:
    assert sandbox.run_code(STRAYS).value == "left"


def test_a_stray_is_found_also_where_the_code_has_reaped_other_processes(sandbox: Sandbox) -> None:
    reap = "try:\n    while os.waitpid(-1, os.WNOHANG)[0]: pass\nexcept ChildProcessError: pass\n"
    sandbox.run_code(reap + STRAYS.replace("range(3)", "range(1)"))


def test_a_copy_made_by_fork_does_not_answer_for_the_original(sandbox: Sandbox) -> None:
    execution = sandbox.run_code("pid = os.fork()\n'child' if pid == 0 else os.waitpid(pid, 0)[1]")
    assert execution.value == 0


def test_a_thread_bomb_is_an_error(config: Config) -> None:
    with Sandbox(authorized_imports=["threading"]) as one:
        one.run_code("kept = 1")
        assert one.run_code(THREAD_BOMB).status is Status.ERROR
        assert one.run_code("kept").value == 1


def test_a_kill_after_threads_were_left_running_says_that_the_state_is_lost(config: Config) -> None:
    with Sandbox(authorized_imports=["threading"]) as one:
        one.run_code("first = 1")
        one.run_code("import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\nsecond = 2")
        assert one.run_code("first, second").value == (1, 2)
        assert timed_out(one).state is State.LOST
        assert one.run_code("1 + 1").value == 2


# Output.


def test_a_gigabyte_of_output_is_stopped(sandbox: Sandbox) -> None:
    execution = sandbox.run_code("for _ in range(1000): print('A' * 10**6)")
    assert seen(execution) == (Status.OUTPUT_LIMIT, State.RESTORED, "OutputLimitExceeded")
    assert 0 < len(execution.logs.stdout) < 2 << 20
    assert execution.logs.dropped_bytes > 0


def test_a_flood_below_python_is_stopped_too(sandbox: Sandbox) -> None:
    execution = sandbox.run_code("while True: os.write(1, b'B' * 65536)")
    assert execution.status is Status.OUTPUT_LIMIT
    assert len(execution.logs.stdout) < 2 << 20


@pytest.mark.parametrize("code", ["sys.stdout = None", "del sys.stdout", "sys.stdout.close()", "print = None"])
def test_a_broken_stdout_breaks_nothing_else(sandbox: Sandbox, code: str) -> None:
    restore = "import sys; keep = sys.stdout"
    sandbox.run_code(restore)
    sandbox.run_code(code)
    assert sandbox.run_code("1 + 1").value == 2
    sandbox.run_code("sys.stdout = keep\nimport builtins; print = builtins.print")


# Values.


@pytest.mark.parametrize(
    "code",
    [
        "class R:\n    def __repr__(self): raise ValueError('no')\nR()",
        "class S(str):\n    def encode(self, *a): return b'x' * 10**9\nS('x')",
        "class D(dict):\n    def items(self): return iter(int, 1)\nD(a=1)",
        "x = [0]\nfor _ in range(60): x = [x, x]\nx",
    ],
)
def test_hostile_values_arrive_as_text(sandbox: Sandbox, code: str) -> None:
    execution = sandbox.run_code(code, timeout=5)
    assert execution.state in (State.KEPT, State.RESTORED)


def test_a_repr_that_hangs_is_inside_the_deadline(sandbox: Sandbox) -> None:
    execution = sandbox.run_code("class H:\n    def __repr__(self):\n        while True: pass\nH()", timeout=0.3)
    assert execution.status is Status.TIMEOUT
