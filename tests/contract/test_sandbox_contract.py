"""What every sandbox backend must do. A later backend is one more line in BACKENDS."""

import asyncio
import datetime
import decimal
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orchestrator import AsyncSandbox, Config, NDArray, Opaque, Output, Sandbox, State, Status, ToolCall, ToolOutcome
from orchestrator.errors import SandboxClosed, SandboxFileError

pytestmark = pytest.mark.docker

BACKENDS: dict[str, Callable[..., Sandbox]] = {"docker": Sandbox}
DEADLINE = 30.0  # seconds for anything that is waited for


def add(a: int, b: int = 2, *, c: int = 0) -> int:
    """Adds up."""
    return a + b + c


async def double(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


def echo(value: Any) -> Any:
    return value


def fail(kind: str) -> None:
    raise {"ValueError": ValueError, "LookupError": LookupError, "Custom": CustomFailure}[kind]("the tool's own words")


class CustomFailure(Exception):
    pass


class Secretive:
    """Says nothing of what went wrong."""

    name = "secretive"
    expose_errors = False

    def __call__(self) -> None:
        raise RuntimeError("password=hunter2")


def unportable() -> dict[str, Any]:
    return {"a": [1, object()]}


TOOLS = [add, double, echo, fail, Secretive(), unportable]
IMPORTS = ["asyncio", "threading", "numpy", "os", "sys"]


@pytest.fixture(scope="module", params=BACKENDS)
def make(request: pytest.FixtureRequest, config: Config) -> Callable[..., Sandbox]:
    return BACKENDS[request.param]


@pytest.fixture(scope="module")
def sandbox(make: Callable[..., Sandbox]) -> Iterator[Sandbox]:
    with make(tools=TOOLS, authorized_imports=IMPORTS, timeout=DEADLINE, env={"TZ": "Asia/Tokyo"}) as sandbox:
        yield sandbox


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
def test_values_go_in_and_come_back_as_they_are(sandbox: Sandbox, value: Any) -> None:
    returned: list[Any] = []

    def value_of_the_host() -> Any:
        return value

    def take(given: Any) -> None:
        returned.append(given)

    with type(sandbox)(tools=[value_of_the_host, take], authorized_imports=["numpy"]) as other:
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


def test_output_arrives_before_the_execution_ends(sandbox: Sandbox) -> None:
    seen = threading.Event()

    def wait_until_seen() -> bool:
        return seen.wait(DEADLINE)

    with type(sandbox)(tools=[wait_until_seen]) as one:
        execution = one.run_code("print('now'); wait_until_seen()", on_stdout=lambda text: seen.set())
    assert execution.value is True


def test_output_without_newline_and_from_c_is_kept(sandbox: Sandbox) -> None:
    execution = sandbox.run_code("import os\nprint('a', end='')\nos.write(1, b'raw')\nos.write(2, b'raw err')")
    assert sorted(execution.logs.stdout) == sorted("araw")
    assert execution.logs.stderr == "raw err"


def test_characters_cut_between_pieces_arrive_whole(sandbox: Sandbox) -> None:
    assert sandbox.run_code("print('é✓' * 100_000)").logs.stdout == "é✓" * 100_000 + "\n"


def test_long_output_keeps_head_and_tail_and_says_what_was_dropped(sandbox: Sandbox) -> None:
    execution = sandbox.run_code("for i in range(400_000): print(i)")
    assert execution.status is Status.OK
    assert execution.logs.stdout.startswith("0\n1\n2\n")
    assert execution.logs.stdout.endswith("399999\n")
    assert execution.logs.dropped_bytes > 0
    assert f"[{execution.logs.dropped_bytes:,} bytes of output dropped]" in execution.logs.stdout
    assert execution.usage.output_bytes == sum(len(f"{i}\n") for i in range(400_000))


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
    execution = sandbox.run_code("n = 0\nwhile True: n += 1", timeout=0.3)
    assert (execution.status, execution.state) == (Status.TIMEOUT, State.KEPT)
    assert sandbox.run_code("n").value > 0


def test_a_loop_in_c_is_killed_and_the_state_restored(sandbox: Sandbox) -> None:
    sandbox.run_code("before = [1, 2, 3]")
    execution = sandbox.run_code("before.append(4); print('started'); sum(range(10**12))", timeout=0.3)
    assert (execution.status, execution.state) == (Status.TIMEOUT, State.RESTORED)
    assert execution.logs.stdout == "started\n"
    assert execution.error is not None
    assert execution.error.name == "TimeoutError"
    assert sandbox.run_code("before").value == [1, 2, 3]


def test_an_interrupt_that_the_code_handles_keeps_what_it_did(sandbox: Sandbox) -> None:
    code = "import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    handled = True\n'done'"
    execution = sandbox.run_code(code, timeout=0.3)
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
        async with AsyncSandbox() as one:
            events = one.stream("kept = 1\nprint('go')\nwhile True: pass")
            async for _ in events:
                break
            await events.aclose()
            return (await one.run_code("kept")).value

    assert asyncio.run(asyncio.wait_for(leave(), DEADLINE)) == 1


def test_a_cancelled_task_stops_the_execution(config: Config) -> None:
    async def cancel() -> Any:
        async with AsyncSandbox() as one:
            started = asyncio.Event()
            code = "kept = 2\nprint('go')\nwhile True: pass"
            task = asyncio.create_task(one.run_code(code, on_stdout=lambda _: started.set()))
            await started.wait()
            task.cancel()
            await asyncio.wait({task})
            return task.cancelled(), (await one.run_code("kept")).value

    assert asyncio.run(asyncio.wait_for(cancel(), DEADLINE)) == (True, 2)


# Tools.


def test_tools_take_positional_keyword_and_default_arguments(sandbox: Sandbox) -> None:
    assert sandbox.run_code("add(1), add(1, 5), add(a=1, b=1, c=1)").value == (3, 6, 3)


def test_tools_look_like_plain_functions(sandbox: Sandbox) -> None:
    sandbox.run_code("describe = (add.__name__, add.__doc__, repr(add.__signature__))")
    name, doc, signature = sandbox.run_code("describe").value
    assert (name, doc) == ("add", "Adds up.")
    assert signature == "<Signature (a: int, b: int = 2, *, c: int = 0) -> int>"


def test_wrong_arguments_are_a_type_error_at_the_call(sandbox: Sandbox) -> None:
    execution = sandbox.run_code("try:\n    add(1, 2, 3, 4)\nexcept TypeError as error: caught = str(error)\ncaught")
    assert "too many positional arguments" in execution.value


def test_async_tools_block_outside_and_are_awaited_inside_an_event_loop(sandbox: Sandbox) -> None:
    assert sandbox.run_code("double(4)").value == 8
    assert sandbox.run_code("import asyncio\nawait asyncio.gather(*(double(i) for i in range(5)))").value == [
        0,
        2,
        4,
        6,
        8,
    ]


def test_tools_called_from_threads(sandbox: Sandbox) -> None:
    code = """
import threading
results = {}
def work(i): results[i] = add(i)
threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
for t in threads: t.start()
for t in threads: t.join()
results
"""
    assert sandbox.run_code(code).value == {i: i + 2 for i in range(8)}


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("ValueError", "ValueError", "the tool's own words"),
        ("LookupError", "LookupError", "the tool's own words"),
        ("Custom", "ToolError", "CustomFailure: the tool's own words"),
    ],
)
def test_a_tools_exception_is_raised_at_the_call(sandbox: Sandbox, kind: str, name: str, text: str) -> None:
    execution = sandbox.run_code(f"fail({kind!r})")
    assert execution.error is not None
    assert (execution.error.name, execution.error.value) == (name, text)
    assert "contract" not in execution.error.traceback, "no frame of the host"


