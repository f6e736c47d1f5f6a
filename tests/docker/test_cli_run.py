"""``cellblock run`` as a user runs it: a process in a terminal, its model behind a real HTTP server."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator import Config
from orchestrator.sandbox.leftovers import list_containers
from tests.docker.terminal import Terminal
from tests.unit import mcp_server
from tests.unit.chat_server import (
    SILENT,
    Answer,
    ChatServer,
    Request,
    Script,
    completion,
    serving,
    tool_call,
    whole,
)
from tests.unit.over_http import over_http

pytestmark = pytest.mark.docker
SECONDS = 90
COMMAND = ("-m", "orchestrator.cli", "run")
ENDLESS = "print('on')\nwhile True: pass"


def code(text: str) -> Any:
    return completion(f"Thought: go on.\n<code>\n{text}\n</code>")


def environment(server: ChatServer) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "CELLBLOCK_MODEL"))}
    return {**kept, "OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "sk-test"}


def run(
    *arguments: str, script: tuple[Script, ...], cwd: Path | None = None, address_in: Sequence[str] = ()
) -> tuple[Any, ChatServer]:
    """``address_in``: further variables that have the server's address."""
    with serving(*script) as server:
        done = subprocess.run(
            [sys.executable, *COMMAND, *arguments],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            env=environment(server) | dict.fromkeys(address_in, server.address),
            cwd=cwd,
        )
    return done, server


def containers_of(pid: int) -> list[str]:
    return [found.id for found in list_containers(Config()) if found.owner.startswith(f"{pid}:")]


@pytest.fixture
def own_tools(tmp_path: Path) -> Path:
    (tmp_path / "kitchen.py").write_text(
        'def stir(times: int) -> str:\n    """Stirs.\n\n    Args:\n        times: how often\n    """\n'
        "    return 'stirred ' * times\n"
    )
    return tmp_path


def test_steps_are_shown_and_the_answer(config: Config) -> None:
    done, server = run(
        "--max-steps", "3", "--model", "openai:some-model", "the task", script=(code("final_answer(6 * 7)"),)
    )
    assert done.returncode == 0
    for shown in ("the task", "final_answer(6 * 7)", "Final answer", "42"):
        assert shown in done.stdout
    assert done.stderr == ""
    assert server.bodies[0]["model"] == "some-model"


def test_events_as_json_lines(config: Config) -> None:
    done, _ = run(
        "--json", "the task", script=(code("print('\\x1b[2J')\n1.5"), code("final_answer({'a': float('inf')})"))
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["type"] for event in events] == [
        "task_step",
        *("step_started", "code_action", "output", "finished", "observation", "action_step"),
        *("step_started", "code_action", "finished", "observation", "action_step"),
        "final_answer_step",
    ]
    assert events[0]["task"] == "the task"
    assert events[3] == {"type": "output", "stream": "stdout", "text": "\x1b[2J\n"}
    assert events[-1] == {"type": "final_answer_step", "output": {"a": "inf"}, "state": "success"}
    assert "\x1b" not in done.stdout


def test_tools_of_ones_own_and_a_plan(config: Config, own_tools: Path) -> None:
    script = (completion("A plan.<end_plan>"), code("final_answer(stir(times=2))"))
    done, server = run("--tools", "kitchen:stir", "--planning", "2", "task", script=script, cwd=own_tools)
    assert "A plan." in done.stdout
    assert "stirred stirred" in done.stdout
    assert "def stir(times: int)" in server.bodies[0]["messages"][0]["content"]


def test_modules_that_are_allowed_besides_the_default_list(config: Config) -> None:
    script = (code("import sys, platform.x"), code("import sys\nfinal_answer(f'{sys.byteorder} endian')"))
    done, server = run("--imports", "sys, wave", "task", script=script)
    assert done.returncode == 0
    assert "little endian" in done.stdout
    assert "Import of 'platform.x' is not allowed" in server.bodies[1]["messages"][-1]["content"]
    for allowed in ("sys", "wave"):
        assert re.search(rf"You may import only .*\b{allowed}\b", server.bodies[0]["messages"][0]["content"])


