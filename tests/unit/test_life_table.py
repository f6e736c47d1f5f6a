"""docs/life.md names the tests that show each of its rows: they are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.faults import moments

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "life.md").read_text("utf-8")


def test_every_test_that_the_table_names_is_there() -> None:
    trees = [ast.parse(path.read_text("utf-8")) for path in (ROOT / "tests" / "faults").glob("test_*.py")]
    there = {node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    assert named
    assert named - there == set()


def test_every_row_names_a_test() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("| ") and "tests/faults/" not in line]
    assert rows
    assert [row for row in rows if "`test_" not in row.rsplit("|", 2)[1]] == []


def test_the_number_of_moments_is_the_one_that_is_told() -> None:
    assert f"any of {len(moments.ALL)} named moments" in TEXT
