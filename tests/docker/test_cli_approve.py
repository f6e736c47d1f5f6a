"""``cellblock run --approve``: a person at a terminal, a model that is a local server, a real sandbox."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator import Config
from orchestrator.audit import records_of, verify
from tests.docker.programs import asking
from tests.docker.terminal import Terminal
from tests.unit.chat_server import ChatServer, completion, serving

pytestmark = pytest.mark.docker

REPLIES = (
    "Thought: I send it.\n<code>\nhidden = 'a\x1b[8mb'\nsend('anna')\n</code>",
    "Thought: To somebody else, then.\n<code>\nprint(send('berta'))\n</code>",
    "Thought: I make something up.\n<code>\nimport this_is_bad\n</code>",
    "<code>\nfinal_answer('done')\n</code>",
)
TOOLS = '''
def send(to: str) -> str:
    """Sends a letter.

    Args:
        to: whom.
    """
    with open({path!r}, "a") as file:
        file.write(to + "\\n")
    return f"sent to {{to}}"
'''


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    """Where the tool writes to."""
    path = tmp_path / "sent"
    path.touch()
    (tmp_path / "letters.py").write_text(TOOLS.format(path=str(path)))
    return path


def run(server: ChatServer, folder: Path, *options: str) -> dict[str, Any]:
    """Arguments of a terminal in which an agent works, asking."""
    arguments = ("-m", "orchestrator.cli", "run", "--tools", "letters:send", *options, "Send a letter.")
    paths = [str(folder), *sys.path]
    env = {
        **asking(server),
        "PYTHONPATH": ":".join(path for path in paths if path),
        "CELLBLOCK_AUDIT": str(folder / "audit.jsonl"),
    }
    return {"arguments": arguments, "env": env}


def test_a_person_is_asked_about_code_and_tools_and_the_model_is_told_the_answers(
    config: Config, tmp_path: Path, sent: Path
) -> None:
    with serving(*map(completion, REPLIES)) as server:
        made = run(server, tmp_path, "--approve", "ask")
        with Terminal(*made["arguments"], env=made["env"]) as terminal:
            terminal.expect("May this code run?")
            terminal.expect("hidden = 'a\\x1b[8mb'")
            terminal.expect("y, or n and a reason: ")
            terminal.press("y\r")
            terminal.expect("May this tool be called?")
            terminal.expect("to = 'anna',")
            terminal.expect("y, or n and a reason: ")
            terminal.press("n she has moved\r")
            terminal.expect("May this code run?")
            terminal.expect("y, or n and a reason: ")
            terminal.press("y\r")
            terminal.expect("to = 'berta',")
            terminal.expect("y, or n and a reason: ")
            terminal.press("yes\r")
            terminal.expect("sent to berta")
            terminal.expect("this_is_bad")
            terminal.expect("y, or n and a reason: ")
            terminal.press("n: I do not know that\r")
            terminal.expect("final_answer")
            terminal.expect("y, or n and a reason: ")
            terminal.press("y\r")
            terminal.expect("done")
            assert terminal.leave() == 0
    assert sent.read_text() == "berta\n"
    assert [request.path for request in server.requests] == ["/v1/chat/completions"] * len(REPLIES)
    told = [json.dumps(body["messages"][-1]) for body in server.bodies]
    assert "PermissionError: the call of send() was not approved: she has moved" in told[1]
    assert "ExecutionRefused: this code was not approved: I do not know that. Nothing was run." in told[3]
    log = tmp_path / "audit.jsonl"
    assert verify(log).holds
    asked = [(r.data["what"], r.data["allowed"]) for r in records_of(log) if r.kind == "approval"]
    assert asked == [("code", True), ("send", False), ("code", True), ("send", True), ("code", False), ("code", True)]


def test_a_person_who_has_hung_up_allows_nothing(config: Config, tmp_path: Path, sent: Path) -> None:
    replies = ("<code>\nsend('anna')\n</code>", "<code>\nfinal_answer('gave up')\n</code>")
    with serving(*map(completion, replies)) as server:
        made = run(server, tmp_path, "--approve", "tools")
        with Terminal(*made["arguments"], env=made["env"]) as terminal:
            terminal.expect("y, or n and a reason: ")
            terminal.press("\x04")
            terminal.expect("gave up")
            assert terminal.leave() == 0
        assert [request.path for request in server.requests] == ["/v1/chat/completions"] * len(replies)
        assert "not approved: nobody answered" in json.dumps(server.bodies[1]["messages"][-1])
    assert sent.read_text() == ""


def test_without_a_terminal_nothing_is_begun(config: Config, tmp_path: Path, sent: Path) -> None:
    with serving(completion("nobody asks")) as server:
        made = run(server, tmp_path, "--approve", "executions")
        done = subprocess.run(
            [sys.executable, *made["arguments"]],
            input="y\ny\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=made["env"],
        )
    assert (done.returncode, server.requests) == (2, [])
    assert "--approve needs a terminal" in done.stderr
