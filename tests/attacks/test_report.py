"""The report of the attacks tells what was seen, not what was declared."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.attacks.case import CELLS, Case, Cell, Place
from tests.attacks.registry import CASES, NOT_HERE
from tests.attacks.report import FAILED, HELD, NOT_JUDGED, NOT_RUN, REACHED, Report

CASE, OTHER = [case for case in CASES if case.control.place is not Place.NOWHERE and not case.note][:2]
LANDLOCK = [cell for cell in CELLS if cell.landlock]
POLICY = [cell for cell in CELLS if cell.policy]


def seen(case: Case, held: Iterable[Cell], columns: Iterable[Cell] = CELLS) -> Report:
    """A report of these columns, in which it was held in those."""
    report = Report()
    for cell in columns:
        report.reached(case, cell, cell not in list(held))
    return report


@pytest.mark.parametrize(
    ("held", "by"),
    [
        (CELLS, str(CASE.held_by)),
        ((), "nothing"),
        (LANDLOCK, "Landlock"),
        ([cell for cell in CELLS if cell.landlock or cell.policy], "Landlock, policy"),
        (POLICY, "policy only"),
        ([cell for cell in CELLS if cell.landlock and cell.policy], "policy only"),
    ],
)
def test_what_held_a_case_is_read_from_the_columns(held: list[Cell], by: str) -> None:
    report = seen(CASE, held)
    assert report.held_by(CASE) == by
    assert report.only_policy() == ([CASE] if by == "policy only" else [])
    assert [report.verdict(CASE, cell) for cell in CELLS] == [HELD if cell in held else REACHED for cell in CELLS]


def test_of_what_was_not_run_nothing_is_said() -> None:
    assert Report().held_by(CASE) == NOT_RUN
    some = seen(CASE, CELLS, CELLS[:3])
    assert some.held_by(CASE) == NOT_JUDGED
    assert some.verdict(CASE, CELLS[3]) == NOT_RUN
    assert any("1 not run in every column" in line for line in some.summary())


def test_what_failed_is_told_as_failed_whatever_else_was_seen() -> None:
    report = seen(CASE, CELLS)
    with pytest.raises(ZeroDivisionError), report.of(CASE, CELLS[0]):
        raise ZeroDivisionError
    assert report.verdict(CASE, CELLS[0]) == FAILED
    assert report.held_by(CASE) == "?"
    with report.of(CASE, CELLS[1]):
        pass
    assert report.verdict(CASE, CELLS[1]) == HELD


def test_the_summary_counts() -> None:
    report = seen(CASE, POLICY)
    for cell in CELLS:
        report.reached(OTHER, cell, True)
    report.control(CASE, "works")
    first, *lines = report.summary()
    assert first == f"{len(CASES)} cases, 8 runs, 1 positive controls"
    assert sorted(lines) == sorted(["     1 held by nothing", "     1 held by policy only", f"  only policy: {CASE}"])


def test_the_table_has_a_row_for_every_case_and_every_id_that_is_not_run_here() -> None:
    report = seen(CASE, LANDLOCK)
    report.control(CASE, "works")
    table = report.markdown()
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    for entry in (*CASES, *NOT_HERE):
        assert sum(row.startswith(f"| {entry.id} | {entry.name}") for row in rows) == 1, entry.id
    (row,) = [row for row in rows if row.startswith(f"| {CASE.id} |")]
    verdicts = " | ".join(HELD if cell.landlock else REACHED for cell in CELLS)
    assert row.endswith(f" | {verdicts} | Landlock | works |")
    (row,) = [row for row in rows if row.startswith(f"| {OTHER.id} |")]
    assert row.endswith(f" | {' | '.join([NOT_RUN] * 6)} |")


def test_why_there_is_no_control_stands_where_it_would() -> None:
    table = Report().markdown()
    without = [case for case in CASES if case.control.place is Place.NOWHERE]
    assert without
    for case in without:
        assert f"| none: {case.control.reason} |".replace("\n", " ") in table