def test_a_model_of_another_provider(config: Config) -> None:
    done, server = run(
        "--model", "hf:some/model", "task", script=(code("final_answer(42)"),), address_in=["HF_INFERENCE_ENDPOINT"]
    )
    assert done.returncode == 0, done.stderr
    assert "42" in done.stdout
    (request,) = server.requests
    assert (request.path, request.body["model"]) == ("/v1/chat/completions", "some/model")
    assert "sk-test" not in request.headers.get("authorization", "")


def space(request: Request) -> Answer:
    """The hub, the Space someone/My-Space.2 that it leads to, and the model."""
    words = {"type": {"type": "string"}, "python_type": {"type": "str", "description": ""}, "component": "Textbox"}
    prompt = {"parameter_name": "prompt", "label": "Prompt", "parameter_has_default": False, **words}
    endpoint = {"id": 0, "api_name": "draw", "backend_fn": True, "inputs": [1], "outputs": [2], "types": {}}
    parts = [{"id": number, "type": "textbox", "props": {}} for number in (1, 2)]
    here = f"http://{request.headers['host']}"
    endpoints = {"/draw": {"parameters": [prompt], "returns": [{"label": "out", **words}]}}
    answers = {
        "/api/spaces/someone/My-Space.2": {"id": "someone/My-Space.2", "host": here, "private": False},
        "/api/spaces/someone/My-Space.2/runtime": {"stage": "RUNNING", "hardware": {}},
        "/config": {"version": "6.0.0", "protocol": "sse_v3", "dependencies": [endpoint], "components": parts},
        "/info": {"named_endpoints": endpoints, "unnamed_endpoints": {}},
    }
    path = request.path.partition("?")[0]
    if path.endswith("/chat/completions"):
        return code("final_answer(1)")
    return whole(answers.get(path, {}), 200 if path in answers else 404)


def test_tools_by_their_names(config: Config) -> None:
    done, server = run(
        "--tools", "web_search,visit_webpage,someone/My-Space.2", "task", script=(space,), address_in=["HF_ENDPOINT"]
    )
    assert done.returncode == 0, done.stderr
    told = server.requests[-1].body["messages"][0]["content"]
    for shown in ("def web_search(query: str)", "def visit_webpage(url: str)", "def my_space_2(prompt: str)"):
        assert shown in told


ASKS = "name = user_input('Your name?')\nfinal_answer(f'hello {name}')"


def test_the_code_asks_the_person_at_the_terminal(config: Config) -> None:
    made = (*COMMAND, "--tools", "user_input", "task")
    with serving(code(ASKS)) as server, Terminal(*made, env=environment(server)) as terminal:
        terminal.expect("│ Your name?")
        terminal.expect("answer: ")
        terminal.press("Ada\r")
        terminal.expect("hello Ada")
        assert terminal.leave() == 0, terminal.text


def test_a_question_is_no_line_among_events(config: Config) -> None:
    keys, keyboard = pty.openpty()
    with serving(code(ASKS)) as server, os.fdopen(keys, "w") as person, os.fdopen(keyboard) as terminal:
        asking = subprocess.Popen(
            [sys.executable, *COMMAND, "--json", "--tools", "user_input", "task"],
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(server),
        )
        assert asking.stderr
        with asking, bounded(asking):
            while asking.stderr.read(1) != ":":  # the end of "answer:"
                assert asking.poll() is None
            person.write("Ada\n")
            person.flush()
            shown, _ = asking.communicate()
    events = [json.loads(line) for line in shown.splitlines()]
    assert events[-1]["output"] == "hello Ada"


@contextmanager
def bounded(process: subprocess.Popen[str]) -> Iterator[None]:
    """It is killed, if it takes too long or the test has failed."""
    end = threading.Timer(SECONDS, process.kill)
    end.start()
    try:
        yield
    finally:
        end.cancel()
        process.kill()


def test_tools_of_an_mcp_server(config: Config) -> None:
    server = Path(__file__).parents[1] / "unit" / "mcp_server.py"
    script = (code("final_answer(get_weather(city='Odense', days=3))"),)
    done, _ = run("--mcp", f"{sys.executable} {server} honest", "task", script=script)
    assert done.returncode == 0
    assert "Odense: sun for 3 days" in done.stdout


def test_tools_of_an_mcp_server_at_an_address(config: Config) -> None:
    script = (code("final_answer(get_weather(city='Odense', days=3))"),)
    with over_http(mcp_server.honest().streamable_http_app()) as address:
        done, _ = run("--mcp", f"{address}/mcp", "task", script=script)
    assert done.returncode == 0, done.stderr
    assert "Odense: sun for 3 days" in done.stdout


