"""``cellblock repl`` as a person has it, in a terminal; and with a pipe for one."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator import Config
from orchestrator.sandbox.engine import engine
from orchestrator.sandbox.leftovers import list_containers
from tests.docker.terminal import DEADLINE, Terminal

pytestmark = pytest.mark.docker

Start = Callable[..., Terminal]


def containers_of(config: Config, process: int) -> list[str]:
    return [found.id for found in list_containers(config) if found.owner.startswith(f"{process}:")]


@pytest.fixture
def start(config: Config, tmp_path: Path) -> Iterator[Start]:
    """Starts sessions, up to their first prompt; none leaves a container behind, and they share a history."""
    started: list[Terminal] = []

    def start(*options: str, prompt: str = "In [1]: ", **env: str) -> Terminal:
        command = ("-m", "orchestrator.cli", "repl", *options)
        terminal = Terminal(*command, env={"XDG_STATE_HOME": str(tmp_path), "NO_COLOR": "", **env})
        started.append(terminal)
        terminal.expect(prompt)
        return terminal

    yield start
    for terminal in started:
        with terminal:
            if terminal.process.poll() is None:
                terminal.process.terminate()
                terminal.leave()
        assert containers_of(config, terminal.process.pid) == []


def ask(terminal: Terminal, typed: str, prompt: str) -> str:
    """Types a line; gives what is shown until the next prompt, at the beginning of a line."""
    terminal.press(f"{typed}\r")
    return terminal.expect(f"\n{prompt}") + "\n"


# Typing.


def test_values_errors_and_statements_of_many_lines(start: Start) -> None:
    terminal = start()
    assert "\n42\n" in ask(terminal, "6 * 7", "In [2]: ")
    terminal.press("def f(x):\r")
    terminal.expect("... ")
    terminal.press("return [x,\r")
    terminal.expect("... ")
    terminal.press("x + 1]\r")
    terminal.expect("... ")
    ask(terminal, "", "In [3]: ")
    assert "\n[1, 2]\n" in ask(terminal, "f(1)", "In [4]: ")
    shown = ask(terminal, "1 / 0", "In [5]: ")
    assert 'File "<execution 4>", line 1' in shown
    assert shown.endswith("ZeroDivisionError: division by zero\n")
    assert ask(terminal, "print('no line end', end='')", "In [6]: ").endswith("\nno line end\n")
    assert ask(terminal, "import os", "In [7]: ").count("Import of 'os' is not allowed") == 1


def test_a_paste_is_one_execution_unless_commands_are_in_it(start: Start) -> None:
    terminal = start()
    terminal.paste("def f():\n    a = 1\n\n    return a\n\nprint('pasted', f())\n")
    assert "\npasted 1\n" in ask(terminal, "", "In [2]: ")
    terminal.paste("x = 1\nx = 2\n%undo\nx")
    shown = ask(terminal, "", "In [5]: ")
    assert shown.endswith("back at execution 2: variables and files are as they were then\n1\n")
    # Of a terminal that does not mark a paste as one:
    terminal.press("for i in range(2):\r    if i:\r        print('i', i)\r\rx\r")
    assert terminal.expect("\nIn [6]: ").endswith("\ni 1")
    assert terminal.expect("\nIn [7]: ").endswith("\n1")


def test_ctrl_c_at_the_prompt_clears_what_was_typed_and_ctrl_d_leaves(start: Start, config: Config) -> None:
    terminal = start()
    terminal.press("f(")
    terminal.press("\x03")
    terminal.expect("\nIn [1]: ")
    terminal.press("(\r")
    terminal.expect("... ")
    terminal.press("\x03")
    terminal.expect("\nIn [1]: ")
    assert "\n2\n" in ask(terminal, "1 + 1", "In [2]: ")
    assert len(containers_of(config, terminal.process.pid)) == 1
    terminal.press("\x04")
    assert terminal.leave() == 0
    assert containers_of(config, terminal.process.pid) == []


def test_history_is_of_all_sessions_and_of_nobody_else(start: Start, tmp_path: Path) -> None:
    terminal = start()
    ask(terminal, "'from the first ' + 'session'", "In [2]: ")
    terminal.press("%quit\r")
    assert terminal.leave() == 0
    terminal = start()
    terminal.press("\x1b[A\x1b[A\r")
    assert "'from the first session'" in terminal.expect("\nIn [2]: ")
    assert (tmp_path / "cellblock" / "history").stat().st_mode & 0o777 == 0o600


def test_the_codes_sequences_do_not_reach_the_terminal(start: Start) -> None:
    terminal = start("--imports", "sys")
    ask(terminal, "import sys; e = chr(27)", "In [2]: ")
    ask(terminal, "print(e + ']0;title' + chr(7) + e + '[2J' + e + '[31mvisible', chr(0x9b) + '5m')", "In [3]: ")
    ask(terminal, "print(e, end='', flush=True); print('[2Jhalf', file=sys.stderr)", "In [4]: ")
    ask(terminal, "raise ValueError(e + '[2Jraised')", "In [5]: ")
    ask(terminal, "class X: __repr__ = lambda self: e + '[2Jshown'\r", "In [6]: ")
    ask(terminal, "X()", "In [7]: ")
    assert all(words in terminal.text for words in ("visible \\x9b5m", "ValueError: raised", "\nshown\n"))
    for sequence in (b"\x1b]0;", b"\x1b[2J", b"\x1b[31mvisible", "\x9b".encode(), b"\x07"):
        assert sequence not in terminal.raw


# Stopping.


def test_output_is_shown_as_it_comes_and_ctrl_c_keeps_the_variables(start: Start) -> None:
    terminal = start(CELLBLOCK_GRACE="10")
    ask(terminal, "x = 0", "In [2]: ")
    terminal.paste("x += 1\nprint('be', 'gun')\nwhile True: x += 1\n")
    terminal.press("\r")
    terminal.expect("be gun")  # while it runs: nothing but the next key ends it
    terminal.press("\x03")
    shown = terminal.expect("\nIn [3]: ")
    assert "KeyboardInterrupt" in shown
    assert shown.endswith("the code was interrupted; variables and files are as it left them")
    assert "\nTrue\n" in ask(terminal, "x > 0", "In [4]: ")


def test_code_that_hears_no_ctrl_c_is_stopped_and_the_state_is_as_before(start: Start) -> None:
    terminal = start()
    ask(terminal, "x = 1", "In [2]: ")
    # However early the interrupt comes, it leaves by way of the one call that hears none.
    terminal.paste("x, r = 2, range(10**13)\ntry: print('be', 'gun')\nfinally: sum(r)\n")
    terminal.press("\r")
    terminal.expect("be gun")
    terminal.press("\x03\x03")
    words = "the code was interrupted; variables and files are as they were before it"
    assert terminal.expect("\nIn [3]: ").endswith(words)
    assert "\n1\n" in ask(terminal, "x", "In [4]: ")


def test_code_that_takes_too_long_is_stopped_and_the_state_is_as_before(start: Start) -> None:
    terminal = start("--timeout", "3")
    ask(terminal, "x = 1", "In [2]: ")
    shown = ask(terminal, "x = sum(range(10**13))", "In [3]: ")
    words = "the code ran longer than 3 s and was stopped; variables and files are as they were before it\n"
    assert shown.endswith(words)
    assert "\n1\n" in ask(terminal, "x", "In [4]: ")


# Checkpoints and branches.


def test_going_back(start: Start) -> None:
    terminal = start()
    ask(terminal, "x = 1", "In [2]: ")
    shown = ask(terminal, "%checkpoint clean data", "In [2]: ")
    assert "'clean data' (execution 1) is kept until it is dropped" in shown
    ask(terminal, "x = 2; open('f', 'w').close()", "In [3]: ")
    ask(terminal, "x = 3", "In [4]: ")
    assert "back at execution 2: variables and files are as they were then" in ask(terminal, "%undo", "In [4]: ")
    assert "\n2\n" in ask(terminal, "x", "In [5]: ")
    assert "back at 'clean data' (execution 1)" in ask(terminal, "%rollback clean data", "In [5]: ")
    assert "\n1\n" in ask(terminal, "x", "In [6]: ")
    assert "back at execution 3" in ask(terminal, "%rollback 3", "In [6]: ")
    assert "\n3\n" in ask(terminal, "x", "In [7]: ")
    lines = [line.split() for line in ask(terminal, "%checkpoints", "In [7]: ").splitlines()]
    assert ["name", "execution", "age", "memory", "held", "files", "current"] in lines
    assert ["clean", "data", "1"] in [line[:3] for line in lines]
    assert [line[1] for line in lines if line[-1:] == ["*"]] == ["6"]
    assert "checkpoint clean data is dropped" in ask(terminal, "%drop clean data", "In [7]: ")
    shown = ask(terminal, "%rollback clean data", "In [7]: ")
    assert "there is no such checkpoint. Kept are: " in shown
    assert "did you mean %undo?" in ask(terminal, "%undoo", "In [7]: ")


def test_branches(start: Start) -> None:
    terminal = start()
    ask(terminal, "x = 'of main'", "In [2]: ")
    shown = ask(terminal, "%branch idea", "(idea) In [2]: ")
    assert "in branch idea, which begins in the present state of main" in shown
    ask(terminal, "x = 'of idea'", "(idea) In [3]: ")
    ask(terminal, "%branch", "(branch-1) In [3]: ")
    assert "'of idea'" in ask(terminal, "x", "(branch-1) In [4]: ")
    lines = [line.split() for line in ask(terminal, "%branches", "(branch-1) In [4]: ").splitlines()]
    assert lines[-3:] == [["main", "-", "1"], ["idea", "main", "2"], ["branch-1", "idea", "3", "*"]]
    ask(terminal, "%switch main", "In [2]: ")
    assert "'of main'" in ask(terminal, "x", "In [3]: ")
    assert "branch idea is closed; in main" in ask(terminal, "%close idea", "In [3]: ")
    assert "there is no branch 'idea'. Branches are: main, branch-1" in ask(terminal, "%switch idea", "In [3]: ")
    ask(terminal, "%switch branch-1", "(branch-1) In [4]: ")
    assert "branch branch-1 is closed; in main" in ask(terminal, "%close", "In [3]: ")


def test_who_runs_nothing_of_the_users_and_counts_for_nothing(start: Start) -> None:
    terminal = start()
    assert "no variables" in ask(terminal, "%who", "In [1]: ")
    terminal.paste("class X:\n    __class__ = __repr__ = property(lambda self: 1 / 0)\n\nx = X()\n_y = 1.5")
    ask(terminal, "", "In [2]: ")
    ask(terminal, "type = globals = str = dict = len = sorted = print = None; __builtins__ = {}", "In [3]: ")
    lines = [line.split() for line in ask(terminal, "%who", "In [3]: ").splitlines()]
    assert [line for line in lines if line[:1] in (["X"], ["_y"])] == [["X", "type"], ["_y", "float"]]
    assert ["x", "X"] in lines
    assert "back at execution 1" in ask(terminal, "%undo", "In [3]: ")


def test_who_with_threads_is_asked_in_place_and_says_so(start: Start) -> None:
    terminal = start("--imports", "threading")
    ask(terminal, "import threading; gate = threading.Event()", "In [2]: ")
    ask(terminal, "threading.Thread(target=gate.wait).start()", "In [3]: ")
    assert "threads of the code are alive" in ask(terminal, "%checkpoint", "In [3]: ")
    shown = ask(terminal, "%who", "In [4]: ")
    assert "asked in place, as execution 3: " in shown
    assert "threading  module" in shown
    ask(terminal, "gate.set()", "In [5]: ")


def test_reset_and_a_container_that_dies(start: Start, config: Config) -> None:
    terminal = start()
    ask(terminal, "x = 1", "In [2]: ")
    ask(terminal, "%branch idea", "(idea) In [2]: ")
    shown = ask(terminal, "%reset", "In [1]: ")
    assert "a fresh sandbox: variables, files, checkpoints and branches are gone" in shown
    assert "NameError" in ask(terminal, "x", "In [2]: ")
    (container,) = containers_of(config, terminal.process.pid)
    engine(config).kill(container)
    shown = ask(terminal, "1 + 1", "In [2]: ")
    assert "SandboxDied: " in shown
    assert shown.endswith("%reset gives a fresh sandbox\n")
    assert "SandboxDied: " in ask(terminal, "%checkpoints", "In [2]: ")
    ask(terminal, "%reset", "In [1]: ")
    assert "\n2\n" in ask(terminal, "1 + 1", "In [2]: ")


def test_a_container_that_dies_in_a_branch_takes_the_branch_along(start: Start, config: Config) -> None:
    terminal = start()
    ask(terminal, "%branch idea", "(idea) In [1]: ")
    engine(config).kill(containers_of(config, terminal.process.pid)[0])
    assert "gone with it: idea; in main" in ask(terminal, "1 + 1", "In [1]: ")
    assert "%reset gives a fresh sandbox" in ask(terminal, "1 + 1", "In [1]: ")


def test_code_that_ends_its_own_container_goes_on_in_a_fresh_one(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLBLOCK_LANDLOCK", "off")  # else it could not
    terminal = start("--imports", "os", "--timeout", "5")
    ask(terminal, "x = 1", "In [2]: ")
    ask(terminal, "%branch idea", "(idea) In [2]: ")
    ask(terminal, "%switch main", "In [2]: ")
    terminal.paste("import os\nos.kill(-1, 9)\nwhile True: pass\n")
    shown = ask(terminal, "", "In [1]: ")
    assert "; the variables are lost\nthe container has ended with it; what is run next begins in a fresh" in shown
    assert shown.endswith("gone with it: idea; in main\n")
    assert "NameError" in ask(terminal, "x", "In [2]: ")


# Ending.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("code", ["", "print('be', 'gun'); sum(range(10**13))"])
def test_a_signal_ends_it_and_leaves_no_container(start: Start, config: Config, number: int, code: str) -> None:
    terminal = start()
    if code:
        terminal.press(f"{code}\r")
        terminal.expect("be gun")
    terminal.process.send_signal(number)
    assert terminal.leave() == 128 + number
    assert containers_of(config, terminal.process.pid) == []


def test_a_terminal_that_is_closed_leaves_no_container(start: Start, config: Config) -> None:
    terminal = start()
    terminal.hang_up()
    terminal.process.wait(DEADLINE)
    assert containers_of(config, terminal.process.pid) == []


KICKED = """
import os, signal, sys
from orchestrator.sandbox import container
from orchestrator.cli import main
start, left = container._create_and_start, [None] * int(sys.argv[1])
def kicked(*arguments):
    left and left.pop()
    left or os.kill(os.getpid(), signal.SIGTERM)
    return start(*arguments)
