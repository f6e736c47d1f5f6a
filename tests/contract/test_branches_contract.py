"""What every sandbox backend must do: branches, which are sandboxes of their own in one container."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from orchestrator import AsyncSandbox, Config, Limits, Sandbox, State, Status
from orchestrator.errors import CheckpointError, SandboxClosed, SandboxDied
from tests.contract.conftest import DEADLINE, IMPORTS, LONG_GRACE, LONGEST_STOP, TICKING_THREAD, add, in_process

pytestmark = pytest.mark.docker
HANG = "sum(range(10**12))"


THERE_ARE = """
import os
def there_is(pid):
    try: os.kill(pid, 0)
    except OSError: return False
    return True
sum(there_is(pid) for pid in range(2, 500))
"""


@pytest.fixture
def box(make: Callable[..., Sandbox]) -> Iterator[Sandbox]:
    """A sandbox of the test's own."""
    with make(authorized_imports=IMPORTS, tools=[add], timeout=20) as sandbox:
        sandbox.run_code("import os\nx = [1]")
        yield sandbox


def test_a_branch_has_variables_of_its_own(box: Sandbox) -> None:
    with box.fork() as branch:
        branch.run_code("x.append(2)")
        box.run_code("x.append(3)")
        assert (box.run_code("x").value, branch.run_code("x").value) == ([1, 3], [1, 2])


def test_a_branch_has_a_workspace_of_its_own(box: Sandbox) -> None:
    box.files.write("d/a", "old")
    box.run_code("os.chdir('d')")
    with box.fork() as branch:
        assert branch.run_code("open('a').read()").value == "old"
        branch.run_code("open('a', 'w').write('new')")
        branch.files.write("b", "b")
        assert (box.files.read("d/a"), branch.files.read("d/a")) == (b"old", b"new")
        assert sorted(e.path for e in branch.files.list()) == ["b", "d/a"]
        assert [e.path for e in box.files.list()] == ["d/a"]


def test_a_branch_has_checkpoints_of_its_own_and_counts_on(box: Sandbox) -> None:
    box.checkpoint("main")
    with box.fork() as branch:
        assert branch.run_code("x = 'b'").execution_count == 2
        with pytest.raises(CheckpointError):
            branch.rollback("main")
        branch.checkpoint("main")
        branch.run_code("x = 'c'")
        branch.rollback("main")
        assert branch.run_code("x").value == "b"
        branch.rollback(1)
        assert branch.run_code("x").value == [1]
    assert box.run_code("x").value == [1]


def test_a_branch_of_a_checkpoint(box: Sandbox) -> None:
    box.files.write("f", "1")
    box.checkpoint("one")
    box.run_code("x = 'later'; open('f', 'w').write('2')")
    for which in ("one", 1):
        with box.fork(at=which) as branch:
            assert branch.run_code("x, open('f').read()").value == ([1], "1")
    assert box.run_code("x, open('f').read()").value == ("later", "2")


def test_a_branch_of_a_branch_outlives_it(box: Sandbox) -> None:
    first = box.fork()
    first.run_code("x.append('first')")
    with first.fork() as second:
        first.close()
        second.run_code("x.append('second')")
        assert second.run_code("x").value == [1, "first", "second"]
        assert len(box.branches) == 1
    assert box.branches == ()


def test_a_kill_in_a_branch_restores_that_branch_and_disturbs_nobody(box: Sandbox) -> None:
    with box.fork() as branch:
        branch.run_code("x.append(2); open('f', 'w').write('2')")
        killed = branch.run_code(f"x.append(3); os.remove('f'); {HANG}", timeout=1.0)
        assert (killed.status, killed.state) == (Status.TIMEOUT, State.RESTORED)
        assert branch.run_code("x, open('f').read()").value == ([1, 2], "2")
        assert box.run_code("x, os.listdir()").value == ([1], [])


def test_branches_run_at_the_same_time(box: Sandbox, make: Callable[..., Sandbox]) -> None:
    """Each waits, inside its execution, for the other's to have begun."""
    both = threading.Barrier(2)

    def meet() -> bool:
        return both.wait(DEADLINE) >= 0

    with make(tools=[meet]) as parent, parent.fork() as branch:
        results = []
        threads = [
            threading.Thread(target=lambda s=s: results.append(s.run_code("meet()").value)) for s in (parent, branch)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * DEADLINE)
        assert results == [True, True]


def test_tools_interrupt_and_output_are_each_branchs_own(config: Config) -> None:
    patient = replace(config, grace=LONG_GRACE)

    async def both() -> tuple[str, str, object]:
        async with AsyncSandbox(tools=[add], authorized_imports=["os"], config=patient) as parent:
            branch = await parent.fork()
            started = asyncio.Event()
            code = "import os\nos.write(1, b'C\\n'); add(1); print('branch')\nwhile True: pass"
            running = asyncio.create_task(
                branch.run_code(code, on_stdout=lambda text: started.set() if "branch" in text else None)
            )
            await started.wait()
            other = await parent.run_code("import os\nprint('parent'); os.write(1, b'D\\n'); add(2)")
            await parent.interrupt()
            await branch.interrupt()
            stopped = await running
            assert (other.value, stopped.status, stopped.state) == (4, Status.INTERRUPTED, State.KEPT)
            return stopped.logs.stdout, other.logs.stdout, await branch.close()

    branch, parent, _ = asyncio.run(asyncio.wait_for(both(), DEADLINE))
    assert sorted(branch.split()) == ["C", "branch"]
    assert sorted(parent.split()) == ["D", "parent"]


