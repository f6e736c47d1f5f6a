"""The file of an audit log: several writers, crashes, and everything that must stop a writer."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.audit import AuditLog, chain, log, records_of, verify
from orchestrator.errors import AuditError

DEADLINE = 30.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def write(path: Path, count: int) -> None:
    writer = AuditLog(path)
    for number in range(count):
        writer.append("k", "s", {"n": number, "pid": os.getpid()})


# --------------------------------------------------------------------------------------------------------- writing


def test_records_are_added_and_the_file_is_its_owners_alone(path: Path) -> None:
    write(path, 3)
    write(path, 2)  # another object goes on where the first one stopped
    found = verify(path)
    assert (found.records, found.holds) == (5, True)
    assert [record.data["n"] for record in records_of(path)] == [0, 1, 2, 0, 1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_synced_is_on_the_disk_by_every_way_there_is_to_ask(path: Path) -> None:
    writer = AuditLog(path)
    writer.append("k", "s", {})
    writer.sync()
    writer.sync()
    path.unlink()
    with pytest.raises(AuditError, match="cannot be written"):
        writer.sync()


def test_a_relative_path_is_meant_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    writer = AuditLog("audit.jsonl")
    monkeypatch.chdir("/")
    writer.append("k", "s", {})
    assert verify(tmp_path / "audit.jsonl").records == 1


def test_many_threads_and_objects_write_one_chain(path: Path) -> None:
    shared = AuditLog(path)

    def work(writer: AuditLog) -> None:
        for number in range(20):
            writer.append("k", "s", {"n": number})

    threads = [threading.Thread(target=work, args=(writer,)) for writer in [shared] * 4 + [AuditLog(path)] * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert (verify(path).records, verify(path).holds) == (160, True)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_many_processes_write_one_chain(path: Path, method: str) -> None:
    write(path, 1)
    context = multiprocessing.get_context(method)
    processes = [context.Process(target=write, args=(path, 40)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(DEADLINE)
        assert process.exitcode == 0
    assert (verify(path).records, verify(path).holds) == (161, True)
    assert len({record.data["pid"] for record in records_of(path)}) == 5


def test_a_forked_child_goes_on_with_its_parents_log(path: Path) -> None:
    """Both know where they wrote last, and neither takes the other's records for a fault."""
    writer = AuditLog(path)
    writer.append("k", "s", {})
    child = os.fork()
    if child == 0:
        try:
            writer.append("k", "s", {})
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    writer.append("k", "s", {})
    assert (verify(path).records, verify(path).holds) == (3, True)


def test_a_writer_that_is_killed_leaves_a_log_that_holds(path: Path) -> None:
    program = (
        f"from tests.unit.test_audit_log import write\nfrom pathlib import Path\nwrite(Path({str(path)!r}), 10**9)"
    )
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", program])
        before = path.stat().st_size if path.exists() else 0
        wait_until(lambda before=before: path.exists() and path.stat().st_size > before + 4000)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        process.wait(DEADLINE)
        write(path, 1)
        assert verify(path).holds


def wait_until(true: Callable[[], bool]) -> None:
    deadline = threading.Event()
    timer = threading.Timer(DEADLINE, deadline.set)
    timer.start()
    try:
        while not true():
            assert not deadline.is_set(), "in vain"
            os.sched_yield()
    finally:
        timer.cancel()


# --------------------------------------------------------------------------------------------------------- crashes


@pytest.mark.parametrize("records", [0, 1, 3])
def test_a_torn_last_line_is_told_and_the_next_writer_accounts_for_it(path: Path, records: int) -> None:
    write(path, records + 1)
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    for kept in (1, 5, len(last) // 2, len(last) - 2):
        path.write_bytes(whole[: len(whole) - len(last) + kept])
        found = verify(path)
        assert found.broken is not None
        assert (found.records, found.broken.line) == (records, records + 1)
        assert "its writer died" in found.broken.reason
        write(path, 1)
        found = verify(path)
        assert (found.records, found.torn, found.holds) == (records + 2, (records + 1,), True)
        accounted = list(records_of(path))[records]
        assert (accounted.kind, accounted.data["torn_bytes"]) == ("recovered", kept)


def test_a_record_that_lacks_its_line_end_alone_counts(path: Path) -> None:
    write(path, 2)
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    assert (verify(path).records, verify(path).holds) == (2, True)
    write(path, 1)
    assert (verify(path).records, verify(path).torn, verify(path).holds) == (3, (), True)


def test_a_crash_while_a_crash_is_accounted_for_is_accounted_for_too(path: Path) -> None:
    write(path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:30])
    write(path, 1)
    again = path.read_bytes()
    for cut in range(1, len(again) - len(whole) - 30):
        path.write_bytes(again[:-cut])
        write(path, 1)
        assert verify(path).holds, cut


