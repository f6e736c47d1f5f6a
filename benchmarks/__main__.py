"""Prints the table and writes it as ``.build/bench.json``."""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import loops, service, states
from benchmarks.figures import MILLISECOND, Figure, median_of
from benchmarks.floors import docker_run, echo
from orchestrator.config import Config
from orchestrator.errors import CellblockError
from orchestrator.sandbox import Portal, Sandbox

STEPS, SLOW_STEPS, PAUSE = 1000, 100, 0.05  # PAUSE in seconds: the cadence of an agent that thinks
TOOL_CALLS = 1000
COLD_STARTS = 5
MESSAGE = b"x" * 40  # about the size of an Execute of "x = 1"


def step_figures() -> list[Figure]:
    """The no-op step, back to back and at an agent's cadence."""
    with echo() as peer, Sandbox() as sandbox:

        def step() -> object:
            return sandbox.run_code("x = 1")

        def exchange() -> object:
            return Portal.run(peer.exchange(MESSAGE))

        rows = []
        for name, count, pause in (("back to back", STEPS, 0.0), (f"{PAUSE * 1e3:g} ms between", SLOW_STEPS, PAUSE)):
            floor = median_of(count, exchange, pause)
            rows.append(Figure(f"no-op step, {name}", median_of(count, step, pause), floor, "gRPC echo"))
        return rows


def tool_figure() -> Figure:
    """Agent code -> host function -> back, inside one execution."""

    def answer(x: int) -> int:
        return x

    code = (
        "import time, statistics\n"
        "seconds = []\n"
        f"for i in range({TOOL_CALLS}):\n"
        "    started = time.perf_counter(); answer(i); seconds.append(time.perf_counter() - started)\n"
        "statistics.median(seconds)"
    )
    with Sandbox(tools=[answer], timeout=60) as sandbox:
        value = sandbox.run_code(code).value
        return Figure("tool call from inside, and back", float(value) * MILLISECOND)


def output_figures() -> list[Figure]:
    """Much text, in one piece and in many."""
    with Sandbox() as sandbox:
        big = median_of(10, lambda: sandbox.run_code("print('x' * (1 << 20))"))
        many = median_of(10, lambda: sandbox.run_code("for i in range(20_000): print(i)"))
    return [Figure("1 MB of stdout", big), Figure("20,000 prints", many)]


def cold_start_figure() -> Figure:
    """``Sandbox()`` to the first result, image present, nothing warm."""

    def start() -> None:
        with Sandbox() as sandbox:
            sandbox.run_code("x = 1")
            taken.append(time.perf_counter())

    taken: list[float] = []
    seconds = []
    for _ in range(COLD_STARTS):
        started = time.perf_counter()
        start()
        seconds.append(taken[-1] - started)
    floor = statistics.median(docker_run(Config.load()) for _ in range(COLD_STARTS)) * MILLISECOND
    return Figure("cold sandbox to first result", statistics.median(seconds) * MILLISECOND, floor, "docker run")


def main() -> int:
    """Measures and prints everything."""
    try:
        figures = [
            *step_figures(),
            tool_figure(),
            *output_figures(),
            cold_start_figure(),
            *states.step_figures(),
            *states.going_back_figures(),
            *loops.step_figures(),
            loops.interrupt_figure(),
            *service.figures(),
        ]
    except CellblockError as error:
        print(f"cellblock: {error}", file=sys.stderr)
        return 1
    table = Table("figure", "median", "floor", "ratio", title="cellblock on this machine")
    for f in figures:
        floor = f"{f.floor:.2f} ms ({f.floor_name})" if f.floor else ""
        table.add_row(f.name, f"{f.milliseconds:.2f} ms", floor, f"{f.milliseconds / f.floor:.2f}" if f.floor else "")
    Console().print(table)
    path = Path(".build/bench.json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps([asdict(f) for f in figures], indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
