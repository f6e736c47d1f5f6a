"""What ``make attacks`` tells: every case, what held it in each column, and what is only policy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.attacks.case import CELLS, Case, Cell, NotHere, Place
from tests.attacks.registry import NOT_HERE, SECTIONS, named_after

PATH = Path(__file__).parents[2] / ".build" / "attacks.md"
HELD, REACHED, FAILED, NOT_RUN = "held", "reached", "FAILED", "–"
NOT_JUDGED = "not all columns were run"


def _why(entry: NotHere, named: list[str]) -> list[str]:
    """Why a case cannot apply, and the tests that hold it: those that it names, and those that are named after it."""
    return [*filter(None, [entry.reason]), *dict.fromkeys((*entry.tests, *named))]


@dataclass
class Report:
    """Filled by the tests as they run."""

    verdicts: dict[tuple[str, Cell], str] = field(default_factory=dict)
    controls: dict[str, str] = field(default_factory=dict)

    def control(self, case: Case, seen: str) -> None:
        """What the positive control showed."""
        self.controls[case.id] = seen

    def reached(self, case: Case, cell: Cell, reached: bool) -> None:
        """What was seen in one column."""
        self.verdicts[case.id, cell] = REACHED if reached else HELD

    @contextmanager
    def of(self, case: Case, cell: Cell) -> Iterator[None]:
        """Whatever fails in it is told as failed."""
        try:
            yield
        except BaseException:
            self.verdicts[case.id, cell] = FAILED
            raise

    def verdict(self, case: Case, cell: Cell) -> str:
        """Of one case in one column."""
        return self.verdicts.get((case.id, cell), NOT_RUN)

    def held_by(self, case: Case) -> str:
        """The layer that held it, as far as the columns show it: not what was declared."""
        seen = {cell: self.verdict(case, cell) for cell in CELLS}
        if FAILED in seen.values():
            return "?"
        if not {HELD, REACHED} & {*seen.values()}:
            return NOT_RUN
        if NOT_RUN in seen.values():  # a selection of the tests, or a kernel without Landlock
            return NOT_JUDGED
        if all(verdict == HELD for verdict in seen.values()):
            return str(case.held_by)
        if all(verdict == REACHED for verdict in seen.values()):
            return "nothing"
        if all(seen[cell] != REACHED for cell in CELLS if cell.landlock):
            policy_too = all(seen[cell] != REACHED for cell in CELLS if cell.policy)
            return "Landlock, policy" if policy_too else "Landlock"
        return "policy only"

    def only_policy(self) -> list[Case]:
        """What holds with the policy on and not without it."""
        return [case for cases in SECTIONS.values() for case in cases if self.held_by(case) == "policy only"]

    def summary(self) -> list[str]:
        """A few lines."""
        all_cases = [case for cases in SECTIONS.values() for case in cases]
        counts: dict[str, int] = {}
        for case in (case for case in all_cases if self.held_by(case) != NOT_RUN):
            counts[self.held_by(case)] = counts.get(self.held_by(case), 0) + 1
        lines = [f"{len(all_cases)} cases, {len(self.verdicts)} runs, {len(self.controls)} positive controls"]
        unjudged = counts.pop(NOT_JUDGED, 0)
        lines += [f"  {count:4} held by {layer}" for layer, count in sorted(counts.items(), key=lambda c: -c[1])]
        lines += [f"  {unjudged:4} not run in every column: what held them is not judged"] * bool(unjudged)
        lines += [f"  only policy: {case}" for case in self.only_policy()]
        return lines

    def markdown(self) -> str:
        """The whole table."""
        lines = ["# Attacks", "", *(f"- {line.strip()}" for line in self.summary()), ""]
        for section, cases in SECTIONS.items():
            lines += [
                f"## {section}",
                "",
                "| id | does not work | " + " | ".join(map(str, CELLS)) + " | held by | control |",
            ]
            lines += ["|---|---|" + "---|" * (len(CELLS) + 2)]
            lines += [self._row(case) for case in cases]
            lines += [""]
        lines += ["## Not run here", "", "| id | does not work | why, or where |", "|---|---|---|"]
        named = named_after()
        lines += [f"| {n.id} | {n.name} | {'<br>'.join(_why(n, named.get(n.id, [])))} |" for n in NOT_HERE]
        return "\n".join(lines) + "\n"

    def _row(self, case: Case) -> str:
        verdicts = " | ".join(self.verdict(case, cell) for cell in CELLS)
        control = self.controls.get(case.id, NOT_RUN)
        if case.control.place is Place.NOWHERE:
            control = f"none: {case.control.reason}"
        held_by = self.held_by(case) + (f" ({case.note})" if case.note else "")
        return f"| {case.id} | {case.name}{' (native)' * case.native} | {verdicts} | {held_by} | {control} |".replace(
            "\n", " "
        )

    def write(self) -> Path:
        """Into the build folder."""
        PATH.parent.mkdir(exist_ok=True)
        PATH.write_text(self.markdown(), "utf-8")
        return PATH