def test_a_disk_that_is_full_is_an_error_and_the_log_goes_on_later(path: Path) -> None:
    """A limit on the size of files does what a full disk does: the write is cut short, the next one is refused."""
    write(path, 1)
    size = path.stat().st_size
    program = (
        "import resource, signal, sys\nfrom orchestrator.audit import AuditLog\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size + 50}, {size + 50}))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"writer = AuditLog({str(path)!r})\n"
        "for _ in range(2):\n    try:\n        writer.append('k', 's', {})\n"
        "    except Exception as error:\n        print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=DEADLINE, check=True)
    first, second = done.stdout.splitlines()
    assert "AuditError" in first
    assert "only 50 of" in first
    assert "AuditError" in second
    assert "cannot be written (File too large)" in second
    write(path, 1)
    assert (verify(path).torn, verify(path).holds) == ((2,), True)


# ----------------------------------------------------------------------------------------- what stops a writer


def test_a_log_in_a_folder_that_is_not_there_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="cannot be written \\(No such file or directory\\)"):
        AuditLog(tmp_path / "missing" / "audit.jsonl").append("k", "s", {})


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_bytes(b"")
    path.symlink_to(target)
    with pytest.raises(AuditError, match="symbolic link"):
        AuditLog(path).append("k", "s", {})
    assert target.read_bytes() == b""


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o602])
def test_a_file_that_others_can_open_is_refused(path: Path, mode: int) -> None:
    path.touch()
    path.chmod(mode)
    with pytest.raises(AuditError, match="mode 0600"):
        AuditLog(path).append("k", "s", {})
    assert path.read_bytes() == b""


def test_what_is_no_file_is_refused(path: Path) -> None:
    os.mkfifo(path, 0o600)
    with pytest.raises(AuditError, match="must be a file"):
        AuditLog(path).append("k", "s", {})
    with pytest.raises(AuditError, match="is no file"):
        verify(path)


@pytest.mark.parametrize(
    "content",
    [
        b"export PATH=/bin\n",
        b"# notes, without an end",
        b"\n",
        b'{"data":{}}\nnot a record\n',
        b'{"data":' + b"x" * chain.MAX_TORN,
        b"x" * (1 << 20),
    ],
)
def test_nothing_is_added_to_a_file_that_does_not_end_as_a_log_does(path: Path, content: bytes) -> None:
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(AuditError, match="does not end as an audit log does"):
        AuditLog(path).append("k", "s", {})
    assert path.read_bytes() == content


def test_a_log_whose_last_record_was_changed_is_not_gone_on_with(path: Path) -> None:
    write(path, 3)
    changed = path.read_bytes().replace(b'"n":2', b'"n":7')
    path.write_bytes(changed)
    with pytest.raises(AuditError, match="cellblock audit verify"):
        AuditLog(path).append("k", "s", {})
    assert path.read_bytes() == changed


@pytest.mark.parametrize("how", ["cut", "emptied", "removed", "replaced", "changed"])
def test_a_log_that_is_changed_while_it_is_in_use_stops_its_writer(path: Path, how: str) -> None:
    writer = AuditLog(path)
    for number in range(3):
        writer.append("k", "s", {"n": number})
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    if how == "cut":
        path.write_bytes(b"".join(lines[:2]))
    elif how == "emptied":
        path.write_bytes(b"")
    elif how == "removed":
        path.unlink()
    elif how == "replaced":
        path.unlink()
        write(path, 9)
    else:
        path.write_bytes(whole.replace(b'"n":2', b'"n":7'))
    with pytest.raises(AuditError, match="cut, changed or replaced"):
        writer.append("k", "s", {})
    path.write_bytes(whole)
    path.chmod(0o600)
    writer.append("k", "s", {})
    assert verify(path).records == 4, "once it is back, the writer goes on"


def test_a_lock_that_is_held_for_ever_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "LOCK_DEADLINE", 0.05)
    write(path, 1)
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(AuditError, match="cannot be written"):
            write(path, 1)
        with pytest.raises(AuditError, match="cannot be read"):
            verify(path)
    write(path, 1)
    assert verify(path).records == 2


# --------------------------------------------------------------------------------------------------------- reading


def test_a_log_that_is_not_there_cannot_be_verified(path: Path) -> None:
    with pytest.raises(AuditError, match="cannot be read: No such file"):
        verify(path)


def test_what_is_added_while_a_log_is_read_does_not_disturb(path: Path) -> None:
    write(path, 3)
    reading = records_of(path)
    assert next(reading).seq == 1
    write(path, 5)
    assert [record.seq for record in reading] == [2, 3]
    assert verify(path).records == 8


def test_a_log_of_endless_lines_is_read_in_bounded_pieces(path: Path) -> None:
    write(path, 1)
    with path.open("ab") as file:
        file.write(b"x" * (8 << 20))
    found = verify(path)
    assert found.broken is not None
    assert (found.records, found.broken.line) == (1, 2)
