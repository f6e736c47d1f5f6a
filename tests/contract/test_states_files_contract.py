"""What every sandbox backend must do: the workspace goes back with the variables, or it is said why not."""

from collections.abc import Callable

import pytest

from orchestrator import Limits, Sandbox, State
from orchestrator.errors import CheckpointError
from orchestrator.events import Files
from tests.contract.conftest import in_process, names

# They are about the supervisor, far below the API, and take long.
pytestmark = [pytest.mark.docker, in_process]
HANG = "sum(range(10**12))"


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
    killed = box.run_code(code, timeout=1.0)
    assert (killed.state, killed.files) == (State.RESTORED, Files.RESTORED)
    assert names(box) == ["data.csv"]
    assert box.files.read("data.csv") == b"1,2"


def test_what_the_host_writes_between_two_executions_is_part_of_the_state(box: Sandbox) -> None:
    box.run_code("x = 1")
    box.files.write("a", "1")
    box.files.write("b", "2")
    assert box.run_code(f"open('a', 'w').write('damaged'); {HANG}", timeout=1.0).files is Files.RESTORED
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
        killed = box.run_code(f"open('new', 'w').write('n'); {HANG}", timeout=1.0)
        assert (killed.state, killed.files) == (State.RESTORED, Files.KEPT)
        assert "1,048,576 bytes" in killed.files_reason
        assert names(box) == ["big", "new"]