container._create_and_start = kicked
sys.exit(main(["repl"]))
"""


@pytest.mark.parametrize("which", [1, 2])
def test_a_signal_while_a_container_starts_leaves_none(config: Config, tmp_path: Path, which: int) -> None:
    with Terminal("-c", KICKED, str(which), env={"XDG_STATE_HOME": str(tmp_path)}) as terminal:
        if which == 2:
            terminal.expect("In [1]: ")
            terminal.press("%reset\r")
        assert terminal.leave() == 128 + signal.SIGTERM
        assert containers_of(config, terminal.process.pid) == []


def test_without_the_extra_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['prompt_toolkit'] = None; from orchestrator.cli import main; sys.exit(main(['repl']))"
    )
    with Terminal("-c", code) as terminal:
        assert terminal.leave() == 2
        assert len(terminal.text.splitlines()) == 1
        assert "pip install 'cellblock[repl]'" in terminal.text


# Without a terminal.


def piped(text: bytes, *options: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "orchestrator.cli", "repl", *options]
    return subprocess.run(command, input=text, capture_output=True, timeout=2 * DEADLINE, check=False)


def test_a_pipe_is_read_statement_by_statement_without_prompts(config: Config) -> None:
    text = b"x = 1\nx\ndef f():\n    y = 2\n\n    return x + y\nf()\nx = 5\n%undo\nprint(x, end='')\r\n'last'"
    done = piped(text)
    words = b"back at execution 4: variables and files are as they were then\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, b"1\n3\n" + words + b"1\n'last'\n", b"")


def test_a_pipe_goes_on_after_a_failure_and_the_exit_code_tells_of_it(config: Config) -> None:
    done = piped(b"1/0\n%nothing\n\xff\n'last'\n%quit\nnever")
    assert (done.returncode, done.stdout) == (1, b"'last'\n")
    assert all(words in done.stderr for words in (b"ZeroDivisionError", b"no command %nothing", b"SyntaxError"))


def test_nothing_and_nobody_who_reads(config: Config) -> None:
    assert piped(b"").returncode == 0
    command = f"echo 'for i in range(10**4): print(i)' | {sys.executable} -m orchestrator.cli repl | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=2 * DEADLINE, check=False)
    assert done.stderr == b""


def test_ctrl_c_ends_what_is_piped_in(config: Config) -> None:
    command = [sys.executable, "-m", "orchestrator.cli", "repl"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"print('begun')\nwhile True: pass\n'next'\n")
        process.stdin.close()
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGINT)
        assert (process.wait(DEADLINE), process.stdout.read()) == (130, b"")
    assert containers_of(config, process.pid) == []


def test_a_pipe_gets_what_the_code_wrote_as_it_is(config: Config) -> None:
    assert piped(b"print(chr(27) + '[1m')").stdout == b"\x1b[1m\n"