def test_a_tool_can_hide_its_errors(sandbox: Sandbox) -> None:
    execution = sandbox.run_code("secretive()")
    assert execution.error is not None
    assert "hunter2" not in repr(execution)
    assert execution.error.value == "secretive failed"


def test_a_result_that_cannot_travel_names_type_and_path(sandbox: Sandbox) -> None:
    execution = sandbox.run_code("unportable()")
    assert execution.error is not None
    assert execution.error.value == (
        "the result of unportable()['a'][1] is of type object, which cannot enter the sandbox"
    )


def test_an_argument_that_cannot_travel_names_type_and_path(sandbox: Sandbox) -> None:
    execution = sandbox.run_code("echo({'k': [object()]})")
    assert execution.error is not None
    assert execution.error.value == "argument 1['k'][0] is of type object, which cannot leave the sandbox"


def test_a_tool_that_hangs_does_not_outlast_the_deadline(config: Config) -> None:
    release = threading.Event()

    def hang() -> None:
        release.wait(DEADLINE)

    with Sandbox(tools=[hang, add]) as one:
        execution = one.run_code("kept = 5\nhang()", timeout=0.3)
        assert (execution.status, execution.state) == (Status.TIMEOUT, State.KEPT)
        assert one.run_code("kept, add(1)").value == (5, 3)
    release.set()


