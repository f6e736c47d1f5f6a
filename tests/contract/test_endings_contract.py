"""For each way that an execution can end: the true status and state, the next execution works, no neighbour notices.

What is run is in endings.py and endings_damage.py.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from orchestrator import Config, Execution, Limits, Sandbox, State, Status
from tests.contract import endings, endings_damage
from tests.contract.conftest import DEADLINE, IMPORTS, in_process
from tests.contract.endings import HANG, Case
from tests.endings import DIED_LOST, HEARD, KILLED, OK, OK_LOST, OUT_OF_MEMORY, TIMEOUT_LOST, Ending, tried

# They are about the supervisor, far below the API, and take long.
pytestmark = [pytest.mark.docker, in_process]

GRACE = 0.5  # seconds: a kill costs that much of the tests' time
BEFORE = ([1, 2], {"a": 1})
WORK = "basket.append(3); ages['b'] = 2\n"
AFTER = ([1, 2, 3], {"a": 1, "b": 2})
ERROR_NAMES = {Status.TIMEOUT: "TimeoutError", Status.OUT_OF_MEMORY: "MemoryError", Status.DIED: "ProcessDied"}
IS_ALIVE = "import os\ntry: os.kill({pid}, 0); alive = True\nexcept ProcessLookupError: alive = False\nalive"
NEXT = "print(f'next {1 + 1}'); 2 + 2"  # the text in one piece, which a thread that prints cannot come between
NEXT_TIMEOUT = 5.0  # seconds for an execution that takes milliseconds


@pytest.fixture(scope="module")
def sandbox(make: Callable[..., Sandbox], config: Config) -> Iterator[Sandbox]:
    settings = replace(config, grace=GRACE)
    with make(authorized_imports=["*"], limits=Limits(memory="256m"), config=settings) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def neighbour(make: Callable[..., Sandbox]) -> Iterator[Sandbox]:
    with make() as neighbour:
        neighbour.run_code("counter = 0")
        yield neighbour


@pytest.fixture(autouse=True)
def neighbour_notices_nothing(neighbour: Sandbox) -> Iterator[None]:
    def count() -> int:
        execution = neighbour.run_code("counter += 1; counter")
        assert (execution.status, execution.state) == OK
        return execution.value

    before = count()
    yield
    assert count() == before + 1


def with_id(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.id)


@contextmanager
def no_harm_to_other_tests(sandbox: Sandbox) -> Iterator[None]:
    """A new container after a failure, so that the next case fails for reasons of its own."""
    try:
        yield
    except BaseException:
        sandbox.reset()
        raise


def ending(execution: Execution) -> Ending:
    return execution.status, execution.state


def begun_and_run(sandbox: Sandbox, case: Case) -> Execution:
    load = "import numpy\n" if "numpy" in case.code else ""  # which takes longer than some of the timeouts
    begun = sandbox.run_code(f"{load}basket, ages = [1, 2], {{'a': 1}}")
    assert ending(begun) == OK, begun.error
    return sandbox.run_code(WORK + case.code, timeout=case.timeout)


def came_too_late(sandbox: Sandbox, case: Case, execution: Execution) -> bool:
    """Code that hangs was not reached within its time, or did not hear within the grace."""
    ended = ending(execution)
    if case.timeout != HANG or ended not in (HEARD, KILLED):
        return False
    return ended not in case.endings or (ended == HEARD and value(sandbox, "basket, ages") != AFTER)


def run(sandbox: Sandbox, case: Case) -> Execution:
    """Runs the case and checks what it is said to have ended as, against itself and against the variables."""
    execution = tried(lambda: begun_and_run(sandbox, case), lambda it: came_too_late(sandbox, case, it))
    assert ending(execution) in case.endings, execution.error
    name = execution.error.name if execution.error else ""
    if execution.status is Status.ERROR:
        assert case.error in name  # numpy's MemoryError has a name of its own
    else:
        assert name == ERROR_NAMES.get(execution.status, "")
    assert case.reason in (execution.error.value if execution.error else "")
    if execution.state is not State.LOST:
        kept = execution.state is State.KEPT
        assert value(sandbox, "basket, ages") == (AFTER if kept else BEFORE)
        for expression, expected in case.keeps.items() if kept else ():
            assert value(sandbox, expression) == expected, expression
    return execution


def killed(sandbox: Sandbox) -> Execution:
    """What nothing but a kill ends, unless it was not reached within its time."""
    code = "sum(range(10**12))"
    return tried(lambda: sandbox.run_code(code, timeout=HANG), lambda it: ending(it) == HEARD)


def value(sandbox: Sandbox, expression: str) -> object:
    execution = sandbox.run_code(expression, timeout=NEXT_TIMEOUT)
    assert (execution.status, execution.state) == OK, execution.error
    return execution.value


def next_one_works(sandbox: Sandbox) -> None:
    execution = sandbox.run_code(NEXT, timeout=NEXT_TIMEOUT)
    assert (execution.status, execution.state) == OK, execution.error
    assert "next 2" in execution.logs.stdout
    assert execution.value == 4


@with_id([*endings.TIME, *endings.PROCESS, *endings.MEMORY, *endings.ENDED_THREADS])
def test_the_ending_is_told_truly_and_the_next_execution_works(sandbox: Sandbox, case: Case) -> None:
    with no_harm_to_other_tests(sandbox):
        run(sandbox, case)
        next_one_works(sandbox)
    if case.spoils:
        sandbox.reset()


@with_id(endings.PROCESSES)
def test_processes_of_the_code_do_not_outlive_it(sandbox: Sandbox, case: Case) -> None:
    with no_harm_to_other_tests(sandbox):
        execution = run(sandbox, case)
        next_one_works(sandbox)
        strays = re.findall(r"stray (\d+)", f"{execution.value} {execution.logs.stdout}")
        assert strays or "stray" not in case.code
        deadline = time.monotonic() + DEADLINE
        for pid in strays:
            while value(sandbox, IS_ALIVE.format(pid=pid)):
                assert time.monotonic() < deadline, f"process {pid} is alive"


@with_id(endings.LEFT_THREADS)
def test_threads_left_behind_go_on_until_a_kill_which_says_lost(sandbox: Sandbox, case: Case) -> None:
    with no_harm_to_other_tests(sandbox):
        run(sandbox, case)
        for _ in range(3):
            next_one_works(sandbox)
        assert ending(killed(sandbox)) == TIMEOUT_LOST
        next_one_works(sandbox)


@with_id([*endings_damage.DAMAGE, *endings_damage.HOOKS])
def test_damage_to_the_interpreter_is_not_in_the_way_of_the_next_execution(sandbox: Sandbox, case: Case) -> None:
    with no_harm_to_other_tests(sandbox):
        execution = run(sandbox, case)
        next_one_works(sandbox)
    if execution.state is State.KEPT:
        sandbox.reset()


@with_id(endings_damage.AFTER_THE_END)
def test_what_runs_after_the_end_is_not_in_the_way_of_the_next_execution(sandbox: Sandbox, case: Case) -> None:
    with no_harm_to_other_tests(sandbox):
        ended = sandbox.run_code(case.code)
        assert (ended.status, ended.state) in case.endings
        execution = sandbox.run_code(NEXT, timeout=NEXT_TIMEOUT)
        assert (execution.status, execution.value) == (Status.OK, 4), execution.error
        assert "next 2" in execution.logs.stdout
        # The process may have had to be replaced meanwhile, by an older state or none: then it has to be said.
        assert execution.state in (State.KEPT, State.LOST)
        next_one_works(sandbox)
    sandbox.reset()


def first_that_ends_badly(sandbox: Sandbox) -> Execution:
    """The first that finds the watch gone, or the last of so many."""
    for _ in range(endings_damage.UNNOTICED):
        execution = sandbox.run_code("print('begun')")
        if execution.state is not State.KEPT:
            break
    return execution


@with_id(endings_damage.UNWATCHED)
def test_without_its_watch_a_sandbox_says_that_all_is_lost_and_begins_anew(
    make: Callable[..., Sandbox], unconfined: Config, case: Case
) -> None:
    with make(authorized_imports=IMPORTS, timeout=DEADLINE, config=unconfined) as sandbox:
        sandbox.run_code("here_before = True")
        ended = sandbox.run_code(case.code)
        assert (ended.status, ended.state) in case.endings
        if ended.state is State.KEPT:
            last = first_that_ends_badly(sandbox)
            assert ending(last) in {DIED_LOST, OK_LOST}  # it, too, may end before anybody has noticed
            # A process that is killed is gone a moment later, which may fall into the midst of an execution.
            assert last.logs.stdout in ("", "begun\n")
        assert sandbox.run_code("1 + 1").value == 2
        assert value(sandbox, "'here_before' in globals()") is False


@with_id(endings_damage.UNWATCHED)
def test_its_watch_is_out_of_the_codes_reach(sandbox: Sandbox, case: Case) -> None:
    with no_harm_to_other_tests(sandbox):
        ended = sandbox.run_code(case.code)
        assert (ended.status, ended.state) in case.endings
        stopped = killed(sandbox)
        assert stopped.status is Status.TIMEOUT, "it was begun, and could still be stopped"
        assert stopped.state in (State.RESTORED, State.LOST)  # copies are the code's own to kill
        next_one_works(sandbox)


def test_an_interrupt_that_the_code_switched_off_works_in_the_next_execution(sandbox: Sandbox) -> None:
    def loop() -> Execution:
        sandbox.run_code("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); n = 0")
        return sandbox.run_code("while True: n += 1", timeout=HANG)

    with no_harm_to_other_tests(sandbox):
        execution = tried(loop, lambda it: ending(it) == KILLED or value(sandbox, "n > 0") is False)
        assert ending(execution) == HEARD
        assert value(sandbox, "n > 0") is True


def test_a_state_larger_than_half_the_memory_is_written_to_as_a_whole(sandbox: Sandbox) -> None:
    """The copy that could be gone back to shares the pages until they are written to; then both do not fit."""
    with no_harm_to_other_tests(sandbox):
        sandbox.run_code("import numpy; numbers = numpy.ones(18 << 20)")
        execution = sandbox.run_code("numbers += 1")
        # The kernel takes either of the two, which are of the same size, or one after the other.
        assert (execution.status, execution.state) in {
            OUT_OF_MEMORY,
            OK,
            (Status.OUT_OF_MEMORY, State.LOST),
            DIED_LOST,
        }
        if execution.state is not State.LOST:
            expected = 2.0 if execution.state is State.KEPT else 1.0
            assert value(sandbox, "float(numbers.min()), float(numbers.max())") == (expected, expected)
        next_one_works(sandbox)
    sandbox.reset()
