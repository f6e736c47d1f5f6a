"""All tests, as two pytest processes side by side: most of what they do is to wait for containers.

``python -m tests``: the first half is shown as it runs, the second once it has ended. Exit code 0 if both passed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

# What uses the engine most is apart from what uses the processor most. The halves take about as long as each other.
HALVES = (
    ("tests/docker", "tests/contract"),
    ("tests/attacks", "tests/hostile", "tests/unit", "tests/e2e", "tests/faults"),
)
_COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed)")


def main() -> int:
    """Runs both halves."""
    if left_out := forgotten(Path(__file__).parent):
        print(f"in neither half of tests/__main__.py: {', '.join(left_out)}")
        return 1
    with tempfile.TemporaryFile("w+") as second_output:
        first = _started(HALVES[0], subprocess.PIPE)
        second = _started(HALVES[1], second_output)
        shown = _shown(first)
        codes = first.wait(), second.wait()
        second_output.seek(0)
        told = second_output.read()
    print(told)
    print(f"both halves: {_sum(shown, told)}")
    return 0 if codes == (0, 0) else 1


def forgotten(tests: Path) -> list[str]:
    """The folders and files of tests that neither half has."""
    covered = {path.partition("/")[2] for half in HALVES for path in half}
    there = {path.relative_to(tests).parts[0] for path in tests.rglob("test_*.py")}
    return sorted(there - covered)


def _started(paths: tuple[str, ...], output: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pytest", *paths, *sys.argv[1:]]
    return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True)  # type: ignore[call-overload]


def _shown(process: subprocess.Popen[str]) -> str:
    """Prints its output piece by piece, so that who watches sees that it goes on; gives all of it."""
    assert process.stdout
    pieces = []
    while piece := process.stdout.read(1):
        pieces.append(piece)
        sys.stdout.write(piece)
        sys.stdout.flush()
    return "".join(pieces)


def _sum(*outputs: str) -> str:
    """The counts of the last lines of both together."""
    total: dict[str, int] = {}
    for output in outputs:
        for count, kind in _COUNT.findall(output.strip().rpartition("\n")[2]):
            total[kind] = total.get(kind, 0) + int(count)
    return ", ".join(f"{count} {kind}" for kind, count in total.items())


if __name__ == "__main__":
    sys.exit(main())
