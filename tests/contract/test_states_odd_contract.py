"""What every sandbox backend must do: states in odd circumstances, each of which has gone wrong once."""

from collections.abc import Callable, Iterator

import pytest

from orchestrator import Files, Limits, Sandbox, State
from orchestrator.errors import CheckpointError
from tests.contract.conftest import IMPORTS, in_process

# They are about the supervisor, far below the API, and take long.
pytestmark = [pytest.mark.docker, in_process]
DIE = "\nos._exit(1)"


@pytest.fixture
def box(make: Callable[..., Sandbox]) -> Iterator[Sandbox]:
    """A sandbox of the test's own."""
    with make(authorized_imports=[*IMPORTS, "mmap", "shutil", "sqlite3"], timeout=20) as sandbox:
        sandbox.run_code("import os, shutil, signal")
        yield sandbox


def killed(sandbox: Sandbox, code: str) -> None:
    """The code runs and dies, and all is as before it."""
    execution = sandbox.run_code(code + DIE)
    assert (execution.state, execution.files, execution.files_reason) == (State.RESTORED, Files.RESTORED, "")


# Files.


def test_what_is_written_through_a_mapping_goes_back_and_is_kept(box: Sandbox) -> None:
    box.run_code("import numpy\nnumpy.save('a.npy', numpy.zeros(4)); a = numpy.load('a.npy', mmap_mode='r+'); a[0]")
    for value in (1, 2):
        box.run_code(f"a[:] = {value}; a.flush()")
        box.checkpoint(f"is {value}")
    look = "numpy.load('a.npy').tolist(), a.tolist()"
    for value in (1, 2):
        box.rollback(f"is {value}")
        assert box.run_code(look).value == ([value] * 4, [value] * 4)
    killed(box, "a[:] = 9")
    assert box.run_code(look).value == ([2] * 4, [2] * 4)


def test_a_mapping_made_by_reading_first_is_seen_through(box: Sandbox) -> None:
    box.files.write("a", "A" * 100)
    box.run_code("1")
    killed(box, "import mmap\nf = open('a', 'r+b'); m = mmap.mmap(f.fileno(), 0); m[0]; m[:4] = b'EVIL'")
    assert box.files.read("a") == b"A" * 100


@pytest.mark.parametrize(
    "damage",
    [
        "os.chmod('d', 0o700); shutil.rmtree('d')",
        "os.chmod('d', 0)",
        "os.mkdir('e'); open('e/x', 'w').close(); os.chmod('e', 0o500)",
        "os.mkdir('e'); os.chmod('e', 0)",
        "os.makedirs('/'.join('e' * 60))",
        "os.chmod('f', 0); os.chmod('.', 0o500)",
        "os.remove('f'); os.mkdir('f'); open('f/x', 'w').close(); os.symlink('f', 'g')",
        "os.remove('l'); os.mkdir('l'); open('l/x', 'w').close()",
        "os.rename('d', 'moved'); os.symlink('/tmp', 'd')",
        "os.mkfifo('another'); os.remove('pipe')",
        "os.chmod('f', 0o600); open('f', 'r+').write('B'); os.utime('f', (1, 1))",
    ],
)
def test_modes_and_kinds_do_not_keep_files_from_going_back(box: Sandbox, damage: str) -> None:
    box.run_code(
        "os.mkdir('d'); open('d/in', 'w').write('1'); os.chmod('d', 0o500)\n"
        "open('f', 'w').write('A'); os.chmod('f', 0o400); os.utime('f', (1, 1))\n"
        "os.symlink('f', 'l'); os.mkfifo('pipe')"
    )
    look = (
        "[(p, oct(os.lstat(p).st_mode), int(os.lstat(p).st_mtime)) for p in sorted(os.listdir('.'))],"
        " os.listdir('d'), open('d/in').read(), open('l').read()"
    )
    before = box.run_code(look).value
    killed(box, damage)
    assert box.run_code(look).value == before


def test_a_branch_of_folders_that_cannot_be_written_to(box: Sandbox) -> None:
    box.run_code("os.mkdir('d'); open('d/in', 'w').write('1'); os.chmod('d', 0o500)")
    with box.fork() as branch:
        assert branch.run_code("open('d/in').read(), oct(os.stat('d').st_mode)").value == ("1", "0o40500")


def test_files_that_are_open_are_the_branchs_own(box: Sandbox) -> None:
    box.run_code(
        "log = open('log', 'w'); log.write('parent\\n'); log.flush()\n"
        "import sqlite3; db = sqlite3.connect('db'); db.execute('create table t (x)'); db.commit()"
    )
    with box.fork() as branch:
        branch.run_code("log.write('branch\\n'); log.flush(); db.execute('insert into t values (42)'); db.commit()")
        look = "open('log').read(), sqlite3.connect('db').execute('select * from t').fetchall()"
        assert branch.run_code(look).value == ("parent\nbranch\n", [(42,)])
        assert box.run_code(look).value == ("parent\n", [])


def test_a_current_folder_outside_the_workspace_stays(box: Sandbox) -> None:
    box.run_code("os.chdir('/tmp')")
    killed(box, "x = 1")
    assert box.run_code("os.getcwd()").value == "/tmp"