def test_tool_calls_are_events(config: Config) -> None:
    async def collect() -> list[Any]:
        async with AsyncSandbox(tools=[add]) as one:
            return [event async for event in one.stream("add(1, b=3)") if isinstance(event, ToolCall | ToolOutcome)]

    called, ended = asyncio.run(asyncio.wait_for(collect(), DEADLINE))
    assert (called.name, called.args, dict(called.kwargs)) == ("add", (1,), {"b": 3})
    assert (ended.id, ended.name, ended.error) == (called.id, "add", None)


def test_final_answer_is_a_message_of_its_own_and_ends_the_code(config: Config) -> None:
    with Sandbox(final_answer=True) as one:
        execution = one.run_code("try:\n    final_answer({'a': 1})\nexcept Exception: pass\nprint('not reached')")
        assert execution.final_answer is not None
        assert execution.final_answer.value == {"a": 1}
        assert execution.logs.stdout == ""
        assert one.run_code("print('final_answer(1)')").final_answer is None
        assert one.run_code("raise type('FinalAnswer', (BaseException,), {})('fake')").final_answer is None


# Files.


def test_files_are_written_read_and_listed(sandbox: Sandbox) -> None:
    data = bytes(range(256)) * 10_000  # more than one piece
    sandbox.files.write("in/data.bin", data)
    assert sandbox.run_code("len(open('in/data.bin', 'rb').read())").value == len(data)
    sandbox.run_code("open('out.txt', 'w').write('made inside')")
    assert sandbox.files.read("out.txt") == b"made inside"
    assert sandbox.files.read("in/data.bin") == data
    assert {("in/data.bin", len(data)), ("out.txt", 11)} <= {(e.path, e.size) for e in sandbox.files.list()}


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "missing", "link", "folder", "fifo"])
def test_only_regular_files_of_the_workspace_are_read(sandbox: Sandbox, path: str) -> None:
    sandbox.run_code(
        "import os\n"
        "if not os.path.lexists('link'):\n"
        "    os.symlink('/etc/passwd', 'link'); os.mkdir('folder'); os.mkfifo('fifo')"
    )
    with pytest.raises(SandboxFileError):
        sandbox.files.read(path)


def test_a_full_workspace_is_an_error_and_loses_nothing(sandbox: Sandbox) -> None:
    sandbox.run_code("here = 1")
    with pytest.raises(SandboxFileError, match="No space left"):
        sandbox.files.write("huge", b"x" * (80 << 20))
    assert sandbox.run_code("import os; os.remove('huge'); here").value == 1


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
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        sandbox.run_code("pressed = 1\nprint('go')\nwhile True: pass", on_stdout=press)
    assert sandbox.run_code("pressed").value == 1


def test_peak_memory_is_of_the_execution_and_not_of_those_before(sandbox: Sandbox) -> None:
    large = sandbox.run_code("blob = bytearray(80 << 20); del blob").usage.peak_memory_bytes
    small = sandbox.run_code("1").usage.peak_memory_bytes
    assert small < 60 << 20 < 80 << 20 < large
