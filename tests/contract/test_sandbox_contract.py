"""What every sandbox backend must do: state, values, output, failures, time, life."""

import asyncio
import datetime
import decimal
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from orchestrator import AsyncSandbox, Config, NDArray, Opaque, Output, Sandbox, State, Status
from orchestrator.errors import SandboxClosed
from tests.contract.conftest import DEADLINE, LONG_GRACE, in_process

pytestmark = pytest.mark.docker


# State and values.


def test_variables_functions_and_imports_persist(sandbox: Sandbox) -> None:
    sandbox.run_code("import math\nx = 41\ndef next_one(): return x + 1")
    execution = sandbox.run_code("x += 1; next_one() + math.floor(0.5)")
    assert (execution.value, execution.text, execution.status) == (43, "43", Status.OK)


def test_executions_are_counted(sandbox: Sandbox) -> None:
    first = sandbox.run_code("1").execution_count
    assert sandbox.run_code("2").execution_count == first + 1


@pytest.mark.parametrize(
    "value",
    [
        *(
            None,
            True,
            -1,
            2**63,
            -(2**200),
            1.5,
            "text ✓",
            "\ud800",
            b"\x00\xff",
            [1, [2, (3,)]],
            {1, 2},
            frozenset({3}),
        ),
        {"a": {1: (None, [])}, (1, 2): "tuple key", "__type__": "ndarray"},
        datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
        *(datetime.date(1, 1, 1), datetime.time(23, 59, 59, 999999), datetime.timedelta(-1, 5, 7)),
        *(decimal.Decimal("1E+400"), complex(1, -2), NDArray("int16", (2, 2), b"\1\0\2\0\3\0\4\0")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_go_in_and_come_back_as_they_are(sandbox: Sandbox, value: Any, make: Callable[..., Sandbox]) -> None:
    returned: list[Any] = []

    def value_of_the_host() -> Any:
        return value

    def take(given: Any) -> None:
        returned.append(given)

    with make(tools=[value_of_the_host, take], authorized_imports=["numpy"]) as other:
        execution = other.run_code("v = value_of_the_host(); take(v); v")
    assert execution.error is None
    assert execution.value == value
    assert type(execution.value) is type(value)
    assert returned == [value]


def test_what_cannot_travel_comes_back_as_its_repr(sandbox: Sandbox) -> None:
    execution = sandbox.run_code("class Thing:\n    def __repr__(self): return '<a thing>'\n[1, Thing()]")
    assert execution.value == [1, Opaque("__main__.Thing", "<a thing>")]
    assert execution.text == "[1, <a thing>]"


def test_a_value_too_large_or_deep_comes_back_as_its_repr(sandbox: Sandbox) -> None:
    for code in ("'x' * (5 << 20)", "l = []; l.append(l); l", "d = 1\nfor _ in range(500): d = [d]\nd"):
        execution = sandbox.run_code(code)
        assert isinstance(execution.value, Opaque), code
        assert execution.status is Status.OK


def test_rich_results_are_mime_bundles(sandbox: Sandbox) -> None:
    execution = sandbox.run_code("class Page:\n    def _repr_html_(self): return '<b>hi</b>'\nPage()")
    assert execution.results[0]["text/html"] == "<b>hi</b>"


def test_top_level_await(sandbox: Sandbox) -> None:
    execution = sandbox.run_code("import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    return 5\nawait f()")
    assert execution.value == 5


def test_environment_of_the_caller(sandbox: Sandbox) -> None:
    assert sandbox.run_code("import os; os.environ['TZ']").value == "Asia/Tokyo"


# Output.


def test_output_streams_in_order_as_it_is_written(sandbox: Sandbox) -> None:
    async def collect() -> list[Output]:
        code = "import sys\nfor i in range(3):\n    print('out', i)\n    print('err', i, file=sys.stderr)"
        async with AsyncSandbox(authorized_imports=["sys"]) as one:
            return [event async for event in one.stream(code) if isinstance(event, Output)]

    pieces = [(event.stream, event.text) for event in asyncio.run(asyncio.wait_for(collect(), DEADLINE))]
    assert pieces == [(s, f"{t} {i}\n") for i in range(3) for s, t in (("stdout", "out"), ("stderr", "err"))]


def test_output_arrives_before_the_execution_ends(sandbox: Sandbox, make: Callable[..., Sandbox]) -> None:
    seen = threading.Event()

    def wait_until_seen() -> bool:
        return seen.wait(DEADLINE)

    with make(tools=[wait_until_seen]) as one:
        execution = one.run_code("print('now'); wait_until_seen()", on_stdout=lambda text: seen.set())
    assert execution.value is True


def test_output_without_newline_and_from_c_is_kept(sandbox: Sandbox) -> None:
    execution = sandbox.run_code("import os\nprint('a', end='')\nos.write(1, b'raw')\nos.write(2, b'raw err')")
    assert sorted(execution.logs.stdout) == sorted("araw")
    assert execution.logs.stderr == "raw err"


def test_characters_cut_between_pieces_arrive_whole(sandbox: Sandbox) -> None:
    assert sandbox.run_code("print('é✓' * 100_000)").logs.stdout == "é✓" * 100_000 + "\n"


@in_process
def test_long_output_keeps_head_and_tail_and_says_what_was_dropped(sandbox: Sandbox) -> None:
    execution = sandbox.run_code("for i in range(200_000): print(i)")
    assert execution.status is Status.OK
    assert execution.logs.stdout.startswith("0\n1\n2\n")
    assert execution.logs.stdout.endswith("199999\n")
    assert execution.logs.dropped_bytes > 0
    assert f"[{execution.logs.dropped_bytes:,} bytes of output dropped]" in execution.logs.stdout
    assert execution.usage.output_bytes == sum(len(f"{i}\n") for i in range(200_000))


# Failures of the code are values.


def test_an_exception_has_the_users_lines_only(sandbox: Sandbox) -> None:
    sandbox.run_code("def risky(n):\n    return 10 // n")
    execution = sandbox.run_code("a = 1\n\nrisky(0)")
    assert execution.error is not None
    assert (execution.status, execution.state) == (Status.ERROR, State.KEPT)
    assert (execution.error.name, execution.error.value) == ("ZeroDivisionError", "integer division or modulo by zero")
    assert "line 3, in <module>\n    risky(0)" in execution.error.traceback
    assert "line 2, in risky\n    return 10 // n" in execution.error.traceback
    assert "executor_image" not in execution.error.traceback


def test_what_was_done_before_an_exception_is_kept(sandbox: Sandbox) -> None:
    execution = sandbox.run_code("print('before'); before = 7; 1/0")
    assert execution.logs.stdout == "before\n"
    assert sandbox.run_code("before").value == 7


@pytest.mark.parametrize("code", ["import socket", "def f():\n    import subprocess", "from pathlib import Path"])
def test_a_denied_import_runs_nothing_and_says_what_is_allowed(sandbox: Sandbox, code: str) -> None:
    execution = sandbox.run_code(f"touched = True\n{code}\nf()")
    assert execution.status is Status.IMPORT_DENIED
    assert execution.error is not None
    assert "is not allowed" in execution.error.value
    assert "Allowed imports: " in execution.error.value
    assert "math" in execution.error.value
    assert sandbox.run_code("'touched' in globals()").value is False


def test_a_denied_import_by_other_ways_is_denied_too(sandbox: Sandbox) -> None:
    for code in ("__import__('socket')", "exec('import socket')", "from json import codecs"):
        assert sandbox.run_code(code).status is Status.IMPORT_DENIED, code


def test_an_allowed_library_may_import_what_it_needs(sandbox: Sandbox) -> None:
    assert sandbox.run_code("import numpy; int(numpy.arange(4).sum())").value == 6


def test_a_module_that_is_not_installed_is_called_that(sandbox: Sandbox) -> None:
    execution = sandbox.run_code("import no_such_module")
    assert execution.status is Status.ERROR
    assert execution.error is not None
    assert "'no_such_module'" in execution.error.value
    assert "not installed" in execution.error.value


# Time.


def test_a_python_loop_is_interrupted_and_the_state_kept(sandbox: Sandbox) -> None:
    execution = sandbox.run_code("n = 0\nwhile True: n += 1", timeout=1.0)
    assert (execution.status, execution.state) == (Status.TIMEOUT, State.KEPT)
    assert sandbox.run_code("n").value > 0


def test_a_loop_in_c_is_killed_and_the_state_restored(box: Sandbox) -> None:
    box.run_code("before = [1, 2, 3]")
    execution = box.run_code("before.append(4); print('started'); sum(range(10**12))", timeout=1.0)
    assert (execution.status, execution.state) == (Status.TIMEOUT, State.RESTORED)
    assert execution.logs.stdout == "started\n"
    assert execution.error is not None
    assert execution.error.name == "TimeoutError"
    assert box.run_code("before").value == [1, 2, 3]


def test_an_interrupt_that_the_code_handles_keeps_what_it_did(sandbox: Sandbox) -> None:
    code = "import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    handled = True\n'done'"
    execution = sandbox.run_code(code, timeout=1.0)
    assert (execution.status, execution.state, execution.value) == (Status.TIMEOUT, State.KEPT, "done")
    assert sandbox.run_code("handled").value is True


def test_interrupt_from_another_thread(sandbox: Sandbox) -> None:
    results = []
    started = threading.Event()

    def run() -> None:
        results.append(sandbox.run_code("print('go'); import time; time.sleep(60)", on_stdout=lambda _: started.set()))

    sandbox.run_code("import time") if sandbox.run_code("1").ok else None
    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(DEADLINE)
    sandbox.interrupt()
    thread.join(DEADLINE)
    assert [(r.status, r.state) for r in results] == [(Status.INTERRUPTED, State.KEPT)]


def test_a_stream_that_is_left_early_stops_the_execution(config: Config) -> None:
    async def leave() -> Any:
        async with AsyncSandbox(config=replace(config, grace=LONG_GRACE)) as one:
            events = one.stream("kept = 1\nprint('go')\nwhile True: pass")
            async for _ in events:
                break
            await events.aclose()
            return (await one.run_code("kept")).value

    assert asyncio.run(asyncio.wait_for(leave(), DEADLINE)) == 1


def test_a_cancelled_task_stops_the_execution(config: Config) -> None:
    async def cancel() -> Any:
        async with AsyncSandbox(config=replace(config, grace=LONG_GRACE)) as one:
            started = asyncio.Event()
            code = "kept = 2\nprint('go')\nwhile True: pass"
            task = asyncio.create_task(one.run_code(code, on_stdout=lambda _: started.set()))
            await started.wait()
            task.cancel()
            await asyncio.wait({task})
            return task.cancelled(), (await one.run_code("kept")).value

    assert asyncio.run(asyncio.wait_for(cancel(), DEADLINE)) == (True, 2)


# Life.


def test_reset_gives_a_fresh_interpreter(make: Callable[..., Sandbox]) -> None:
    with make() as one:
        one.run_code("x = 1")
        one.reset()
        execution = one.run_code("x")
        assert execution.error is not None
        assert execution.error.name == "NameError"


def test_a_closed_sandbox_says_so(make: Callable[..., Sandbox]) -> None:
    one = make()
    one.run_code("1")
    one.close()
    one.close()
    with pytest.raises(SandboxClosed):
        one.run_code("1")


def test_usage_is_reported(sandbox: Sandbox) -> None:
    usage = sandbox.run_code("blob = bytearray(50 << 20); blob = None; add(1); sum(range(3_000_000))").usage
    assert usage.wall_seconds > 0
    assert usage.cpu_seconds > 0.01
    assert usage.peak_memory_bytes > 50 << 20
    assert usage.tool_calls == 1


def test_ctrl_c_stops_the_execution_and_keeps_the_state(sandbox: Sandbox) -> None:
    def press(_: str) -> None:
        # To the main thread, as a terminal's goes: this runs in the one of the event loop.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        sandbox.run_code("pressed = 1\nprint('go')\nwhile True: pass", on_stdout=press)
    assert sandbox.run_code("pressed").value == 1


def test_peak_memory_is_of_the_execution_and_not_of_those_before(sandbox: Sandbox) -> None:
    large = sandbox.run_code("blob = bytearray(80 << 20); del blob").usage.peak_memory_bytes
    small = sandbox.run_code("1").usage.peak_memory_bytes
    assert small < 60 << 20 < 80 << 20 < large
