"""``make test`` runs its tests as two halves: none is left out."""

from __future__ import annotations

from pathlib import Path

from tests.__main__ import HALVES, forgotten

TESTS = Path(__file__).parents[1]


def test_each_test_is_in_exactly_one_half() -> None:
    assert forgotten(TESTS) == []
    assert len({path for half in HALVES for path in half}) == sum(map(len, HALVES))
    assert [path for half in HALVES for path in half if not (TESTS.parent / path).is_dir()] == []


def test_a_new_folder_is_missed(tmp_path: Path) -> None:
    for name in ("unit/test_a.py", "fresh/below/test_b.py", "fresh/helper.py", "empty/helper.py", "test_c.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert forgotten(tmp_path) == ["fresh", "test_c.py"]