def test_strays_of_one_branch_end_and_children_of_another_live(box: Sandbox, make: Callable[..., Sandbox]) -> None:
    """A branch's own child process must survive the sweep after another branch's execution."""
    swept, begun = threading.Event(), threading.Event()

    def wait_for_sweep() -> bool:
        begun.set()
        return swept.wait(DEADLINE)

    child = """
import os
read, write = os.pipe()
pid = os.fork()
if pid == 0:
    os.read(read, 1)
    os._exit(7)
wait_for_sweep()
os.write(write, b'x')
os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""
    stray = (
        "import os, time\nfor _ in range(3):\n    if os.fork() == 0:\n        os.setsid()\n        time.sleep(600)\n"
    )
    with make(tools=[wait_for_sweep], authorized_imports=["os"], timeout=20) as parent, parent.fork() as branch:
        results = []
        thread = threading.Thread(target=lambda: results.append(branch.run_code(child)))
        thread.start()
        assert begun.wait(DEADLINE)
        assert parent.run_code(stray).ok
        after = parent.run_code(THERE_ARE).value
        swept.set()
        thread.join(DEADLINE)
        assert [r.value for r in results] == [7]
        # Parent's head and three checkpoints at most; the branch's head, its child and checkpoint.
        assert after <= 4 + 3


@in_process
def test_a_sweep_for_a_branch_that_ends_stops_nobody_for_good(box: Sandbox) -> None:
    """Its parent, which idles and is stopped, is asked for something while the sweep is on its way."""
    leaves_strays = "import os\nfor _ in range(3):\n    if os.fork() == 0:\n        while True: pass"
    for i in range(20):
        with box.fork() as branch:
            threading.Event().wait(0.25 + i % 5 / 100)  # the parent is stopped by now, or just then
            branch.run_code(leaves_strays)
        assert box.run_code("x", timeout=5).value == [1]


def test_closing_a_branch_frees_its_memory_and_its_workspace(make: Callable[..., Sandbox]) -> None:
    with make(limits=Limits(memory="256m"), authorized_imports=["os"]) as box:
        box.run_code("import os")
        for _ in range(5):  # together they would not fit
            with box.fork() as branch:
                assert branch.run_code("blob = bytearray(b'x') * (90 << 20)\nopen('f', 'wb').write(bytes(20 << 20))").ok
        deadline = threading.Event()
        while left := box.run_code("os.listdir('/branches')").value:
            assert len(left) <= 1
            deadline.wait(0.01)
        assert box.branches == ()


def test_a_closed_branch_says_so_and_its_parent_goes_on(box: Sandbox) -> None:
    branch = box.fork()
    branch.close()
    branch.close()
    with pytest.raises(SandboxClosed):
        branch.run_code("1")
    assert box.run_code("x").value == [1]


def test_closing_the_parent_closes_its_branches(make: Callable[..., Sandbox]) -> None:
    parent = make()
    branch = parent.fork()
    parent.close()
    with pytest.raises((SandboxClosed, SandboxDied)):
        branch.run_code("1")
    branch.close()


def test_a_branch_cannot_be_reset_and_the_parents_reset_ends_it(box: Sandbox) -> None:
    branch = box.fork()
    with pytest.raises(CheckpointError, match="fork"):
        branch.reset()
    box.reset()
    with pytest.raises((SandboxClosed, SandboxDied)):
        branch.run_code("1")
    assert box.run_code("'x' in globals()").value is False


def test_threads_of_one_branch_are_stopped_while_another_runs(box: Sandbox) -> None:
    with box.fork() as branch:
        branch.run_code(TICKING_THREAD)
        assert (branch.forkable, box.forkable) == (False, True)
        branch.run_code(LONGEST_STOP)
        assert box.run_code("import time; time.sleep(1); 'slept'").value == "slept"
        assert branch.run_code(LONGEST_STOP).value > 0.5


def test_random_numbers_differ_between_branches_unless_the_user_fixed_them(box: Sandbox) -> None:
    box.run_code("import random, uuid, tempfile, numpy\nrandom.random()\nnumpy.random.rand()")
    draw = "random.random(), float(numpy.random.rand()), str(uuid.uuid4()), tempfile.mktemp()"
    with box.fork() as one, box.fork() as two:
        rows = [s.run_code(draw).value for s in (box, one, two)]
        assert all(len(set(column)) == 3 for column in zip(*rows, strict=True))
    box.run_code("random.seed(1); numpy.random.seed(1)")
    with box.fork() as one, box.fork() as two:
        rows = [s.run_code("random.random(), float(numpy.random.rand())").value for s in (box, one, two)]
        assert len(set(rows)) == 1


def test_there_is_a_bound_on_branches(box: Sandbox) -> None:
    open_ones = [box.fork() for _ in range(16)]
    with pytest.raises(CheckpointError, match="close one"):
        box.fork()
    for i, branch in enumerate(open_ones):
        branch.run_code(f"x.append({i})")
    assert [branch.run_code("x").value for branch in open_ones] == [[1, i] for i in range(16)]
    for _ in range(20):  # the place of one that has been closed is free
        open_ones.pop().close()
        open_ones.append(box.fork())
    assert box.run_code("x").value == [1]
    for branch in open_ones:
        branch.close()


def test_a_branch_left_behind_by_a_cancelled_fork_is_closed(config: Config) -> None:
    async def cancelled() -> tuple[int, object]:
        async with AsyncSandbox(authorized_imports=["os"]) as box:
            for delay in range(12):
                task = asyncio.create_task(box.fork())
                for _ in range(delay):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait({task})
                if not task.cancelled() and not task.exception():
                    await task.result().close()
            return len(box.branches), (await box.run_code("1 + 1")).value

    assert asyncio.run(asyncio.wait_for(cancelled(), DEADLINE)) == (0, 2)
