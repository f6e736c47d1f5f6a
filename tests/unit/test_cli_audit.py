"""``cellblock audit verify`` and ``show``."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.audit import AuditLog, verify
from orchestrator.cli import main


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    for number in range(3):
        log.append("tool_ended", "s1", {"tool": "a\x1b[2J\u202e", "call": number, "empty": ""})
    return path


def test_a_log_that_holds_is_told_with_its_head(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "verify", str(path)]) == 0
    head = verify(path).head
    assert capsys.readouterr().out == f"3 records hold; head {head}\n"
    AuditLog(path).append("k", "s1", {})
    assert main(["audit", "verify", "--head", head, str(path)]) == 0


@pytest.mark.parametrize("line", [1, 2, 3])
def test_the_first_broken_line_is_told_and_the_exit_code_says_so(
    path: Path, capsys: pytest.CaptureFixture[str], line: int
) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line - 1] = lines[line - 1].replace(b'"call":', b'"call":1')
    path.write_bytes(b"".join(lines))
    assert main(["audit", "verify", str(path)]) == 1
    told = capsys.readouterr()
    assert told.out.startswith(f"{line - 1} records hold; ")
    assert told.err == f"cellblock: line {line}: its hash is not that of what it says: it has been changed\n"
    assert main(["audit", "show", str(path)]) == 1
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == line - 1
    assert f"line {line}:" in told.err


def test_a_cut_end_is_found_with_the_head_that_was_kept(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = verify(path).head
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    assert main(["audit", "verify", str(path)]) == 0
    assert main(["audit", "verify", "--head", head, str(path)]) == 1
    assert "its end is gone" in capsys.readouterr().err


def test_what_a_crash_left_behind_is_told(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_bytes(path.read_bytes()[:-30])
    assert main(["audit", "verify", str(path)]) == 1
    assert "line 3: incomplete: its writer died while it wrote" in capsys.readouterr().err
    AuditLog(path).append("k", "s1", {})
    assert main(["audit", "verify", str(path)]) == 0
    assert "line 3: cut short by a crash; the record after it accounts for it" in capsys.readouterr().out


def test_records_are_shown_one_a_line_and_drive_no_terminal(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "show", str(path)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 3
    assert shown[0].startswith("1 ")
    assert ' s1 tool_ended call=0 tool="a\\u001b[2J\\u202e"' in shown[0]
    assert "empty" not in shown[0]


def test_the_log_of_the_settings_is_meant_where_none_is_named(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert main(["audit", "verify"]) == 2
    assert "CELLBLOCK_AUDIT" in capsys.readouterr().err
    (tmp_path / "state" / "cellblock").mkdir(parents=True)
    AuditLog(tmp_path / "state" / "cellblock" / "audit.jsonl").append("service_started", "", {})
    assert main(["audit", "verify"]) == 0
    assert capsys.readouterr().out.startswith("1 records hold")
    monkeypatch.setenv("CELLBLOCK_AUDIT", str(path))
    assert main(["audit", "verify"]) == 0


def test_a_log_that_cannot_be_read_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "verify", str(tmp_path / "missing")]) == 3
    assert capsys.readouterr().err.startswith("cellblock: AuditError: the audit log ")