def test_an_agent_that_calls_tools(config: Config, own_tools: Path) -> None:
    script = (
        completion(tool_calls=[tool_call("stir", '{"times": 1}')]),
        completion(tool_calls=[tool_call("final_answer", '{"answer": "done"}')]),
    )
    done, server = run("--agent", "tool_calling", "--tools", "kitchen:stir", "task", script=script, cwd=own_tools)
    assert done.returncode == 0
    assert "done" in done.stdout
    assert [made["function"]["name"] for made in server.bodies[0]["tools"]] == ["stir", "final_answer"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tools", "nosuch", "t"], "web_search"),
        (["--tools", "nosuch:thing", "t"], "MODULE:FUNCTION"),
        (["--model", "hf:", "t"], "names no model"),
        (["--mcp", "", "t"], "--mcp"),
        (["--planning", "0", "t"], "no number from 1 on"),
        (["--max-steps", "x", "t"], "no number from 1 on"),
        (["--tools", "web_search,web_search", "t"], "two tools"),
        (["--agent", "tool_calling", "--imports", "numpy", "t"], "--imports is for code"),
        (["--agent", "tool_calling", "--timeout", "5", "t"], "--timeout is for code"),
        (["--agent", "tool_calling", "--memory", "64m", "t"], "--memory is for code"),
        ([" "], "a task is a text"),
    ],
)
def test_wrong_arguments_are_told(config: Config, arguments: list[str], said: str) -> None:
    done, server = run(*arguments, script=(code("1"),))
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert server.requests == []


def test_ctrl_c_once_interrupts_with_a_summary_and_leaves_nothing(config: Config) -> None:
    with serving(code("x = 1"), code(ENDLESS)) as server:
        with Terminal(*COMMAND, "the task", env=environment(server)) as terminal:
            terminal.expect("on\n")
            assert len(containers_of(terminal.process.pid)) == 1
            terminal.press("\x03")
            terminal.expect("interrupted after 2 steps (1 failed")
            assert terminal.leave() == 130, terminal.text
        assert containers_of(terminal.process.pid) == []


def test_ctrl_c_while_the_model_is_asked(config: Config) -> None:
    with serving(code("x = 1"), SILENT) as server:
        with Terminal(*COMMAND, "the task", env=environment(server)) as terminal:
            terminal.expect("Step 2")
            assert server.asked_again(2, SECONDS)
            assert len(containers_of(terminal.process.pid)) == 1
            terminal.press("\x03")
            terminal.expect("interrupted after 1 step (0 failed")
            assert terminal.leave() == 130, terminal.text
            assert "Traceback" not in terminal.text
        assert server.left.wait(SECONDS)  # the call was given up, too
        assert containers_of(terminal.process.pid) == []


def test_ctrl_c_twice_quits_where_once_does_not_and_leaves_nothing(config: Config) -> None:
    deaf = "while True:\n    try:\n        print('on')\n        while True: pass\n    except BaseException: print('no')"
    with serving(code(deaf)) as server:
        patient = {**environment(server), "CELLBLOCK_GRACE": "5"}  # seconds to press again
        with Terminal(*COMMAND, "--timeout", str(2 * SECONDS), "the task", env=patient) as terminal:
            terminal.expect("on\n")
            terminal.press("\x03")
            terminal.expect("press Ctrl-C again to quit")
            terminal.expect("no\n")  # the code has heard it, and goes on
            assert terminal.process.poll() is None
            assert len(containers_of(terminal.process.pid)) == 1
            terminal.press("\x03")
            assert terminal.leave() == 130, terminal.text
            assert "interrupted after" not in terminal.text  # the run was not waited for
            assert "Traceback" not in terminal.text
        assert containers_of(terminal.process.pid) == []


def test_ctrl_c_twice_at_once_quits_and_leaves_nothing(config: Config) -> None:
    with serving(code(ENDLESS)) as server:
        with Terminal(*COMMAND, "the task", env=environment(server)) as terminal:
            terminal.expect("on\n")
            terminal.press("\x03\x03")
            assert terminal.leave() == 130, terminal.text
        assert containers_of(terminal.process.pid) == []
