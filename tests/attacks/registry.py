"""All cases, and every id of the corpus: where it is run, which tests elsewhere hold it, or why it cannot apply."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from tests.attacks import (
    cases_files,
    cases_imports,
    cases_kernel,
    cases_leaks,
    cases_neighbours,
    cases_network,
    cases_objects,
    cases_resources,
    cases_supervisor,
    cases_takeover,
    cases_values,
    elsewhere,
)
from tests.attacks.case import Case, NotHere

SECTIONS: dict[str, list[Case]] = {
    "3.1 Imports": cases_imports.CASES,
    "3.2 Objects": cases_objects.CASES,
    "3.3 Values": cases_values.CASES,
    "3.4 Resources": cases_resources.CASES,
    "3.5 Network": cases_network.CASES,
    "3.6 Files": cases_files.CASES,
    "3.7 System calls": cases_kernel.CASES,
    "3.8 Leaks": cases_leaks.CASES,
    "3.9 Neighbours": cases_neighbours.CASES,
    "3.10 Takeover": [*cases_supervisor.CASES, *cases_takeover.CASES],
}
CASES = [case for cases in SECTIONS.values() for case in cases]
NOT_HERE: list[NotHere] = [
    *cases_values.NOT_HERE,
    *cases_neighbours.NOT_HERE,
    *cases_takeover.NOT_HERE,
    *elsewhere.NOT_HERE,
]


_TESTS = Path(__file__).parents[1]


@functools.cache
def named_after() -> dict[str, list[str]]:
    """Corpus id -> the tests elsewhere that have it in their names, as ``test_ser_01_dun_26_…`` has two."""
    found: dict[str, list[str]] = {}
    for file in sorted(_TESTS.rglob("test_*.py")):
        for name in re.findall(r"def (test_\w+)\(", file.read_text("utf-8")):
            for prefix, number in re.findall(r"_([a-z]{2,4})_(\d\d)(?=_)", name):
                test = f"{file.relative_to(_TESTS.parent)}::{name}"
                found.setdefault(f"{prefix.upper()}-{number}", []).append(test)
    return {id: tests for id, tests in found.items() if id in CORPUS}


def _ids(prefix: str, numbers: str) -> list[str]:
    return [f"{prefix}-{number}" for number in numbers.split()]


# As the corpus has them; numbers that are missing there are missing here.
CORPUS = [
    *_ids("IMP", "01 02 04 05 07 08 10 11 13 14 16 17 19 20 22 23 25 26 28 29"),
    *_ids("DUN", "01 02 04 05 07 08 10 11 13 14 16 17 19 20 22 23 25 26"),
    *_ids("SER", "01 02 04 05 07 08 10 11 13 14"),
    *_ids("RES", "01 02 04 05 07 08 10 11 13 14 16 17 19 20 22 23 25 26"),
    *_ids("NET", "01 02 04 05 07 08 10 11 13 14"),
    *_ids("FS", "01 02 04 05 07 08 10 11 13 14"),
    *_ids("KRN", "01 02 04 05 07 08 10 11 13 14 16 17"),
    *_ids("INF", "01 02 04 05 07 08 10 11"),
    *_ids("XSN", "01 02 04 05 07 08 10 11"),
    *_ids("TKO", "01 02 04 05 07 08 10 11 13 14 16 17 19 20"),
    *_ids("TOOL", "01 02 04 05 07 08 10 11"),
    *_ids("PRO", "01 02 04 05 07 08 10 11 13"),
    *_ids("TRM", "01 02 04 05"),
    *_ids("INJ", "01 02 04 05"),
    *_ids("ARC", "01 02 04"),
    *_ids("TIM", "01 02 04"),
    *_ids("HST", "01 02 04 05 07 08"),
]