def test_a_current_folder_that_was_removed_is_there_again(box: Sandbox) -> None:
    box.run_code("os.makedirs('a/b'); os.chdir('a/b'); open('f', 'w').write('f')")
    killed(box, "os.chdir('/'); shutil.rmtree('/workspace/a')")
    assert box.run_code("open('f').read(), os.path.relpath(os.getcwd(), '/workspace')").value == ("f", "a/b")


# What the code has arranged to happen.


def test_hooks_of_the_codes_do_not_change_a_copy(box: Sandbox) -> None:
    box.run_code(
        "x = []\n"
        "os.register_at_fork(before=lambda: x.append('before'), after_in_parent=lambda: x.append('parent'),"
        " after_in_child=lambda: x.append('child'))"
    )
    box.run_code("pass")
    killed(box, "y = 1")
    assert box.run_code("x").value == []
    assert box.run_code("pid = os.fork()\nif not pid: os._exit(len(x))\nos.waitpid(pid, 0)[1] >> 8, x").value == (
        2,
        ["before", "parent"],
    )


def test_a_signal_to_a_checkpoint_does_not_change_it(box: Sandbox) -> None:
    box.run_code("x = 'good'\ndef spoil(*_):\n    global x; x = 'spoilt'\nsignal.signal(signal.SIGUSR1, spoil)")
    others = (
        "for pid in range(2, 500):\n    if pid != os.getpid():\n"
        "        try: os.kill(pid, signal.SIGUSR1)\n        except OSError: pass"
    )
    killed(box, others)
    assert box.run_code("x").value == "good"


@pytest.mark.parametrize("how", ["signal.SIG_IGN", "lambda *_: 1 / 0"])
def test_what_the_code_does_about_ended_children_is_not_in_the_way(box: Sandbox, how: str) -> None:
    box.run_code(f"x = 1; signal.signal(signal.SIGCHLD, {how})")
    box.checkpoint("handler")
    for i in range(30):  # from the eighth on, each lets a checkpoint go
        assert box.run_code(f"y = {i}").state is State.KEPT  # its handler may hear of that, in an execution
    with box.fork() as branch:
        assert branch.run_code("signal.signal(signal.SIGCHLD, signal.SIG_DFL)").state is State.KEPT
        assert branch.run_code("x").value == 1
    box.rollback("handler")
    box.run_code("signal.signal(signal.SIGCHLD, signal.SIG_DFL)")
    assert box.run_code("x, 'y' in globals()").value == (1, False)


def test_handlers_that_raise_all_the_time_end_with_the_execution(box: Sandbox) -> None:
    storm = """
def handler(*_): raise KeyError("again")
signal.signal(signal.SIGALRM, handler)
import sys; sys.modules["builtins"].len = None
signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
while True: pass
"""
    box.run_code("x = 1")
    for _ in range(20):
        assert box.run_code(storm).error.name == "KeyError"
        assert box.run_code("len([x])").value == 1
        assert box.run_code("signal.getitimer(signal.ITIMER_REAL)").value == (0.0, 0.0)


def test_without_descriptors_no_checkpoint_is_made_and_nothing_is_lost(box: Sandbox) -> None:
    box.run_code(
        "x = 2; leaked = []\ntry:\n    while True: leaked.append(os.open('/dev/null', 0))\nexcept OSError: pass"
    )
    for refused in (box.checkpoint, box.fork):
        with pytest.raises(CheckpointError, match="descriptors"):
            refused()
    assert box.run_code("len(leaked) > 50, x").value == (True, 2)
    box.run_code("for fd in leaked: os.close(fd)")
    box.checkpoint("again")


def test_what_a_kill_goes_back_to_is_kept_when_memory_gets_scarce_while_threads_are_alive(
    make: Callable[..., Sandbox],
) -> None:
    with make(authorized_imports=IMPORTS, limits=Limits(memory="256m", checkpoint_memory=0.0)) as box:
        box.run_code("import os, time, threading\nx = 1")
        box.run_code("x = 2\nthreading.Thread(target=threading.Event().wait, daemon=True).start()")
        box.run_code("blob = bytearray(b'x') * (215 << 20); time.sleep(0.2)")
        ended = box.run_code("os._exit(1)")
        assert (ended.state, ended.restored_to) == (State.LOST, 1)
        assert box.run_code("x").value == 1


# Handles.


def test_a_checkpoint_of_a_container_that_is_gone_is_not_taken_for_another(
    box: Sandbox, make: Callable[..., Sandbox]
) -> None:
    box.run_code("x = 1")
    old = box.checkpoint("old")
    box.reset()
    box.run_code("x = 2")
    with make() as other:
        other.run_code("x = 3")
        for sandbox in (box, other):
            for use in (sandbox.rollback, sandbox.drop, sandbox.fork):
                with pytest.raises(CheckpointError, match="gone"):
                    use(old)


def test_a_branch_is_known_and_begins_without_threads(box: Sandbox) -> None:
    box.checkpoint("before")
    box.run_code("import threading; threading.Thread(target=threading.Event().wait).start()")
    with box.fork(at="before") as branch:
        assert (box.forkable, branch.forkable, branch in box.branches, box in box.branches) == (
            False,
            True,
            True,
            False,
        )
