"""What every sandbox backend must do: tools called from inside, and files."""

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest

from orchestrator import AsyncSandbox, Config, Sandbox, State, Status, ToolCall, ToolOutcome
from orchestrator.errors import SandboxFileError
from tests.contract.conftest import DEADLINE, LONG_GRACE, add

pytestmark = pytest.mark.docker


# Tools.


def test_tools_take_positional_keyword_and_default_arguments(sandbox: Sandbox) -> None:
    assert sandbox.run_code("add(1), add(1, 5), add(a=1, b=1, c=1)").value == (3, 6, 3)


def test_tools_look_like_plain_functions(sandbox: Sandbox) -> None:
    sandbox.run_code("describe = (add.__name__, add.__doc__, repr(add.__signature__))")
    name, doc, signature = sandbox.run_code("describe").value
    assert (name, doc) == ("add", "Adds up.")
    assert signature == "<Signature (a: int, b: int = 2, *, c: int = 0) -> int>"


@pytest.mark.parametrize("spoil", ["add = 3", "del add", "def add(a): return 0", "globals().clear()"])
def test_a_tool_whose_name_the_code_has_taken_is_back_at_the_next_execution(sandbox: Sandbox, spoil: str) -> None:
    assert sandbox.run_code(spoil).ok
    assert sandbox.run_code("add(1)").value == 3


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

    with Sandbox(tools=[hang, add], config=replace(config, grace=LONG_GRACE)) as one:
        execution = one.run_code("kept = 5\nhang()", timeout=1.0)
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
