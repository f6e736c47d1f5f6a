"""Searches for inputs that break a property: ``python -m tests.hostile.fuzz [SECONDS [NAME]]``; see ``make fuzz``.

With atheris (libFuzzer for Python) the search is guided by what code an input reaches, and the inputs worth keeping are
kept in .build/fuzz. Without it hypothesis searches by itself, with many more examples than in the tests.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CORPUS = Path(".build/fuzz")
EXAMPLES_PER_SECOND = 100  # without atheris: about what a property takes
_GUIDED = importlib.util.find_spec("atheris") is not None
# The product's own modules alone: what hypothesis or gRPC do inside would drown what matters.
_INSTRUMENTED = ("orchestrator.sandbox", "orchestrator.sanitise", "executor_image.frames", "executor_image.supervisor")


def main(arguments: list[str]) -> int:
    """Runs each property in a process of its own, one after the other; gives the exit code."""
    seconds = int(arguments[0]) if arguments else 60
    if len(arguments) > 1:
        return _search(arguments[1], seconds)
    print(
        "guided by coverage" if _GUIDED else "by hypothesis alone; `make fuzz` installs atheris where it can be had",
        flush=True,
    )
    broken = [name for name in sorted(_properties()) if not _holds(name, seconds)]
    print(f"{len(_properties()) - len(broken)} passed, {len(broken)} failed")
    for name in broken:
        print(f"broken: {name}")
    return 1 if broken else 0


def _properties() -> dict[str, Any]:
    from tests.hostile import test_properties, test_supervisor

    return {holds.__name__: holds for holds in (*test_properties.PROPERTIES, *test_supervisor.PROPERTIES)}


def _holds(name: str, seconds: int) -> bool:
    print(f"{name}, {seconds} s", flush=True)
    env = {**os.environ, "FUZZ_EXAMPLES": str(seconds * EXAMPLES_PER_SECOND)}
    return subprocess.run([sys.executable, "-m", "tests.hostile.fuzz", str(seconds), name], env=env).returncode == 0


def _search(name: str, seconds: int) -> int:
    if _GUIDED:
        _search_guided(name, seconds)
        return 0
    _properties()[name]()
    return 0


def _search_guided(name: str, seconds: int) -> None:
    import atheris  # not a dependency: `make fuzz` installs it where it can be had

    with atheris.instrument_imports(include=list(_INSTRUMENTED)):
        holds = _properties()[name]
    corpus = CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={seconds}", "-rss_limit_mb=2048", "-timeout=30", "-print_final_stats=0"]
    atheris.Setup([sys.argv[0], str(corpus), *options, f"-artifact_prefix={corpus}/"], holds.hypothesis.fuzz_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
