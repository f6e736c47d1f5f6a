"""The command line, as a user runs it: a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import Config, Sandbox

pytestmark = pytest.mark.docker

SECONDS = 60


def cellblock(
    *arguments: str, stdin: str = "", env: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "orchestrator.cli", *arguments]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("OPENAI_")}
    return subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env={**inherited, **(env or {})},
    )


def test_exec_streams_output_and_prints_the_value(config: Config) -> None:
    done = cellblock("exec", "import sys\nprint('out')\n1 + 1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "ImportNotAllowed: Import of 'sys' is not allowed" in done.stderr
    done = cellblock("exec", "--imports", "sys", "import sys\nprint('out'); print('err', file=sys.stderr)\n1 + 1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n2\n", "err\n")


def test_exec_takes_a_file_and_standard_input(config: Config, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("print('from a file')")
    assert cellblock("exec", str(tmp_path / "script.py")).stdout == "from a file\n"
    assert cellblock("exec", "-", stdin="print('from stdin')").stdout == "from stdin\n"
    done = cellblock("exec", "missing.py")
    assert (done.returncode, done.stderr) == (2, "cellblock: ConfigError: there is no file 'missing.py'\n")


def test_exec_reports_a_failure_of_the_code(config: Config) -> None:
    done = cellblock("exec", "1/0")
    assert done.returncode == 1
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")
    done = cellblock("exec", "--timeout", "0.3", "while True: pass")
    assert done.returncode == 1


def test_ps_lists_what_runs_and_gc_leaves_it(config: Config) -> None:
    with Sandbox() as sandbox:
        sandbox.run_code("1")
        assert str(os.getpid()) in cellblock("ps").stdout
        assert cellblock("gc").returncode == 0
        assert sandbox.run_code("1").ok


def test_run_without_a_model_says_what_to_set(config: Config) -> None:
    done = cellblock("run", "a task")
    assert done.returncode == 2
    assert "OPENAI_API_KEY" in done.stderr


def test_run_with_an_endpoint_that_is_down(config: Config) -> None:
    env = {"OPENAI_API_KEY": "sk-secret-canary", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    done = cellblock("run", "--max-steps", "1", "a task", env=env)
    assert done.returncode == 3
    assert "ModelUnavailable" in done.stderr
    assert "canary" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"CELLBLOCK_TIMOUT": "1"}, "CELLBLOCK_TIMOUT is no setting"),
        ({"CELLBLOCK_TIMEOUT": "soon"}, "timeout must be a number"),
        ({"CELLBLOCK_LIMITS_MEMORY": "lots"}, "'lots' is not a size"),
        ({"DOCKER_HOST": "unix:///nonexistent.sock"}, "No Docker engine answers"),
    ],
)
def test_bad_settings_are_one_clear_line(config: Config, env: dict[str, str], words: str) -> None:
    done = cellblock("exec", "1", env=env)
    assert done.returncode in (2, 3)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
