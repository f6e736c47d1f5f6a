"""The history file."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.repl.history import MAX_ENTRIES, MAX_ENTRY, append, history_file, load


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "cellblock" / "history"


def test_it_is_where_states_belong() -> None:
    assert history_file({"XDG_STATE_HOME": "/state"}) == Path("/state/cellblock/history")
    for env in ({}, {"XDG_STATE_HOME": ""}, {"XDG_STATE_HOME": "relative"}):
        assert history_file(env) == Path.home() / ".local/state/cellblock/history"


def test_entries_come_back_in_order_and_nobody_else_may_read_them(path: Path) -> None:
    assert load(path) == []
    append(path, "x = 1")
    path.chmod(0o644)
    append(path, "def f():\n    return 'é'")
    assert load(path) == ["x = 1", "def f():\n    return 'é'"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@given(st.text(st.characters(exclude_categories=()), max_size=30))
def test_any_text_comes_back(entry: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        append(Path(folder) / "history", entry)
        assert load(Path(folder) / "history") == [entry]


def test_what_is_no_entry_is_passed_over(path: Path) -> None:
    append(path, "x = 1")
    with path.open("ab") as file:
        file.write(b'half a li\n\xff\xfe\n12\n["list"]\n' + b"[" * 100_000 + b"\n")
    append(path, "x = 2")
    assert load(path) == ["x = 1", "x = 2"]


def test_it_does_not_grow_for_ever(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("".join(f'"{i}"\n' for i in range(2 * MAX_ENTRIES + 1)))
    newest = [str(i) for i in range(MAX_ENTRIES + 1, 2 * MAX_ENTRIES + 1)]
    assert load(path) == newest
    assert path.read_text().count("\n") == MAX_ENTRIES
    append(path, "x" * (MAX_ENTRY + 1))
    assert load(path) == newest


def test_a_place_that_cannot_be_written_loses_nothing_but_the_history(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    append(tmp_path / "file" / "history", "x = 1")
    assert load(tmp_path / "file" / "history") == []
