"""What keeping states costs, at several sizes of state, each beside a bare ``fork()`` of the same process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.figures import MILLISECOND, Figure, median_of
from orchestrator.config import Config, Limits
from orchestrator.events import State
from orchestrator.sandbox import Sandbox

SIZES = (0, 100, 500)  # MB
STEPS, SLOW_STEPS, PAUSE = 200, 60, 0.05
TURNS = 15
GRACE = TIMEOUT = 0.2
SETTLED = 0.05  # seconds: the checkpoint after a step is made while nobody waits
HANG = "sum(range(10**12))"
FORK_ALONE = """
import os, time
def fork_alone():
    started = time.perf_counter()
    pid = os.fork()
    if not pid: os._exit(0)
    seconds = time.perf_counter() - started
    os.waitpid(pid, 0)
    return seconds
sorted(fork_alone() for _ in range(15))[7]
"""


@dataclass(frozen=True)
class Setup:
    """A sandbox with so much in it."""

    name: str
    code: str

    def sandbox(self) -> Sandbox:
        """A started one."""
        limits = Limits(memory="3g")
        config = Config(grace=GRACE, limits=limits)
        sandbox = Sandbox(authorized_imports=["os", "numpy", "pandas"], config=config, timeout=60)
        made = sandbox.run_code(self.code)
        if not made.ok:
            raise SystemExit(f"{self.name}: {made.error}")
        return sandbox


def setups() -> Iterator[Setup]:
    """Numpy arrays of each size, which the kernel gives huge pages, beside an empty state."""
    for size in SIZES:
        code = f"import numpy, pandas\nstate = numpy.random.rand({size} << 17)" if size else "pass"
        yield Setup(f"{size} MB", code)


def timed(call: Callable[[], object]) -> float:
    """Milliseconds."""
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * MILLISECOND


def step_figures() -> list[Figure]:
    """The no-op step with numpy, pandas and a large state, beside the same of an empty one."""
    objects = Setup("500 MB of small objects", "import numpy, pandas\nstate = [str(i) * 3 for i in range(7_000_000)]")
    arrays = Setup("numpy, pandas, 500 MB", "import numpy, pandas\nstate = numpy.random.rand(500 << 17)")
    figures = []
    with Setup("empty", "pass").sandbox() as empty:
        for setup in (arrays, objects):
            with setup.sandbox() as sandbox:
                for name, count, pause in (("back to back", STEPS, 0.0), ("50 ms between", SLOW_STEPS, PAUSE)):
                    floor = median_of(count, lambda: empty.run_code("x = 1"), pause)
                    step = median_of(count, lambda s=sandbox: s.run_code("x = 1"), pause)  # type: ignore[misc]
                    figures.append(Figure(f"no-op step, {setup.name}, {name}", step, floor, "the same, empty"))
    return figures


def going_back_figures() -> list[Figure]:
    """Kill to next result, rollback, branch."""
    figures = []
    for setup in setups():
        with setup.sandbox() as sandbox:
            alone = float(sandbox.run_code(FORK_ALONE).value) * MILLISECOND
            sandbox.checkpoint("here")
            for name, measure in (("hard kill to next result", kill), ("rollback", rollback), ("branch", branch)):
                median = statistics.median(measure(sandbox) for _ in range(TURNS))
                figures.append(Figure(f"{name}, {setup.name}", median, alone, "fork() alone"))
    return figures


def kill(sandbox: Sandbox) -> float:
    """From the kill (deadline and grace over) to the next execution's result, the state restored."""
    time.sleep(SETTLED)
    states = []

    def both() -> None:
        states.append(sandbox.run_code(HANG, timeout=TIMEOUT).state)
        sandbox.run_code("x = 1")

    milliseconds = timed(both) - (TIMEOUT + GRACE) * MILLISECOND
    if states != [State.RESTORED]:
        raise SystemExit(f"the kill left the state {states[0]}")
    return milliseconds


def rollback(sandbox: Sandbox) -> float:
    """To a named checkpoint, after a step and its own checkpoint."""
    sandbox.run_code("x = 2")
    time.sleep(SETTLED)
    return timed(lambda: sandbox.rollback("here"))


def branch(sandbox: Sandbox) -> float:
    """Until the branch is there; its first step is like any other."""
    time.sleep(SETTLED)
    made: list[Sandbox] = []
    milliseconds = timed(lambda: made.append(sandbox.fork()))
    made[0].close()
    return milliseconds
